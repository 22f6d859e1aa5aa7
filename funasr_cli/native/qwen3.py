"""A Qwen3 decoder on the C library; `models.qwen3` is the same on MLX."""

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.native.decoder import NativeDecoder, Tables
from funasr_cli.native.encoder import RMS_NORM, SWIGLU
from funasr_cli.native.library import GROUP, PAIR, TILE, Layer, Norm, Shape

SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "vocab_size", "rope_theta",
)  # fmt: skip


class NativeQwen3(NativeDecoder):
    """The network of `models.qwen3`."""

    config: Qwen3Config

    @staticmethod
    def why_unsupported(config: Qwen3Config) -> str | None:
        """Return what keeps the library from computing a decoder of this shape; None if nothing does."""
        return why_unsupported(config)

    def _shape(self) -> Shape:
        sizes = {name: getattr(self.config, name) for name in SIZES}
        return Shape(weights=self._weights.type, activation=SWIGLU, **sizes)

    def _layer(self, number: int) -> Layer:
        prefix = f"model.layers.{number}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        return Layer(
            qkv=self._unbiased(*(f"{attention}.{name}_proj" for name in "qkv")),
            output=self._unbiased(f"{attention}.o_proj"),
            up=self._unbiased(f"{mlp}.gate_proj", f"{mlp}.up_proj", interleave=True),
            down=self._unbiased(f"{mlp}.down_proj"),
            attention_norm=self._rms(f"{prefix}.input_layernorm"),
            feed_forward_norm=self._rms(f"{prefix}.post_attention_layernorm"),
            query_norm=self._rms(f"{attention}.q_norm"),
            key_norm=self._rms(f"{attention}.k_norm"),
        )

    def _rms(self, name: str) -> Norm:
        weights = self._weights.vector(f"{name}.weight")
        return Norm(self._address(weights), None, self.config.rms_norm_eps, RMS_NORM, len(weights))

    def _tables(self) -> Tables:
        embeddings = self._unbiased("model.embed_tokens").matrix
        head = embeddings if self.config.tie_word_embeddings else self._unbiased("lm_head").matrix
        return Tables(self._rms("model.norm"), embeddings, head)

    def logits_after(self, embeddings: mx.array | np.ndarray, count: int) -> np.ndarray:
        """Compute the logits after each of the last positions of one row: (columns, hidden) -> (count, vocab)."""
        row = self.new_row()
        try:
            [hidden] = self.run([row], [np.array(embeddings)])
        finally:
            row.end()
        return self.logits(hidden[-count:])


def why_unsupported(config: Qwen3Config) -> str | None:
    """Return what keeps the library from computing a decoder of this shape; None if nothing does."""
    widths = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "the queries' width": config.num_attention_heads * config.head_dim,
    }
    for name, width in widths.items():
        if width % GROUP:
            return f"{name} is {width}, not a multiple of {GROUP}"
    if config.head_dim % TILE:
        return f"head_dim is {config.head_dim}, not a multiple of {TILE}"
    if (width := config.num_key_value_heads * config.head_dim) % PAIR:
        return f"the keys' width is {width}, not a multiple of {PAIR}"
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        return f"num_attention_heads is {heads}, not a multiple of num_key_value_heads, {kv_heads}"
    return "its attention has biases" if config.attention_bias else None


def interleaved(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Put TILE rows of the gate before the same rows of up: twice (rows, columns) -> (2 * rows, columns)."""
    rows, columns = gate.shape
    both = np.stack([each.reshape(rows // TILE, TILE, columns) for each in (gate, up)], axis=1)
    return both.reshape(2 * rows, columns)

"""SAN-M encoder, adaptor and CTC head on the C library; `models` has the same on MLX, and their sources."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from funasr_cli.models import adaptor, post_norm
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.ctc import FRAMES_AT_ONCE
from funasr_cli.models.post_norm import PostNormConfig
from funasr_cli.models.sanm import PlainSANMEncoder, SANMConfig, SANMEncoder, UnscaledSANMEncoder
from funasr_cli.native.encoder import GELU, RELU, Batch, NativeEncoder, NativeNetwork, Weights
from funasr_cli.native.library import Block, Linear, Packed, check


class NativeSANM(NativeNetwork):
    """The encoder of `models.sanm`: (frames, input_dim) -> (frames, width) float32 for each sequence."""

    same: type[SANMEncoder] = SANMEncoder  # on MLX

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: SANMConfig):
        super().__init__(encoder, weights, config)
        later = [f"encoders.{number}" for number in range(config.blocks - 1)]
        self._blocks = [self._block(name) for name in ("encoders0.0", *later)]
        last = range(config.tp_blocks if self.same.has_tp else 0)
        self._last_blocks = [self._block(f"tp_encoders.{number}") for number in last]
        self._after_norm = self._norm("after_norm", self.same.eps)
        self._tp_norm = self._norm("tp_norm", self.same.eps) if self.same.has_tp else None

    def _block(self, name: str) -> Block:
        attention, config = f"{name}.self_attn", self.config
        taps = self._weights.vector(f"{attention}.fsmn_block.weight")[:, :, 0].T  # (taps, width)
        return Block(
            attention_norm=self._norm(f"{name}.norm1", self.same.eps),
            feed_forward_norm=self._norm(f"{name}.norm2", self.same.eps),
            qkv=self._linear(f"{attention}.linear_q_k_v"),
            output=self._linear(f"{attention}.linear_out"),
            up=self._linear(f"{name}.feed_forward.w_1"),
            down=self._linear(f"{name}.feed_forward.w_2"),
            memory=self._address(taps),
            taps=len(taps),
            taps_before=(len(taps) - 1) // 2 + max(config.memory_shift, 0),
            heads=config.heads,
            activation=RELU,
        )

    def __call__(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encode a batch."""
        depth = self.config.input_dim
        scale = np.float32(math.sqrt(self.config.width) if self.same.scales_input else 1)
        positions = sinusoidal_positions(max(map(len, features)), depth)
        batch = Batch.of([rows * scale + positions[: len(rows)] for rows in features])
        batch = self._run(self._blocks, batch)
        batch = batch._replace(x=self.encoder.norm(self._after_norm, batch.x))
        if self._tp_norm:
            batch = self._run(self._last_blocks, batch)
            batch = batch._replace(x=self.encoder.norm(self._tp_norm, batch.x))
        return batch.split()


class NativePlainSANM(NativeSANM):
    """The encoder of Paraformer."""

    same = PlainSANMEncoder


class NativeUnscaledSANM(NativeSANM):
    """The encoder of FunASR-Qwen4B, as its author computes it."""

    same = UnscaledSANMEncoder


def sinusoidal_positions(frames: int, depth: int) -> np.ndarray:
    """Compute `models.sanm.sinusoidal_positions` with NumPy: (frames, depth) float32."""
    step = math.log(10_000) / (depth / 2 - 1)
    inverse_timescales = np.exp(np.arange(depth // 2, dtype=np.float32) * np.float32(-step))  # (depth / 2,)
    angles = np.arange(1, frames + 1, dtype=np.float32)[:, None] * inverse_timescales  # (frames, depth / 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


class NativeAdaptor(NativeNetwork):
    """The network of `models.adaptor`: (frames, input_dim) -> (ceil(frames / downsample), output_dim) for each."""

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: AdaptorConfig):
        super().__init__(encoder, weights, config)
        self._linear1, self._linear2 = self._linear("linear1"), self._linear("linear2")
        self._blocks = [self._block(f"blocks.{number}") for number in range(config.layers)]

    def _block(self, name: str) -> Block:
        return Block(
            attention_norm=self._norm(f"{name}.norm1", adaptor.LAYER_NORM_EPS),
            feed_forward_norm=self._norm(f"{name}.norm2", adaptor.LAYER_NORM_EPS),
            qkv=self._linear(*(f"{name}.self_attn.linear_{each}" for each in "qkv")),
            output=self._linear(f"{name}.self_attn.linear_out"),
            up=self._linear(f"{name}.feed_forward.w_1"),
            down=self._linear(f"{name}.feed_forward.w_2"),
            heads=self.config.heads,
            activation=RELU,
        )

    def __call__(self, encoded: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Adapt a batch of encoder outputs."""
        k = self.config.downsample  # frames that are joined into one; zeros follow the last
        stacked = [np.pad(rows, [(0, -len(rows) % k), (0, 0)]).reshape(-1, k * rows.shape[1]) for rows in encoded]
        batch = Batch.of(stacked)
        x = self.encoder.linear(self._linear1, batch.x, RELU)
        x = self.encoder.linear(self._linear2, x)
        return self._run(self._blocks, batch._replace(x=x)).split()


class NativePostNormAdaptor(NativeNetwork):
    """The network of `models.post_norm`: (frames, input_dim) -> (frames, output_dim) for each sequence."""

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: PostNormConfig):
        super().__init__(encoder, weights, config)
        self._input, self._output = self._linear("input_proj"), self._linear("output_proj")
        self._blocks = [self._block(f"layers.{number}") for number in range(config.layers)]
        self._last_norm = self._norm("norm", post_norm.LAYER_NORM_EPS)

    def _block(self, name: str) -> Block:
        return Block(
            attention_norm=self._norm(f"{name}.norm1", post_norm.LAYER_NORM_EPS),
            feed_forward_norm=self._norm(f"{name}.norm2", post_norm.LAYER_NORM_EPS),
            qkv=self._linear(f"{name}.in_proj"),
            output=self._linear(f"{name}.out_proj"),
            up=self._linear(f"{name}.linear1"),
            down=self._linear(f"{name}.linear2"),
            heads=self.config.heads,
            activation=GELU,
            norm_after=True,
        )

    def __call__(self, encoded: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Adapt a batch of encoder outputs."""
        batch = Batch.of(encoded)
        batch = self._run(self._blocks, batch._replace(x=self.encoder.linear(self._input, batch.x)))
        x = self.encoder.linear(self._output, batch.x)
        return batch._replace(x=self.encoder.norm(self._last_norm, x)).split()


class NativeCTCHead(NativeNetwork):
    """The head of `models.ctc`, on (frames, width) float32."""

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: Any):
        super().__init__(encoder, weights, config)
        self._head = self._linear("ctc_lo")
        self._bias = self._weights.vector("ctc_lo.bias")

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Compute logits (frames, vocab)."""
        return self.encoder.linear(self._head, np.ascontiguousarray(x))

    def best(self, x: np.ndarray) -> np.ndarray:
        """Return the likeliest label of each frame, (frames,)."""
        return self._highest(x)[0]

    def log_totals(self, x: np.ndarray) -> np.ndarray:
        """Return the log normaliser of each frame, (frames,)."""
        return self._highest(x)[1]

    def _highest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Go over parts, to bound the memory that their logits take."""
        starts = range(0, len(x), FRAMES_AT_ONCE)
        found = [self.encoder.highest(self.logits(x[start : start + FRAMES_AT_ONCE])) for start in starts]
        labels, log_totals = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return labels, log_totals

    def logits_of(self, x: np.ndarray, labels: list[int]) -> np.ndarray:
        """Compute only the logits of these labels, (frames, labels), by a matrix of their rows."""
        matrix, library = self._head.matrix, self.encoder.library
        dense = np.empty((len(labels), matrix.columns), np.float32)
        check(library.fn_unpack(matrix, np.array(labels, np.int32), len(labels), dense))
        rows, bias = Packed.of(library, dense, matrix.weights), self._bias[labels]
        return self.encoder.linear(Linear(rows.matrix, bias.ctypes.data), np.ascontiguousarray(x))

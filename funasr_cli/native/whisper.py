"""Whisper's encoder and decoder on the C library; `models` has the same on MLX, and their sources."""

import math
from collections.abc import Sequence

import numpy as np

from funasr_cli.models.whisper_decoder import WhisperDecoderConfig
from funasr_cli.models.whisper_encoder import LAYER_NORM_EPS, TAPS, WhisperEncoderConfig
from funasr_cli.native.decoder import NativeDecoder, Source, Tables
from funasr_cli.native.encoder import GELU, Batch, NativeEncoder, NativeNetwork, Weights
from funasr_cli.native.library import GROUP, Block, Layer, Linear, Packed, Shape

FLOAT_BYTES = 4
WORKING_VALUES = 14  # per position and column: found with base, 12 with bfloat16 weights


class NativeWhisperEncoder(NativeNetwork):
    """The network of `models.whisper_encoder`: (2 * positions, mel_bins) -> (positions, width) for each window."""

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: WhisperEncoderConfig):
        super().__init__(encoder, weights, config)
        self._conv1, self._conv2 = self._convolution("conv1"), self._convolution("conv2")
        self._positions = weights.vector("positional_embedding")
        self._blocks = [self._block(f"blocks.{number}") for number in range(config.layers)]
        self._last_norm = self._norm("ln_post", LAYER_NORM_EPS)

    @staticmethod
    def working_bytes(config: WhisperEncoderConfig) -> int:
        """Return the memory for a window."""
        return WORKING_VALUES * config.positions * config.width * FLOAT_BYTES

    def _convolution(self, name: str) -> Linear:
        """Pack a convolution's (width, taps, input_dim) weights as a matrix."""
        weights = self._weights.vector(f"{name}.weight")
        packed = Packed.of(self.encoder.library, weights.reshape(len(weights), -1), self._weights.type)
        self._kept.append(packed)
        return Linear(packed.matrix, self._address(self._weights.vector(f"{name}.bias")))

    def _block(self, name: str) -> Block:
        return Block(
            attention_norm=self._norm(f"{name}.attn_ln", LAYER_NORM_EPS),
            feed_forward_norm=self._norm(f"{name}.mlp_ln", LAYER_NORM_EPS),
            qkv=self._linear(*(f"{name}.attn.{each}" for each in ("query", "key", "value")), unbiased="key"),
            output=self._linear(f"{name}.attn.out"),
            up=self._linear(f"{name}.mlp1"),
            down=self._linear(f"{name}.mlp2"),
            heads=self.config.heads,
            activation=GELU,
        )

    def __call__(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encode windows, one after the other: each has work enough for all threads, and needs memory."""
        return [self._encoded(frames) for frames in features]

    def _encoded(self, frames: np.ndarray) -> np.ndarray:
        batch = self._run(self._blocks, Batch.of([self._convolved(frames) + self._positions]))
        return self.encoder.norm(self._last_norm, batch.x)

    def _convolved(self, frames: np.ndarray) -> np.ndarray:
        """Apply both convolutions to one window."""
        x = self.encoder.linear(self._conv1, unfolded(frames, 1), GELU)
        return self.encoder.linear(self._conv2, unfolded(x, 2), GELU)


def unfolded(x: np.ndarray, stride: int) -> np.ndarray:
    """Return what a convolution over `TAPS` frames sees at every `stride`-th frame of (frames, width).

    The result is (ceil(frames / stride), TAPS * width), with zeros before the first frame and after the last.
    """
    margin, width = TAPS // 2, x.shape[1]
    padded = np.pad(x, [(margin, margin), (0, 0)]).reshape(-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, TAPS * width)
    return np.ascontiguousarray(windows[:: stride * width])


class NativeWhisperDecoder(NativeDecoder):
    """The network of `models.whisper_decoder`. What a row attends to, its memory, is a `Source`."""

    config: WhisperDecoderConfig

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: WhisperDecoderConfig):
        super().__init__(encoder, weights, config)
        self._positions = weights.vector("positional_embedding")
        self._keys_and_values = [
            self._linear(*(f"blocks.{number}.cross_attn.{each}" for each in ("key", "value")), unbiased="key")
            for number in range(config.layers)
        ]

    @staticmethod
    def why_unsupported(config: WhisperDecoderConfig) -> str | None:
        """Return what keeps the library from computing a decoder of this shape; None if nothing does."""
        head_dim = config.width // config.heads
        return f"a head's width is {head_dim}, not a multiple of {GROUP}" if head_dim % GROUP else None

    def _shape(self) -> Shape:
        config = self.config
        return Shape(
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=config.width // config.heads,
            intermediate_size=4 * config.width,
            vocab_size=config.vocab_size,
            weights=self._weights.type,
            activation=GELU,
        )

    def _layer(self, number: int) -> Layer:
        name = f"blocks.{number}"
        return Layer(
            attention_norm=self._norm(f"{name}.attn_ln", LAYER_NORM_EPS),
            cross_norm=self._norm(f"{name}.cross_attn_ln", LAYER_NORM_EPS),
            feed_forward_norm=self._norm(f"{name}.mlp_ln", LAYER_NORM_EPS),
            qkv=self._linear(*(f"{name}.attn.{each}" for each in ("query", "key", "value")), unbiased="key"),
            output=self._linear(f"{name}.attn.out"),
            cross_query=self._linear(f"{name}.cross_attn.query"),
            cross_output=self._linear(f"{name}.cross_attn.out"),
            up=self._linear(f"{name}.mlp1"),
            down=self._linear(f"{name}.mlp2"),
        )

    def _tables(self) -> Tables:
        embeddings = self._unbiased("token_embedding").matrix
        return Tables(self._norm("ln", LAYER_NORM_EPS), embeddings, embeddings)

    def _placed(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return x + self._positions[positions]

    def row_bytes(self, columns: int) -> int:
        """Return the memory of a row that attends to this number of the encoder's rows."""
        config = self.config
        return math.prod(self._source_shape(columns)) + super().row_bytes(config.positions)

    def memory(self, encoded: Sequence[np.ndarray]) -> list[Source]:
        """Compute what rows attend to, of each window's (encoder rows, width)."""
        return [self._source(rows) for rows in encoded]

    def _source(self, encoded: np.ndarray) -> Source:
        kept = np.empty(self._source_shape(len(encoded)), np.uint8)
        for linear, out in zip(self._keys_and_values, kept, strict=True):
            self.encoder.keys_and_values(linear, self.config.heads, encoded, out)
        return Source(kept, len(encoded))

    def first_logits(self, token_id: int, memory: Sequence[Source]) -> np.ndarray:
        """Compute the logits after this token, the first of a row for each memory: (rows, vocab)."""
        rows = [self.new_row(each) for each in memory]
        try:
            hidden = self.run(rows, [self.embed([token_id]) for _ in rows])
        finally:
            for row in rows:
                row.end()
        return self.logits(np.concatenate(hidden))

    def logits_after(self, token_ids: Sequence[int], memory: Source, count: int) -> np.ndarray:
        """Read the tokens as one row; return the logits after each of the last ones: (count, vocab)."""
        row = self.new_row(memory)
        try:
            [hidden] = self.run([row], [self.embed(token_ids)])
        finally:
            row.end()
        return self.logits(hidden[-count:])

    def cross_scores(self, token_ids: Sequence[int], memory: Source, heads: Sequence[int]) -> np.ndarray:
        """Return the scores of some cross-attention heads; see `WhisperDecoder.cross_scores`."""
        row = self.new_row(memory)
        try:
            [scores] = self.run([row], [self.embed(token_ids)], sorted(heads))
        finally:
            row.end()
        return scores

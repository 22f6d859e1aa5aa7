"""Whisper's encoder on the C library; `models.whisper_encoder` is the same on MLX."""

from collections.abc import Sequence

import numpy as np

from funasr_cli.models.whisper_encoder import LAYER_NORM_EPS, TAPS, WhisperEncoderConfig
from funasr_cli.native.encoder import GELU, Batch, NativeEncoder, NativeNetwork, Weights
from funasr_cli.native.library import Block, Linear, Packed


class NativeWhisperEncoder(NativeNetwork):
    """The network of `models.whisper_encoder`: (2 * positions, mel_bins) -> (positions, width) for each window."""

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: WhisperEncoderConfig):
        super().__init__(encoder, weights, config)
        self._conv1, self._conv2 = self._convolution("conv1"), self._convolution("conv2")
        self._positions = weights.vector("positional_embedding")
        self._blocks = [self._block(f"blocks.{number}") for number in range(config.layers)]
        self._last_norm = self._norm("ln_post", LAYER_NORM_EPS)

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
            heads=self._config.heads,
            activation=GELU,
        )

    def __call__(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encode a batch of windows."""
        batch = Batch.of([self._convolved(frames) + self._positions for frames in features])
        batch = self._run(self._blocks, batch)
        return batch._replace(x=self.encoder.norm(self._last_norm, batch.x)).split()

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

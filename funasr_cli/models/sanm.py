"""SAN-M encoder: self-attention in parallel with a learned FIR memory (FSMN).

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceEncoderSmall``) and
``funasr/models/sanm/encoder.py`` (``SANMEncoder``); Gao et al. 2020, "SAN-M: Memory Equipped Self-Attention for
End-to-End Speech Recognition", section 2.2. What differs: there is no dropout, no streaming cache, and no
``concat_after`` or post-norm variant, which no released checkpoint uses.
"""

import math
from dataclasses import dataclass

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.layers import FeedForward, length_mask, linear, normalise, self_attention

LAYER_NORM_EPS = 1e-5  # PyTorch's default, which upstream uses in `SANMEncoder`
PLAIN_NORM_EPS = 1e-12  # in `PlainSANMEncoder`, and in Paraformer's decoder


@dataclass(frozen=True)
class SANMConfig:
    """Sizes of a SAN-M encoder."""

    input_dim: int  # width of a feature row (80 mel bins x 7 stacked frames in the release)
    width: int  # ``output_size`` upstream
    heads: int
    ffn_dim: int
    blocks: int
    tp_blocks: int
    memory_taps: int  # ``kernel_size`` upstream: length of the FSMN filter
    memory_shift: int  # ``sanm_shfit`` upstream: number of taps by which the filter is shifted into the past


def sinusoidal_positions(frames: int, depth: int, first: int = 1) -> mx.array:
    """Compute sinusoidal position encodings (frames, depth), sines before cosines.

    Positions are ``first, first + 1, ...``; upstream counts from 1.
    """
    step = math.log(10_000) / (depth / 2 - 1)
    inverse_timescales = mx.exp(mx.arange(depth // 2, dtype=mx.float32) * -step)  # (depth / 2,)
    positions = mx.arange(first, first + frames, dtype=mx.float32)
    angles = positions[:, None] * inverse_timescales[None, :]  # (frames, depth / 2)
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)


class FSMNBlock(nn.Module):
    """Depthwise FIR filter over time.

    It is written as shifted multiply-adds, since MLX's grouped convolution is three to four times slower on a CPU.
    """

    def __init__(self, width: int, taps: int, shift: int):
        super().__init__()
        self.weight = mx.zeros((width, taps, 1))  # MLX's layout; PyTorch's is (width, 1, taps)
        left = (taps - 1) // 2 + max(shift, 0)
        self._padding = (left, taps - 1 - left)

    def __call__(self, x: mx.array) -> mx.array:
        """Filter `x` (batch, frames, width) over time; return the same shape in float32."""
        frames = x.shape[1]
        padded = mx.pad(x.astype(mx.float32), [(0, 0), self._padding, (0, 0)])  # (batch, frames + taps - 1, width)
        taps = self.weight[:, :, 0].T  # (taps, width)
        total = padded[:, :frames] * taps[0]
        for k in range(1, taps.shape[0]):
            total = total + padded[:, k : k + frames] * taps[k]
        return total


def remember(block: FSMNBlock, x: mx.array, valid: mx.array | None) -> mx.array:
    """Apply an FSMN to `x` (batch, frames, width): mask, filter, add `x`, mask; return float32."""
    if valid is None:
        return block(x) + x
    keep = valid[:, :, None].astype(x.dtype)  # (batch, frames, 1)
    x = x * keep
    return (block(x) + x) * keep


class SANMAttention(nn.Module):
    """Multi-head attention plus the FSMN memory of the values, taken before they are split into heads."""

    def __init__(self, input_dim: int, config: SANMConfig):
        super().__init__()
        self.linear_q_k_v = linear(input_dim, 3 * config.width)
        self.linear_out = linear(config.width, config.width)
        self.fsmn_block = FSMNBlock(config.width, config.memory_taps, config.memory_shift)
        self._heads = config.heads

    def __call__(self, x: mx.array, valid: mx.array | None) -> mx.array:
        """Attend over `x` (batch, frames, input_dim), where `valid` is true; return (batch, frames, width)."""
        q, k, v = mx.split(self.linear_q_k_v(x), 3, axis=-1)  # each (batch, frames, width)
        return self.linear_out(self_attention(q, k, v, self._heads, valid)) + remember(self.fsmn_block, v, valid)


class SANMLayer(nn.Module):
    """Pre-norm layer. Attention has a residual connection only if the layer keeps the width."""

    def __init__(self, input_dim: int, config: SANMConfig, eps: float):
        super().__init__()
        self.self_attn = SANMAttention(input_dim, config)
        self.feed_forward = FeedForward(config.width, config.ffn_dim)
        self.norm1 = nn.LayerNorm(input_dim, eps=eps)
        self.norm2 = nn.LayerNorm(config.width, eps=eps)
        self._residual = input_dim == config.width

    def __call__(self, x: mx.array, valid: mx.array | None) -> mx.array:
        """Apply the layer to `x` (batch, frames, input_dim) float32; return (batch, frames, width) float32."""
        attended = self.self_attn(normalise(self.norm1, x), valid)
        x = x + attended if self._residual else attended
        return x + self.feed_forward(normalise(self.norm2, x))


class SANMEncoder(nn.Module):
    """The encoder: ``encoders0`` (1 layer), ``encoders``, ``after_norm``, ``tp_encoders``, ``tp_norm``."""

    eps, has_tp, scales_input = LAYER_NORM_EPS, True, True

    def __init__(self, config: SANMConfig):
        super().__init__()
        self.encoders0 = [SANMLayer(config.input_dim, config, self.eps)]
        self.encoders = [SANMLayer(config.width, config, self.eps) for _ in range(config.blocks - 1)]
        if self.has_tp:
            self.tp_encoders = [SANMLayer(config.width, config, self.eps) for _ in range(config.tp_blocks)]
        self.after_norm = nn.LayerNorm(config.width, eps=self.eps)
        if self.has_tp:
            self.tp_norm = nn.LayerNorm(config.width, eps=self.eps)
        self._input_scale = math.sqrt(config.width) if self.scales_input else 1.0

    def __call__(self, features: mx.array, lengths: mx.array | None = None) -> mx.array:
        """Encode `features` (batch, frames, input_dim) float32 as (batch, frames, width) float32.

        `lengths` (batch,) holds the number of valid frames in each right-padded row; None if no row is padded.
        Output beyond a row's length is meaningless.
        """
        _, frames, input_dim = features.shape
        valid = None if lengths is None else length_mask(lengths, frames)  # (batch, frames)
        x = features * self._input_scale + sinusoidal_positions(frames, input_dim)
        for layer in self.encoders0 + self.encoders:
            x = layer(x, valid)
        x = self.after_norm(x)
        if not self.has_tp:
            return x
        for layer in self.tp_encoders:
            x = layer(x, valid)
        return self.tp_norm(x)


class PlainSANMEncoder(SANMEncoder):
    """The encoder of Paraformer and CT-Transformer: ends with ``after_norm``, norms with a smaller epsilon."""

    eps, has_tp = PLAIN_NORM_EPS, False


class UnscaledSANMEncoder(SANMEncoder):
    """The encoder as OminiX computes it: features are not multiplied before the positions are added."""

    scales_input = False

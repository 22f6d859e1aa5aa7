"""Transformer that follows the encoder. The audio adaptor and the CTC decoder share this architecture.

Source: FunASR ``funasr/models/llm_asr/adaptor.py`` (``Transformer``), ``funasr/models/transformer/encoder.py``
and ``attention.py``.
"""

from dataclasses import dataclass

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.layers import FeedForward, length_mask, linear, normalise, self_attention

LAYER_NORM_EPS = 1e-12  # as in ESPnet; the encoder uses another value


@dataclass(frozen=True)
class AdaptorConfig:
    """Sizes of an adaptor."""

    input_dim: int  # ``encoder_dim`` upstream
    output_dim: int  # ``llm_dim`` upstream
    ffn_dim: int
    layers: int
    heads: int
    downsample: int  # ``downsample_rate`` upstream: number of frames stacked into one
    low_frame_rate: bool  # ``use_low_frame_rate`` upstream: the prompt gets only the first eighth of the rows


class Attention(nn.Module):
    """Standard multi-head self-attention with separate projections."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.linear_q = linear(width, width)
        self.linear_k = linear(width, width)
        self.linear_v = linear(width, width)
        self.linear_out = linear(width, width)
        self._heads = heads

    def __call__(self, x: mx.array, valid: mx.array | None) -> mx.array:
        """Attend over `x` (batch, frames, width), where `valid` (batch, frames) is true; return the same shape."""
        q, k, v = self.linear_q(x), self.linear_k(x), self.linear_v(x)
        return self.linear_out(self_attention(q, k, v, self._heads, valid))


class AdaptorLayer(nn.Module):
    """Pre-norm Transformer layer. Its feed-forward network has only a quarter of the layer's width."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.feed_forward = FeedForward(width, width // 4)
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def __call__(self, x: mx.array, valid: mx.array | None) -> mx.array:
        """Apply the layer to `x` (batch, frames, width) float32; return the same shape and type."""
        x = x + self.self_attn(normalise(self.norm1, x), valid)
        return x + self.feed_forward(normalise(self.norm2, x))


class Adaptor(nn.Module):
    """Frame stacking, two linear layers and a few Transformer layers."""

    def __init__(self, config: AdaptorConfig):
        super().__init__()
        self.linear1 = linear(config.input_dim * config.downsample, config.ffn_dim)
        self.linear2 = linear(config.ffn_dim, config.output_dim)
        self.blocks = [AdaptorLayer(config.output_dim, config.heads) for _ in range(config.layers)]
        self._downsample = config.downsample

    def __call__(self, x: mx.array, lengths: mx.array | None = None) -> mx.array:
        """Adapt encoder output `x` (batch, frames, input_dim) float32.

        `lengths` (batch,) holds the number of valid frames in each right-padded row; None if no row is padded.

        Returns:
            (batch, ceil(frames / downsample), output_dim) float32.
        """
        if self._downsample > 1:
            x, lengths = self._stack(x, lengths)
        valid = None if lengths is None else length_mask(lengths, x.shape[1])
        x = self.linear1(x.astype(self.linear1.weight.dtype))
        x = self.linear2(nn.relu(x)).astype(mx.float32)
        for block in self.blocks:
            x = block(x, valid)
        return x

    def _stack(self, x: mx.array, lengths: mx.array | None) -> tuple[mx.array, mx.array | None]:
        """Join every ``downsample`` frames into one. Zeros replace frames beyond the end of a row."""
        batch, frames, _ = x.shape
        k = self._downsample
        if lengths is not None:
            x = x * length_mask(lengths, frames)[:, :, None].astype(x.dtype)
            lengths = (lengths - 1) // k + 1
        x = mx.pad(x, [(0, 0), (0, -frames % k), (0, 0)])
        return x.reshape(batch, -1, k * x.shape[-1]), lengths


def audio_token_count(feature_rows: int, config: AdaptorConfig) -> int:
    """Return how many of the adaptor's rows enter the prompt, given the number of feature rows.

    Upstream (``fun_asr_nano/model.py``, ``fake_token_len``) computes the length that two stride-2 convolutions
    and a final halving would leave, and uses this number of rows from the start.
    """
    if not config.low_frame_rate:
        return feature_rows
    rows = 1 + (feature_rows - 3 + 2) // 2
    rows = 1 + (rows - 3 + 2) // 2
    return (rows - 1) // 2 + 1

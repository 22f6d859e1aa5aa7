"""Whisper's encoder: two convolutions and a Transformer, over windows of fixed length.

Source: openai-whisper ``whisper/model.py`` (``AudioEncoder``); Radford et al. 2022, "Robust Speech Recognition via
Large-Scale Weak Supervision", section 2.2. What differs: convolutions are matrix products over shifted frames,
and with bfloat16 weights, residual sums stay in float32.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from funasr_cli.compute.backend import mx, nn
from funasr_cli.features.log_mel import FRAMES
from funasr_cli.models.layers import linear, merge_heads, normalise, split_heads, window_attention

LAYER_NORM_EPS = 1e-5
TAPS = 3  # of both convolutions
HEAD_WIDTH = 64  # in all sizes

Shapes = Mapping[str, tuple[int, ...]]  # of tensors, by name


@dataclass(frozen=True)
class WhisperEncoderConfig:
    """Sizes of an encoder."""

    mel_bins: int
    positions: int  # rows of a window, each 20 ms: half as many as feature frames
    width: int
    heads: int
    layers: int

    @classmethod
    def of(cls, shapes: Shapes, prefix: str) -> "WhisperEncoderConfig":
        """Derive the sizes from the shapes of tensors whose names begin with a prefix.

        The positions may be missing, since they can be computed.

        Raises:
            KeyError: another tensor is missing.
            ValueError: a tensor has another number of axes.
        """
        width, _, mel_bins = shapes[f"{prefix}conv1.weight"]  # (width, taps, mel bins)
        positions, _ = shapes.get(f"{prefix}positional_embedding", (FRAMES // 2, width))
        return cls(mel_bins, positions, width, max(1, width // HEAD_WIDTH), count_blocks(shapes, prefix))


def count_blocks(names: Iterable[str], prefix: str) -> int:
    """Return the number of layers of the encoder or decoder whose tensors' names begin with a prefix."""
    blocks = f"{prefix}blocks."
    return len({name.removeprefix(blocks).split(".")[0] for name in names if name.startswith(blocks)})


class Projections(nn.Module):
    """Query, key, value and output projections of an attention. Keys have no bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.query = linear(width, width)
        self.key = linear(width, width, bias=False)
        self.value = linear(width, width)
        self.out = linear(width, width)
        self._heads = heads

    def queries(self, x: mx.array) -> mx.array:
        """Project (batch, rows, width) to (batch, heads, rows, head_dim)."""
        return split_heads(self.query(x), self._heads)

    def keys_and_values(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Project (batch, rows, width) to (batch, heads, rows, head_dim) twice."""
        return split_heads(self.key(x), self._heads), split_heads(self.value(x), self._heads)


class EncoderBlock(nn.Module):
    """Pre-norm layer: self-attention and a feed-forward network with GELU."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = Projections(width, heads)
        self.attn_ln = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp1 = linear(width, 4 * width)
        self.mlp2 = linear(4 * width, width)
        self.mlp_ln = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def __call__(self, x: mx.array) -> mx.array:
        """Apply the layer to `x` (batch, rows, width) float32; return the same shape and type."""
        normed = normalise(self.attn_ln, x)
        q, (k, v) = self.attn.queries(normed), self.attn.keys_and_values(normed)
        x = x + self.attn.out(merge_heads(window_attention(q, k, v)))
        return x + self.mlp2(nn.gelu(self.mlp1(normalise(self.mlp_ln, x))))


class Convolution(nn.Module):
    """A convolution over three frames, padded by one on both sides, as one matrix product.

    MLX's own convolution is several times slower on a CPU.
    """

    def __init__(self, input_dim: int, width: int, stride: int):
        super().__init__()
        self.weight = mx.zeros((width, TAPS, input_dim))  # MLX's layout; PyTorch's is (width, input_dim, taps)
        self.bias = mx.zeros((width,))
        self._stride = stride

    def __call__(self, x: mx.array) -> mx.array:
        """Filter `x` (batch, frames, input_dim); return (batch, ceil(frames / stride), width)."""
        frames = x.shape[1]
        padded = mx.pad(x, [(0, 0), (1, 1), (0, 0)])
        taps = [padded[:, tap : tap + frames : self._stride] for tap in range(TAPS)]
        weight = self.weight.reshape(self.weight.shape[0], -1)  # (width, taps * input_dim)
        return mx.concatenate(taps, axis=-1) @ weight.T + self.bias


class WhisperEncoder(nn.Module):
    """The encoder. Attribute names are mlx-whisper's, which differ from OpenAI's only in `mlp1` and `mlp2`."""

    def __init__(self, config: WhisperEncoderConfig):
        super().__init__()
        self.conv1 = Convolution(config.mel_bins, config.width, stride=1)
        self.conv2 = Convolution(config.width, config.width, stride=2)
        self.positional_embedding = mx.zeros((config.positions, config.width))
        self.blocks = [EncoderBlock(config.width, config.heads) for _ in range(config.layers)]
        self.ln_post = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def __call__(self, features: mx.array) -> mx.array:
        """Encode `features` (batch, 2 * positions, mel_bins) float32 as (batch, positions, width) float32."""
        x = nn.gelu(self.conv1(features.astype(self.conv1.weight.dtype)))
        x = nn.gelu(self.conv2(x)).astype(mx.float32) + self.positional_embedding
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x)

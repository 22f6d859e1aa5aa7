"""Adaptor of FunASR-Qwen4B: PyTorch's default Transformer encoder layers between two linear layers.

Source: PyTorch ``torch/nn/modules/transformer.py`` (``TransformerEncoderLayer`` with ``activation="gelu"``); the
composition is that of OminiX-MLX, ``funasr-qwen4b-mlx/src/adaptor.rs``. Each norm follows its sum
(``norm_first`` is false by default), GELU is exact, and no norm follows the stack. There are neither positions
nor a causal mask, and each encoder row gives one row. What differs: padded rows of a batch are masked as keys,
where the source computes one clip at a time.
"""

from dataclasses import dataclass

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.layers import length_mask, linear, self_attention

LAYER_NORM_EPS = 1e-5  # PyTorch's default


@dataclass(frozen=True)
class PostNormConfig:
    """Sizes of the adaptor."""

    input_dim: int
    width: int  # ``d_model``, or ``hidden_dim``
    ffn_dim: int
    output_dim: int
    layers: int
    heads: int


class PostNormLayer(nn.Module):
    """Attention and feed-forward network, each followed by a sum and a norm."""

    def __init__(self, config: PostNormConfig):
        super().__init__()
        self.in_proj = linear(config.width, 3 * config.width)
        self.out_proj = linear(config.width, config.width)
        self.linear1 = linear(config.width, config.ffn_dim)
        self.linear2 = linear(config.ffn_dim, config.width)
        self.norm1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.norm2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self._heads = config.heads

    def __call__(self, x: mx.array, valid: mx.array | None) -> mx.array:
        """Apply the layer to `x` (batch, frames, width) float32; return the same shape and type."""
        inputs = x.astype(self.norm1.weight.dtype)
        q, k, v = mx.split(self.in_proj(inputs), 3, axis=-1)  # each (batch, frames, width)
        x = self.norm1(x + self.out_proj(self_attention(q, k, v, self._heads, valid)))
        hidden = nn.gelu(self.linear1(x.astype(self.norm1.weight.dtype)))  # (batch, frames, ffn_dim)
        return self.norm2(x + self.linear2(hidden))


class PostNormAdaptor(nn.Module):
    """From encoder rows to the decoder's embeddings, one for each row."""

    def __init__(self, config: PostNormConfig):
        super().__init__()
        self.input_proj = linear(config.input_dim, config.width)
        self.layers = [PostNormLayer(config) for _ in range(config.layers)]
        self.output_proj = linear(config.width, config.output_dim)
        self.norm = nn.LayerNorm(config.output_dim, eps=LAYER_NORM_EPS)

    def __call__(self, x: mx.array, lengths: mx.array | None = None) -> mx.array:
        """Adapt encoder output `x` (batch, frames, input_dim) float32 to (batch, frames, output_dim) float32.

        `lengths` (batch,) holds the number of valid frames in each right-padded row; None if no row is padded.
        Output beyond a row's length is meaningless.
        """
        valid = None if lengths is None else length_mask(lengths, x.shape[1])
        dtype = self.norm.weight.dtype
        x = self.input_proj(x.astype(dtype)).astype(mx.float32)
        for layer in self.layers:
            x = layer(x, valid)
        return self.norm(self.output_proj(x.astype(dtype)).astype(mx.float32))

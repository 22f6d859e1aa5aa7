"""Building blocks that every model here shares; all linear layers of the project are made in this file."""

from funasr_cli.backend import mx, nn


def linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """Make a linear layer. The only place that does: another kernel is put in here."""
    return nn.Linear(in_features, out_features, bias=bias)


def length_mask(lengths: mx.array, frames: int) -> mx.array:
    """Mark the valid frames of right-padded rows.

    Args:
        lengths: (batch,) valid frames of each row.
        frames: width of the padded batch.

    Returns:
        (batch, frames) bool, True where a frame belongs to its row.
    """
    return mx.arange(frames)[None, :] < lengths[:, None]


def split_heads(x: mx.array, heads: int, norm: nn.RMSNorm | None = None) -> mx.array:
    """(batch, frames, heads * head_dim) -> (batch, heads, frames, head_dim), each head normed if asked for."""
    batch, frames, _ = x.shape
    x = x.reshape(batch, frames, heads, -1)
    return (norm(x) if norm else x).transpose(0, 2, 1, 3)  # normed while still contiguous


def merge_heads(x: mx.array) -> mx.array:
    """(batch, heads, frames, head_dim) -> (batch, frames, heads * head_dim)."""
    batch, _, frames, _ = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, frames, -1)


def normalise(norm: nn.LayerNorm, x: mx.array) -> mx.array:
    """Apply a layer norm to a float32 residual stream and go over to the weights' type.

    Deep values reach 10,000, where neighbouring bfloat16 numbers lie 64 apart: the sums stay in float32, only
    the matrix products are computed in the weights' type. The reference computes all of this in float32.
    """
    return norm(x).astype(norm.weight.dtype)


class FeedForward(nn.Module):
    """Position-wise ``w_2(relu(w_1(x)))``, as in the SAN-M encoder, the adaptor and the CTC decoder."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w_1 = linear(width, hidden)
        self.w_2 = linear(hidden, width)

    def __call__(self, x: mx.array) -> mx.array:
        """(batch, frames, width) -> the same."""
        return self.w_2(nn.relu(self.w_1(x)))

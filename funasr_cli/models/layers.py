"""Building blocks shared by all models. Every linear layer of the project is created in this file."""

import math

import numpy as np

from funasr_cli.compute.backend import mx, nn, on_accelerator

# Rows of a matrix product on a CPU, measured with MKL; see docs/performance.md.
FEW_ROWS = 2  # up to this number, both orders of the factors are equally fast
FEW_QUERIES = 2  # up to this number, MLX's own attention is faster
FULL_ROWS = 16  # BLAS takes longer for 3 to 15 rows than for 16
MANY_ROWS = 256  # from this number on, the result's memory layout costs more than the product saves


def linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """Create a linear layer. Every model calls this, so another kernel can be swapped in here."""
    return (nn.Linear if on_accelerator() else CPULinear)(in_features, out_features, bias=bias)


def embedding(entries: int, width: int) -> nn.Embedding:
    """Create an embedding table that can also be the output head."""
    return (nn.Embedding if on_accelerator() else CPUEmbedding)(entries, width)


class CPULinear(nn.Linear):
    """A linear layer that orders its factors as a CPU's BLAS handles them best."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map (..., in) to (..., out)."""
        product = cpu_product(x, self.weight)
        return product + self.bias if "bias" in self else product


class CPUEmbedding(nn.Embedding):
    """An embedding table that is also the output head, with the same order of factors."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Map (..., width) to (..., entries)."""
        return cpu_product(x, self.weight)


def cpu_product(x: mx.array, weight: mx.array) -> mx.array:
    """Compute ``x @ weight.T``, quickly even for the few rows of a decoding batch.

    With the weights as the left factor, BLAS splits the work over their many rows, not over the few of ``x``.
    Shapes: (..., in), (out, in) -> (..., out).
    """
    *batch, width = x.shape
    rows = math.prod(batch)
    if rows <= FEW_ROWS or rows >= MANY_ROWS:
        return x @ weight.T
    x = x.reshape(rows, width)
    if rows < FULL_ROWS:
        x = mx.pad(x, [(0, FULL_ROWS - rows), (0, 0)])
    product = (weight @ x.T)[:, :rows]  # (out, rows)
    return product.T.reshape(*batch, -1)


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | str | None) -> mx.array:
    """Compute `mx.fast.scaled_dot_product_attention`, faster on a CPU when a whole batch advances by one token.

    On a CPU, MLX's function computes one product per head. Here, query heads that share keys (grouped-query
    attention) are the rows of one product.
    Shapes: (batch, heads, new, head_dim), twice (batch, kv_heads, length, head_dim) -> that of the queries.
    """
    batch, heads, new, head_dim = q.shape
    if on_accelerator() or new > 1 or batch <= FEW_QUERIES:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    shared = q.reshape(batch, k.shape[1], -1, head_dim) * scale  # (batch, kv_heads, group, head_dim)
    scores = shared @ k.swapaxes(-1, -2)  # (batch, kv_heads, group, length)
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf)
    attended = mx.softmax(scores, axis=-1, precise=True) @ v  # (batch, kv_heads, group, head_dim)
    return attended.reshape(batch, heads, new, head_dim)


def softmax(scores: mx.array) -> mx.array:
    """Compute a softmax over the last axis, faster on a CPU, where MLX does not vectorise exponentials.

    There, this evaluates float32 scores, and NumPy overwrites them: they must not be used any more.
    Shapes: (..., rows, columns) -> the same.
    """
    if on_accelerator() or scores.dtype != mx.float32:
        return mx.softmax(scores, axis=-1, precise=True)
    mx.eval(scores)
    view = np.array(scores, copy=False)
    for part in view.reshape(-1, *view.shape[-2:]):  # (rows, columns), which fit into the processor's cache
        part -= part.max(axis=-1, keepdims=True)
        np.exp(part, out=part)
        part /= part.sum(axis=-1, keepdims=True)
    return scores


def window_attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Attend to all rows of a window: three times (batch, heads, rows, head_dim) -> the same."""
    if on_accelerator():
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5)
    return memory_attention(q, k.swapaxes(-1, -2), v)


def memory_attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Attend to rows whose keys are transposed, which halves the time of a product with a single query.

    Shapes: (batch, heads, new, head_dim), (batch, heads, head_dim, rows), (batch, heads, rows, head_dim) -> that
    of the queries.
    """
    return softmax((q * q.shape[-1] ** -0.5) @ k) @ v


def length_mask(lengths: mx.array, frames: int) -> mx.array:
    """Mark the valid frames of right-padded rows: (batch,) lengths -> (batch, frames) bool."""
    return mx.arange(frames)[None, :] < lengths[:, None]


def split_heads(x: mx.array, heads: int, norm: nn.RMSNorm | None = None) -> mx.array:
    """Split (batch, frames, heads * head_dim) into (batch, heads, frames, head_dim); apply `norm` to each head."""
    batch, frames, _ = x.shape
    x = x.reshape(batch, frames, heads, -1)
    return (norm(x) if norm else x).transpose(0, 2, 1, 3)  # normed while still contiguous


def merge_heads(x: mx.array) -> mx.array:
    """Merge (batch, heads, frames, head_dim) into (batch, frames, heads * head_dim)."""
    batch, _, frames, _ = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, frames, -1)


def self_attention(q: mx.array, k: mx.array, v: mx.array, heads: int, valid: mx.array | None) -> mx.array:
    """Attend to all valid frames: (batch, frames, width) each, (batch, frames) bool -> (batch, frames, width)."""
    q, k, v = (split_heads(part, heads) for part in (q, k, v))  # each (batch, heads, frames, head_dim)
    mask = None if valid is None else valid[:, None, None, :]
    attended = mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)
    return merge_heads(attended)


def normalise(norm: nn.LayerNorm, x: mx.array) -> mx.array:
    """Apply a layer norm to a float32 residual stream and cast the result to the weights' type.

    Values in deep layers reach 10,000, where adjacent bfloat16 numbers are 64 apart. So the residual sums stay in
    float32, and only matrix products use the weights' type. The reference computes everything in float32.
    """
    return norm(x).astype(norm.weight.dtype)


class FeedForward(nn.Module):
    """Position-wise ``w_2(relu(w_1(x)))``, as in the SAN-M encoder, the adaptor and the CTC decoder."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w_1 = linear(width, hidden)
        self.w_2 = linear(hidden, width)

    def __call__(self, x: mx.array) -> mx.array:
        """Apply the network to `x` (batch, frames, width); return the same shape."""
        return self.w_2(nn.relu(self.w_1(x)))


def batch_lengths(lengths: list[int], frames: int) -> mx.array | None:
    """Return lengths (batch,) for the masks, or None if no row is padded to ``frames``: no mask is fastest."""
    return None if all(length == frames for length in lengths) else mx.array(lengths)

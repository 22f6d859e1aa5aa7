"""SAN-M decoder of Paraformer: all tokens of a text in one pass, with an FSMN memory instead of self-attention.

Source: FunASR ``funasr/models/paraformer/decoder.py`` (``ParaformerSANMDecoder``, ``DecoderLayerSANM``,
``forward_asf6``); Gao et al. 2022, "Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive
End-to-End Speech Recognition", section 3. What differs: there is no dropout, no streaming cache and no layer
without cross-attention except the last, which no released checkpoint uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.layers import batch_lengths, length_mask, linear, normalise, self_attention, split_heads
from funasr_cli.models.sanm import PLAIN_NORM_EPS, FSMNBlock, remember


@dataclass(frozen=True)
class SANMDecoderConfig:
    """Sizes of a SAN-M decoder."""

    width: int
    heads: int
    ffn_dim: int
    layers: int  # ``att_layer_num`` upstream; one without attention follows them
    memory_taps: int  # as in `SANMConfig`
    memory_shift: int
    vocab_size: int | None  # None: there is no output layer


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=PLAIN_NORM_EPS)


class NormedFeedForward(nn.Module):
    """``w_2(norm(relu(w_1(x))))``, with a last layer that has no bias."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w_1 = linear(width, hidden)
        self.w_2 = linear(hidden, width, bias=False)
        self.norm = _norm(hidden)

    def __call__(self, x: mx.array) -> mx.array:
        """Apply the network to `x` (batch, tokens, width); return the same shape in float32."""
        hidden = normalise(self.norm, nn.relu(self.w_1(x)))  # (batch, tokens, hidden)
        return self.w_2(hidden).astype(mx.float32)


class Memory(nn.Module):
    """The FSMN that replaces self-attention."""

    def __init__(self, config: SANMDecoderConfig):
        super().__init__()
        self.fsmn_block = FSMNBlock(config.width, config.memory_taps, config.memory_shift)


class CrossAttention(nn.Module):
    """Multi-head attention to another sequence."""

    def __init__(self, config: SANMDecoderConfig):
        super().__init__()
        self.linear_q = linear(config.width, config.width)
        self.linear_k_v = linear(config.width, 2 * config.width)
        self.linear_out = linear(config.width, config.width)
        self._heads = config.heads

    def __call__(self, x: mx.array, source: mx.array, valid: mx.array | None) -> mx.array:
        """Attend from `x` (batch, tokens, width) to `source` (batch, rows, width) where `valid` (batch, rows)."""
        k, v = mx.split(self.linear_k_v(source), 2, axis=-1)  # each (batch, rows, width)
        return self.linear_out(self_attention(self.linear_q(x), k, v, self._heads, valid))

    def weights(self, x: mx.array, source: mx.array) -> mx.array:
        """Return how much each token attends to each row: (1, heads, tokens, rows), for a batch of one."""
        k, _ = mx.split(self.linear_k_v(source), 2, axis=-1)
        q, k = (split_heads(part, self._heads).astype(mx.float32) for part in (self.linear_q(x), k))
        return mx.softmax(q * q.shape[-1] ** -0.5 @ k.swapaxes(-1, -2), axis=-1)


class DecoderLayer(nn.Module):
    """Feed-forward network, memory and cross-attention, in this order; the first has no separate residual."""

    def __init__(self, config: SANMDecoderConfig):
        super().__init__()
        self.feed_forward = NormedFeedForward(config.width, config.ffn_dim)
        self.self_attn = Memory(config)
        self.src_attn = CrossAttention(config)
        self.norm1, self.norm2, self.norm3 = (_norm(config.width) for _ in range(3))

    def remembered(self, x: mx.array, valid: mx.array | None) -> mx.array:
        """Apply all but the cross-attention to `x` (batch, tokens, width) float32."""
        y = self.norm2(self.feed_forward(normalise(self.norm1, x)))  # (batch, tokens, width) float32
        return x + remember(self.self_attn.fsmn_block, y, valid)

    def __call__(
        self, x: mx.array, valid: mx.array | None, source: mx.array, source_valid: mx.array | None
    ) -> mx.array:
        """Apply the layer to `x` (batch, tokens, width) float32; return the same."""
        x = self.remembered(x, valid)
        return x + self.src_attn(normalise(self.norm3, x), source, source_valid)


class LastLayer(nn.Module):
    """The last layer: a feed-forward network without a residual."""

    def __init__(self, config: SANMDecoderConfig):
        super().__init__()
        self.feed_forward = NormedFeedForward(config.width, config.ffn_dim)
        self.norm1 = _norm(config.width)

    def __call__(self, x: mx.array) -> mx.array:
        """Apply the layer to `x` (batch, tokens, width) float32; return the same shape."""
        return self.feed_forward(normalise(self.norm1, x))


class SANMDecoder(nn.Module):
    """The decoder. Attribute names are the checkpoint's keys."""

    def __init__(self, config: SANMDecoderConfig):
        super().__init__()
        self.decoders = [DecoderLayer(config) for _ in range(config.layers)]
        self.decoders3 = [LastLayer(config)]
        self.after_norm = _norm(config.width)
        if config.vocab_size:
            self.output_layer = linear(config.width, config.vocab_size)

    def __call__(self, tokens: Sequence[np.ndarray], sources: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Decode a batch: (tokens, width) and what they attend to, (rows, width) -> (tokens, width) for each row.

        The result is float32, after ``after_norm``.
        """
        x, valid = _padded(tokens)  # (batch, tokens, width)
        source, source_valid = _padded(sources)  # (batch, rows, width)
        source = source.astype(self.after_norm.weight.dtype)
        for layer in self.decoders:
            x = layer(x, valid, source, source_valid)
        out = np.array(self.after_norm(self.decoders3[0](x)))
        return [row[: len(own)] for row, own in zip(out, tokens, strict=True)]

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Compute logits (tokens, vocab) of the output (tokens, width) for one row."""
        return np.array(self.output_layer(mx.array(x).astype(self.after_norm.weight.dtype)).astype(mx.float32))

    def attention(self, x: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Return how much each token of one row attends to each row of the source in the last cross-attention.

        (tokens, width), (rows, width) -> (heads, tokens, rows) float32
        """
        state, rows = mx.array(x)[None], mx.array(source)[None].astype(self.after_norm.weight.dtype)
        for layer in self.decoders[:-1]:
            state = layer(state, None, rows, None)
        last = self.decoders[-1]
        weights = last.src_attn.weights(normalise(last.norm3, last.remembered(state, None)), rows)
        return np.array(weights[0])


def _padded(rows: Sequence[np.ndarray]) -> tuple[mx.array, mx.array | None]:
    """Pad rows (length, width) with zeros on the right.

    Return (batch, longest, width), and where it is valid, (batch, longest); None if no row is padded.
    """
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    batch = mx.array(np.stack([np.pad(row, [(0, longest - len(row)), (0, 0)]) for row in rows]))
    valid = batch_lengths(lengths, longest)
    return batch, None if valid is None else length_mask(valid, longest)

"""Whisper's decoder: a Transformer with learned positions and cross-attention to the encoder's rows.

Source: openai-whisper ``whisper/model.py`` (``TextDecoder``); Radford et al. 2022, section 2.2. What differs: rows
of different lengths share a batch, and with bfloat16 weights, residual sums stay in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.cache import DecoderCache, LayerCache, LayerMemory, Memory, Positions
from funasr_cli.models.layers import attention, embedding, linear, memory_attention, merge_heads, normalise
from funasr_cli.models.whisper_encoder import (
    HEAD_WIDTH,
    LAYER_NORM_EPS,
    Projections,
    Shapes,
    count_blocks,
)


@dataclass(frozen=True)
class WhisperDecoderConfig:
    """Sizes of a decoder."""

    vocab_size: int
    positions: int
    width: int
    heads: int
    layers: int

    @classmethod
    def of(cls, shapes: Shapes, prefix: str) -> "WhisperDecoderConfig":
        """Derive the sizes from the shapes of tensors, as `WhisperEncoderConfig.of` does.

        The embeddings may be quantized, which changes their second axis.
        """
        vocab_size, _ = shapes[f"{prefix}token_embedding.weight"]
        positions, width = shapes[f"{prefix}positional_embedding"]
        return cls(vocab_size, positions, width, max(1, width // HEAD_WIDTH), count_blocks(shapes, prefix))


class DecoderBlock(nn.Module):
    """Pre-norm layer: self-attention, cross-attention and a feed-forward network with GELU."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = Projections(width, heads)
        self.attn_ln = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.cross_attn = Projections(width, heads)
        self.cross_attn_ln = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp1 = linear(width, 4 * width)
        self.mlp2 = linear(4 * width, width)
        self.mlp_ln = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def __call__(
        self,
        x: mx.array,
        mask: mx.array | str | None,
        positions: Positions,
        cache: LayerCache,
        memory: LayerMemory,
    ) -> mx.array:
        """Append `x` (batch, new, width) float32 to the cache; attend to it and to `memory`; return that shape."""
        return self.attend_to_audio(self.attend_to_text(x, mask, positions, cache), memory)

    def attend_to_text(
        self, x: mx.array, mask: mx.array | str | None, positions: Positions, cache: LayerCache
    ) -> mx.array:
        """Apply the first part of the layer, self-attention."""
        normed = normalise(self.attn_ln, x)
        q = self.attn.queries(normed)  # (batch, heads, new, head_dim)
        k, v = cache.put(*self.attn.keys_and_values(normed), positions)  # (batch, heads, columns, head_dim)
        return x + self.attn.out(merge_heads(attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)))

    def cross_queries(self, x: mx.array) -> mx.array:
        """Return the queries of cross-attention, (batch, heads, new, head_dim), for `x` after self-attention."""
        return self.cross_attn.queries(normalise(self.cross_attn_ln, x))

    def attend_to_audio(self, x: mx.array, memory: LayerMemory) -> mx.array:
        """Apply the rest of the layer, cross-attention and the feed-forward network."""
        x = x + self.cross_attn.out(merge_heads(memory_attention(self.cross_queries(x), *memory)))
        return x + self.mlp2(nn.gelu(self.mlp1(normalise(self.mlp_ln, x))))


class WhisperDecoder(nn.Module):
    """The decoder, whose head is its embedding table. Attribute names are mlx-whisper's."""

    def __init__(self, config: WhisperDecoderConfig):
        super().__init__()
        self.token_embedding = embedding(config.vocab_size, config.width)
        self.positional_embedding = mx.zeros((config.positions, config.width))
        self.blocks = [DecoderBlock(config.width, config.heads) for _ in range(config.layers)]
        self.ln = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.config = config

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the weights that are not quantized, and of keys and values."""
        return self.ln.weight.dtype

    @property
    def matrix_dtype(self) -> mx.Dtype:
        """Type in which matrices are stored."""
        return self.blocks[0].mlp1.weight.dtype

    def row_bytes(self, rows: int) -> int:
        """Return the memory of a batch row that attends to this number of the encoder's rows.

        Keys and values count thrice: they are copied when rows join, and kept to find the times of words.
        """
        config = self.config
        return 3 * 2 * config.layers * (rows + config.positions) * config.width * self.dtype.size

    def memory(self, encoded: Sequence[mx.array]) -> list[Memory]:
        """Compute what rows attend to, of each window's (encoder rows, encoder width)."""
        batch = mx.stack(list(encoded)).astype(self.dtype)  # (batch, encoder rows, encoder width)
        pairs = [block.cross_attn.keys_and_values(batch) for block in self.blocks]
        layers = [(mx.contiguous(k.swapaxes(-1, -2)), mx.contiguous(v)) for k, v in pairs]
        return [[(k[row : row + 1], v[row : row + 1]) for k, v in layers] for row in range(len(encoded))]

    def make_cache(self, rows: int, memory: Sequence[Memory] = ()) -> DecoderCache:
        """Create an empty cache of this number of rows, each of which attends to its `memory`."""
        return DecoderCache(len(self.blocks), rows, memory)

    def embed(self, token_ids: mx.array) -> mx.array:
        """Embed token ids (..., tokens) as (..., tokens, width), without positions."""
        return self.token_embedding(token_ids)

    def __call__(self, embeddings: mx.array, cache: DecoderCache) -> mx.array:
        """Append `embeddings` (batch, new, width) to the cache; return hidden states of that shape, normed.

        If rows are padded on the right, the caller must discard the padding from the cache (`take_back`).
        """
        positions = cache.extend(embeddings.shape[1])
        mask, x = positions.mask(), self._placed(embeddings, positions)
        for block, layer, memory in zip(self.blocks, cache.layers, cache.memory, strict=True):
            x = block(x, mask, positions, layer, memory)
        return normalise(self.ln, x)

    read = __call__  # a prompt has at most 448 tokens, so it is read at once

    def _placed(self, embeddings: mx.array, positions: Positions) -> mx.array:
        """Add the position of each column to (batch, new, width) embeddings; return float32."""
        columns = mx.arange(embeddings.shape[1]) + mx.array(positions.position).reshape(-1, 1)  # (batch or 1, new)
        # Padding may reach beyond the last position.
        placed = self.positional_embedding[mx.minimum(columns, self.config.positions - 1)]
        return embeddings.astype(mx.float32) + placed

    def logits(self, hidden: mx.array) -> mx.array:
        """Compute logits (..., vocab) from `hidden` (..., width), cast to float32."""
        return self.token_embedding.as_linear(hidden).astype(mx.float32)

    def first_logits(self, token_id: int, memory: Sequence[Memory]) -> np.ndarray:
        """Compute the logits after this token, the first of a row for each memory: (rows, vocab) float32."""
        start = self.embed(mx.full((len(memory), 1), token_id, mx.int32))
        return np.array(self.logits(self(start, self.make_cache(len(memory), memory))[:, 0]))

    def logits_after(self, token_ids: Sequence[int], memory: Memory, count: int) -> np.ndarray:
        """Read the tokens as one row; return the logits after each of the last ones: (count, vocab) float32."""
        hidden = self(self.embed(mx.array(token_ids))[None], self.make_cache(1, [memory]))
        return np.array(self.logits(hidden[0, -count:]))

    def cross_scores(self, token_ids: Sequence[int], memory: Memory, heads: Sequence[int]) -> np.ndarray:
        """Read the tokens as one row; return the scores of some cross-attention heads, before their softmax.

        Args:
            token_ids: the whole row.
            memory: what the row attends to.
            heads: the heads whose scores to return: a layer times the number of heads, plus a head of it.

        Returns:
            (heads, tokens, rows) float32, in the order of these numbers.
        """
        cache = self.make_cache(1, [memory])
        positions = cache.extend(len(token_ids))
        mask, x = positions.mask(), self._placed(self.embed(mx.array(token_ids))[None], positions)
        scores = []
        for index, (block, layer) in enumerate(zip(self.blocks, cache.layers, strict=True)):
            x = block.attend_to_text(x, mask, positions, layer)
            count = self.config.heads
            if chosen := [number % count for number in sorted(heads) if number // count == index]:
                picked, keys = mx.array(chosen), memory[index][0]
                q, k = (
                    block.cross_queries(x)[0, picked],
                    keys[0, picked],
                )  # (heads, tokens, head_dim), (heads, head_dim, rows)
                scores.append((q @ k).astype(mx.float32) * q.shape[-1] ** -0.5)
            x = block.attend_to_audio(x, memory[index])
        return np.array(mx.concatenate(scores))

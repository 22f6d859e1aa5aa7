"""Qwen3 decoder of any size: embeddings in, hidden states out.

Source: transformers ``models/qwen3/modeling_qwen3.py``; Qwen3 Technical Report (2025), section 2. What differs:
there is no sliding window and no RoPE scaling. No Qwen3 from 0.6B to 32B uses them; configs that do are rejected.
"""

from dataclasses import dataclass

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.cache import DecoderCache, LayerCache, Positions
from funasr_cli.models.layers import attention, embedding, linear, merge_heads, split_heads

POSITIONS_AT_ONCE = 512  # of a prompt, over all rows: the scores of 16 heads for 4,096 columns take 130 MB


@dataclass(frozen=True)
class Qwen3Config:
    """Sizes of a Qwen3 decoder, named as in its ``config.json``."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    attention_bias: bool

    @property
    def cache_values_a_token(self) -> int:
        """Number of values in the KV cache for each token, over all layers."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim


class Attention(nn.Module):
    """Grouped-query attention with RMS-normed queries and keys, and rotary position embeddings."""

    def __init__(self, config: Qwen3Config):
        super().__init__()
        width, head_dim, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.q_proj = linear(width, config.num_attention_heads * head_dim, bias=bias)
        self.k_proj = linear(width, config.num_key_value_heads * head_dim, bias=bias)
        self.v_proj = linear(width, config.num_key_value_heads * head_dim, bias=bias)
        self.o_proj = linear(config.num_attention_heads * head_dim, width, bias=bias)
        self.q_norm = nn.RMSNorm(head_dim, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(head_dim, eps=config.rms_norm_eps)
        self._config = config

    def _rotate(self, x: mx.array, position: int | mx.array) -> mx.array:
        config = self._config
        return mx.fast.rope(
            x, config.head_dim, traditional=False, base=config.rope_theta, scale=1.0, offset=position
        )

    def __call__(
        self, x: mx.array, mask: mx.array | str | None, positions: Positions, cache: LayerCache
    ) -> mx.array:
        """Append `x` (batch, new, hidden) to the cache and attend to all of it; return the same shape."""
        config = self._config
        q = split_heads(self.q_proj(x), config.num_attention_heads, self.q_norm)  # (batch, heads, new, head_dim)
        k = split_heads(self.k_proj(x), config.num_key_value_heads, self.k_norm)
        v = split_heads(self.v_proj(x), config.num_key_value_heads)
        q, k = self._rotate(q, positions.position), self._rotate(k, positions.position)
        k, v = cache.put(k, v, positions)  # (batch, kv_heads, columns, head_dim)
        attended = attention(q, k, v, scale=config.head_dim**-0.5, mask=mask)  # (batch, heads, new, head_dim)
        return self.o_proj(merge_heads(attended))


class MLP(nn.Module):
    """SwiGLU feed-forward network."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_proj = linear(width, hidden, bias=False)
        self.up_proj = linear(width, hidden, bias=False)
        self.down_proj = linear(hidden, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Apply the network to `x` (batch, new, width); return the same shape."""
        return self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward network."""

    def __init__(self, config: Qwen3Config):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(
        self, x: mx.array, mask: mx.array | str | None, positions: Positions, cache: LayerCache
    ) -> mx.array:
        """Apply the layer to `x` (batch, new, hidden); return the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), mask, positions, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3Model(nn.Module):
    """Embedding table, layers and final norm."""

    def __init__(self, config: Qwen3Config):
        super().__init__()
        self.embed_tokens = embedding(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class Qwen3(nn.Module):
    """The decoder with its output head, which is the embedding table if the config ties them."""

    def __init__(self, config: Qwen3Config):
        super().__init__()
        self.model = Qwen3Model(config)
        if not config.tie_word_embeddings:
            self.lm_head = linear(config.hidden_size, config.vocab_size, bias=False)
        self.config = config

    @property
    def dtype(self) -> mx.Dtype:
        """Type of embeddings and hidden states."""
        return self.model.norm.weight.dtype

    @property
    def matrix_dtype(self) -> mx.Dtype:
        """Type in which matrices are stored."""
        return self.model.layers[0].mlp.up_proj.weight.dtype

    def row_bytes(self, columns: int) -> int:
        """Return the memory of a row of this length.

        Keys and values count twice, since they are copied when rows join.
        """
        return 2 * columns * self.config.cache_values_a_token * self.dtype.size

    def embed(self, token_ids: mx.array) -> mx.array:
        """Embed token ids (batch, tokens) as (batch, tokens, hidden)."""
        return self.model.embed_tokens(token_ids)

    def make_cache(self, rows: int, prefix: DecoderCache | None = None) -> DecoderCache:
        """Create a cache of this number of rows, empty or with a copy of `prefix`, a one-row cache, in each."""
        return (
            DecoderCache.joined([(prefix, [0] * rows)]) if prefix else DecoderCache(len(self.model.layers), rows)
        )

    def __call__(self, embeddings: mx.array, cache: DecoderCache) -> mx.array:
        """Append `embeddings` (batch, new, hidden) to the cache; return hidden states of that shape, normed.

        If rows are padded on the right, the caller must discard the padding from the cache (`take_back`).
        """
        positions = cache.extend(embeddings.shape[1])
        mask, x = positions.mask(), embeddings
        for layer, layer_cache in zip(self.model.layers, cache.layers, strict=True):
            x = layer(x, mask, positions, layer_cache)
        return self.model.norm(x)

    def read(self, embeddings: mx.array, cache: DecoderCache) -> mx.array:
        """Prefill prompts in pieces, so that memory grows linearly with their length, not quadratically."""
        rows, columns, _ = embeddings.shape
        size = max(1, POSITIONS_AT_ONCE // rows)
        pieces = []
        for start in range(0, columns, size):
            pieces.append(self(embeddings[:, start : start + size], cache))
            if columns > size:
                mx.eval(pieces[-1])  # and, with it, the keys and values of every layer
        return mx.concatenate(pieces, axis=1)

    def logits(self, hidden: mx.array) -> mx.array:
        """Compute logits (..., vocab) from `hidden` (..., hidden), cast to float32."""
        head = self.model.embed_tokens.as_linear if self.config.tie_word_embeddings else self.lm_head
        return head(hidden).astype(mx.float32)

    def logits_after(self, embeddings: mx.array, count: int) -> mx.array:
        """Compute the logits after each of the last positions of one row: (columns, hidden) -> (count, vocab)."""
        return self.logits(self(embeddings[None], self.make_cache(1))[0, -count:])

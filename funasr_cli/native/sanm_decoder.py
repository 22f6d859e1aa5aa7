"""SAN-M decoder of Paraformer on the C library; `models.sanm_decoder` has the same on MLX, and its source.

The library computes products and norms of all rows together. The rest is small, and NumPy computes it row by row:
6 s of speech have 100 encoder frames and 20 tokens.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from funasr_cli.models.sanm import PLAIN_NORM_EPS
from funasr_cli.models.sanm_decoder import SANMDecoderConfig
from funasr_cli.native.encoder import RELU, Batch, NativeEncoder, NativeNetwork, Weights
from funasr_cli.native.library import Linear, Norm


class FeedForward:
    """A norm, and the feed-forward network after it."""

    def __init__(self, norm: Norm, up: Linear, hidden_norm: Norm, down: Linear):
        self.norm, self.up, self.hidden_norm, self.down = norm, up, hidden_norm, down

    def __call__(self, encoder: NativeEncoder, x: np.ndarray) -> np.ndarray:
        """Map (tokens, width) to the same shape."""
        hidden = encoder.linear(self.up, encoder.norm(self.norm, x), RELU)  # (tokens, hidden)
        return encoder.linear(self.down, encoder.norm(self.hidden_norm, hidden))


class NativeSANMDecoder(NativeNetwork):
    """The decoder: tokens (tokens, width) and a source (rows, width) -> (tokens, width) float32 for each row."""

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: SANMDecoderConfig):
        super().__init__(encoder, weights, config)
        layers = range(config.layers)
        names = [f"decoders.{number}" for number in layers]
        self._feeds = [self._feed_forward(name) for name in (*names, "decoders3.0")]
        self._memory_norms = [self._norm(f"{name}.norm2", PLAIN_NORM_EPS) for name in names]
        self._cross_norms = [self._norm(f"{name}.norm3", PLAIN_NORM_EPS) for name in names]
        self._after_norm = self._norm("after_norm", PLAIN_NORM_EPS)
        self._taps = [  # (taps, width) each
            np.ascontiguousarray(self._weights.vector(f"{name}.self_attn.fsmn_block.weight")[:, :, 0].T)
            for name in names
        ]
        self._q, self._k_v, self._out = (
            [self._linear(f"{name}.src_attn.linear_{part}") for name in names] for part in ("q", "k_v", "out")
        )
        self._head = self._linear("output_layer") if config.vocab_size else None

    def _feed_forward(self, name: str) -> FeedForward:
        down = self._weights.matrix(f"{name}.feed_forward.w_2")
        self._kept.append(down)
        return FeedForward(
            self._norm(f"{name}.norm1", PLAIN_NORM_EPS),
            self._linear(f"{name}.feed_forward.w_1"),
            self._norm(f"{name}.feed_forward.norm", PLAIN_NORM_EPS),
            Linear(down.matrix, None),
        )

    def __call__(self, tokens: Sequence[np.ndarray], sources: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Decode a batch."""
        batch, source = Batch.of(tokens), Batch.of(sources)
        for layer in range(self.config.layers):
            batch = self._remembered(layer, batch)
            attended = np.concatenate([attend(*row)[1] for row in self._heads(layer, batch, source)])
            batch = batch._replace(x=batch.x + self.encoder.linear(self._out[layer], attended))
        return batch._replace(
            x=self.encoder.norm(self._after_norm, self._feeds[-1](self.encoder, batch.x))
        ).split()

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Compute logits (tokens, vocab) of the output (tokens, width) for one row."""
        assert self._head
        return self.encoder.linear(self._head, np.ascontiguousarray(x))

    def attention(self, x: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Return how much each token of one row attends to each row of the source in the last cross-attention.

        (tokens, width), (rows, width) -> (heads, tokens, rows) float32
        """
        batch, rows = Batch.of([x]), Batch.of([source])
        last = self.config.layers - 1
        for layer in range(last):
            batch = self._remembered(layer, batch)
            [row] = self._heads(layer, batch, rows)
            batch = batch._replace(x=batch.x + self.encoder.linear(self._out[layer], attend(*row)[1]))
        [row] = self._heads(last, self._remembered(last, batch), rows)
        return attend(*row)[0]

    def _remembered(self, layer: int, batch: Batch) -> Batch:
        """Apply the feed-forward network and the memory of a layer."""
        y = self.encoder.norm(self._memory_norms[layer], self._feeds[layer](self.encoder, batch.x))
        taps = self._taps[layer]
        before = (len(taps) - 1) // 2 + max(self.config.memory_shift, 0)
        total = batch.x + y
        for start, end in zip(batch.offsets, batch.offsets[1:], strict=False):
            padded = np.pad(y[start:end], [(before, len(taps) - 1 - before), (0, 0)])
            for tap, weights in enumerate(taps):
                total[start:end] += padded[tap : tap + end - start] * weights
        return batch._replace(x=total)

    def _heads(
        self, layer: int, batch: Batch, source: Batch
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield queries, keys and values of each row, (heads, tokens or rows, head_dim) each."""
        q = self.encoder.linear(self._q[layer], self.encoder.norm(self._cross_norms[layer], batch.x))
        k, v = np.split(self.encoder.linear(self._k_v[layer], source.x), 2, axis=1)
        for row in range(len(batch.offsets) - 1):
            own, others = (slice(*each.offsets[row : row + 2]) for each in (batch, source))
            yield tuple(  # type: ignore[misc]
                part.reshape(len(part), self.config.heads, -1).swapaxes(0, 1)
                for part in (q[own], k[others], v[others])
            )


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Attend from (heads, tokens, head_dim) to (heads, rows, head_dim) twice.

    Return the weights (heads, tokens, rows) and the result (tokens, heads * head_dim).
    """
    scores = (q * np.float32(q.shape[-1] ** -0.5)) @ k.swapaxes(1, 2)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores, np.ascontiguousarray((scores @ v).swapaxes(0, 1)).reshape(q.shape[1], -1)

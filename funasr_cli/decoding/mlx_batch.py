"""A batch on MLX: rows padded to equal widths, lazy arrays, and on a GPU the next step computed ahead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from funasr_cli.compute.backend import mx, on_accelerator
from funasr_cli.decoding.batch import Batch, Token
from funasr_cli.decoding.cost import RunCost
from funasr_cli.decoding.draft import CTCDraft
from funasr_cli.decoding.rules import LogitRules, ruled
from funasr_cli.decoding.sampling import Sampler, log_probabilities
from funasr_cli.models.cache import DecoderCache
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.models.whisper_decoder import WhisperDecoder

BUCKETS_AN_OCTAVE = 16  # number of padded lengths from one power of two to the next: wastes at most 1/16


@dataclass(frozen=True)
class Predictions:
    """Result of a forward pass over `width` positions of each row: its last token, then its proposed tokens."""

    ids: mx.array  # (batch * width,) the token sampled after each position, row by row
    logprobs: mx.array  # (batch * width,) of these tokens
    proposals: list[list[int]]  # the proposed tokens of each row, at most `width - 1`

    def keep(self, kept: list[int]) -> "Predictions":
        """Select some rows of a pass of width 1."""
        rows = mx.array(kept)
        return Predictions(self.ids[rows], self.logprobs[rows], [self.proposals[row] for row in kept])


def bucketed(length: int) -> int:
    """Round a length up to one of few values, since MLX caches freed buffers of every size it has used."""
    step = max(1, (1 << length.bit_length() - 1) // BUCKETS_AN_OCTAVE)
    return -(-length // step) * step


def right_pad(rows: Sequence[mx.array]) -> mx.array:
    """Pad rows (length, hidden) with zeros and stack them as (batch, columns, hidden)."""
    columns = bucketed(max(row.shape[0] for row in rows))
    return mx.stack([mx.pad(row, [(0, columns - row.shape[0]), (0, 0)]) for row in rows])


class MLXBatch(Batch):
    """Rows in one KV cache on MLX, which holds the shared prefix of all prompts in every row.

    On a GPU, the next step is already computed while the caller handles the tokens of the last one, unless the
    drafts need these tokens first. A CPU would waste that work on rows that have just ended.
    """

    def __init__(
        self,
        llm: Qwen3 | WhisperDecoder,
        sampler: Sampler,
        rows: list[int],
        drafts: list[CTCDraft | None],
        start: Any = None,
        rules: list[LogitRules] | None = None,
    ):
        """Make a batch as `Batch` does.

        Args:
            llm: the decoder.
            sampler: as for `Batch`.
            rows: as for `Batch`.
            drafts: as for `Batch`.
            start: what the rows begin with, as the decoder's `make_cache` takes it: shared prefix or memory.
            rules: as for `Batch`.
        """
        super().__init__(sampler, rows, drafts, RunCost.of(llm), rules)
        self._llm = llm
        self.cache = llm.make_cache(len(rows), start)
        self._last_ids: mx.array | None = None  # (batch,) last sampled tokens, not in the cache yet
        self._in_flight: Predictions | None = None  # of the step that is computed ahead

    @staticmethod
    def read_prefix(llm: Qwen3, embeddings: mx.array) -> DecoderCache:
        """Read the (length, hidden) embeddings that all prompts begin with, as one row."""
        cache = llm.make_cache(1)
        llm.read(embeddings[None], cache)
        return cache

    def prefill(self, prompts: Sequence[mx.array]) -> list[Token]:
        """Read the prompts together with the first proposals; see `Batch`."""
        lengths = [len(prompt) for prompt in prompts]
        proposals = self._proposals(RunCost(self._cost.fixed))  # prompts are long, so BLAS needs no padded rows
        embeddings = right_pad(
            [
                mx.concatenate([prompt, self._llm.embed(mx.array(ids))]) if ids else prompt
                for prompt, ids in zip(prompts, proposals, strict=True)
            ]
        )
        hidden = self._llm.read(embeddings, self.cache)
        width = 1 + max(map(len, proposals))
        columns = mx.array(lengths)[:, None] - 1 + mx.arange(width)  # (batch, width)
        # The last position of each prompt and those of its proposal, (batch, width, hidden).
        hidden = hidden[mx.arange(len(prompts))[:, None], mx.minimum(columns, hidden.shape[1] - 1)]
        # As after `_forward`, for `_accepted`: each row keeps its prompt and `width` - 1 more columns.
        self.cache.take_back([embeddings.shape[1] - length - width + 1 for length in lengths])
        return self._accepted(self._predictions(hidden, proposals))

    def step(self, *, run_ahead: bool) -> list[Token]:
        """Return the next tokens of every row; see `Batch`."""
        predictions, self._in_flight = self._in_flight or self._forward(), None
        if run_ahead:
            self.run_ahead()
        return self._accepted(predictions)

    def run_ahead(self) -> None:
        """Start the next step on a GPU, unless it depends on tokens that are not known yet."""
        if on_accelerator() and not self.drafting and not any(rules.need_tokens for rules in self._rules):
            self._in_flight = self._forward()
            mx.async_eval(self._in_flight.ids, self._in_flight.logprobs)

    def close(self) -> None:
        """Release the cache."""
        self.cache, self._in_flight = DecoderCache(0, 0), None

    def keep(self, kept: list[int]) -> None:
        """Keep only these rows, at least one."""
        super().keep(kept)
        self.cache = DecoderCache.joined([(self.cache, kept)])
        assert self._last_ids is not None
        self._last_ids = self._last_ids[mx.array(kept)]
        self._in_flight = self._in_flight and self._in_flight.keep(kept)

    def join(self, other: Self) -> None:
        """Append the rows of another batch. Neither may have a step in flight."""
        parts = [(batch.cache, range(len(batch.rows))) for batch in (self, other)]
        self.cache = DecoderCache.joined(parts)
        self._last_ids = mx.concatenate([self._last_ids, other._last_ids])
        super().join(other)

    def _forward(self) -> Predictions:
        """Run the decoder over each row's last token and its proposal, lazily."""
        assert self._last_ids is not None
        proposals = self._proposals(self._cost)
        width = 1 + max(map(len, proposals))
        ids = self._last_ids[:, None]
        if width > 1:
            padded = [proposal + [0] * (width - 1 - len(proposal)) for proposal in proposals]
            ids = mx.concatenate([ids, mx.array(padded, ids.dtype)], axis=1)  # (batch, width)
        return self._predictions(self._llm(self._llm.embed(ids), self.cache), proposals)

    def _predictions(self, hidden: mx.array, proposals: list[list[int]]) -> Predictions:
        """Sample the token after each position of `hidden` (batch, width, hidden), lazily."""
        width = hidden.shape[1]
        logits = self._llm.logits(hidden.reshape(-1, hidden.shape[-1]))  # (batch * width, vocab)
        logits = ruled(logits, self._rules, self._steps, self._written)
        ids = self._sampler(logits, [step + place for step in self._steps for place in range(width)])
        logprobs = log_probabilities(logits, ids)
        if width == 1:  # without proposals, the next step does not depend on the values
            self._last_ids = ids
            self._count([1] * len(self.rows))
        return Predictions(ids, logprobs, proposals)

    def _accepted(self, predictions: Predictions) -> list[Token]:
        """Return each row's accepted tokens; discard rejected ones from the cache."""
        mx.eval(predictions.ids, predictions.logprobs)
        width = predictions.ids.size // len(self.rows)
        ids, logprobs = (
            np.array(flat).reshape(-1, width).tolist() for flat in (predictions.ids, predictions.logprobs)
        )
        accepted, tokens = self._accept(predictions.proposals, ids, logprobs)
        self._write(tokens)
        if width > 1:
            self.cache.take_back([width - 1 - count for count in accepted])
            last = [sampled[count] for sampled, count in zip(ids, accepted, strict=True)]
            self._last_ids = mx.array(last, predictions.ids.dtype)
            self._count([count + 1 for count in accepted])
        return tokens

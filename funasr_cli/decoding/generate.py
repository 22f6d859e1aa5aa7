"""Autoregressive decoding of a batch whose rows come and go."""

import math
from dataclasses import dataclass

from funasr_cli.backend import mx, on_accelerator
from funasr_cli.decoding.sampling import Sampler, log_probabilities
from funasr_cli.models.cache import DecoderCache
from funasr_cli.models.qwen3 import Qwen3

BUCKETS_AN_OCTAVE = 16  # padded lengths are rounded up to one of these: at most 1/16 is wasted


@dataclass(frozen=True)
class Token:
    """One decoded token of one row.

    Attributes:
        row: the number that `BatchDecoder.add` gave the row.
        finite: whether all logits behind it were numbers.
    """

    row: int
    token_id: int
    logprob: float

    @property
    def finite(self) -> bool:
        """Whether the decoder still works: one NaN or infinity among the logits shows in their sum."""
        return math.isfinite(self.logprob)


def bucketed(length: int) -> int:
    """Round up to one of few lengths: MLX keeps buffers of every size that it has met."""
    step = max(1, (1 << length.bit_length() - 1) // BUCKETS_AN_OCTAVE)
    return -(-length // step) * step


def left_pad(prompts: list[mx.array]) -> tuple[mx.array, list[int]]:
    """Join rows of different lengths so that all end in the last column.

    Args:
        prompts: one (length, hidden) array a row.

    Returns:
        (batch, columns, hidden), and how many columns of padding stand in front of each row.
    """
    columns = bucketed(max(prompt.shape[0] for prompt in prompts))
    padding = [columns - prompt.shape[0] for prompt in prompts]
    rows = [mx.pad(prompt, [(pad, 0), (0, 0)]) for prompt, pad in zip(prompts, padding, strict=True)]
    return mx.stack(rows), padding


class BatchDecoder:
    """Writes many rows side by side, a token of each at every step; rows come and go between the steps.

    On a GPU the next step is under way while the caller handles the last one's tokens; a CPU would waste it on
    rows that have just ended.

    Args:
        llm: the decoder.
        sampler: picks ids from logits.
        shared_rows: rows that all prompts begin with; they are computed once.
    """

    def __init__(self, llm: Qwen3, sampler: Sampler, shared_rows: int = 0):
        self._llm = llm
        self._sampler = sampler
        self._eager = on_accelerator()
        self._shared_rows = shared_rows
        self._prefix: DecoderCache | None = None  # what the decoder keeps of them
        self._added = 0
        self._live: set[int] = set()
        self._rows: list[int] = []  # number of each row of the batch, ended ones among them
        self._steps: list[int] = []  # tokens sampled for each
        self._cache: DecoderCache | None = None
        self._last_ids: mx.array | None = None  # (batch,) what the last step returned
        self._pending: tuple[mx.array, mx.array] | None = None  # what the next one will: ids, log-probabilities

    def __len__(self) -> int:
        return len(self._live)

    def add(self, prompts: list[mx.array]) -> list[int]:
        """Read prompts; their rows take part from the next step on.

        Args:
            prompts: one (length, hidden) array of embeddings a row.

        Returns:
            The numbers of the new rows.
        """
        known = self._shared_rows if self._prefix else 0
        embeddings, padding = left_pad([prompt[known:] for prompt in prompts])
        cache = self._llm.make_cache(padding, self._prefix)
        pending = self._advance(embeddings, cache, [0] * len(prompts))
        mx.eval(*pending)
        if self._shared_rows and not self._prefix:
            self._prefix = cache.beginning(self._shared_rows)
        self._keep_live_rows()
        numbers = list(range(self._added, self._added + len(prompts)))
        self._added += len(prompts)
        if self._rows:
            old = self._next()
            assert self._cache is not None
            parts = [(self._cache, list(range(len(self._rows)))), (cache, list(range(len(prompts))))]
            cache = DecoderCache.joined(parts)
            pending = mx.concatenate([old[0], pending[0]]), mx.concatenate([old[1], pending[1]])
        self._cache, self._pending = cache, pending
        self._rows += numbers
        self._steps += [1] * len(prompts)
        self._live.update(numbers)
        return numbers

    def end(self, row: int) -> None:
        """Take a row out."""
        self._live.discard(row)

    def step(self) -> list[Token]:
        """The next token of each row that has not been ended, in the order of their adding."""
        if len(self._live) * 2 <= len(self._rows):
            self._keep_live_rows()
        if not self._rows:
            return []
        ids, logprobs = self._next()
        self._last_ids, self._pending = ids, None
        if self._eager:
            mx.async_eval(*self._next())
        mx.eval(ids, logprobs)
        return [
            Token(*token)
            for token in zip(self._rows, ids.tolist(), logprobs.tolist(), strict=True)
            if token[0] in self._live
        ]

    def _next(self) -> tuple[mx.array, mx.array]:
        """What the next step returns; on a GPU, as a graph that has yet to be evaluated."""
        if self._pending is None:
            assert self._cache is not None
            assert self._last_ids is not None
            self._pending = self._advance(self._llm.embed(self._last_ids[:, None]), self._cache, self._steps)
            self._steps = [steps + 1 for steps in self._steps]
        return self._pending

    def _advance(self, embeddings: mx.array, cache: DecoderCache, steps: list[int]) -> tuple[mx.array, mx.array]:
        """(batch, new, hidden) -> the ids that follow, and their log-probabilities, each (batch,)."""
        logits = self._llm.logits(self._llm(embeddings, cache)[:, -1])  # (batch, vocab)
        ids = self._sampler(logits, steps)
        return ids, log_probabilities(logits, ids)

    def _keep_live_rows(self) -> None:
        """Make the batch smaller where rows have ended."""
        kept = [index for index, row in enumerate(self._rows) if row in self._live]
        if len(kept) == len(self._rows):
            return
        self._rows = [self._rows[index] for index in kept]
        self._steps = [self._steps[index] for index in kept]
        if not kept:
            self._cache = self._last_ids = self._pending = None
            return
        assert self._cache is not None
        chosen = mx.array(kept)
        self._cache = DecoderCache.joined([(self._cache, kept)])
        self._last_ids = None if self._last_ids is None else self._last_ids[chosen]
        if self._pending is not None:
            self._pending = self._pending[0][chosen], self._pending[1][chosen]

"""Autoregressive decoding with continuous batching and speculative decoding.

Continuous batching: rows join and leave the batch between steps (`BatchDecoder.add` and `BatchDecoder.end`).

Speculative decoding: a row may have a draft, the CTC branch's text (`CTCDraft`), which proposes its next tokens.
One forward pass of the decoder verifies all of them. It accepts the longest prefix that the sampler would have
chosen itself, so the text is the same with and without drafts.
Source: Leviathan, Kalman and Matias 2023, "Fast Inference from Transformers via Speculative Decoding", section
2.3. What differs: the draft is a text, not a distribution, so a proposed token is accepted only if it equals the
sampled one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from funasr_cli.compute.backend import mx, on_accelerator
from funasr_cli.decoding.draft import MOST_TOKENS, CTCDraft
from funasr_cli.decoding.sampling import Sampler, log_probabilities
from funasr_cli.models.cache import DecoderCache
from funasr_cli.models.layers import FEW_ROWS, FULL_ROWS
from funasr_cli.models.qwen3 import Qwen3

BUCKETS_AN_OCTAVE = 16  # number of padded lengths from one power of two to the next: wastes at most 1/16
# Fixed cost of a forward pass of the decoder (reading its weights), in positions; see docs/performance.md.
# On a CPU, MLX's products in other types than float32 gain nothing from computing several positions together.
CPU_FIXED_POSITIONS, CPU_SLOW_FIXED_POSITIONS, GPU_FIXED_POSITIONS = 16, 1, 128
MOST_POSITIONS = 128  # in one pass, since each one's logits take 0.6 MB in the release


@dataclass(frozen=True)
class Token:
    """A decoded token of one row."""

    row: int  # the number that `BatchDecoder.add` gave the row
    token_id: int
    logprob: float
    drafted: bool = False  # proposed by the row's draft and accepted

    @property
    def finite(self) -> bool:
        """Whether all logits were finite: a NaN or infinity in any of them also shows in this log-probability."""
        return math.isfinite(self.logprob)


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


@dataclass(frozen=True)
class RunCost:
    """Cost of a forward pass of the decoder, in positions."""

    fixed: int  # regardless of the number of positions
    padded: int = 0  # minimum for three or more positions

    @classmethod
    def of(cls, llm: Qwen3) -> "RunCost":
        """Estimate the cost for this decoder on this device."""
        if on_accelerator():
            return cls(GPU_FIXED_POSITIONS)
        dense = llm.model.layers[0].mlp.up_proj.weight.dtype == mx.float32
        return cls(CPU_FIXED_POSITIONS, FULL_ROWS) if dense else cls(CPU_SLOW_FIXED_POSITIONS)

    def __call__(self, positions: int) -> int:
        """Return the cost of a forward pass over `positions` tokens, summed over rows."""
        return self.fixed + (positions if positions <= FEW_ROWS else max(positions, self.padded))


def tried_at_once(lengths: Sequence[int], odds: Sequence[tuple[float, float]], cost: RunCost) -> int:
    """Choose how many proposed tokens per row to verify in one pass, for the most expected tokens per cost.

    Args:
        lengths: the number of proposed tokens of each row.
        odds: `CTCDraft.odds` of each row.
        cost: of a pass.
    """
    tokens = float(len(lengths))  # expected: each row gets one in any case
    best, best_rate = 0, tokens / cost(len(lengths))
    most = min(max(lengths), MOST_POSITIONS // len(lengths) - 1)
    for tried in range(1, most + 1):
        pairs = zip(lengths, odds, strict=True)
        tokens += sum(first * further ** (tried - 1) for length, (first, further) in pairs if length >= tried)
        rate = tokens / cost(len(lengths) * (1 + tried))
        if rate > best_rate:
            best, best_rate = tried, rate
    return best


_tried_at_once = lru_cache(maxsize=64)(tried_at_once)  # while drafts pause, the arguments stay the same


@dataclass(eq=False)
class Batch:
    """Rows that are decoded together: their KV cache, their drafts and their last tokens.

    `prefill` or `forward` runs the decoder; `accept` takes the tokens from the result.
    """

    llm: Qwen3
    sampler: Sampler
    rows: list[int]  # their numbers
    drafts: list[CTCDraft | None]  # of each row
    cache: DecoderCache  # holds the shared prefix of all prompts in every row

    def __post_init__(self) -> None:
        """Initialise the state of rows without any sampled token."""
        self._cost = RunCost.of(self.llm)
        self._steps = [0] * len(self.rows)  # number of sampled tokens
        self._last_ids: mx.array | None = None  # (batch,) last sampled tokens, not in the cache yet

    def prefill(self, prompts: list[mx.array]) -> Predictions:
        """Read the prompts, (length, hidden) embeddings each, together with the first proposals."""
        lengths = [len(prompt) for prompt in prompts]
        proposals = self._proposals(RunCost(self._cost.fixed))  # prompts are long, so BLAS needs no padded rows
        embeddings = right_pad(
            [
                mx.concatenate([prompt, self.llm.embed(mx.array(ids))]) if ids else prompt
                for prompt, ids in zip(prompts, proposals, strict=True)
            ]
        )
        hidden = self.llm.read(embeddings, self.cache)
        width = 1 + max(map(len, proposals))
        columns = mx.array(lengths)[:, None] - 1 + mx.arange(width)  # (batch, width)
        # The last position of each prompt and those of its proposal, (batch, width, hidden).
        hidden = hidden[mx.arange(len(prompts))[:, None], mx.minimum(columns, hidden.shape[1] - 1)]
        # As after `forward`, for `accept`: each row keeps its prompt and `width` - 1 more columns.
        self.cache.take_back([embeddings.shape[1] - length - width + 1 for length in lengths])
        return self._predictions(hidden, proposals)

    def forward(self) -> Predictions:
        """Run the decoder over each row's last token and its proposal."""
        assert self._last_ids is not None
        proposals = self._proposals(self._cost)
        width = 1 + max(map(len, proposals))
        ids = self._last_ids[:, None]
        if width > 1:
            padded = [proposal + [0] * (width - 1 - len(proposal)) for proposal in proposals]
            ids = mx.concatenate([ids, mx.array(padded, ids.dtype)], axis=1)  # (batch, width)
        return self._predictions(self.llm(self.llm.embed(ids), self.cache), proposals)

    def drop_draft(self, row: int) -> None:
        """Stop using this row's draft."""
        self.drafts[self.rows.index(row)] = None

    @property
    def drafting(self) -> bool:
        """Whether verifying proposals is worth its cost at the next step."""
        return self._best_length(self._cost) > 0

    def _best_length(self, cost: RunCost, proposals: Sequence[Sequence[int]] | None = None) -> int:
        """Choose how many tokens of each proposal to verify; None assumes full length, the best case."""
        full = [[0] * MOST_TOKENS if draft else [] for draft in self.drafts]
        odds = tuple(draft.odds if draft else (0.0, 0.0) for draft in self.drafts)
        return _tried_at_once(tuple(map(len, full if proposals is None else proposals)), odds, cost)

    def _proposals(self, cost: RunCost) -> list[list[int]]:
        """Return the proposed tokens of each row that are worth verifying; drop drafts that have none left."""
        proposals: list[list[int]] = [[] for _ in self.rows]
        if not self._best_length(cost):
            return proposals
        for index, draft in enumerate(self.drafts):
            proposal = draft.propose() if draft else None
            if proposal is None:
                self.drafts[index] = None
            else:
                proposals[index] = proposal
        best = self._best_length(cost, proposals)
        return [proposal[:best] for proposal in proposals]

    def _predictions(self, hidden: mx.array, proposals: list[list[int]]) -> Predictions:
        """Sample the token after each position of `hidden` (batch, width, hidden), lazily."""
        width = hidden.shape[1]
        logits = self.llm.logits(hidden.reshape(-1, hidden.shape[-1]))  # (batch * width, vocab)
        ids = self.sampler(logits, [step + place for step in self._steps for place in range(width)])
        logprobs = log_probabilities(logits, ids)
        if width == 1:  # without proposals, the next step does not depend on the values
            self._last_ids = ids
            self._steps = [step + 1 for step in self._steps]
        return Predictions(ids, logprobs, proposals)

    def accept(self, predictions: Predictions) -> list[Token]:
        """Return each row's accepted tokens: the agreeing prefix of its proposal, and the token sampled after it.

        Rejected tokens are discarded from the cache, and the drafts learn how many of theirs were accepted.
        """
        mx.eval(predictions.ids, predictions.logprobs)
        width = predictions.ids.size // len(self.rows)
        ids, logprobs = (
            np.array(flat).reshape(-1, width).tolist() for flat in (predictions.ids, predictions.logprobs)
        )
        accepted = [
            _common_prefix(proposal, sampled) for proposal, sampled in zip(predictions.proposals, ids, strict=True)
        ]
        if width > 1:
            self.cache.take_back([width - 1 - count for count in accepted])
            last = [sampled[count] for sampled, count in zip(ids, accepted, strict=True)]
            self._last_ids = mx.array(last, predictions.ids.dtype)
            self._steps = [step + count + 1 for step, count in zip(self._steps, accepted, strict=True)]
        for draft, proposal, count in zip(self.drafts, predictions.proposals, accepted, strict=True):
            if draft and proposal:
                draft.judge(len(proposal), count)
        return [
            Token(row, ids[index][place], logprobs[index][place], drafted=place < accepted[index])
            for index, row in enumerate(self.rows)
            for place in range(accepted[index] + 1)
        ]

    def keep(self, kept: list[int]) -> None:
        """Keep only these rows, at least one."""
        self.rows = [self.rows[index] for index in kept]
        self.drafts = [self.drafts[index] for index in kept]
        self._steps = [self._steps[index] for index in kept]
        self.cache = DecoderCache.joined([(self.cache, kept)])
        assert self._last_ids is not None
        self._last_ids = self._last_ids[mx.array(kept)]

    def join(self, other: "Batch") -> None:
        """Append the rows of another batch."""
        parts = [(batch.cache, range(len(batch.rows))) for batch in (self, other)]
        self.cache = DecoderCache.joined(parts)
        self.rows = self.rows + other.rows
        self.drafts += other.drafts
        self._steps += other._steps
        self._last_ids = mx.concatenate([self._last_ids, other._last_ids])


def _common_prefix(proposal: Sequence[int], sampled: Sequence[int]) -> int:
    """Return the length of the common prefix."""
    pairs = zip(proposal, sampled, strict=False)
    return next((count for count, (one, other) in enumerate(pairs) if one != other), len(proposal))


class BatchDecoder:
    """Continuous-batching decoder: rows join and leave between steps, and each step decodes tokens for all rows.

    A row gets one token per step, or several if the decoder accepts its draft's proposals.

    On a GPU, the next step is already computed while the caller handles the tokens of the last one, unless the
    drafts need these tokens first. A CPU would waste that work on rows that have just ended.

    The first `shared_rows` embeddings are the same in all prompts. They are prefilled once, as one row, and their
    keys and values are copied to every row that joins.
    """

    def __init__(self, llm: Qwen3, sampler: Sampler, shared_rows: int = 0):
        self._llm = llm
        self._sampler = sampler
        self._runs_ahead = on_accelerator()
        self._shared_rows = shared_rows
        self._prefix: DecoderCache | None = None  # of the shared embeddings, one row
        self._added = 0
        self._live: set[int] = set()
        self._batch: Batch | None = None  # may still contain rows that have ended
        self._in_flight: Predictions | None = None  # of the step that is computed ahead
        self._ready: list[Token] = []  # tokens for the next step to return, for all rows or for none

    def __len__(self) -> int:
        return len(self._live)

    def add(self, prompts: list[mx.array], drafts: Sequence[CTCDraft | None] | None = None) -> list[int]:
        """Prefill prompts, (length, hidden) embeddings each, and return the numbers of the new rows.

        The next step returns their first tokens.
        """
        numbers = list(range(self._added, self._added + len(prompts)))
        self._added += len(prompts)
        if self._shared_rows and not self._prefix:
            prefix = self._llm.make_cache(1)
            self._llm.read(prompts[0][None, : self._shared_rows], prefix)
            self._prefix = prefix
        cache = self._llm.make_cache(len(prompts), self._prefix)
        new = Batch(self._llm, self._sampler, numbers, list(drafts or [None] * len(prompts)), cache)
        tokens = new.accept(new.prefill([prompt[self._shared_rows :] for prompt in prompts]))
        self._keep_live_rows()
        if self._batch:
            self._ready = self._ready or self._batch.accept(self._in_flight or self._batch.forward())
            self._batch.join(new)
        else:
            self._batch, self._ready = new, []
        self._ready += tokens
        self._in_flight = None
        self._live.update(numbers)
        return numbers

    def end(self, row: int) -> None:
        """End a row. It leaves the batch when others join, or when half of the batch's rows have ended."""
        if row in self._live and self._batch:
            self._live.remove(row)
            self._batch.drop_draft(row)

    def step(self) -> list[Token]:
        """Return the next tokens of every live row, row by row, in the order in which the rows were added."""
        if self._batch and len(self._live) * 2 <= len(self._batch.rows):
            self._keep_live_rows()
        if not self._batch:
            return []
        ready, self._ready = self._ready, []
        predictions = None if ready else self._in_flight or self._batch.forward()
        self._in_flight = None
        if self._runs_ahead and not self._batch.drafting:
            self._in_flight = self._batch.forward()
            mx.async_eval(self._in_flight.ids, self._in_flight.logprobs)
        if predictions:
            ready = self._batch.accept(predictions)
        return [token for token in ready if token.row in self._live]

    def _keep_live_rows(self) -> None:
        """Remove rows that have ended from the batch."""
        if not self._batch:
            return
        kept = [index for index, row in enumerate(self._batch.rows) if row in self._live]
        if not kept:
            self._batch = self._in_flight = None
        elif len(kept) < len(self._batch.rows):
            self._batch.keep(kept)
            self._in_flight = self._in_flight and self._in_flight.keep(kept)

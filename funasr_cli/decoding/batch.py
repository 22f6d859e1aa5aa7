"""Token by token, in a batch whose rows come and go, each perhaps with a draft that saves it steps.

Source of the drafted steps: Leviathan, Kalman and Matias 2023, "Fast Inference from Transformers via Speculative
Decoding", section 2.3. What differs: a draft is a text instead of a distribution. A token of it is kept where the
sampler would have chosen it anyway, so that what is written is the same with and without drafts.
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

BUCKETS_AN_OCTAVE = 16  # padded lengths are rounded up to one of these: at most 1/16 is wasted
# What a run of the decoder costs whatever it computes (reading its weights), in positions: docs/performance.md.
# On a CPU, MLX's products of other types than float32 cost as much for each position as if it were alone.
CPU_FIXED_POSITIONS, CPU_SLOW_FIXED_POSITIONS, GPU_FIXED_POSITIONS = 16, 1, 128
MOST_POSITIONS = 128  # whose logits are in memory together: 0.6 MB each in the release


@dataclass(frozen=True)
class Token:
    """One decoded token of one row."""

    row: int  # the number that `BatchDecoder.add` gave the row
    token_id: int
    logprob: float
    drafted: bool = False  # the row's draft had it

    @property
    def finite(self) -> bool:
        """Whether the decoder still works: one NaN or infinity among the logits shows in their sum."""
        return math.isfinite(self.logprob)


@dataclass(frozen=True)
class Answers:
    """What one run of the decoder says."""

    ids: mx.array  # (batch * width,) what follows each position that was asked about, row by row
    logprobs: mx.array  # (batch * width,), of these
    proposals: list[list[int]]  # of each row, which was asked about its last position before and all of these

    def of_rows(self, chosen: list[int]) -> "Answers":
        """Keep some of the rows, where each has one position."""
        rows = mx.array(chosen)
        return Answers(self.ids[rows], self.logprobs[rows], [self.proposals[row] for row in chosen])


def bucketed(length: int) -> int:
    """Round up to one of few lengths: MLX keeps buffers of every size that it has met."""
    step = max(1, (1 << length.bit_length() - 1) // BUCKETS_AN_OCTAVE)
    return -(-length // step) * step


def right_pad(rows: Sequence[mx.array]) -> mx.array:
    """(length, hidden) a row -> (batch, columns, hidden)."""
    columns = bucketed(max(row.shape[0] for row in rows))
    return mx.stack([mx.pad(row, [(0, columns - row.shape[0]), (0, 0)]) for row in rows])


@dataclass(frozen=True)
class RunCost:
    """What a run of the decoder costs, in positions."""

    fixed: int  # whatever it computes
    padded: int = 0  # what three positions or more cost at least

    @classmethod
    def of(cls, llm: Qwen3) -> "RunCost":
        """Estimate it for this decoder on this device."""
        if on_accelerator():
            return cls(GPU_FIXED_POSITIONS)
        dense = llm.model.layers[0].mlp.up_proj.weight.dtype == mx.float32
        return cls(CPU_FIXED_POSITIONS, FULL_ROWS) if dense else cls(CPU_SLOW_FIXED_POSITIONS)

    def __call__(self, positions: int) -> int:
        """Return the cost of a run that computes this number of positions, all rows together."""
        return self.fixed + (positions if positions <= FEW_ROWS else max(positions, self.padded))


def tried_at_once(lengths: Sequence[int], odds: Sequence[tuple[float, float]], cost: RunCost) -> int:
    """Choose how much of all rows' proposals to try in one run: what brings the most tokens for its cost.

    `lengths` are those of the proposals, `odds` those of `CTCDraft.odds`.
    """
    tokens = float(len(lengths))  # one of each row in any case
    width, best_rate = 0, tokens / cost(len(lengths))
    most = min(max(lengths), MOST_POSITIONS // len(lengths) - 1)
    for tried in range(1, most + 1):
        pairs = zip(lengths, odds, strict=True)
        tokens += sum(first * further ** (tried - 1) for length, (first, further) in pairs if length >= tried)
        rate = tokens / cost(len(lengths) * (1 + tried))
        if rate > best_rate:
            width, best_rate = tried, rate
    return width


_tried_at_once = lru_cache(maxsize=64)(tried_at_once)  # while drafts wait, each step asks the same


@dataclass(eq=False)
class Batch:
    """Rows that the decoder works on together: their cache, and what each of them reads next."""

    llm: Qwen3
    sampler: Sampler
    rows: list[int]  # their numbers
    drafts: list[CTCDraft | None]  # of each row
    cache: DecoderCache  # with what all prompts begin with in every row

    def __post_init__(self) -> None:
        """Nothing has been sampled yet."""
        self._cost = RunCost.of(self.llm)
        self._steps = [0] * len(self.rows)  # tokens sampled
        self._last_ids: mx.array | None = None  # (batch,) not yet in the cache

    def read(self, prompts: list[mx.array]) -> Answers:
        """Begin with (length, hidden) embeddings a row."""
        lengths = [len(prompt) for prompt in prompts]
        proposals = self._proposals(RunCost(self._cost.fixed))  # nothing is padded: the prompts are long
        embeddings = right_pad(
            [
                mx.concatenate([prompt, self.llm.embed(mx.array(ids))]) if ids else prompt
                for prompt, ids in zip(prompts, proposals, strict=True)
            ]
        )
        hidden = self.llm.read(embeddings, self.cache)
        width = 1 + max(map(len, proposals))
        columns = mx.array(lengths)[:, None] - 1 + mx.arange(width)  # (batch, width)
        asked = hidden[mx.arange(len(prompts))[:, None], mx.minimum(columns, hidden.shape[1] - 1)]
        # As `go_on` leaves it, for `take`: each row with its prompt and `width` - 1 more.
        self.cache.take_back([embeddings.shape[1] - length - width + 1 for length in lengths])
        return self._answers(asked, proposals)

    def go_on(self) -> Answers:
        """Read what was written last, and proposals."""
        assert self._last_ids is not None
        proposals = self._proposals(self._cost)
        width = 1 + max(map(len, proposals))
        ids = self._last_ids[:, None]
        if width > 1:
            padded = [proposal + [0] * (width - 1 - len(proposal)) for proposal in proposals]
            ids = mx.concatenate([ids, mx.array(padded, ids.dtype)], axis=1)  # (batch, width)
        return self._answers(self.llm(self.llm.embed(ids), self.cache), proposals)

    def end(self, row: int) -> None:
        """Ask no more of this row's draft."""
        self.drafts[self.rows.index(row)] = None

    @property
    def drafting(self) -> bool:
        """Whether it pays to ask the drafts at the next step."""
        return self._most_that_pays(self._cost) > 0

    def _most_that_pays(self, cost: RunCost, proposals: Sequence[Sequence[int]] | None = None) -> int:
        """Choose how much of proposals to try; None stands for those of full length, of which most pays."""
        full = [[0] * MOST_TOKENS if draft else [] for draft in self.drafts]
        odds = tuple(draft.odds if draft else (0.0, 0.0) for draft in self.drafts)
        return _tried_at_once(tuple(map(len, full if proposals is None else proposals)), odds, cost)

    def _proposals(self, cost: RunCost) -> list[list[int]]:
        proposals: list[list[int]] = [[] for _ in self.rows]
        if not self._most_that_pays(cost):
            return proposals
        for index, draft in enumerate(self.drafts):
            proposal = draft.propose() if draft else None
            if proposal is None:
                self.drafts[index] = None
            else:
                proposals[index] = proposal
        tried = self._most_that_pays(cost, proposals)
        return [proposal[:tried] for proposal in proposals]

    def _answers(self, hidden: mx.array, proposals: list[list[int]]) -> Answers:
        """(batch, width, hidden) -> what follows."""
        width = hidden.shape[1]
        logits = self.llm.logits(hidden.reshape(-1, hidden.shape[-1]))  # (batch * width, vocab)
        ids = self.sampler(logits, [step + place for step in self._steps for place in range(width)])
        logprobs = log_probabilities(logits, ids)
        if width == 1:  # known before it is computed
            self._last_ids = ids
            self._steps = [step + 1 for step in self._steps]
        return Answers(ids, logprobs, proposals)

    def take(self, answers: Answers) -> list[Token]:
        """Keep as much of the proposals as the decoder says itself, and what it says behind that."""
        mx.eval(answers.ids, answers.logprobs)
        width = answers.ids.size // len(self.rows)
        ids, logprobs = (np.array(flat).reshape(-1, width).tolist() for flat in (answers.ids, answers.logprobs))
        accepted = [_agreeing(proposal, says) for proposal, says in zip(answers.proposals, ids, strict=True)]
        if width > 1:
            self.cache.take_back([width - 1 - count for count in accepted])
            own = [says[count] for says, count in zip(ids, accepted, strict=True)]
            self._last_ids = mx.array(own, answers.ids.dtype)
            self._steps = [step + count + 1 for step, count in zip(self._steps, accepted, strict=True)]
        for draft, proposal, count in zip(self.drafts, answers.proposals, accepted, strict=True):
            if draft and proposal:
                draft.judge(len(proposal), count)
        return [
            Token(row, ids[index][place], logprobs[index][place], drafted=place < accepted[index])
            for index, row in enumerate(self.rows)
            for place in range(accepted[index] + 1)
        ]

    def keep(self, kept: list[int]) -> None:
        """Drop the other rows; at least one must be left."""
        self.rows = [self.rows[index] for index in kept]
        self.drafts = [self.drafts[index] for index in kept]
        self._steps = [self._steps[index] for index in kept]
        self.cache = DecoderCache.joined([(self.cache, kept)])
        assert self._last_ids is not None
        self._last_ids = self._last_ids[mx.array(kept)]

    def join(self, other: "Batch") -> None:
        """Take another's rows in."""
        everyone = [(batch.cache, range(len(batch.rows))) for batch in (self, other)]
        self.cache = DecoderCache.joined(everyone)
        self.rows = self.rows + other.rows
        self.drafts += other.drafts
        self._steps += other._steps
        self._last_ids = mx.concatenate([self._last_ids, other._last_ids])


def _agreeing(proposal: Sequence[int], says: Sequence[int]) -> int:
    """Count the first tokens that are the same."""
    pairs = zip(proposal, says, strict=False)
    return next((count for count, (one, other) in enumerate(pairs) if one != other), len(proposal))


class BatchDecoder:
    """Writes many rows side by side, at least a token of each at every step; rows come and go between the steps.

    On a GPU the next step is under way while the caller handles the last one's tokens, unless drafts wait for
    these; a CPU would waste it on rows that have just ended.

    The first `shared_rows` embeddings of all prompts are the same. They are read once, as one row, and what the
    decoder keeps of them is copied to every row that joins.
    """

    def __init__(self, llm: Qwen3, sampler: Sampler, shared_rows: int = 0):
        self._llm = llm
        self._sampler = sampler
        self._eager = on_accelerator()
        self._shared_rows = shared_rows
        self._prefix: DecoderCache | None = None  # what the decoder keeps of them, one row
        self._added = 0
        self._live: set[int] = set()
        self._batch: Batch | None = None  # ended rows may still be in it
        self._under_way: Answers | None = None
        self._ready: list[Token] = []  # what the next step returns; of all rows or of none

    def __len__(self) -> int:
        return len(self._live)

    def add(self, prompts: list[mx.array], drafts: Sequence[CTCDraft | None] | None = None) -> list[int]:
        """Read prompts, (length, hidden) embeddings a row, and return the numbers of the new rows.

        They take part from the next step on.
        """
        numbers = list(range(self._added, self._added + len(prompts)))
        self._added += len(prompts)
        if self._shared_rows and not self._prefix:
            prefix = self._llm.make_cache(1)
            self._llm.read(prompts[0][None, : self._shared_rows], prefix)
            self._prefix = prefix
        cache = self._llm.make_cache(len(prompts), self._prefix)
        new = Batch(self._llm, self._sampler, numbers, list(drafts or [None] * len(prompts)), cache)
        tokens = new.take(new.read([prompt[self._shared_rows :] for prompt in prompts]))
        self._keep_live_rows()
        if self._batch:
            self._ready = self._ready or self._batch.take(self._under_way or self._batch.go_on())
            self._batch.join(new)
        else:
            self._batch, self._ready = new, []
        self._ready += tokens
        self._under_way = None
        self._live.update(numbers)
        return numbers

    def end(self, row: int) -> None:
        """Take a row out."""
        if row in self._live and self._batch:
            self._live.remove(row)
            self._batch.end(row)

    def step(self) -> list[Token]:
        """The next tokens of each row that has not been ended, row by row, in the order of their adding."""
        if self._batch and len(self._live) * 2 <= len(self._batch.rows):
            self._keep_live_rows()
        if not self._batch:
            return []
        ready, self._ready = self._ready, []
        answers = None if ready else self._under_way or self._batch.go_on()
        self._under_way = None
        if self._eager and not self._batch.drafting:
            self._under_way = self._batch.go_on()
            mx.async_eval(self._under_way.ids, self._under_way.logprobs)
        if answers:
            ready = self._batch.take(answers)
        return [token for token in ready if token.row in self._live]

    def _keep_live_rows(self) -> None:
        """Make the batch smaller where rows have ended."""
        if not self._batch:
            return
        kept = [index for index, row in enumerate(self._batch.rows) if row in self._live]
        if not kept:
            self._batch = self._under_way = None
        elif len(kept) < len(self._batch.rows):
            self._batch.keep(kept)
            self._under_way = self._under_way and self._under_way.of_rows(kept)

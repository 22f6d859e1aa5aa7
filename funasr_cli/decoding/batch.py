"""Rows that are decoded together, with speculative decoding: what all engines have in common.

A row may have a draft, the CTC branch's text (`CTCDraft`), which proposes its next tokens. One forward pass of the
decoder verifies all of them. It accepts the longest prefix that the sampler would have chosen itself, so the text
is the same with and without drafts.
Source: Leviathan, Kalman and Matias 2023, "Fast Inference from Transformers via Speculative Decoding", section
2.3. What differs: the draft is a text, not a distribution, so a proposed token is accepted only if it equals the
sampled one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from funasr_cli.decoding.cost import RunCost, tried_at_once
from funasr_cli.decoding.draft import MOST_TOKENS, CTCDraft
from funasr_cli.decoding.rules import LogitRules
from funasr_cli.decoding.sampling import Sampler


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


_tried_at_once = lru_cache(maxsize=64)(tried_at_once)  # while drafts pause, the arguments stay the same


class Batch(ABC):
    """Rows that are decoded together: their drafts, and the number of tokens that each has.

    A subclass for each engine holds their keys and values, and runs the decoder.
    """

    drops_at_once = False  # whether rows that have ended leave at once, since that needs no copies of the others

    def __init__(
        self,
        sampler: Sampler,
        rows: list[int],
        drafts: list[CTCDraft | None],
        cost: RunCost,
        rules: list[LogitRules] | None = None,
    ):
        """Make a batch of rows without any sampled token.

        Args:
            sampler: chooses the tokens.
            rows: numbers of the rows.
            drafts: of each row.
            cost: of a forward pass of the decoder.
            rules: of each row, which restrict its tokens; no model has both rules and drafts.
        """
        self.rows, self.drafts = rows, drafts
        self._sampler, self._cost = sampler, cost
        self._steps = [0] * len(rows)  # number of sampled tokens
        self._rules = rules or []
        self._written: list[list[int]] = [[] for _ in rows]  # the accepted tokens of each row, for the rules

    @abstractmethod
    def prefill(self, prompts: Sequence[Any]) -> list[Token]:
        """Read the prompts, (length, hidden) embeddings each, with the first proposals; return accepted tokens."""

    @abstractmethod
    def step(self, *, run_ahead: bool) -> list[Token]:
        """Run the decoder over each row's last token and its proposal; return the accepted tokens.

        With `run_ahead`, the engine may also start the next step.
        """

    def run_ahead(self) -> None:  # noqa: B027 - an engine may have nothing to do here
        """Start the next step, if the engine can compute it while the caller does something else."""

    @abstractmethod
    def close(self) -> None:
        """Release the keys and values of all rows. The batch cannot be used afterwards."""

    def keep(self, kept: list[int]) -> None:
        """Keep only these rows, given by their places in the batch; at least one."""
        self.rows = [self.rows[index] for index in kept]
        self.drafts = [self.drafts[index] for index in kept]
        self._steps = [self._steps[index] for index in kept]
        self._written = [self._written[index] for index in kept]
        self._rules = self._rules and [self._rules[index] for index in kept]

    def join(self, other: Self) -> None:
        """Append the rows of another batch, which cannot be used afterwards."""
        self.rows = self.rows + other.rows
        self.drafts += other.drafts
        self._steps += other._steps
        self._written += other._written
        self._rules += other._rules

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

    def _accept(
        self, proposals: list[list[int]], ids: list[list[int]], logprobs: list[list[float]]
    ) -> tuple[list[int], list[Token]]:
        """Compare what was proposed for each row with what was sampled; tell the drafts.

        Args:
            proposals: the proposed tokens of each row.
            ids: for each row, the tokens sampled after its last token and after each proposed one.
            logprobs: of these.

        Returns:
            The number of accepted proposals of each row; each row's tokens: these, and the one sampled after them.
        """
        accepted = [_common_prefix(*pair) for pair in zip(proposals, ids, strict=True)]
        for draft, proposal, count in zip(self.drafts, proposals, accepted, strict=True):
            if draft and proposal:
                draft.judge(len(proposal), count)
        return accepted, [
            Token(row, ids[index][place], logprobs[index][place], drafted=place < accepted[index])
            for index, row in enumerate(self.rows)
            for place in range(accepted[index] + 1)
        ]

    def _write(self, tokens: Sequence[Token]) -> None:
        """Remember the tokens of a step, one of each row, for the rules."""
        if self._rules:
            for written, token in zip(self._written, tokens, strict=True):
                written.append(token.token_id)

    def _count(self, tokens: Sequence[int]) -> None:
        """Add to the number of sampled tokens of each row."""
        self._steps = [step + more for step, more in zip(self._steps, tokens, strict=True)]


def _common_prefix(proposal: Sequence[int], sampled: Sequence[int]) -> int:
    """Return the length of the common prefix."""
    pairs = zip(proposal, sampled, strict=False)
    return next((count for count, (one, other) in enumerate(pairs) if one != other), len(proposal))

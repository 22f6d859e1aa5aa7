"""A batch on the C library: each row computes its last token and its own proposal, without padding."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.batch import Batch, Token
from funasr_cli.decoding.cost import RunCost
from funasr_cli.decoding.draft import CTCDraft
from funasr_cli.decoding.rules import Exclusion, LogitRules, ruled
from funasr_cli.decoding.sampling import Sampler, greedy, log_probabilities
from funasr_cli.native.decoder import NativeDecoder, Row


class NativeBatch(Batch):
    """Rows in slots of the library's decoder."""

    drops_at_once = True

    def __init__(
        self,
        llm: NativeDecoder,
        sampler: Sampler,
        rows: list[int],
        drafts: list[CTCDraft | None],
        start: Any = None,
        rules: list[LogitRules] | None = None,
    ):
        """Make a batch as `Batch` does; rows begin with `start`: a shared prefix, or the memory of each row."""
        super().__init__(sampler, rows, drafts, RunCost.of(llm), rules)
        self._llm = llm
        self._last_ids: list[int] = []  # last sampled tokens, not in the slots yet
        self._slots: list[Row] = []
        try:
            for index, _ in enumerate(rows):
                copied = llm.copied(start) if isinstance(start, Row) else llm.new_row(start and start[index])
                self._slots.append(copied)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def read_prefix(llm: NativeDecoder, embeddings: Any) -> Row:
        """Read the (length, hidden) embeddings that all prompts begin with into a slot."""
        row = llm.new_row()
        llm.run([row], [np.array(embeddings)])
        return row

    def prefill(self, prompts: Sequence[Any]) -> list[Token]:
        """Read the prompts, arrays of NumPy or MLX, together with the first proposals; see `Batch`."""
        proposals = self._proposals(self._cost)
        inputs = [
            np.concatenate([np.array(prompt), self._llm.embed(proposal)])  # (positions, hidden)
            for prompt, proposal in zip(prompts, proposals, strict=True)
        ]
        return self._run(inputs, proposals)

    def step(self, *, run_ahead: bool) -> list[Token]:
        """Return the next tokens of every row; see `Batch`. Nothing is computed ahead."""
        proposals = self._proposals(self._cost)
        pairs = zip(self._last_ids, proposals, strict=True)
        return self._run([self._llm.embed([last, *proposal]) for last, proposal in pairs], proposals)

    def close(self) -> None:
        """Give back the slots."""
        for slot in self._slots:
            slot.end()

    def keep(self, kept: list[int]) -> None:
        """Keep only these rows; give back the slots of the others."""
        super().keep(kept)
        for index, slot in enumerate(self._slots):
            if index not in kept:
                slot.end()
        self._slots = [self._slots[index] for index in kept]
        self._last_ids = [self._last_ids[index] for index in kept]

    def join(self, other: Self) -> None:
        """Append the rows of another batch."""
        self._slots += other._slots
        self._last_ids += other._last_ids
        super().join(other)

    def _run(self, inputs: list[np.ndarray], proposals: list[list[int]]) -> list[Token]:
        """Append (positions, hidden) embeddings to each row, which end with its proposal; return its tokens."""
        hidden = self._llm.run(self._slots, inputs)
        widths = [1 + len(proposal) for proposal in proposals]
        last = np.concatenate([states[-width:] for states, width in zip(hidden, widths, strict=True)])
        flat_ids, flat_logprobs = self._sample(last, widths)
        places = list(pairwise(accumulate(widths, initial=0)))  # of each row in the flat lists
        ids, logprobs = [flat_ids[a:b] for a, b in places], [flat_logprobs[a:b] for a, b in places]
        accepted, tokens = self._accept(proposals, ids, logprobs)
        for slot, proposal, count in zip(self._slots, proposals, accepted, strict=True):
            slot.length -= len(proposal) - count
        self._last_ids = [sampled[count] for sampled, count in zip(ids, accepted, strict=True)]
        self._count([count + 1 for count in accepted])
        self._write(tokens)
        return tokens

    def _sample(self, hidden: np.ndarray, widths: list[int]) -> tuple[list[int], list[float]]:
        """Return the tokens sampled after (positions, hidden) states, and their log-probabilities."""
        exclusions = [rules for rules in self._rules if isinstance(rules, Exclusion)]
        if self._sampler is greedy and len(exclusions) == len(self._rules):
            excluded, first_of_group = None, None
            if exclusions:
                pairs = zip(exclusions, self._written, strict=True)
                excluded = np.stack([rules.excluded(written) for rules, written in pairs])  # (rows, vocab)
                first_of_group = np.array([rules.first_of_group for rules in exclusions], np.int32)
            ids, logprobs = self._llm.choose(hidden, excluded, first_of_group)
            return ids.tolist(), logprobs.tolist()
        logits = ruled(mx.array(self._llm.logits(hidden)), self._rules, self._steps, self._written)
        steps = zip(self._steps, widths, strict=True)
        chosen = self._sampler(logits, [step + place for step, width in steps for place in range(width)])
        return np.array(chosen).tolist(), np.array(log_probabilities(logits, chosen)).tolist()

"""Autoregressive decoding of a batch whose rows come and go."""

from collections.abc import Sequence

from funasr_cli.backend import mx, on_accelerator
from funasr_cli.decoding.batch import Answers, Batch, Token
from funasr_cli.decoding.draft import CTCDraft
from funasr_cli.decoding.sampling import Sampler
from funasr_cli.models.cache import DecoderCache
from funasr_cli.models.qwen3 import Qwen3


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

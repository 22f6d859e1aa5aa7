"""Continuous batching: rows join and leave the batch between steps (`BatchDecoder.add` and `BatchDecoder.end`)."""

from collections.abc import Sequence
from typing import Any

from funasr_cli.decoding.batch import Batch, Token
from funasr_cli.decoding.draft import CTCDraft
from funasr_cli.decoding.mlx_batch import MLXBatch
from funasr_cli.decoding.native_batch import NativeBatch
from funasr_cli.decoding.rules import LogitRules
from funasr_cli.decoding.sampling import Sampler
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.models.whisper_decoder import WhisperDecoder
from funasr_cli.native.decoder import NativeDecoder


class BatchDecoder:
    """Continuous-batching decoder: rows join and leave between steps, and each step decodes tokens for all rows.

    A row gets one token per step, or several if the decoder accepts its draft's proposals.

    The first `shared_rows` embeddings are the same in all prompts. They are prefilled once, as one row, and their
    keys and values are copied to every row that joins.
    """

    def __init__(
        self,
        llm: Qwen3 | WhisperDecoder | NativeDecoder,
        sampler: Sampler,
        shared_rows: int = 0,
    ):
        self._llm, self._sampler = llm, sampler
        self._engine: Any = NativeBatch if isinstance(llm, NativeDecoder) else MLXBatch
        self._shared_rows = shared_rows
        self._shared: Sequence[int] | None = None  # the tokens of these rows, if `begin_with` was called
        self._prefix: Any = None  # the engine's keys and values of the shared embeddings
        self._added = 0
        self._live: set[int] = set()
        self._batch: Batch | None = None  # may still contain rows that have ended
        self._ready: list[Token] = []  # tokens for the next step to return, for all rows or for none

    def __len__(self) -> int:
        return len(self._live)

    def add(
        self,
        prompts: Sequence[Any],
        drafts: Sequence[CTCDraft | None] | None = None,
        memory: Sequence[Any] = (),
        rules: Sequence[LogitRules] = (),
    ) -> list[int]:
        """Prefill prompts and return the numbers of the new rows. The next step returns their first tokens.

        Args:
            prompts: (length, hidden) embeddings each.
            drafts: of each row.
            memory: for a decoder with cross-attention, what each row attends to, as its `memory` gives it.
            rules: of each row, if its tokens are restricted.
        """
        numbers = list(range(self._added, self._added + len(prompts)))
        self._added += len(prompts)
        if self._shared_rows and not self._prefix:
            self._prefix = self._engine.read_prefix(self._llm, prompts[0][: self._shared_rows])
        own = list(drafts or [None] * len(prompts))
        start = list(memory) or self._prefix
        restricted = {"rules": list(rules)} if rules else {}
        new: Batch = self._engine(self._llm, self._sampler, numbers, own, start, **restricted)
        try:
            self._keep_live_rows()  # first, since prompts need memory, too
            tokens = new.prefill([prompt[self._shared_rows :] for prompt in prompts])
            if self._batch:
                self._ready = self._ready or self._batch.step(run_ahead=False)
                self._batch.join(new)
            else:
                self._batch, self._ready = new, []
        except BaseException:
            new.close()
            raise
        self._ready += tokens
        self._live.update(numbers)
        return numbers

    def begin_with(self, shared: Sequence[int]) -> None:
        """Set the tokens that all prompts of the next calls of `add` begin with. Running rows keep theirs."""
        if self._shared != shared:
            self._shared, self._shared_rows, self._prefix = shared, len(shared), None

    def end(self, row: int) -> None:
        """End a row. It leaves the batch at once, or when others join or half of the batch's rows have ended."""
        if row in self._live and self._batch:
            self._live.remove(row)
            self._batch.drop_draft(row)
            if self._batch.drops_at_once:
                self._keep_live_rows()

    def step(self) -> list[Token]:
        """Return the next tokens of every live row, row by row, in the order in which the rows were added."""
        if self._batch and len(self._live) * 2 <= len(self._batch.rows):
            self._keep_live_rows()
        if not self._batch:
            return []
        ready, self._ready = self._ready, []
        if ready:
            self._batch.run_ahead()
        else:
            ready = self._batch.step(run_ahead=True)
        return [token for token in ready if token.row in self._live]

    def close(self) -> None:
        """Release the keys and values of all rows, also after an error; the decoder cannot be used afterwards."""
        if self._batch:
            self._batch.close()
        self._batch = self._prefix = None
        self._live.clear()

    def _keep_live_rows(self) -> None:
        """Remove rows that have ended from the batch."""
        if not self._batch:
            return
        kept = [index for index, row in enumerate(self._batch.rows) if row in self._live]
        if not kept:
            self._batch.close()
            self._batch = None
        elif len(kept) < len(self._batch.rows):
            self._batch.keep(kept)

"""The common part of sessions that decode token by token: their rows, and recovery from errors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

from funasr_cli.compute.memory import available_bytes
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.draft import CTCDraft
from funasr_cli.decoding.row_text import RowText
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.decoding.stopping import StopReason
from funasr_cli.measure import timed
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.models.whisper_decoder import WhisperDecoder
from funasr_cli.native.decoder import NativeDecoder
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest, Update
from funasr_cli.transcript import Segment

ROWS_AT_ONCE = 4  # joining together: enough to use the processor fully, without delaying the other rows
MOST_ROWS = 16  # more rows gain little on the machines measured


@dataclass
class Row:
    """A segment that is being decoded.

    Attributes:
        request: the segment.
        options: those of its recording.
        parts: its texts by the decoder's numbers: the transcript, then perhaps a translation.
        draft: of the transcript.
    """

    request: SegmentRequest
    options: TranscribeOptions
    parts: dict[int, RowText] = field(default_factory=dict, kw_only=True)
    draft: CTCDraft | None = field(default=None, kw_only=True)

    @property
    def texts(self) -> list[RowText]:
        """The parts in order."""
        return list(self.parts.values())

    @property
    def reason(self) -> StopReason:
        """Why the row ended: eos only if all its texts ended. Smaller pieces may help any of them."""
        reasons = (text.reason for text in self.texts)
        return next((each for each in reasons if each and each != StopReason.EOS), StopReason.EOS)

    def segment(self, text: str, **more: Any) -> Segment:
        """Return the segment when all parts have ended, given its final text and the family's own fields."""
        audio, stream = self.request.audio, self.texts[0].stream
        return Segment(
            start_s=audio.start_s,
            end_s=audio.end_s,
            text=text,
            stop_reason=str(self.texts[0].reason),
            retries=self.request.retries,
            tokens=sum(len(each.logprobs) for each in self.texts),
            mean_logprob=self.texts[0].mean_logprob,
            scores=stream.scores(text) if self.options.confidence else (),
            **more,
        )


AnyRow = TypeVar("AnyRow", bound=Row)


class DecoderSession(ABC, Generic[AnyRow]):
    """A batch of segments on a decoder, which join and leave it independently; see `Session`.

    A family's session defines how segments join, and the result of a row that has ended.
    """

    rows_at_once = ROWS_AT_ONCE

    def __init__(self, llm: Qwen3 | WhisperDecoder | NativeDecoder, options: TranscribeOptions):
        self._llm, self._options = llm, options
        self.seconds: dict[str, float] = {}
        self._stage = ""  # the current computation
        self._numbers = count()
        self._rows: dict[int, AnyRow] = {}
        self._owners: dict[int, int] = {}  # the row of each text, by the decoder's number
        self._decoder = self._new_decoder()

    @abstractmethod
    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Begin to decode segments, and pass their rows to `_join`; see `Session`."""

    @abstractmethod
    def _row_bytes(self) -> int:
        """Return the memory of the keys and values of the longest row."""

    @abstractmethod
    def _hypothesis(self, row: AnyRow) -> Hypothesis:
        """Return the result of a row whose texts have all ended."""

    @property
    def max_rows(self) -> int:
        """Number of rows, at most `MOST_ROWS`, whose keys and values fit into half the free memory."""
        return max(1, min(MOST_ROWS, available_bytes() // 2 // self._row_bytes()))

    def _new_decoder(self) -> BatchDecoder:
        return BatchDecoder(self._llm, make_sampler(self._options))

    def _join(self, rows: Sequence[AnyRow]) -> list[int]:
        """Keep rows whose prompts the decoder has read; return their numbers."""
        numbers = [next(self._numbers) for _ in rows]
        for number, row in zip(numbers, rows, strict=True):
            self._rows[number] = row
            self._owners |= dict.fromkeys(row.parts, number)
        return numbers

    def step(self) -> list[Update]:
        """Decode one or more tokens of every text that has not ended."""
        with self._timed("decode"):
            tokens = self._decoder.step()
        updates, begun = list[Update](), set[int]()
        for token in tokens:
            number = self._owners[token.row]
            row = self._rows[number]
            text, shown = row.parts[token.row], row.texts[0].stream
            if text.reason:  # an earlier token of this step ended it
                continue
            counts = {"decoder_calls": int(token.row not in begun), "tokens": 1, "accepted": int(token.drafted)}
            begun.add(token.row)
            settled, hypothesis = shown.settled, None
            if text.push(token):
                self._decoder.end(token.row)
                if all(each.reason for each in row.texts):
                    counts["drafted"] = row.draft.proposed if row.draft else 0
                    hypothesis = self._hypothesis(row)
            is_new = not hypothesis and shown.settled != settled
            updates.append(Update(number, shown.settled if is_new else None, hypothesis, counts))
        for update in updates:  # only after all updates are made, since `reset` returns the rows that were lost
            if update.hypothesis:
                self.drop(update.row)
        return updates

    def drop(self, row: int) -> None:
        """Remove a row."""
        if ended := self._rows.pop(row, None):
            for number in ended.parts:
                self._decoder.end(number)
                del self._owners[number]

    def reset(self) -> set[int]:
        """Recover from an error. If it happened in the decoder, all rows are lost."""
        if self._stage not in ("prefill", "decode"):
            return set()
        lost = set(self._rows)
        self._decoder.close()
        self._rows, self._owners, self._decoder = {}, {}, self._new_decoder()
        return lost

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to that of its stage, and remember the stage for `reset`."""
        self._stage = stage
        with timed(self.seconds, stage):
            yield

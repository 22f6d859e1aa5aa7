"""A run of Fun-ASR-Nano: batched decoding of segments, with the CTC branch's text as drafts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from funasr_cli.compute.memory import available_bytes
from funasr_cli.decoding.agreement import compare, spoken_before
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.draft import CTCDraft, SpellingMemory
from funasr_cli.decoding.row_text import RowText
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.decoding.stopping import Quota, StoppingCriteria, StopReason, token_budget
from funasr_cli.decoding.text import TextStream, clean_text, thinking
from funasr_cli.decoding.words import time_words
from funasr_cli.families.fun_asr_nano.prompt import prompt_token_ids
from funasr_cli.measure import timed
from funasr_cli.models.adaptor import audio_token_count
from funasr_cli.options import AUTO_DRAFT, TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest, Update
from funasr_cli.transcript import Segment, Word

if TYPE_CHECKING:
    from funasr_cli.families.fun_asr_nano.model import NanoModel

ROWS_AT_ONCE = 4  # joining together: enough to use the processor fully, without delaying the other rows
MOST_ROWS = 16  # more rows gain little on the machines measured
# The prompt, and what is done with the text. All rows share the sampling and the longest segment.
ROW_OPTIONS: tuple[str, ...] = (
    "language", "hotwords", "prev_text", "itn", "max_tokens", "exact_tokens", "confidence", "ctc", "draft",
    "second_opinion", "word_times", "segment_times",
)  # fmt: skip


@dataclass
class Row:
    """A segment that is being decoded."""

    request: SegmentRequest
    options: TranscribeOptions
    text: RowText
    ctc: CTCReading | None
    draft: CTCDraft | None


class NanoSession:
    """A batch of segments on the decoder, which join and leave it independently; see `Session`."""

    rows_at_once = ROWS_AT_ONCE

    def __init__(self, model: "NanoModel", options: TranscribeOptions):
        self._model, self._options = model, options
        # This also rejects bad hotwords.
        self._text_tokens = sum(map(len, prompt_token_ids(options, model.config.prompt, model.tokenizer)))
        self.seconds: dict[str, float] = {}
        self._stage = ""  # the current computation
        self._rows: dict[int, Row] = {}
        self._decoder = self._new_decoder()
        self._spelling = SpellingMemory()

    @property
    def max_rows(self) -> int:
        """Number of rows, at most `MOST_ROWS`, whose keys and values fit into half the free memory."""
        model, config = self._model, self._model.config
        longest_s = self._options.max_segment_s or model.best_segment_s
        audio_tokens = audio_token_count(ceil(longest_s / config.frontend.row_duration_s), config.adaptor)
        columns = self._text_tokens + audio_tokens + token_budget(longest_s)
        row_bytes = self._model.network.llm.row_bytes(columns)
        return max(1, min(MOST_ROWS, available_bytes() // 2 // row_bytes))

    def _new_decoder(self) -> BatchDecoder:
        return BatchDecoder(self._model.network.llm, make_sampler(self._options))

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Encode segments, run the CTC branch if needed, and prefill their prompts; return the row numbers."""
        model, options = self._model, requests[0].options or self._options
        with self._timed("features"):
            features = [model.features(request.audio.samples) for request in requests]
        with self._timed("encoder"):
            encoded = model.encoded(features)
        readings: Sequence[CTCReading | None] = [None] * len(requests)
        if model.config.ctc is not None and _needs_ctc(options):
            with self._timed("ctc"):
                readings = model.ctc_readings(encoded)
        rows = [self._row(request, options, reading) for request, reading in zip(requests, readings, strict=True)]
        with self._timed("prefill"):
            # The tokens before the audio are the same in all of these rows.
            before, _ = prompt_token_ids(options, model.config.prompt, model.tokenizer)
            self._decoder.begin_with(before)
            prompts = model.prompts(encoded, options, [request.first for request in requests])
            numbers = self._decoder.add(prompts, [row.draft for row in rows])
        self._rows.update(zip(numbers, rows, strict=True))
        return numbers

    def _row(self, request: SegmentRequest, options: TranscribeOptions, reading: CTCReading | None) -> Row:
        """Create the row of a segment. A recording's first segment continues the earlier text, if there is one."""
        stream, draft = TextStream(self._model.spell, (request.first and options.prev_text) or ""), None
        if reading and options.draft == AUTO_DRAFT:
            draft = CTCDraft(reading.text, stream, self._model.token_ids, self._spelling)
        stops = self._model.config.stop_token_ids
        stopping = (
            StoppingCriteria(stops, token_budget(request.audio.duration_s), options.max_tokens)
            if options.exact_tokens is None
            else Quota(options.exact_tokens)
        )
        return Row(request, options, RowText(stream, stopping), reading, draft)

    def step(self) -> list[Update]:
        """Decode one or more tokens of every row."""
        with self._timed("decode"):
            tokens = self._decoder.step()
        updates, begun, ended = [], set[int](), set[int]()
        for token in tokens:
            if token.row in ended:  # an earlier token of this step ended the row
                continue
            updates.append(self._write(token, decoder_calls=int(token.row not in begun)))
            begun.add(token.row)
            if updates[-1].hypothesis:
                ended.add(token.row)
        for row in ended:  # only after all updates are made, since `reset` returns the rows that were lost
            self.drop(row)
        return updates

    def _write(self, token: Token, decoder_calls: int) -> Update:
        """Append a token to its row's text; end the row if a stopping criterion applies."""
        row = self._rows[token.row]
        counts = {"decoder_calls": decoder_calls, "tokens": 1, "accepted": int(token.drafted)}
        settled = row.text.stream.settled
        if reason := row.text.push(token):
            counts["drafted"] = row.draft.proposed if row.draft else 0
            return Update(token.row, hypothesis=self._hypothesis(row, reason), counts=counts)
        text = row.text.stream.settled
        return Update(token.row, None if text == settled else text, counts=counts)

    def _hypothesis(self, row: Row, reason: StopReason) -> Hypothesis:
        audio, options = row.request.audio, row.options
        raw, stream = row.text.raw, row.text.stream
        text = clean_text(raw)
        before = spoken_before(text, clean_text(stream.earlier), row.ctc.text) if row.ctc else ""
        agreement = None
        if row.ctc and _compares(options):
            agreement = compare(text.removeprefix(before), row.ctc.text)
        words: tuple[Word, ...] = ()
        if row.ctc and options.word_times:
            words = time_words(text, row.ctc, audio.start_s, audio.end_s, before)
        doubtful = bool(agreement and agreement.doubtful) and reason == StopReason.EOS
        if row.draft and row.ctc and reason == StopReason.EOS and not doubtful:
            self._spelling.learn(row.ctc.text, text)
        segment = Segment(
            start_s=audio.start_s,
            end_s=audio.end_s,
            text=text,
            thinking=thinking(raw),
            stop_reason=str(reason),
            retries=row.request.retries,
            tokens=len(row.text.logprobs),
            mean_logprob=row.text.mean_logprob,
            ctc_text=row.ctc.text if row.ctc and options.ctc else None,
            scores=stream.scores(text) if options.confidence else (),
            words=words,
            disagreement=agreement.disagreement if agreement else None,
            doubtful=doubtful,
        )
        return Hypothesis(segment, agreement, row.text.stopping.worth_retrying(reason, doubtful))

    def drop(self, row: int) -> None:
        """Remove a row."""
        if self._rows.pop(row, None):
            self._decoder.end(row)

    def reset(self) -> set[int]:
        """Recover from an error. If it happened in the decoder, all rows are lost."""
        if self._stage not in ("prefill", "decode"):
            return set()
        lost = set(self._rows)
        self._decoder.close()
        self._rows, self._decoder = {}, self._new_decoder()
        return lost

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to that of its stage, and remember the stage for `reset`."""
        self._stage = stage
        with timed(self.seconds, stage):
            yield


def _compares(options: TranscribeOptions) -> bool:
    return options.second_opinion and options.exact_tokens is None


def _needs_ctc(options: TranscribeOptions) -> bool:
    return options.draft == AUTO_DRAFT or _compares(options) or options.ctc or options.word_times

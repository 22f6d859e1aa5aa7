"""A run of Fun-ASR-Nano: batched decoding of segments, with the CTC branch's text as drafts."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from funasr_cli.decoding import cost
from funasr_cli.decoding.agreement import compare, spoken_before
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.draft import CTCDraft, SpellingMemory
from funasr_cli.decoding.row_text import RowText
from funasr_cli.decoding.stopping import StopReason, stopping_criteria, token_budget
from funasr_cli.decoding.text import TextStream, clean_text, thinking
from funasr_cli.decoding.words import time_words
from funasr_cli.families.fun_asr_nano.prompt import prompt_token_ids
from funasr_cli.families.rows import DecoderSession, Row
from funasr_cli.models.adaptor import audio_token_count
from funasr_cli.options import AUTO_DRAFT, TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest
from funasr_cli.transcript import Word

if TYPE_CHECKING:
    from funasr_cli.families.fun_asr_nano.model import NanoModel

# The prompt, and what is done with the text. All rows share the sampling and the longest segment.
ROW_OPTIONS: tuple[str, ...] = (
    "language", "hotwords", "prev_text", "instruction", "dialogue", "itn", "max_tokens", "exact_tokens",
    "confidence", "ctc", "draft", "second_opinion", "word_times", "segment_times",
)  # fmt: skip


@dataclass
class NanoRow(Row):
    """A segment that is being decoded, with the CTC branch's output."""

    stream: TextStream
    ctc: CTCReading | None


class NanoSession(DecoderSession[NanoRow]):
    """A batch of segments on the decoder, with drafts; see `Session`."""

    def __init__(self, model: "NanoModel", options: TranscribeOptions):
        super().__init__(model.network.llm, options)
        self._model = model
        # This also rejects bad hotwords.
        self._text_tokens = sum(map(len, prompt_token_ids(options, model.config.prompt, model.tokenizer)))
        self._spelling = SpellingMemory()

    def _row_bytes(self) -> int:
        model, config = self._model, self._model.config
        longest_s = self._options.max_segment_s or model.best_segment_s
        audio_tokens = audio_token_count(ceil(longest_s / config.frontend.row_duration_s), config.adaptor)
        return model.network.llm.row_bytes(self._text_tokens + audio_tokens + token_budget(longest_s))

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Encode segments, run the CTC branch if needed, and prefill their prompts; return the row numbers."""
        model, options = self._model, requests[0].options or self._options
        with self._timed("features"):
            features = [model.features(request.audio.samples) for request in requests]
        with self._timed("encoder"):
            encoded = model.encoded(features)
        readings: Sequence[CTCReading | None] = [None] * len(requests)
        drafts = options.draft == AUTO_DRAFT and cost.drafts_pay(self._llm, len(self._rows) + len(requests))
        if model.config.ctc is not None and (drafts or _needs_ctc(options)):
            with self._timed("ctc"):
                readings = model.ctc_readings(encoded)
        pairs = zip(requests, readings, strict=True)
        rows = [self._row(request, options, reading, drafts) for request, reading in pairs]
        with self._timed("prefill"):
            # The tokens before the audio are the same in all of these rows.
            before, _ = prompt_token_ids(options, model.config.prompt, model.tokenizer)
            self._decoder.begin_with(before)
            prompts = model.prompts(encoded, options, [request.first for request in requests])
            numbers = self._decoder.add(prompts, [row.draft for row in rows])
        for number, row in zip(numbers, rows, strict=True):
            budget = token_budget(row.request.audio.duration_s)
            row.parts[number] = RowText(
                row.stream, stopping_criteria(options, model.config.stop_token_ids, budget)
            )
        return self._join(rows)

    def _row(
        self, request: SegmentRequest, options: TranscribeOptions, reading: CTCReading | None, drafts: bool
    ) -> NanoRow:
        """Create the row of a segment. A recording's first segment continues the earlier text, if there is one."""
        stream, draft = TextStream(self._model.spell, (request.first and options.prev_text) or ""), None
        if reading and drafts:
            draft = CTCDraft(reading.text, stream, self._model.token_ids, self._spelling)
        return NanoRow(request, options, stream, reading, draft=draft)

    def _hypothesis(self, row: NanoRow) -> Hypothesis:
        audio, options, reason = row.request.audio, row.options, row.reason
        [part], stream = row.texts, row.stream
        text = clean_text(part.raw)
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
        segment = row.segment(
            text,
            thinking=thinking(part.raw),
            ctc_text=row.ctc.text if row.ctc and options.ctc else None,
            words=words,
            disagreement=agreement.disagreement if agreement else None,
            doubtful=doubtful,
        )
        return Hypothesis(segment, agreement, part.stopping.worth_retrying(reason, doubtful))


def _compares(options: TranscribeOptions) -> bool:
    """Return whether the texts of decoder and CTC branch should be the same; an instruction may ask for others."""
    return options.second_opinion and options.exact_tokens is None and options.instruction is None


def _needs_ctc(options: TranscribeOptions) -> bool:
    return _compares(options) or options.ctc or options.word_times

"""A run of an encoder-decoder: windows decoded together, with times, translation and checks of the text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from funasr_cli.capabilities import BEST_EFFORT
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.agreement import Comparison
from funasr_cli.decoding.cross_attention import place_words
from funasr_cli.decoding.row_text import RowText
from funasr_cli.decoding.stopping import StopReason, stopping_criteria
from funasr_cli.decoding.text import TextStream, clean_text, settled_text
from funasr_cli.decoding.time_tokens import TIME_STEP_S, timed_pieces
from funasr_cli.families.rows import DecoderSession, Row
from funasr_cli.languages import resolve_language
from funasr_cli.options import ENGLISH, TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest
from funasr_cli.transcript import TimedText, Translation, Word

if TYPE_CHECKING:
    from funasr_cli.families.encoder_decoder import EncoderDecoderModel

# The prompt, and what is done with the text. All rows share the sampling and the longest segment.
ROW_OPTIONS: tuple[str, ...] = (
    "language", "hotwords", "prev_text", "translate", "word_times", "confidence", "max_tokens", "exact_tokens",
    *BEST_EFFORT,
)  # fmt: skip
# Thresholds of openai-whisper's ``transcribe``: of a text that repeats itself, and of a window without speech.
MOST_COMPRESSION, SILENT, UNLIKELY = 2.4, 0.6, -1.0
HAS_WORDS_S = 1.0  # speech of this duration should have words, so an empty text is doubtful
# Longest time from the last time token to the end of the segment: after a longer one, words were left out. In a
# recording of 16 minutes, it was 2.7 s or more in windows without their last words, at most 1.2 s in all others.
LEFT_OUT_S = 1.5


class Witness(NamedTuple):
    """What the decoder says of a window before it writes: its language, and whether there is speech."""

    language: str  # ISO code
    no_speech: float  # probability


@dataclass
class WindowRow(Row):
    """A segment that is being decoded, with what the model heard in it."""

    memory: Any  # what the decoder attends to
    witness: Witness


class WindowSession(DecoderSession[WindowRow]):
    """A batch of segments on the decoder; see `Session`. A row may have a second text, its translation."""

    def __init__(self, model: "EncoderDecoderModel", options: TranscribeOptions):
        super().__init__(model.network.decoder, options)
        self._model = model
        resolve_language(options.language, model.capabilities.languages)  # raises if the language is unknown
        model.prompt(options)  # raises if there are too many hotwords
        self._rules = {timed: model.rules(replace(options, segment_times=timed)) for timed in (False, True)}

    def _row_bytes(self) -> int:
        texts = 1 + self._model.capabilities.translation  # any row may be translated
        row_bytes: int = self._llm.row_bytes(self._model.config.encoder.positions)
        return row_bytes * texts

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Encode segments, find their languages, and prefill their prompts; return the row numbers."""
        model, options = self._model, requests[0].options or self._options
        decoder = model.network.decoder
        with self._timed("features"):
            features = [model.features(request.audio.samples) for request in requests]
        with self._timed("encoder"):
            encoded = model.network.encode(features)
        with self._timed("prefill"):
            memory = decoder.memory(encoded)
            witnesses = model.listen(memory, options)
            languages = [witness.language for witness in witnesses]
            texts = [(index, False) for index in range(len(requests))]
            if options.translate:
                foreign = (index for index, language in enumerate(languages) if language != ENGLISH)
                texts += [(index, True) for index in foreign]
            # Without time tokens, the model skips some sentences after a pause in its window.
            timed = [
                replace(options, segment_times=options.segment_times or request.audio.joined)
                for request in requests
            ]
            prompts = [
                model.prompt_ids(timed[index], languages[index], first=requests[index].first, translate=translate)
                for index, translate in texts
            ]
            embedded = [decoder.embed(mx.array(prompt)) for prompt in prompts]
            rules = [self._rules[timed[index].segment_times] for index, _ in texts]
            numbers = self._decoder.add(embedded, memory=[memory[index] for index, _ in texts], rules=rules)
        rows = [
            WindowRow(request, options, attended, witness)
            for request, attended, witness in zip(requests, memory, witnesses, strict=True)
        ]
        for number, prompt, (index, _) in zip(numbers, prompts, texts, strict=True):
            most = min(model.most_tokens, model.config.decoder.positions - len(prompt))
            stopping = stopping_criteria(options, (model.vocabulary.end,), most, most)
            stream = TextStream(model.vocabulary.decode, settle=partial(settled_text, has_marks=False))
            rows[index].parts[number] = RowText(stream, stopping, MOST_COMPRESSION)
        return self._join(rows)

    def _hypothesis(self, row: WindowRow) -> Hypothesis:
        options, model, (part, *others) = row.options, self._model, row.texts
        no_speech = row.witness.no_speech
        is_silent = no_speech > SILENT and part.mean_logprob is not None and part.mean_logprob < UNLIKELY
        text = "" if is_silent else clean_text(part.raw, has_marks=False)
        pieces = self._pieces(row, part) if text else ()
        covered_s = pieces[-1].end_s - row.request.audio.start_s if pieces else 0.0
        left_out_s = row.request.audio.duration_s - covered_s
        coverage = Comparison(round(covered_s / TIME_STEP_S), round(left_out_s / TIME_STEP_S))
        translation = None
        if options.translate:
            english = others[0] if others else part  # English speech is copied
            written = "" if is_silent else clean_text(english.raw, has_marks=False)
            is_empty = bool(text) and not written and english.reason == StopReason.EOS
            translation = Translation(
                written,
                ENGLISH,
                self._pieces(row, english) if options.segment_times and not is_silent else (),
                english.mean_logprob,
                "eos" if is_silent else "empty" if is_empty else str(english.reason),
            )
        segment = row.segment(
            text,
            thinking="",
            words=self._words(row) if options.word_times and text else (),
            language=row.witness.language if model.detects(options) and not is_silent else None,
            no_speech_probability=no_speech,
            pieces=pieces if options.segment_times else (),
            translation=translation,
            doubtful=not text and no_speech <= SILENT and row.request.audio.duration_s >= HAS_WORDS_S,
        )
        ends_early = bool(text) and left_out_s > LEFT_OUT_S
        return Hypothesis(segment, coverage, part.stopping.worth_retrying(row.reason, ends_early))

    def _words(self, row: WindowRow) -> tuple[Word, ...]:
        """Measure the times of the words of a transcript, from the tokens that its text keeps."""
        model, audio, part = self._model, row.request.audio, row.texts[0]
        pairs = [
            pair
            for pair in zip(part.stream.token_ids, part.logprobs, strict=False)
            if pair[0] < model.vocabulary.end
        ]
        raw = part.raw
        sources = model.vocabulary.spell([token_id for token_id, _ in pairs])[1][: len(raw)]
        del pairs[sources[-1][1] + 1 :]
        rows = model.rows_of(audio.samples)
        with self._timed("decode"):
            begins_s = model.token_times(row.memory, row.witness.language, [pair[0] for pair in pairs], rows)
        scores = [math.exp(min(0.0, logprob)) for _, logprob in pairs]
        return place_words(raw, sources, begins_s, scores, audio.start_s, audio.end_s)

    def _pieces(self, row: WindowRow, part: RowText) -> tuple[TimedText, ...]:
        """Divide a transcript or a translation at its time tokens."""
        audio = row.request.audio
        return timed_pieces(part, self._model.vocabulary, audio.start_s, audio.end_s)

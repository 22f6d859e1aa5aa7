"""SenseVoiceSmall behind the seam: a segment's text, tags and times, all in one step.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall.inference``) and
``funasr/utils/postprocess_utils.py`` (``rich_transcription_postprocess``). What differs: upstream spells all
frames as one text and takes its tags out of that; here a query's frame says a tag of its kind and nothing else,
and the text begins behind them. Upstream replaces every "The." by a space, since the model writes that of silence;
here it is left out where it is the whole text, and the model itself says that nobody speaks.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np

from funasr_cli.checkpoints.pieces import converted_vocabulary
from funasr_cli.compute.backend import mx, on_accelerator
from funasr_cli.compute.memory import available_bytes
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.stopping import StopReason
from funasr_cli.decoding.text import TextStream
from funasr_cli.decoding.words import time_words
from funasr_cli.families.cmvn import read_cmvn
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.frontend import FilterBankModel
from funasr_cli.families.sense_voice import config as tables
from funasr_cli.languages import resolve_language
from funasr_cli.measure import timed
from funasr_cli.options import DEFAULTS, MAX_SEGMENT_S, TranscribeOptions
from funasr_cli.speech_model import EncodedAudio, Hypothesis, SegmentRequest, Trace, Update
from funasr_cli.transcript import Segment

MOST_ROWS = 16  # more add little
CPU_ROWS_AT_ONCE = 4  # keep it busy; with more the first texts only come later
MADE_OF_SILENCE = "The."
HAS_WORDS_S = 1.0  # speech that lasts as long: no text is doubtful then
Seconds = dict[str, float]  # by stage


class SenseVoiceModel(FilterBankModel):
    """A SenseVoiceSmall that is ready to transcribe; see `SpeechModel`."""

    capabilities = tables.CAPABILITIES
    best_segment_s, longest_segment_s = 30.0, float(MAX_SEGMENT_S)
    window_s: float | None = None

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded.file.config.frontend)
        self.name, self.weights_type, self.parameters = loaded.name, loaded.weights_type, loaded.parameters
        self.network, self.config = loaded.network, loaded.file.config
        size = self.config.vocab_size
        self.vocabulary = converted_vocabulary(loaded.files, loaded.texts, size, tables.REQUIRED_TAGS)
        self.cmvn = read_cmvn(loaded.files, self.config.frontend.row_width)

    def session(self, options: TranscribeOptions) -> "SenseVoiceSession":
        """Begin a run."""
        return SenseVoiceSession(self, options)

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,), asked for any language; an `AudioError` where they are too few."""
        frames = self.hidden([samples], DEFAULTS, {})[0][tables.QUERIES :]  # (rows, encoder width)
        return EncodedAudio(frames, None, self.config.frontend.row_duration_s)

    def read_ctc(self, samples: np.ndarray, options: TranscribeOptions = DEFAULTS) -> CTCReading:
        """Return what it hears in (samples,), asked for the language and spelling of the options."""
        return self.reading(self.hidden([samples], options, {})[0])

    def trace(
        self, samples: np.ndarray, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
    ) -> Trace:
        """Take (samples,) through the model; no frame depends on what was written before it, or is forced."""
        [hidden] = self.hidden([samples], options, {})
        logits = np.array(self.network.ctc.logits(hidden))  # (queries + rows, vocabulary)
        stages = {"features": self.features(samples), "encoder": np.array(hidden)}
        token_ids, text = tuple(logits.argmax(-1).tolist()), self.reading(hidden).text
        return Trace(stages, logits, token_ids, text, self.config.blank_id)

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> None:
        """Return nothing: it is not asked in words."""

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at `sample_rate_hz` -> (rows, row width), normalised."""
        return self.cmvn(super().features(samples))

    def hidden(self, clips: list[np.ndarray], options: TranscribeOptions, seconds: Seconds) -> list[mx.array]:
        """(samples,) each -> (queries + rows, encoder width) each, and add the time that takes to `seconds`."""
        language = resolve_language(options.language, self.capabilities.languages)
        queries = tables.query_rows(language, itn=options.itn)
        with timed(seconds, "features"):
            features = [self.features(samples) for samples in clips]
        with timed(seconds, "encoder"):
            return self.network.encode(features, [queries] * len(features))

    def reading(self, hidden: mx.array) -> CTCReading:
        """(queries + rows, encoder width) -> what the CTC head hears in the rows."""
        rows, frame_s = hidden[tables.QUERIES :], self.config.frontend.row_duration_s
        return CTCReading(self.network.ctc, rows, self.vocabulary, self.config.blank_id, frame_s)

    def tag_probabilities(self, hidden: mx.array, query: int, tags: Iterable[str]) -> dict[str, float]:
        """Return how likely each of some tags is at a query, if it is one of those; unknown ones are left out."""
        ids = {tag: self.vocabulary.tags[tag] for tag in tags if tag in self.vocabulary.tags}
        logits = self.network.ctc.logits_of(hidden[query : query + 1], list(ids.values()))[0]  # (tags,)
        weights = np.exp(logits - logits.max())
        return dict(zip(ids, (weights / weights.sum()).tolist(), strict=True))


class SenseVoiceSession:
    """One run of the model: rows are read when they join, and end with the next step; see `Session`."""

    def __init__(self, model: SenseVoiceModel, options: TranscribeOptions):
        self._model, self._options = model, options
        resolve_language(options.language, model.capabilities.languages)  # refuses unknown ones
        self.rows_at_once = MOST_ROWS if on_accelerator() else CPU_ROWS_AT_ONCE
        self.seconds: Seconds = {}
        self._rows: dict[int, tuple[SegmentRequest, mx.array, CTCReading]] = {}
        self._numbers = count()

    @property
    def max_rows(self) -> int:
        """Choose as many as pay, if half of the free memory holds what a layer computes of them."""
        encoder, frame_s = self._model.config.encoder, self._model.config.frontend.row_duration_s
        frames = tables.QUERIES + math.ceil(self._options.max_segment_s / frame_s)
        values = frames * (encoder.heads * frames + encoder.ffn_dim + 8 * encoder.width)  # scores, FFN, q k v ...
        return max(1, min(MOST_ROWS, available_bytes() // 2 // (4 * values)))

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Let rows join, and return their numbers."""
        encoded = self._model.hidden([request.audio.samples for request in requests], self._options, self.seconds)
        with timed(self.seconds, "ctc"):
            readings = [self._model.reading(hidden) for hidden in encoded]
        numbers = [next(self._numbers) for _ in requests]
        self._rows.update(zip(numbers, zip(requests, encoded, readings, strict=True), strict=True))
        return numbers

    def step(self) -> list[Update]:
        """End all rows."""
        with timed(self.seconds, "ctc"):
            segments = {number: self._segment(*row) for number, row in self._rows.items()}
        self._rows.clear()
        return [
            Update(number, hypothesis=Hypothesis(segment), counts={"tokens": segment.tokens})
            for number, segment in segments.items()
        ]

    def drop(self, row: int) -> None:
        """Take a row out, if it has not ended."""
        self._rows.pop(row, None)

    def reset(self) -> set[int]:
        """Go on after an error; rows that have not ended are lost."""
        lost, self._rows = set(self._rows), {}
        return lost

    def _segment(self, request: SegmentRequest, hidden: mx.array, reading: CTCReading) -> Segment:
        start_s, end_s, options = request.audio.start_s, request.audio.end_s, self._options
        if not np.isfinite(reading.log_probs([reading.blank_id])).all():
            return Segment(start_s, end_s, "", "", str(StopReason.NONFINITE), request.retries, 0, None)
        found = [self._model.tag_probabilities(hidden, query, tags) for query, tags in enumerate(tables.TAGS)]
        language, emotion, event = (max(tags, key=tags.__getitem__) for tags in found)
        is_silent = language == tables.NO_SPEECH
        text = "" if is_silent and reading.text == MADE_OF_SILENCE else reading.text
        no_speech = found[0][tables.NO_SPEECH]
        stream, logprobs = TextStream(reading.vocabulary.decode), reading.token_logprobs()
        if options.confidence:
            for token_id, logprob in zip(reading.token_ids, logprobs, strict=True):
                stream.push(token_id, logprob)
        return Segment(
            start_s, end_s, text, thinking="", stop_reason=str(StopReason.EOS), retries=request.retries,
            tokens=len(logprobs), mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
            scores=stream.scores(text) if options.confidence else (),
            words=time_words(text, reading, start_s, end_s) if options.word_times else (),
            language=None if is_silent else language,
            tags=tuple(filter(None, (tables.EMOTION_TAGS[emotion], tables.EVENT_TAGS[event]))),
            no_speech_probability=no_speech,
            doubtful=not text and no_speech < 0.5 and end_s - start_s >= HAS_WORDS_S,
        )  # fmt: skip

"""A run of SenseVoiceSmall: the text, tags and times of each segment, all in one step.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall.inference``) and
``funasr/utils/postprocess_utils.py`` (``rich_transcription_postprocess``). What differs: upstream spells all
frames as one text and takes its tags out of that; here a query's frame says a tag of its kind and nothing else,
and the text begins behind them. Upstream replaces every "The." by a space, since the model writes that of silence;
here it is left out where it is the whole text, and the model itself says that nobody speaks.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from funasr_cli.compute.backend import mx, on_accelerator
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.stopping import StopReason
from funasr_cli.decoding.text import TextStream
from funasr_cli.decoding.words import time_words
from funasr_cli.families.sense_voice.config import (
    EMOTION_TAGS,
    EVENT_TAGS,
    LANGUAGE_TAGS,
    NO_SPEECH,
    query_rows,
)
from funasr_cli.languages import resolve_language
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest, Update
from funasr_cli.transcript import Segment

if TYPE_CHECKING:
    from funasr_cli.families.sense_voice.model import SenseVoiceModel

CPU_ROWS_AT_ONCE = 4  # keep it busy; with more the first texts only come later
MADE_OF_SILENCE = "The."


class SenseVoiceSession:
    """One run of the model: rows are read when they join, and end with the next step."""

    def __init__(self, model: "SenseVoiceModel", options: TranscribeOptions):
        self._model, self._options = model, options
        language = resolve_language(options.language, model.capabilities.languages)
        self._queries = query_rows(language, itn=options.itn)
        self.max_rows = options.batch_size or model.rows_that_fit(options.max_segment_s)
        self.rows_at_once = self.max_rows if on_accelerator() else min(self.max_rows, CPU_ROWS_AT_ONCE)
        self.seconds: dict[str, float] = defaultdict(float)
        self._rows: dict[int, tuple[SegmentRequest, mx.array, CTCReading]] = {}
        self._joined = 0  # rows so far

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Let rows join, and return their numbers."""
        model = self._model
        with self._timed("features"):
            features = [model.features(request.audio.samples) for request in requests]
        with self._timed("encoder"):
            encoded = model.network.encode(features, [self._queries] * len(features))
        with self._timed("ctc"):
            readings = [model.read(hidden) for hidden in encoded]
        numbers = list(range(self._joined, self._joined + len(requests)))
        self._joined += len(requests)
        self._rows.update(zip(numbers, zip(requests, encoded, readings, strict=True), strict=True))
        return numbers

    def step(self) -> list[Update]:
        """End all rows."""
        with self._timed("ctc"):
            segments = {number: self._segment(*row) for number, row in self._rows.items()}
        self._rows.clear()
        return [
            Update(number, hypothesis=Hypothesis(segment), counts={"tokens": segment.tokens})
            for number, segment in segments.items()
        ]

    def drop(self, row: int) -> None:
        """Take a row out."""
        del self._rows[row]

    def reset(self) -> set[int]:
        """Go on after an error; rows that have not ended are lost."""
        lost = set(self._rows)
        self._rows.clear()
        return lost

    def _segment(self, request: SegmentRequest, hidden: mx.array, reading: CTCReading) -> Segment:
        start_s, end_s, options = request.audio.start_s, request.audio.end_s, self._options
        if not np.isfinite(reading.log_probs([reading.blank_id])).all():
            return Segment(start_s, end_s, "", "", str(StopReason.NONFINITE), request.retries, 0, None)
        found = [
            self._model.tag_probabilities(hidden, query, tags)
            for query, tags in enumerate((LANGUAGE_TAGS, EMOTION_TAGS, EVENT_TAGS))
        ]
        language, emotion, event = (max(tags, key=tags.__getitem__) for tags in found)
        is_silent = language == NO_SPEECH
        text = "" if is_silent and reading.text == MADE_OF_SILENCE else reading.text
        stream, logprobs = TextStream(reading.vocabulary.decode), reading.token_logprobs()
        if options.confidence:
            for token_id, logprob in zip(reading.token_ids, logprobs, strict=True):
                stream.push(token_id, logprob)
        return Segment(
            start_s=start_s,
            end_s=end_s,
            text=text,
            thinking="",
            stop_reason=str(StopReason.EOS),
            retries=request.retries,
            tokens=len(logprobs),
            mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
            scores=stream.scores(text) if options.confidence else (),
            words=time_words(text, reading, start_s, end_s) if options.word_times else (),
            language=None if is_silent else language,
            tags=tuple(filter(None, (EMOTION_TAGS[emotion], EVENT_TAGS[event]))),
            no_speech_probability=found[0].get(NO_SPEECH),
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began

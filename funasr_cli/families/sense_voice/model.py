"""SenseVoiceSmall, ready to transcribe: text, tags and word times of a segment in a single step.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall.inference``) and
``funasr/utils/postprocess_utils.py`` (``rich_transcription_postprocess``). What differs: upstream decodes all
frames as one text and extracts the tags from it. Here, each query's frame can only give a tag of its kind, and the
text starts after these frames. The model writes "The." for silence. Upstream replaces every "The." by a space;
here it is dropped only if it is the whole text and the model's language tag is "no speech".
"""

from collections.abc import Iterable, Sequence

import numpy as np

from funasr_cli.capabilities import BEST_EFFORT
from funasr_cli.checkpoints.pieces import converted_vocabulary
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.stopping import StopReason
from funasr_cli.decoding.text import TextStream
from funasr_cli.decoding.words import time_words
from funasr_cli.families.batches import Frames
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.one_step import OneStepModel, OneStepSession, Seconds
from funasr_cli.families.sense_voice import config as tables
from funasr_cli.languages import resolve_language
from funasr_cli.measure import timed
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.speech_model import EncodedAudio, SegmentRequest, Trace
from funasr_cli.transcript import Segment

SILENCE_TEXT = "The."
HAS_WORDS_S = 1.0  # speech of this duration should have words, so an empty text is doubtful


class SenseVoiceModel(OneStepModel):
    """A SenseVoiceSmall that is ready to transcribe; see `SpeechModel`."""

    queries = tables.QUERIES
    row_options: tuple[str, ...] = ("language", "itn", "confidence", "word_times", *BEST_EFFORT)

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded)
        size = self.config.vocab_size
        self.vocabulary = converted_vocabulary(loaded.files, loaded.texts, size, tables.REQUIRED_TAGS)

    def session(self, options: TranscribeOptions) -> "SenseVoiceSession":
        """Begin a run."""
        return SenseVoiceSession(self, options)

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,), for any language; raise an `AudioError` if they are too few."""
        frames = self.hidden([samples], DEFAULTS, {})[0][tables.QUERIES :]  # (rows, encoder width)
        return EncodedAudio(mx.array(frames), None, self.config.frontend.row_duration_s)

    def read_ctc(self, samples: np.ndarray, options: TranscribeOptions = DEFAULTS) -> CTCReading:
        """Return the CTC output for (samples,), with the language and ITN of the options."""
        return self.reading(self.hidden([samples], options, {})[0])

    def trace(
        self, samples: np.ndarray, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
    ) -> Trace:
        """Run (samples,) through the model. `forced_ids` has no effect: no frame depends on earlier tokens."""
        [hidden] = self.hidden([samples], options, {})
        logits = np.array(self.network.ctc.logits(hidden))  # (queries + rows, vocabulary)
        stages = {"features": self.features(samples), "encoder": np.array(hidden)}
        token_ids, text = tuple(logits.argmax(-1).tolist()), self.reading(hidden).text
        return Trace(stages, logits, token_ids, text, self.config.blank_id)

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> None:
        """Return None, since the model has no text prompt."""

    def hidden(self, clips: list[np.ndarray], options: TranscribeOptions, seconds: Seconds) -> list[Frames]:
        """Encode clips (samples,) as (queries + rows, encoder width) each; add the time to `seconds`."""
        language = resolve_language(options.language, self.capabilities.languages)
        queries = tables.query_rows(language, itn=options.itn)
        with timed(seconds, "features"):
            features = [self.features(samples) for samples in clips]
        with timed(seconds, "encoder"):
            return self.network.encode(features, [queries] * len(features))

    def reading(self, hidden: Frames) -> CTCReading:
        """Return the CTC output for the rows of `hidden` (queries + rows, encoder width)."""
        rows, frame_s = hidden[tables.QUERIES :], self.config.frontend.row_duration_s
        return CTCReading(self.network.ctc, rows, self.vocabulary, self.config.blank_id, frame_s)

    def tag_probabilities(self, hidden: Frames, query: int, tags: Iterable[str]) -> dict[str, float]:
        """Return the probability of each tag at a query, among these tags; omit tags not in the vocabulary."""
        ids = {tag: self.vocabulary.tags[tag] for tag in tags if tag in self.vocabulary.tags}
        logits = self.network.ctc.logits_of(hidden[query : query + 1], list(ids.values()))[0]  # (tags,)
        weights = np.exp(logits - logits.max())
        return dict(zip(ids, (weights / weights.sum()).tolist(), strict=True))


class SenseVoiceSession(OneStepSession[tuple[Frames, CTCReading]]):
    """One run of the model; see `Session`."""

    def read(
        self, requests: Sequence[SegmentRequest], options: TranscribeOptions
    ) -> list[tuple[Frames, CTCReading]]:
        """Encode segments, and read the CTC output."""
        encoded = self._model.hidden([request.audio.samples for request in requests], options, self.seconds)
        with timed(self.seconds, "ctc"):
            return [(hidden, self._model.reading(hidden)) for hidden in encoded]

    def segment(
        self, request: SegmentRequest, options: TranscribeOptions, read: tuple[Frames, CTCReading]
    ) -> Segment:
        """Return the finished segment."""
        with timed(self.seconds, "ctc"):
            return self._segment(request, options, *read)

    def _segment(
        self, request: SegmentRequest, options: TranscribeOptions, hidden: Frames, reading: CTCReading
    ) -> Segment:
        start_s, end_s = request.audio.start_s, request.audio.end_s
        if not np.isfinite(reading.log_probs([reading.blank_id])).all():
            return Segment(start_s, end_s, "", "", str(StopReason.NONFINITE), request.retries, 0, None)
        found = [self._model.tag_probabilities(hidden, query, tags) for query, tags in enumerate(tables.TAGS)]
        language, emotion, event = (max(tags, key=tags.__getitem__) for tags in found)
        is_silent = language == tables.NO_SPEECH
        text = "" if is_silent and reading.text == SILENCE_TEXT else reading.text
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

"""Paraformer, ready to transcribe: text, character times and hotwords of a segment in a single step.

Source: FunASR ``funasr/models/paraformer/model.py`` (``Paraformer.inference``) and its subclasses. What differs:
upstream's batches give other results than single clips, see `models.cif`, and text and times have other rules, see
`families.paraformer.text`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from funasr_cli.capabilities import BEST_EFFORT
from funasr_cli.checkpoints.pieces import PIECES_FILE, converted_pieces, read_spelling
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.sources import scores_of, words_of
from funasr_cli.decoding.stopping import StopReason
from funasr_cli.families.batches import on_clips
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.one_step import OneStepModel, OneStepSession
from funasr_cli.families.paraformer.config import START_ID, ParaformerConfig
from funasr_cli.families.paraformer.layout_funasr import SPELLING_FILE, refuse_other_tokens
from funasr_cli.families.paraformer.text import hotword_ids, spell
from funasr_cli.measure import timed
from funasr_cli.models.cif import character_spans
from funasr_cli.models.paraformer import Hotwords, Reading
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import EncodedAudio, SegmentRequest, Trace
from funasr_cli.transcript import Segment


def read_vocabulary(files: Mapping[str, Path], texts: Mapping[str, str], config: ParaformerConfig) -> list[str]:
    """Read the tokens from a file, or from text not written yet; raise a `ModelError` if they do not fit."""
    tokens = converted_pieces(files, texts)
    refuse_other_tokens(files.get(PIECES_FILE, PIECES_FILE), tokens, config.decoder.vocab_size or 0)
    return tokens


class ParaformerModel(OneStepModel):
    """A Paraformer that is ready to transcribe; see `SpeechModel`."""

    row_options: tuple[str, ...] = ("language", "hotwords", "confidence", "word_times", *BEST_EFFORT)

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded)
        self.tokens = read_vocabulary(loaded.files, loaded.texts, self.config)
        self._files = loaded.files
        self._last: tuple[tuple[str, ...], Any] = ((), None)  # hotwords, and the same encoded

    def session(self, options: TranscribeOptions) -> "ParaformerSession":
        """Begin a run."""
        return ParaformerSession(self, options)

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,); raise an `AudioError` if they are too few."""
        [hidden] = self.hidden([self.features(samples)])
        return EncodedAudio(mx.array(hidden), None, self.config.frontend.row_duration_s)

    def trace(
        self, samples: np.ndarray, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
    ) -> Trace:
        """Run (samples,) through the model. Of `forced_ids`, only their number counts: as many tokens fire."""
        features = self.features(samples)
        hidden = self.hidden([features])
        [reading] = self.read(hidden, options, None if forced_ids is None else len(forced_ids))
        stages = {"features": features, "encoder": hidden[0]}
        return Trace(
            stages, reading.logits, tuple(reading.token_ids.tolist()), self.spelled(reading)[0], blank_id=0
        )

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> None:
        """Return None: there is no text prompt. Raise a `UsageError` for a hotword that cannot be spelled."""
        if options.hotwords:
            self.hotword_ids(options.hotwords)

    def hidden(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the encoder: (rows, row width) -> (rows, width) float32 for each clip."""
        return [np.array(rows, copy=None) for rows in on_clips(self.network.encoder, features)]

    def read(
        self, hidden: list[np.ndarray], options: TranscribeOptions, tokens: int | None = None
    ) -> list[Reading]:
        """Read clips from the encoder's output, (rows, width) each; `tokens` forces their number."""
        hotwords = self.hotwords(options.hotwords) if options.hotwords else None
        return list(self.network.read(hidden, hotwords, tokens, has_times=options.word_times))

    def hotwords(self, words: tuple[str, ...]) -> Hotwords:
        """Encode hotwords; raise a `UsageError` for one that the model cannot spell."""
        if words != self._last[0]:
            ids = [*self.hotword_ids(words), [START_ID]]
            self._last = words, Hotwords(self.network.hotwords(ids), self.config.hotwords.no_bias_id)
        return self._last[1]

    def hotword_ids(self, words: tuple[str, ...]) -> list[list[int]]:
        """Spell hotwords as token ids; raise a `UsageError` for one that the model cannot spell."""
        return [hotword_ids(word, self._spelling, self._ids) for word in words]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def _spelling(self) -> dict[str, list[str]]:
        return read_spelling(self._files[SPELLING_FILE], self.tokens)

    def spelled(self, reading: Reading) -> tuple[str, list[int]]:
        """Return the text of a reading, and for each character the index of its token among the written ones."""
        return spell([self.tokens[token_id] for token_id in reading.token_ids[reading.written]])

    def spans_s(self, reading: Reading, duration_s: float) -> list[tuple[float, float]]:
        """Return start and end of each written token, in seconds from the start of a clip of this duration.

        There are none if the reading has no times.
        """
        if reading.fine_weights is None:
            return []
        step_s = self.config.frontend.row_duration_s / self.config.predictor.times.upsampling
        spans = character_spans(reading.fine_weights, len(reading.written))
        return [(min(start * step_s, duration_s), min(end * step_s, duration_s)) for start, end in spans]


class ParaformerSession(OneStepSession[Reading]):
    """One run of the model; see `Session`."""

    def __init__(self, model: ParaformerModel, options: TranscribeOptions):
        super().__init__(model, options)
        model.prompt(options)  # raises if a hotword cannot be spelled

    def read(self, requests: Sequence[SegmentRequest], options: TranscribeOptions) -> list[Reading]:
        """Encode segments, and decode them."""
        with timed(self.seconds, "features"):
            features = [self._model.features(request.audio.samples) for request in requests]
        with timed(self.seconds, "encoder"):
            hidden = self._model.hidden(features)
        with timed(self.seconds, "decode"):
            return self._model.read(hidden, options)

    def segment(self, request: SegmentRequest, options: TranscribeOptions, read: Reading) -> Segment:
        """Return the finished segment."""
        start_s, end_s = request.audio.start_s, request.audio.end_s
        if not (np.isfinite(read.hidden).all() and np.isfinite(read.logprobs).all()):
            return Segment(start_s, end_s, "", "", str(StopReason.NONFINITE), request.retries, 0, None)
        text, sources = self._model.spelled(read)
        probabilities, spans_s = np.exp(read.logprobs[read.written]), self._model.spans_s(read, end_s - start_s)
        return Segment(
            start_s, end_s, text, thinking="", stop_reason=str(StopReason.EOS), retries=request.retries,
            tokens=len(read.token_ids),
            mean_logprob=float(read.logprobs.mean()) if len(read.logprobs) else None,
            scores=scores_of(text, sources, probabilities) if options.confidence else (),
            words=words_of(text, sources, probabilities, spans_s, start_s) if spans_s else (),
        )  # fmt: skip

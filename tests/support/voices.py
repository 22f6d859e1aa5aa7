"""A model of voices that only hears whether they are loud, a model with word times, and speech for both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import soundfile
from support.speaking import SAID, SpeakingModel, SpeakingSession

from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.speech_model import SegmentRequest, Trace
from funasr_cli.transcript import Segment, Translation, Word

RATE_HZ = 16000
LOUD, QUIET = 1.0, 0.03
WORDS = "one two three four five six seven eight nine ten".split()
ABLE = Capabilities(("zh", "en"), word_times=True, translation=True)
SAYS = replace(SAID, text=" ".join(WORDS), translation=Translation("eins", "de"), tags=())


class Levels:
    """A model of voices that only hears whether a voice is loud."""

    name, sample_rate_hz = "levels", RATE_HZ

    def embed(self, clips: np.ndarray) -> np.ndarray:
        quiet = np.sqrt((clips**2).mean(axis=1)) < 0.01
        return np.eye(2, dtype=np.float32)[quiet.astype(int)]

    def trace(self) -> Trace:
        raise NotImplementedError


class Timed(SpeakingModel):
    """A model that says the same words in each segment, at regular times if they are asked for."""

    def session(self, options: TranscribeOptions) -> SpeakingSession:
        return TimedSession(self.result)


class TimedSession(SpeakingSession):
    def _segment(self, request: SegmentRequest) -> Segment:
        said, wanted = super()._segment(request), request.options
        if not (wanted and wanted.word_times):
            return said
        edges = np.linspace(said.start_s, said.end_s, len(WORDS) + 1).tolist()
        return replace(said, words=tuple(map(Word, WORDS, edges, edges[1:], [0.9] * len(WORDS))))


def recognizer(able: Capabilities = ABLE) -> Recognizer:
    model: Any = Timed(capabilities=able, result=SAYS, row_options=("word_times", "translate", "language"))
    return Recognizer(model)


def spoken() -> np.ndarray:
    """Return 5 s without long pauses."""
    clips = [soundfile.read(clip.path, dtype="float32")[0] for clip in demo.clips()]
    loud = [clip[np.abs(clip) > 0.02 * np.abs(clip).max()] for clip in clips]
    return np.asarray(np.concatenate([clip / np.abs(clip).max() for clip in loud])[: 5 * RATE_HZ])

"""Recordings to stretches of speech with their features: the part that runs ahead of the model."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from funasr_cli.audio.recording import Source
from funasr_cli.audio.segments import Segmenter, Stretch
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.errors import AudioError, FunASRError
from funasr_cli.measure import StageClock
from funasr_cli.options import TranscribeOptions

Opener = Callable[[], Source]  # raises FunASRError where a recording cannot be opened
Features = Callable[[np.ndarray], np.ndarray]  # (samples,) -> (rows, row width)


@dataclass(frozen=True)
class Opened:
    """A recording's turn has come."""

    source: int
    name: str
    started: float  # on the clock of `time.perf_counter`


@dataclass(frozen=True)
class Speech:
    """A stretch of a recording on its way to a text.

    Attributes:
        features: (rows, row width).
        first: whether it is where the recording's speech begins.
        retries: how often what it is a part of has been decoded before.
    """

    source: int
    stretch: Stretch
    features: np.ndarray
    first: bool
    retries: int = 0


@dataclass(frozen=True)
class Ended:
    """Nothing more comes of a recording.

    Attributes:
        read_s: its length as far as it could be read.
        unread_s: what its header promised beyond that.
        error: what went wrong, if it did.
        seconds: what reading, finding speech and features took.
    """

    source: int
    read_s: float
    unread_s: float = 0.0
    error: FunASRError | None = None
    seconds: dict[str, float] = field(default_factory=dict)


Arrival = Opened | Speech | Ended


def read_sources(openers: Iterable[Opener], features: Features, options: TranscribeOptions) -> Iterator[Arrival]:
    """Open one recording after the other; its speech, then its end. An unreadable one is an end with an error."""
    for source, opener in enumerate(openers):
        started = time.perf_counter()
        try:
            recording = opener()
            if recording.sample_rate_hz != SAMPLE_RATE_HZ:
                raise AudioError(f"{recording.name}: {recording.sample_rate_hz} Hz, not {SAMPLE_RATE_HZ}")
        except FunASRError as error:
            yield Opened(source, "", started)
            yield Ended(source, 0.0, error=error)
        else:
            yield Opened(source, recording.name, started)
            yield from _read(source, recording, features, options)


def _read(source: int, recording: Source, features: Features, options: TranscribeOptions) -> Iterator[Arrival]:
    clock, segmenter, error, first = StageClock(), Segmenter(options), None, True
    blocks = iter(recording.blocks())
    ended = False
    while not ended:
        try:
            with clock.stage("read"):
                block = next(blocks, None)
        except FunASRError as raised:
            block, error = None, raised
        ended = block is None
        with clock.stage("vad"):
            stretches = segmenter.finish() if block is None else segmenter.push(block)
        for stretch in stretches:
            with clock.stage("features"):
                speech = Speech(source, stretch, features(stretch.samples), first)
                first = False
            yield speech
    read_s = segmenter.read / SAMPLE_RATE_HZ
    unread_s = max(0.0, (recording.expected_s or 0.0) - read_s) if error else 0.0
    yield Ended(source, read_s, unread_s, error, dict(clock.seconds))

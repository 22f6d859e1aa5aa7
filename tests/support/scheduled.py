"""The scheduler with a scripted model: no networks, and every sample is identified by its value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.segmenting import in_frames

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ
from funasr_cli.capabilities import Capabilities
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.stopping import token_budget
from funasr_cli.errors import FunASRError
from funasr_cli.families import rows as rows_module
from funasr_cli.families.fun_asr_nano import session
from funasr_cli.families.fun_asr_nano.session import NanoSession
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling import scheduler, segments
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished
from funasr_cli.scheduling.scheduler import MAX_RETRIES, Scheduler
from funasr_cli.scheduling.segments import Segmenter
from funasr_cli.transcript import Transcript

STOP = 5000
SPELLS_NOTHING = 5001
FIRST_CHARACTER = 0x4E00
EACH_SOURCE = 1 << 20  # maximum number of samples in a recording
STEPS = 1 << 23  # number of float32 values from 1 to 2: all about equally loud
LOOPING_TOKENS = 16


@dataclass(frozen=True)
class Attempt:
    """A part of a recording that is decoded, in samples. `level` counts earlier attempts at larger parts."""

    source: int
    start: int
    end: int
    level: int = 0


Outcome = Callable[[Attempt], str]  # -> "eos", "loop", "budget", "nonfinite" or "crash"


@dataclass
class Recorded:
    """A recording with speech in the given runs of (frames, probability), and a fault while it is read."""

    source: int
    runs: Sequence[tuple[int, float]]
    block: int = 16000
    cut_off: int = 0  # samples missing from the last frame
    expected_s: float | None = None
    fault: Exception | None = None
    fault_after: int = 0  # number of blocks before the fault
    name: str = ""
    sample_rate_hz: int = SAMPLE_RATE_HZ
    start_s: float = 0.0
    blocks_read: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.name = self.name or f"{self.source}.wav"
        self.speech = [level for count, level in self.runs for _ in range(count)]
        self.count = max(0, len(self.speech) * FRAME_SAMPLES - self.cut_off)
        assert self.count <= EACH_SOURCE

    @property
    def samples(self) -> np.ndarray:
        """The samples, (samples,). Each value encodes its own position."""
        return (1 + (np.arange(self.count) + self.source * EACH_SOURCE) / STEPS).astype(np.float32)

    def readable(self) -> np.ndarray:
        """The samples before the fault, (samples,)."""
        return self.samples[: self.fault_after * self.block] if self.fault else self.samples

    def blocks(self) -> Iterator[np.ndarray]:
        samples = self.readable()
        try:
            for start in range(0, len(samples), self.block):
                self.blocks_read += 1
                yield samples[start : start + self.block]
            if self.fault:
                raise self.fault
        finally:
            self.closed = True


def talk(source: int, *speech_s: float, pause_s: float = 1.0, **rest: object) -> Recorded:
    """Return speech of these lengths, with pauses in between."""
    runs = [(in_frames(pause_s), 0.0)]
    for duration_s in speech_s:
        runs += [(in_frames(duration_s), 1.0), (in_frames(pause_s), 0.0)]
    return Recorded(source, runs, **rest)  # type: ignore[arg-type]


def numbers_of(samples: np.ndarray) -> tuple[int, int]:
    """Return source and position of the first of these samples, and assert that they are consecutive."""
    numbers = np.rint((samples.astype(np.float64) - 1) * STEPS).astype(int)
    assert (np.diff(numbers) == 1).all()
    return divmod(int(numbers[0]), EACH_SOURCE)


def scripted_detector(recordings: Sequence[Recorded]) -> Callable[[], Callable[[np.ndarray], np.ndarray]]:
    """Return a replacement for the voice activity detector that recognises each frame by its first sample."""
    speech = {recording.source: recording.speech for recording in recordings}

    def detect(samples: np.ndarray) -> np.ndarray:
        if not len(samples):
            return np.zeros(0, np.float32)
        source, start = numbers_of(samples[:1])
        first = start // FRAME_SAMPLES
        return np.array(speech[source][first : first + len(samples) // FRAME_SAMPLES], np.float32)

    return lambda: detect


def character(token_id: int) -> str:
    return "" if token_id == SPELLS_NOTHING else chr(FIRST_CHARACTER + token_id)


def tokens_for(kind: str) -> Iterator[tuple[int, float]]:
    """Yield an endless stream of ids and log-probabilities. Each token is one character of text."""
    if kind == "silent":
        yield STOP, -0.5
    if kind in ("eos", "nonfinite", "crash"):
        yield from [(index, -0.5) for index in (SPELLS_NOTHING, 7, 8, SPELLS_NOTHING, 9)]
        yield (STOP, -0.5) if kind == "eos" else (1, float("nan"))
    elif kind == "loop":
        yield from [(1, -1.0), (2, -1.0)]
        while True:
            yield 3, -0.1
    index = 100
    while True:
        index += 1
        yield index, -2.0


@dataclass
class Model:
    """A replacement for Fun-ASR-Nano and for its decoder.

    Attributes:
        outcome: decides how an attempt ends.
        admitted: all attempts, in the order in which they joined the batch.
        crashed: for each failed computation, the sources that had a part in it.
        ctc_text_of: the CTC branch's text for an attempt; None without a CTC branch.
    """

    outcome: Outcome
    options: TranscribeOptions
    crash_in_encoder: Callable[[Attempt], bool] = lambda attempt: False
    on_admission: Callable[[Attempt], None] = lambda attempt: None
    admitted: list[Attempt] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)  # number of attempts that joined together
    most_live: int = 0
    tokens: dict[int, int] = field(default_factory=dict)  # number of tokens returned, by source
    crashed: list[set[int]] = field(default_factory=list)
    decoders: int = 0
    ctc_text_of: Callable[[Attempt], str] | None = None
    stages: Sequence[Any] = ()

    def __post_init__(self) -> None:
        self.config = SimpleNamespace(
            prompt=SimpleNamespace(languages=("zh", "en")), stop_token_ids=(STOP,), ctc=self.ctc_text_of
        )
        self.name, self.engine, self.matrix_dtype = "scripted", "script", mx.float32
        self.tokenizer, self.network = None, SimpleNamespace(llm=self)
        self.window_s, self.best_segment_s, self.longest_segment_s = None, 30.0, 300.0
        self.row_options = session.ROW_OPTIONS
        self.capabilities = Capabilities(("zh", "en"), partial_text=True)

    def session(self, options: TranscribeOptions) -> NanoSession:
        return NanoSession(self, options)  # type: ignore[arg-type]

    def features(self, samples: np.ndarray) -> np.ndarray:
        source, start = numbers_of(samples)
        return np.full((1 + len(samples) // 960, 3), [source, start, len(samples)], np.int64)

    def encoded(self, features: list[np.ndarray]) -> list[Attempt]:
        attempts = [self._attempt(*rows[0].tolist()) for rows in features]
        if any(map(self.crash_in_encoder, attempts)):
            self.crashed.append({attempt.source for attempt in attempts})
            raise RuntimeError("[malloc] out of memory")
        return attempts

    def prompts(self, encoded: list[Attempt], *_: object) -> list[Attempt]:
        return encoded

    def ctc_readings(self, encoded: list[Attempt]) -> list[SimpleNamespace]:
        assert self.ctc_text_of
        return [SimpleNamespace(text=self.ctc_text_of(attempt)) for attempt in encoded]

    def spell(self, token_ids: list[int]) -> str:
        return "".join(map(character, token_ids))

    def _attempt(self, source: int, start: int, count: int) -> Attempt:
        end = start + count
        around = [one for one in self.admitted if one.source == source and one.start <= start and end <= one.end]
        return Attempt(source, start, end, len(around))

    def new_decoder(self, llm: Model, sampler: object) -> Decoder:
        """Replace the class `BatchDecoder`."""
        assert llm is self
        self.decoders += 1
        return Decoder(self)

    def step(self, live: dict[int, tuple[Attempt, Iterator[tuple[int, float]]]]) -> list[Token]:
        """Advance the rows of a decoder."""
        tokens = []
        for row, (attempt, script) in live.items():
            token_id, logprob = next(script)
            if self.outcome(attempt) == "crash" and not np.isfinite(logprob):
                self.crashed.append({each.source for each, _ in live.values()})
                raise RuntimeError("[malloc] out of memory")
            tokens.append(Token(row, token_id, logprob))
            self.tokens[attempt.source] = self.tokens.get(attempt.source, 0) + 1
        return tokens

    def run(self, recordings: Sequence[Recorded], openers: Iterable[Callable[[], Recorded]]) -> Iterator[Event]:
        """Yield the events for recordings decoded with this model, except reading progress."""
        return (event for event in self.run_all(recordings, openers) if not isinstance(event, Read))

    def run_all(
        self, recordings: Sequence[Recorded], openers: Iterable[Callable[[], Recorded]]
    ) -> Iterator[Event]:
        """Yield the scheduler's events for recordings with this model; it waits until its queue is full."""
        with self.in_place(recordings) as patch:
            patch.setattr(scheduler, "GATHER_S", 60.0)
            yield from Scheduler(self, self.options, self.stages).run(openers)  # type: ignore[arg-type]

    @contextmanager
    def in_place(self, recordings: Sequence[Recorded]) -> Iterator[pytest.MonkeyPatch]:
        """Let sessions decode with this model, and the voice activity detector find the recordings' speech."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows_module, "BatchDecoder", self.new_decoder)
            patch.setattr(session, "prompt_token_ids", lambda *_: ([], []))
            patch.setattr(segments, "VoiceActivityDetector", scripted_detector(recordings))
            yield patch


class Decoder:
    """The rows of a session of a scripted model."""

    def __init__(self, model: Model):
        self._model = model
        self.live: dict[int, tuple[Attempt, Iterator[tuple[int, float]]]] = {}

    def begin_with(self, shared: list[int]) -> None:
        pass

    def add(self, prompts: list[Attempt], drafts: list[None]) -> list[int]:
        model = self._model
        numbers = list(range(len(model.admitted), len(model.admitted) + len(prompts)))
        model.admitted += prompts
        model.groups.append(len(prompts))
        for number, attempt in zip(numbers, prompts, strict=True):
            self.live[number] = attempt, tokens_for(model.outcome(attempt))
            model.on_admission(attempt)
        model.most_live = max(model.most_live, len(self.live))
        return numbers

    def end(self, row: int) -> None:
        self.live.pop(row, None)

    def close(self) -> None:
        pass

    def step(self) -> list[Token]:
        return self._model.step(self.live)


def always(kind: str) -> Outcome:
    return lambda attempt: kind


def run(model: Model, recordings: Sequence[Recorded]) -> list[Event]:
    """Return all events of recordings that can be opened."""
    return list(model.run(recordings, [lambda recording=recording: recording for recording in recordings]))


def transcripts_of(events: Iterable[Event]) -> dict[int, Transcript]:
    return {event.source: event.transcript for event in events if isinstance(event, Finished)}


def failures_of(events: Iterable[Event]) -> dict[int, FunASRError]:
    return {event.source: event.error for event in events if isinstance(event, Failed)}


# An expected segment: start and end in samples, stop reason, retries, text, tokens.
Expected = tuple[int, int, str, int, str, int]


def expected_segments(recording: Recorded, outcome: Outcome, options: TranscribeOptions) -> list[Expected]:
    """Return the segments of a recording, computed from the script alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "VoiceActivityDetector", scripted_detector([recording]))
        segmenter = Segmenter(options)
    cut = segmenter.push(recording.readable()) + segmenter.finish()
    return [segment for audio in cut for segment in _expected(recording.source, audio, 0, outcome, options)]


def _expected(
    source: int, audio: AudioSegment, level: int, outcome: Outcome, options: TranscribeOptions
) -> list[Expected]:
    script = tokens_for(outcome(Attempt(source, audio.start, audio.end, level)))
    kind, tokens, text = _written(script, options.max_tokens or token_budget(audio.duration_s))
    again = kind == "loop" or (kind == "budget" and options.max_tokens is None)
    halves = audio.halves() if again and level < MAX_RETRIES else None
    if halves:
        return [one for half in halves for one in _expected(source, half, level + 1, outcome, options)]
    return [(audio.start, audio.end, kind, level, text, tokens)]


def _written(script: Iterator[tuple[int, float]], budget: int) -> tuple[str, int, str]:
    """Return the row's stop reason, its number of finite tokens, and its text."""
    text = ""
    for count, (token_id, logprob) in enumerate(script, 1):
        if not np.isfinite(logprob):
            return "nonfinite", count - 1, text
        if token_id == STOP:
            return "eos", count, text
        text += character(token_id)
        if len(text) >= LOOPING_TOKENS and len(set(text[-LOOPING_TOKENS:])) == 1:
            return "loop", count, text[: 1 - LOOPING_TOKENS]
        if count == budget:
            return "budget", count, text
    raise AssertionError("scripts do not end")


def assert_protocol(events: Sequence[Event], sources: Sequence[int]) -> None:
    """Assert that every input ends once, segments come in order, and drafts grow and end before their segment."""
    ended: set[int] = set()
    drafts: dict[tuple[int, float], str] = {}
    reached: dict[int, float] = {}
    settled: dict[int, list[object]] = {source: [] for source in sources}
    for event in events:
        assert event.source not in ended
        if isinstance(event, PartialText):
            key = event.source, event.start_s
            if event.text is None:
                del drafts[key]
            else:
                assert event.text.startswith(drafts.get(key, ""))
                assert event.text != drafts.get(key)  # it grows, or is the first
                assert (event.text == "") == (key not in drafts)
                drafts[key] = event.text
        elif isinstance(event, SegmentFinished):
            segment = event.segment
            assert (event.source, segment.start_s) not in drafts
            assert reached.get(event.source, 0.0) <= segment.start_s < segment.end_s
            reached[event.source] = segment.end_s
            settled[event.source].append(segment)
        else:
            ended.add(event.source)
            assert not [key for key in drafts if key[0] == event.source]
            if isinstance(event, Finished):
                assert list(event.transcript.segments) == settled[event.source]
    assert ended == set(sources)

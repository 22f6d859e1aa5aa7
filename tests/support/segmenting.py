"""Recordings with a scripted voice activity detector, and the expected segment boundaries."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from funasr_cli.audio.fsmn_rules import FRAME_MS, FsmnRules
from funasr_cli.audio.segment import AudioSegment, deepest_pause
from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling import segments
from funasr_cli.scheduling.segments import Segmenter

PART_FRAMES = 16  # half a second
CLICK_FRAMES = 3  # anything shorter is not speech


class Scripted:
    """A detector that returns a fixed sequence of probabilities."""

    def __init__(self, speech: Sequence[float]):
        self.speech = np.array(speech, np.float32)
        self.seen = 0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        assert samples.ndim == 1
        assert len(samples) % FRAME_SAMPLES == 0
        start, self.seen = self.seen, self.seen + len(samples) // FRAME_SAMPLES
        assert self.seen <= len(self.speech)
        return self.speech[start : self.seen]


def segments_of(
    samples: np.ndarray,
    options: TranscribeOptions,
    speech: Sequence[float] | None = None,
    cuts: Sequence[int] = (),
) -> list[AudioSegment]:
    """Return all segments of a recording that arrives in blocks, split at ``cuts``."""
    with pytest.MonkeyPatch.context() as patch:
        if speech is not None:
            patch.setattr(segments, "VoiceActivityDetector", lambda: Scripted(speech))
        segmenter = Segmenter(options)
    found = [segment for block in np.split(samples, cuts) for segment in segmenter.push(block)]
    found += segmenter.finish()
    assert segmenter.read == len(samples)
    return found


def noise(count: int, level: float = 0.1) -> np.ndarray:
    """Return `count` samples of steady noise."""
    return (level * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


def seconds(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ)


def in_frames(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ / FRAME_SAMPLES)


def places(segments: Sequence[AudioSegment]) -> list[tuple[int, int]]:
    return [(segment.start, segment.end) for segment in segments]


def scripted(*runs: tuple[float, float]) -> tuple[np.ndarray, list[float]]:
    """Return noise and probabilities for runs of (seconds, probability), in whole frames."""
    speech = [level for duration_s, level in runs for _ in range(in_frames(duration_s))]
    return noise(len(speech) * FRAME_SAMPLES), speech


def loudness_db(samples: np.ndarray) -> np.ndarray:
    """Return the loudness of each frame: (samples,) -> (frames,). The last frame is zero-padded."""
    padded = np.zeros(-(-len(samples) // FRAME_SAMPLES) * FRAME_SAMPLES, np.float32)
    padded[: len(samples)] = samples
    return 10 * np.log10((padded.reshape(-1, FRAME_SAMPLES) ** 2).mean(axis=1) + 1e-10)


class Offline:
    """The same segmentation computed on the whole recording at once, without state between segments."""

    def __init__(self, samples: np.ndarray, speech: Sequence[float], options: TranscribeOptions):
        self.speech = np.array(speech, np.float32)
        self.activity = self.speech + loudness_db(samples) / 20
        self.length = len(samples)
        self.options = options
        self.threshold = options.vad_threshold or 0.5
        self.min_pause_s = options.min_pause_s or 0.4
        self.low = max(self.threshold - 0.15, 0.01)
        self.margin = in_frames(min(0.2, self.min_pause_s))
        self.longest_s, self.join_s = options.max_segment_s or 30.0, options.join_s or 0.0
        self.longest = int(self.longest_s * SAMPLE_RATE_HZ) // FRAME_SAMPLES

    def places(self) -> list[tuple[int, int]]:
        """The start and end of every segment, in samples."""
        found = []
        free = frame = 0
        while (onset := self.first_speech(frame)) is not None:
            parts, free, frame = self.one(max(free, onset - self.margin), onset)
            found += parts
        return [(first * FRAME_SAMPLES, min(last * FRAME_SAMPLES, self.length)) for first, last in found]

    def first_speech(self, frame: int) -> int | None:
        above = np.flatnonzero(self.speech[frame:] >= self.threshold)
        return frame + int(above[0]) if len(above) else None

    def one(self, start: int, frame: int) -> tuple[list[tuple[int, int]], int, int]:
        """Return the parts of a segment that opens at a frame, the next start of a margin, and the next frame."""
        parts: list[tuple[int, int]] = []
        quiet = 0
        for after in range(frame + 1, len(self.speech) + 1):
            quiet = 0 if self.speech[after - 1] >= self.low else quiet + 1
            if quiet and quiet >= self.needed(after - quiet - start):
                end = max(start, after - quiet + self.margin)
                return parts + self.close(start, end, bool(parts)), end, after
            if after - start > self.longest + PART_FRAMES:
                cut = self.deepest(start, after, self.longest // 2, self.longest)
                parts.append((start, cut))
                start = cut
        end = min(len(self.speech), len(self.speech) - quiet + self.margin) if quiet else len(self.speech)
        return parts + self.close(start, end, bool(parts)), end, len(self.speech)

    def needed(self, grown: int) -> int:
        share = min(1.0, max(0, grown) / in_frames(self.join_s)) if self.join_s else 1.0
        longest_s = max(1.0, self.join_s / 10, self.min_pause_s)
        return in_frames(longest_s + share * (self.min_pause_s - longest_s))

    def close(self, start: int, end: int, goes_on: bool) -> list[tuple[int, int]]:
        speech = self.speech[start:end]
        if goes_on and not (speech >= self.low).any():
            return []
        if not goes_on and (speech >= self.threshold).sum() < CLICK_FRAMES:
            return []
        if min(end * FRAME_SAMPLES, self.length) - start * FRAME_SAMPLES <= seconds(self.longest_s):
            return [(start, end)]
        first = max(PART_FRAMES, end - start - self.longest)
        cut = self.deepest(start, end, first, min(self.longest, end - start - PART_FRAMES))
        return [(start, cut), (cut, end)]

    def deepest(self, start: int, end: int, first: int, last: int) -> int:
        return start + deepest_pause(self.activity[start:end], first, last)


def with_dips(duration_s: float, *dips_s: float) -> np.ndarray:
    """Return noise whose level drops to a tenth for 0.2 s at each of these times."""
    samples = noise(seconds(duration_s))
    for dip_s in dips_s:
        samples[seconds(dip_s) : seconds(dip_s + 0.2)] *= 0.1
    return samples


def fsmn_segments(rules: FsmnRules, speech: Sequence[float]) -> list[list[int]]:
    """Return the segments that FSMN-VAD's rules find in a whole recording, [start, end] in ms."""
    found = []
    for probability in speech:
        start = rules.start
        end = rules.step(float(probability))
        if end is not None:
            assert start is not None
            found.append([start * FRAME_MS, end * FRAME_MS])
    return found if rules.start is None else [*found, [rules.start * FRAME_MS, len(speech) * FRAME_MS]]


def flickering(rng: random.Random, frames: int) -> list[float]:
    """Return speech probabilities that change as those of speech do: runs of random length, with flickering."""
    speech: list[float] = []
    while len(speech) < frames:
        level = rng.choice((0.99, 0.99, 0.01, 0.01, 0.7))
        for _ in range(rng.choice((3, 14, 15, 16, 40, 70, 200))):
            speech.append(min(max(level + rng.choice((0, 0, 0, 0.5, -0.5)) * rng.random(), 1e-4), 1 - 1e-4))
    return speech[:frames]

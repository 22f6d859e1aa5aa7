"""Join clips into long recordings with pauses, and measure how well a segmentation finds the clips."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from funasr_cli.audio.decode import load_audio
from tools.accuracy.decoding import Clip

SAMPLE_RATE_HZ = 16_000
PAUSES_S = (0.3, 3.0)
NOISE_S = 30.0  # after this time the noise changes, so that a figure does not depend on a single noise
FRAME_SAMPLES = 160  # 10 ms
POWER_RANGE_DB, EXTENT_RANGE_DB = 30, 40  # below the loudest frame: frames that count for power, for extent
TOUCH_S = 0.1  # a segment with less of a clip does not contain it

Span = tuple[float, float]  # start and end in seconds


@dataclass(frozen=True)
class JoinedRecording:
    """Clips in one file, one after the other.

    Attributes:
        path: FLAC; a `.jsonl` of the same name lists start, end and file of each clip.
        clips: in the order of the recording; their paths are those of the original clips without noise.
        spans: start and end of each clip, including its own silence.
        speech: start and end of the speech: the first and last loud frame of the clean clip.
        duration_s: length of the recording.
    """

    path: Path
    clips: list[Clip]
    spans: list[Span]
    speech: list[Span]
    duration_s: float

    @property
    def speech_s(self) -> float:
        """Total duration of the speech, in seconds."""
        return total_s(self.speech)


@dataclass(frozen=True)
class Coverage:
    """How well segments match the clips of a joined recording.

    Attributes:
        precision: share of the segments' seconds that is speech.
        recall: share of the speech's seconds that is in a segment.
        split: clips cut into several segments.
        joined: segments that hold several clips.
        missed: clips in no segment.
        empty: segments without a clip.
    """

    precision: float
    recall: float
    split: int
    joined: int
    missed: int
    empty: int


def join_clips(
    clips: Sequence[Clip], path: Path, language: str | None = None, snr_db: float | None = None, seed: int = 1
) -> JoinedRecording:
    """Join clean clips into one recording. The seed determines order, pauses and noise; `snr_db` only the noise.

    Args:
        clips: clean ones.
        path: FLAC file to write, 16 kHz, 16 bit.
        language: use only clips in this language; None uses all.
        snr_db: ratio of speech power within clips to noise power; None adds no noise.
        seed: seed of the random numbers.
    """
    rng = np.random.default_rng(seed)
    chosen = [clip for clip in clips if language in (None, clip.language)]
    chosen = [chosen[index] for index in rng.permutation(len(chosen))]
    voices = [load_audio(clip.path, SAMPLE_RATE_HZ).samples for clip in chosen]
    pauses = np.round(rng.uniform(*PAUSES_S, len(chosen) + 1) * SAMPLE_RATE_HZ).astype(int)
    starts = np.cumsum(pauses)[:-1] + np.cumsum([0, *map(len, voices)])[:-1]
    samples = np.zeros(pauses.sum() + sum(map(len, voices)))
    for start, voice in zip(starts, voices, strict=True):
        samples[start : start + len(voice)] = voice
    if snr_db is not None:
        samples += np.sqrt(speech_power(voices) / 10 ** (snr_db / 10)) * make_noise(len(samples), rng)
    samples /= max(1.0, np.abs(samples).max() / 0.99)
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    spans = [_seconds(start, 0, len(voice)) for start, voice in zip(starts, voices, strict=True)]
    speech = [_seconds(start, *speech_extent(voice)) for start, voice in zip(starts, voices, strict=True)]
    rows = [
        {"start_s": start_s, "end_s": end_s, "file": clip.path.name}
        for (start_s, end_s), clip in zip(spans, chosen, strict=True)
    ]
    path.with_suffix(".jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return JoinedRecording(path, chosen, spans, speech, len(samples) / SAMPLE_RATE_HZ)


def cut_clips(recording: JoinedRecording, folder: Path) -> list[Clip]:
    """Cut the clips, including noise, out of the recording into files in a folder, and return them."""
    samples, _ = soundfile.read(recording.path, dtype="int16")
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for clip, span_s in zip(recording.clips, recording.spans, strict=True):
        start, end = (round(time_s * SAMPLE_RATE_HZ) for time_s in span_s)
        path = folder / f"{clip.path.stem}.flac"
        soundfile.write(path, samples[start:end], SAMPLE_RATE_HZ, subtype="PCM_16")
        clips.append(dataclasses.replace(clip, path=path))
    return clips


def make_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise (count,) of mean power 1; its random kind changes after every `NOISE_S`."""
    step = round(NOISE_S * SAMPLE_RATE_HZ)
    return np.concatenate([_one_noise(min(step, count - start), rng) for start in range(0, count, step)])


def _one_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise like `augment.add_noise` of the training: coloured, sometimes swelling, sometimes with hum."""
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    colour = rng.uniform(-0.5, 0.98)  # of a one-pole filter, applied to the spectrum
    turns = np.exp(-2j * np.pi * np.fft.rfftfreq(count))
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) / (1 - colour * turns), count)
    if rng.random() < 0.4:
        cycles = rng.uniform(0.3, 4) * time_s
        noise *= 1 + rng.uniform(0.2, 0.9) * np.sin(2 * np.pi * (cycles + rng.random()))
    if rng.random() < 0.2:
        hum = np.sin(2 * np.pi * rng.choice((50, 60, 100, 120)) * time_s)
        noise = noise / noise.std() + rng.uniform(0.3, 1.5) * hum
    return noise / np.sqrt(np.mean(noise**2))


def speech_power(voices: Sequence[np.ndarray]) -> float:
    """Return the mean power of frames within `POWER_RANGE_DB` of the loudest frame of their clip."""
    powers = [_frame_powers(voice) for voice in voices]
    return float(np.concatenate([p[p >= p.max() / 10 ** (POWER_RANGE_DB / 10)] for p in powers]).mean())


def speech_extent(samples: np.ndarray) -> tuple[int, int]:
    """Return start of the first and end of the last loud frame of a clean clip, in samples."""
    powers = _frame_powers(samples)
    loud = np.flatnonzero(powers >= powers.max() / 10 ** (EXTENT_RANGE_DB / 10))
    return int(loud[0]) * FRAME_SAMPLES, int(loud[-1] + 1) * FRAME_SAMPLES


def _frame_powers(samples: np.ndarray) -> np.ndarray:
    """Return the power of each complete frame: (samples,) to (frames,)."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return np.mean(frames.astype(np.float64) ** 2, axis=1)


def _seconds(offset: int, start: int, end: int) -> Span:
    return float(offset + start) / SAMPLE_RATE_HZ, float(offset + end) / SAMPLE_RATE_HZ


def coverage(segments: Sequence[Span], speech: Sequence[Span]) -> Coverage:
    """Compare segments, which may overlap, with the spans of speech, which may not."""
    held = shared_s(segments, speech) >= TOUCH_S
    inside = shared_s(merge(segments), speech).sum()
    segments_s, speech_s = total_s(merge(segments)), total_s(speech)
    return Coverage(
        precision=float(inside / segments_s) if segments_s else 0.0,
        recall=float(inside / speech_s) if speech_s else 0.0,
        split=int((held.sum(axis=0) > 1).sum()),
        joined=int((held.sum(axis=1) > 1).sum()),
        missed=int((held.sum(axis=0) == 0).sum()),
        empty=int((held.sum(axis=1) == 0).sum()),
    )


def total_s(spans: Sequence[Span]) -> float:
    """Return the total duration of spans that do not overlap, in seconds."""
    return sum(end_s - start_s for start_s, end_s in spans)


def shared_s(segments: Sequence[Span], speech: Sequence[Span]) -> np.ndarray:
    """Return the seconds (segments, spans) that each segment shares with each span of speech."""
    a, b = (np.array(spans, dtype=float).reshape(-1, 2) for spans in (segments, speech))
    return np.clip(np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0]), 0, None)


def merge(spans: Sequence[Span]) -> list[Span]:
    """Merge overlapping spans, and return them in order."""
    merged: list[Span] = []
    for start_s, end_s in sorted(spans):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end_s)
        else:
            merged.append((start_s, end_s))
    return merged

"""Entry points for audio: files read block by block, whole files, and arrays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path

import numpy as np

from funasr_cli.audio.recording import BLOCK_S, Recording, Source, open_recording
from funasr_cli.audio.samples import Findings, Mixer, as_float32, resampled
from funasr_cli.errors import AudioError, UsageError
from funasr_cli.paths import shown

__all__ = [
    "Audio", "AudioInput", "Recording", "Source",
    "from_array", "load_audio", "open_recording", "opener", "read_whole",
]  # fmt: skip

AudioInput = str | Path | np.ndarray | Source  # what a caller may pass as a recording
MAX_CHANNELS = 1024  # libsndfile's limit; an array with more has its axes swapped


@dataclass(frozen=True)
class Audio:
    """A decoded recording.

    Attributes:
        name: name for messages and results.
        samples: (samples,) mono float32, nominally in [-1, 1].
        findings: damage and level found while reading.
    """

    name: str
    samples: np.ndarray
    sample_rate_hz: int
    findings: Findings = field(default_factory=Findings, repr=False, compare=False)
    start_s = 0.0  # for `Source`

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def expected_s(self) -> float | None:
        """Length in seconds, for `Source`."""
        return self.duration_s

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield views of the samples, (samples,), each BLOCK_S long except the last.

        Raises:
            AudioError: there are no samples.
        """
        if not len(self.samples):
            raise AudioError(f"{self.name}: contains no samples", code="audio-empty")
        size = round(BLOCK_S * self.sample_rate_hz)
        for start in range(0, len(self.samples), size):
            block = self.samples[start : start + size]
            self.findings.measure_level(block, self.sample_rate_hz)
            yield block


def opener(audio: AudioInput, model_rate_hz: int, sample_rate_hz: int | None = None) -> Callable[[], Source]:
    """Return a function that opens a recording at the model's sample rate.

    Args:
        audio: a path, an array of samples or a `Source`. A `Source` is used unchanged.
        model_rate_hz: sample rate of the model's input.
        sample_rate_hz: sample rate of an array.

    Raises:
        UsageError: `audio` is not audio, or `sample_rate_hz` is missing for an array or given for something else.
    """
    if isinstance(audio, np.ndarray):
        if sample_rate_hz is None:
            hint = "pass sample_rate_hz, for example 16000"
            raise UsageError("an array of samples without a sample rate", hint, code="argument-type")
        return partial(from_array, audio, sample_rate_hz, model_rate_hz)
    if not (isinstance(audio, str | Path) or hasattr(audio, "blocks")):
        hint = "pass a path, a NumPy array or a Source"
        raise UsageError(f"{type(audio).__name__} is not audio", hint, code="argument-type")
    if sample_rate_hz is not None:
        name = shown(audio) if isinstance(audio, str | Path) else audio.name
        hint = "leave it out: a path or Source has its own sample rate"
        raise UsageError(f"{name}: sample_rate_hz is only for arrays", hint, code="argument-type")
    return partial(open_recording, audio, model_rate_hz) if isinstance(audio, str | Path) else lambda: audio


def read_whole(source: Source, longest_s: float = inf) -> Audio:
    """Read all blocks of a recording and join them.

    Raises:
        AudioError: the recording breaks off, has no samples, is longer than `longest_s`, or most of its samples
            are not numbers.
    """
    blocks, count = [], 0
    for block in source.blocks():
        blocks.append(block)
        count += len(block)
        if count > longest_s * source.sample_rate_hz:
            reason = f"longer than {longest_s:g} s"
            raise AudioError(f"{source.name}: {reason}", "split it into parts", code="audio-too-long")
    return Audio(source.name, np.concatenate(blocks), source.sample_rate_hz, source.findings)


def load_audio(path: str | Path, sample_rate_hz: int) -> Audio:
    """Read a whole file.

    Raises:
        AudioError: the file is missing, unreadable, empty or incomplete, or most samples are not numbers.
    """
    return read_whole(open_recording(path, sample_rate_hz))


def from_array(samples: np.ndarray, source_rate_hz: int, sample_rate_hz: int, name: str = "array") -> Audio:
    """Mix and resample an array: (samples,) or (samples, channels), float in [-1, 1] or any integer type.

    Raises:
        AudioError: there are no samples, or most are not finite; the array does not have one or two axes, or has
            more than `MAX_CHANNELS` channels, or does not hold numbers; or the sample rate is below 1.
    """
    if source_rate_hz < 1:
        raise AudioError(f"{name}: a sample rate of {source_rate_hz} Hz is not possible", code="audio-array")
    samples = as_float32(np.asarray(samples), name)
    if samples.ndim not in (1, 2):
        hint = "pass (samples,) or (samples, channels)"
        raise AudioError(f"{name}: the array has {samples.ndim} axes", hint, code="audio-array")
    if not samples.size:
        raise AudioError(f"{name}: contains no samples", code="audio-empty")
    if samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS:
        hint = "pass (samples, channels), not the other way round"
        raise AudioError(f"{name}: the array has {samples.shape[1]} channels", hint, code="audio-array")
    findings = Findings()
    mixer = Mixer(name, findings)
    size = max(1, source_rate_hz // 10)
    pieces = (samples[start : start + size] for start in range(0, len(samples), size))
    blocks = list(resampled(map(mixer, pieces), source_rate_hz, sample_rate_hz))
    mixer.finish()
    return Audio(name, np.concatenate(blocks), sample_rate_hz, findings)

"""Where audio comes from: files read block by block, whole files, arrays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import numpy as np

from funasr_cli.audio.recording import BLOCK_S, Recording, Source, open_recording
from funasr_cli.audio.samples import as_float32, mono, resampled
from funasr_cli.errors import AudioError, UsageError
from funasr_cli.inputs import shown

__all__ = [
    "Audio", "AudioInput", "Recording", "Source",
    "from_array", "load_audio", "open_recording", "opener", "read_whole",
]  # fmt: skip

AudioInput = str | Path | np.ndarray | Source  # what a caller may pass as a recording
MAX_CHANNELS = 1024  # libsndfile's limit; more are an array on its side


@dataclass(frozen=True)
class Audio:
    """A decoded recording.

    Attributes:
        name: what to call it in messages and results.
        samples: (samples,) mono float32, nominally in [-1, 1].
    """

    name: str
    samples: np.ndarray
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def expected_s(self) -> float | None:
        """The same, as a `Source` calls it."""
        return self.duration_s

    @property
    def start_s(self) -> float:
        """Where it begins, as a `Source` calls it."""
        return 0.0

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples,) views of BLOCK_S each; the last one may be shorter.

        Raises:
            AudioError: there are no samples.
        """
        if not len(self.samples):
            raise AudioError(f"{self.name}: no samples in it")
        size = round(BLOCK_S * self.sample_rate_hz)
        for start in range(0, len(self.samples), size):
            yield self.samples[start : start + size]


def opener(audio: AudioInput, model_rate_hz: int, sample_rate_hz: int | None = None) -> Callable[[], Source]:
    """What opens a recording when its turn comes, at the rate that is wanted.

    Args:
        audio: a path, samples at hand, or what is a `Source` already.
        model_rate_hz: sample rate that is wanted.
        sample_rate_hz: that of the samples, if it is samples.

    Raises:
        UsageError: `sample_rate_hz` is missing for samples, or given for something else; or it is no audio.
    """
    if isinstance(audio, np.ndarray):
        if sample_rate_hz is None:
            raise UsageError("samples without a sample rate", "pass sample_rate_hz, for example 16000")
        return partial(from_array, audio, sample_rate_hz, model_rate_hz)
    if not (isinstance(audio, str | Path) or hasattr(audio, "blocks")):
        raise UsageError(f"{type(audio).__name__} is not audio", "pass a path, a NumPy array or a Source")
    if sample_rate_hz is not None:
        name = shown(audio) if isinstance(audio, str | Path) else audio.name
        raise UsageError(f"{name}: sample_rate_hz is for samples", "leave it out: this states its own")
    return partial(open_recording, audio, model_rate_hz) if isinstance(audio, str | Path) else lambda: audio


def read_whole(source: Source, longest_s: float = inf) -> Audio:
    """All blocks of a recording, joined.

    Raises:
        AudioError: it breaks off, holds non-finite samples or none, or is too long.
    """
    blocks, count = [], 0
    for block in source.blocks():
        blocks.append(block)
        count += len(block)
        if count > longest_s * source.sample_rate_hz:
            raise AudioError(f"{source.name}: longer than {longest_s:g} s", "take it in parts")
    return Audio(source.name, np.concatenate(blocks), source.sample_rate_hz)


def load_audio(path: str | Path, sample_rate_hz: int) -> Audio:
    """Read a whole file.

    Raises:
        AudioError: the file is missing, unreadable, empty, incomplete or holds non-finite samples.
    """
    return read_whole(open_recording(path, sample_rate_hz))


def from_array(samples: np.ndarray, source_rate_hz: int, sample_rate_hz: int, name: str = "array") -> Audio:
    """Samples at hand: (samples,) or (samples, channels), float in [-1, 1] or any integer type.

    Raises:
        AudioError: no samples, non-finite samples, not one or two axes, not numbers, or no sample rate; or more
            than `MAX_CHANNELS`.
    """
    if source_rate_hz < 1:
        raise AudioError(f"{name}: sample rate {source_rate_hz} Hz")
    samples = as_float32(np.asarray(samples), name)
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: {samples.ndim} axes", "pass (samples,) or (samples, channels)")
    if not samples.size:
        raise AudioError(f"{name}: no samples in it")
    if samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS:
        raise AudioError(
            f"{name}: {samples.shape[1]} channels", "pass (samples, channels), not the other way round"
        )
    pieces = list(resampled([mono(samples, name)], source_rate_hz, sample_rate_hz))
    return Audio(name, np.concatenate(pieces), sample_rate_hz)

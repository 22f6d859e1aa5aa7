"""Where audio comes from: files read block by block, whole files, arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from funasr_cli.audio.recording import BLOCK_S, Recording, Source, open_recording
from funasr_cli.audio.samples import as_float32, mono, resampled
from funasr_cli.errors import AudioError

__all__ = ["Audio", "Recording", "Source", "from_array", "load_audio", "open_recording"]


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


def load_audio(path: str | Path, sample_rate_hz: int) -> Audio:
    """Read a whole file: `open_recording`, with all blocks joined.

    Raises:
        AudioError: the file is missing, unreadable, empty, incomplete or holds non-finite samples.
    """
    recording = open_recording(path, sample_rate_hz)
    return Audio(recording.name, np.concatenate(list(recording.blocks())), sample_rate_hz)


def from_array(samples: np.ndarray, source_rate_hz: int, sample_rate_hz: int, name: str = "array") -> Audio:
    """Samples at hand: (samples,) or (samples, channels), float in [-1, 1] or any integer type.

    Raises:
        AudioError: no samples, non-finite samples, not one or two axes, not numbers, or no sample rate.
    """
    if source_rate_hz < 1:
        raise AudioError(f"{name}: sample rate {source_rate_hz} Hz")
    samples = as_float32(np.asarray(samples), name)
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: {samples.ndim} axes", "pass (samples,) or (samples, channels)")
    if not samples.size:
        raise AudioError(f"{name}: no samples in it")
    pieces = list(resampled([mono(samples, name)], source_rate_hz, sample_rate_hz))
    return Audio(name, np.concatenate(pieces), sample_rate_hz)

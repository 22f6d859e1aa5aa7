"""Where audio comes from: files read block by block, whole files, arrays."""

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
MAX_CHANNELS = 1024  # libsndfile's limit; more are an array on its side


@dataclass(frozen=True)
class Audio:
    """A decoded recording.

    Attributes:
        name: what to call it in messages and results.
        samples: (samples,) mono float32, nominally in [-1, 1].
        findings: what was noticed in them.
    """

    name: str
    samples: np.ndarray
    sample_rate_hz: int
    findings: Findings = field(default_factory=Findings, repr=False, compare=False)
    start_s = 0.0  # as a `Source` calls where it begins

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def expected_s(self) -> float | None:
        """Length in seconds, as a `Source` calls it."""
        return self.duration_s

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples,) views of BLOCK_S each; the last one may be shorter.

        Raises:
            AudioError: there are no samples.
        """
        if not len(self.samples):
            raise AudioError(f"{self.name}: no samples in it", code="audio-empty")
        size = round(BLOCK_S * self.sample_rate_hz)
        for start in range(0, len(self.samples), size):
            block = self.samples[start : start + size]
            self.findings.hear(block, self.sample_rate_hz)
            yield block


def opener(audio: AudioInput, model_rate_hz: int, sample_rate_hz: int | None = None) -> Callable[[], Source]:
    """Prepare what opens a recording when its turn comes, at the model's rate.

    `sample_rate_hz` is that of samples at hand; what is a `Source` already is taken as it is.

    Raises:
        UsageError: `sample_rate_hz` is missing for samples, or given for something else; or it is no audio.
    """
    if isinstance(audio, np.ndarray):
        if sample_rate_hz is None:
            hint = "pass sample_rate_hz, for example 16000"
            raise UsageError("samples without a sample rate", hint, code="argument-type")
        return partial(from_array, audio, sample_rate_hz, model_rate_hz)
    if not (isinstance(audio, str | Path) or hasattr(audio, "blocks")):
        hint = "pass a path, a NumPy array or a Source"
        raise UsageError(f"{type(audio).__name__} is not audio", hint, code="argument-type")
    if sample_rate_hz is not None:
        name = shown(audio) if isinstance(audio, str | Path) else audio.name
        hint = "leave it out: this states its own"
        raise UsageError(f"{name}: sample_rate_hz is for samples", hint, code="argument-type")
    return partial(open_recording, audio, model_rate_hz) if isinstance(audio, str | Path) else lambda: audio


def read_whole(source: Source, longest_s: float = inf) -> Audio:
    """All blocks of a recording, joined.

    Raises:
        AudioError: it breaks off, holds no samples or hardly a number, or is too long.
    """
    blocks, count = [], 0
    for block in source.blocks():
        blocks.append(block)
        count += len(block)
        if count > longest_s * source.sample_rate_hz:
            reason = f"longer than {longest_s:g} s"
            raise AudioError(f"{source.name}: {reason}", "take it in parts", code="audio-too-long")
    return Audio(source.name, np.concatenate(blocks), source.sample_rate_hz, source.findings)


def load_audio(path: str | Path, sample_rate_hz: int) -> Audio:
    """Read a whole file.

    Raises:
        AudioError: the file is missing, unreadable, empty, incomplete or holds hardly a number.
    """
    return read_whole(open_recording(path, sample_rate_hz))


def from_array(samples: np.ndarray, source_rate_hz: int, sample_rate_hz: int, name: str = "array") -> Audio:
    """Samples at hand: (samples,) or (samples, channels), float in [-1, 1] or any integer type.

    Raises:
        AudioError: no samples, hardly a finite one, not one or two axes, not numbers, or no sample rate; or more
            than `MAX_CHANNELS`.
    """
    if source_rate_hz < 1:
        raise AudioError(f"{name}: sample rate {source_rate_hz} Hz", code="audio-array")
    samples = as_float32(np.asarray(samples), name)
    if samples.ndim not in (1, 2):
        hint = "pass (samples,) or (samples, channels)"
        raise AudioError(f"{name}: {samples.ndim} axes", hint, code="audio-array")
    if not samples.size:
        raise AudioError(f"{name}: no samples in it", code="audio-empty")
    if samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS:
        hint = "pass (samples, channels), not the other way round"
        raise AudioError(f"{name}: {samples.shape[1]} channels", hint, code="audio-array")
    findings = Findings()
    mixer = Mixer(name, findings)
    size = max(1, source_rate_hz // 10)
    pieces = (samples[start : start + size] for start in range(0, len(samples), size))
    blocks = list(resampled(map(mixer, pieces), source_rate_hz, sample_rate_hz))
    mixer.finish()
    return Audio(name, np.concatenate(blocks), sample_rate_hz, findings)

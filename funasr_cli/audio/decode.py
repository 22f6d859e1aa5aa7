"""Audio files to mono float32 at the sample rate a model wants."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from funasr_cli.errors import AudioError


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


def load_audio(path: str | Path, sample_rate_hz: int) -> Audio:
    """Read a file, mix its channels evenly, resample with soxr HQ.

    Raises:
        AudioError: the file is missing, unreadable, empty or holds non-finite samples.
    """
    path = Path(path)
    name = os.fsencode(path).decode(errors="replace")  # file names may hold bytes that are no text
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:  # such as a name that is too long
        raise AudioError(f"{name}: cannot be read ({error})") from error
    if is_folder:
        raise AudioError(f"{name}: is a folder", "name the files in it, for example with a shell pattern")
    channels, source_rate_hz = _read(path, name)  # (samples, channels)
    return from_array(channels, source_rate_hz, sample_rate_hz, name)


def from_array(samples: np.ndarray, source_rate_hz: int, sample_rate_hz: int, name: str = "array") -> Audio:
    """The same for samples at hand: (samples,) or (samples, channels), float in [-1, 1] or any integer type.

    Raises:
        AudioError: no samples, non-finite samples, not one or two axes, not numbers, or no sample rate.
    """
    if source_rate_hz < 1:
        raise AudioError(f"{name}: sample rate {source_rate_hz} Hz")
    samples = _as_float32(np.asarray(samples), name)
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: {samples.ndim} axes", "pass (samples,) or (samples, channels)")
    if not samples.size:
        raise AudioError(f"{name}: no samples in it")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds values that are not numbers")
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    if source_rate_hz != sample_rate_hz:
        mono = soxr.resample(mono, source_rate_hz, sample_rate_hz, quality="HQ")
    return Audio(name, np.ascontiguousarray(mono, dtype=np.float32), sample_rate_hz)


def _as_float32(samples: np.ndarray, name: str) -> np.ndarray:
    """Integers scaled to [-1, 1); unsigned ones are centred first, as in 8-bit wav files."""
    if np.issubdtype(samples.dtype, np.integer):
        bounds = np.iinfo(samples.dtype)
        half = 2.0 ** (bounds.bits - 1)
        return (samples / half + (-1.0 if bounds.min == 0 else 0.0)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"{name}: samples of type {samples.dtype}", "pass floats or integers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        return samples.astype(np.float32, copy=False)


def _read(path: Path, name: str) -> tuple[np.ndarray, int]:
    """(samples, channels) float32 and the sample rate, with whichever library can read the file."""
    try:
        return soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        return _read_with_audioread(path, name, reason=error.error_string)
    except TypeError as error:  # soundfile goes by the ending .raw, whatever is in the file
        raise AudioError(f"{name}: samples without a header", "convert it to wav or flac") from error
    except (OSError, RuntimeError) as error:
        raise AudioError(f"{name}: cannot be read ({error})") from error


def _read_with_audioread(path: Path, name: str, reason: str) -> tuple[np.ndarray, int]:
    """What soundfile cannot read, such as m4a: through librosa's Core Audio or ffmpeg fallback."""
    if path.stat().st_size == 0:
        raise AudioError(f"{name}: the file is empty")
    import warnings

    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa announces its fallback; the user asked for the file
        try:
            samples, sample_rate_hz = librosa.load(path, sr=None, mono=False)
        except Exception as error:  # audioread's back ends raise what they like
            raise AudioError(
                f"{name}: not audio that can be read here ({reason.rstrip('. ')})",
                "if it plays elsewhere, install ffmpeg (m4a, mp4, wma) or convert it to wav or flac",
            ) from error
    return np.atleast_2d(samples).T, int(sample_rate_hz)

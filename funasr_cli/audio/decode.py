"""Audio files to mono float32 at the sample rate a model wants."""

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
    if not path.exists():
        raise AudioError(f"{path}: no such file")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder", "name the files in it, for example with a shell pattern")
    channels, source_rate_hz = _read(path)  # (samples, channels)
    return from_array(channels, source_rate_hz, sample_rate_hz, name=str(path))


def from_array(samples: np.ndarray, source_rate_hz: int, sample_rate_hz: int, name: str = "array") -> Audio:
    """The same for samples at hand: (samples,) or (samples, channels), float in [-1, 1] or any integer type.

    Raises:
        AudioError: no samples, non-finite samples, or not one or two axes.
    """
    samples = np.asarray(samples)
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: {samples.ndim} axes", "pass (samples,) or (samples, channels)")
    if not samples.size:
        raise AudioError(f"{name}: no samples in it")
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError(f"{name}: holds values that are not numbers")
    if source_rate_hz != sample_rate_hz:
        mono = soxr.resample(mono, source_rate_hz, sample_rate_hz, quality="HQ")
    return Audio(name, np.ascontiguousarray(mono, dtype=np.float32), sample_rate_hz)


def _read(path: Path) -> tuple[np.ndarray, int]:
    """(samples, channels) float32 and the sample rate, with whichever library can read the file."""
    try:
        return soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        return _read_with_audioread(path, reason=error.error_string)
    except (OSError, RuntimeError) as error:
        raise AudioError(f"{path}: cannot be read ({error})") from error


def _read_with_audioread(path: Path, reason: str) -> tuple[np.ndarray, int]:
    """What soundfile cannot read, such as m4a: through librosa's Core Audio or ffmpeg fallback."""
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty")
    import warnings

    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa announces its fallback; the user asked for the file
        try:
            samples, sample_rate_hz = librosa.load(path, sr=None, mono=False)
        except Exception as error:  # audioread's back ends raise what they like
            raise AudioError(
                f"{path}: not audio that can be read here ({reason.rstrip('. ')})",
                "if it plays elsewhere, install ffmpeg (m4a, mp4, wma) or convert it to wav or flac",
            ) from error
    return np.atleast_2d(samples).T, int(sample_rate_hz)

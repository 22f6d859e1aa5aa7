"""Kaldi filter bank features with low frame rate stacking, computed in MLX.

Source: Kaldi ``feat/feature-fbank.cc`` and ``feat/mel-computations.cc`` (as packaged in kaldi-native-fbank, the
tests' reference); FunASR ``funasr/frontends/wav_frontend.py`` (``WavFrontend``, ``apply_lfr``). What differs: no
dither (upstream's default adds random noise of one int16 step). CMVN, which not every model has, is a separate
step, `features.cmvn`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from funasr_cli.compute.backend import mx

INT16_SCALE = 1 << 15  # Kaldi expects samples in the range of int16
PREEMPHASIS = 0.97
LOW_FREQUENCY_HZ = 20.0
POWER_FLOOR = float(np.finfo(np.float32).eps)
MIN_SAMPLES = 2  # Kaldi has no frames of a single sample

WINDOWS: dict[str, Callable[[int], np.ndarray]] = {
    "hamming": lambda n: np.hamming(n),
    "hanning": lambda n: np.hanning(n),
    "povey": lambda n: np.hanning(n) ** 0.85,
    "rectangular": lambda n: np.ones(n),
}


@dataclass(frozen=True)
class FrontendConfig:
    """Settings of the Kaldi filter bank and of low frame rate stacking."""

    sample_rate_hz: int
    window: str
    mel_bins: int
    frame_length_ms: float
    frame_shift_ms: float
    stack_frames: int  # ``lfr_m`` upstream: filter bank frames joined into one row
    stack_step: int  # ``lfr_n`` upstream: filter bank frames from one row to the next

    @property
    def row_width(self) -> int:
        """Number of values in a feature row."""
        return self.mel_bins * self.stack_frames

    @property
    def row_duration_s(self) -> float:
        """Seconds from one feature row to the next."""
        return self.frame_shift_ms * self.stack_step / 1000


def mel_filters(bins: int, fft_size: int, sample_rate_hz: int) -> np.ndarray:
    """Make triangular filters, evenly spaced in mel between 20 Hz and the Nyquist frequency.

    Returns:
        (fft_size // 2 + 1, bins) float32; the row of the Nyquist frequency is zero, as in Kaldi.
    """

    def mel(frequency_hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(frequency_hz) / 700.0)

    edges = np.linspace(mel(LOW_FREQUENCY_HZ), mel(sample_rate_hz / 2), bins + 2)
    left, center, right = edges[:-2], edges[1:-1], edges[2:]  # (bins,)
    fft_mel = mel(np.arange(fft_size // 2) * sample_rate_hz / fft_size)[:, None]  # (fft_size / 2, 1)
    rising = (fft_mel - left) / (center - left)
    falling = (right - fft_mel) / (right - center)
    filters = np.maximum(0.0, np.minimum(rising, falling))  # (fft_size / 2, bins)
    return np.vstack([filters, np.zeros((1, bins))]).astype(np.float32)


class Frontend:
    """Front end that computes the features of one waveform at a time.

    Everything runs on the CPU: it takes only milliseconds, and the features are the same on every device.
    """

    def __init__(self, config: FrontendConfig):
        self.config = config
        self._frame_samples = round(config.sample_rate_hz * config.frame_length_ms / 1000)
        self._shift_samples = round(config.sample_rate_hz * config.frame_shift_ms / 1000)
        self._tables: dict[int, tuple[mx.array, mx.array]] = {}

    def __call__(self, samples: np.ndarray) -> mx.array:
        """Compute the encoder's input, (rows, row width), with one row every 60 ms in the release.

        `samples` (samples,) are mono float32 in [-1, 1] at the config's sample rate, at least `MIN_SAMPLES`.
        """
        with mx.stream(mx.cpu):
            return self._stack(self.filter_bank(samples))

    def filter_bank(self, samples: np.ndarray) -> mx.array:
        """Compute log filter bank energies (frames, mel bins) from `samples` (samples,)."""
        # As upstream, a clip shorter than a frame is one frame of the clip's length.
        frame = min(self._frame_samples, len(samples))
        fft_size = 1 << (frame - 1).bit_length()
        window, filters = self._tables_for(frame, fft_size)
        wave = mx.array(np.ascontiguousarray(samples, dtype=np.float32)) * INT16_SCALE
        frames = 1 + (len(samples) - frame) // self._shift_samples
        x = mx.as_strided(wave, (frames, frame), (self._shift_samples, 1))
        x = x - x.mean(axis=1, keepdims=True)
        previous = mx.concatenate([x[:, :1], x[:, :-1]], axis=1)
        x = (x - PREEMPHASIS * previous) * window  # (frames, frame)
        spectrum = mx.fft.rfft(x, n=fft_size, axis=1)  # (frames, fft_size / 2 + 1)
        power = mx.square(spectrum.real) + mx.square(spectrum.imag)
        return mx.log(mx.maximum(power @ filters, POWER_FLOOR))

    def _tables_for(self, frame: int, fft_size: int) -> tuple[mx.array, mx.array]:
        """Return the window (frame,) and the mel filters (fft_size / 2 + 1, mel bins), cached per frame length."""
        if frame not in self._tables:
            filters = mel_filters(self.config.mel_bins, fft_size, self.config.sample_rate_hz)
            window = WINDOWS[self.config.window](frame).astype(np.float32)
            self._tables[frame] = mx.array(window), mx.array(filters)
        return self._tables[frame]

    def _stack(self, frames: mx.array) -> mx.array:
        """Join neighbouring frames into rows. The first and the last frame are repeated beyond the clip's ends."""
        count, step = self.config.stack_frames, self.config.stack_step
        starts = np.arange(math.ceil(frames.shape[0] / step)) * step - (count - 1) // 2
        indices = np.clip(starts[:, None] + np.arange(count), 0, frames.shape[0] - 1)  # (rows, count)
        return frames[mx.array(indices)].reshape(len(starts), -1)

"""Log-mel features in windows of 30 s, as Whisper and the models that share its encoder read them.

Source: openai-whisper ``whisper/audio.py`` (``log_mel_spectrogram``, ``pad_or_trim``); the filters are those of
``librosa.filters.mel``: Slaney's mel scale and area norm. As in ``whisper.decode``, the audio is padded, not the
features, and the clamp is relative to the loudest value of this one window.
"""

import numpy as np

SAMPLE_RATE_HZ = 16000
FFT_SAMPLES, SHIFT_SAMPLES = 400, 160
WINDOW_S = 30
FRAMES = WINDOW_S * SAMPLE_RATE_HZ // SHIFT_SAMPLES  # of a window: 3,000
POWER_FLOOR = 1e-10
DECADES = 8  # values this far below the loudest one are clamped
# Slaney's scale: linear up to 1 kHz, which is mel 15, then logarithmic.
LINEAR_HZ_A_MEL, LOG_FROM_HZ, LOG_FROM_MEL, LOG_STEP = 200 / 3, 1000.0, 15.0, np.log(6.4) / 27


def slaney_filters(bins: int) -> np.ndarray:
    """Make triangular filters from 0 to 8,000 Hz, evenly spaced in Slaney's mel and of equal area.

    Returns:
        (FFT_SAMPLES // 2 + 1, bins) float32.
    """
    highest_hz = SAMPLE_RATE_HZ / 2
    mels = np.linspace(0, LOG_FROM_MEL + np.log(highest_hz / LOG_FROM_HZ) / LOG_STEP, bins + 2)
    logarithmic = LOG_FROM_HZ * np.exp(LOG_STEP * (mels - LOG_FROM_MEL))
    edges_hz = np.where(mels < LOG_FROM_MEL, LINEAR_HZ_A_MEL * mels, logarithmic)
    left, center, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]  # (bins,)
    bins_hz = np.linspace(0, highest_hz, FFT_SAMPLES // 2 + 1)[:, None]
    rising, falling = (bins_hz - left) / (center - left), (right - bins_hz) / (right - center)
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2 / (right - left))
    return filters.astype(np.float32)


class LogMel:
    """Front end that computes the features of one clip, padded to a window, at a time."""

    def __init__(self, bins: int):
        self._filters = slaney_filters(bins)
        self._window = np.hanning(FFT_SAMPLES + 1)[:-1]  # periodic; float64, as is what it multiplies

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Compute (FRAMES, bins) float32 from (samples,) mono float32 at 16 kHz, at most 30 s."""
        if len(samples) > WINDOW_S * SAMPLE_RATE_HZ:
            raise ValueError(f"{len(samples)} samples are longer than a window of {WINDOW_S} s")
        padding, margin = WINDOW_S * SAMPLE_RATE_HZ - len(samples), FFT_SAMPLES // 2
        padded = np.pad(np.pad(samples.astype(np.float32), (0, padding)), margin, mode="reflect")
        # Frames that contain only padding need no transform. The last one begins before the reflected end.
        used = min(FRAMES, -(-(len(samples) + margin) // SHIFT_SAMPLES) + 1)
        frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::SHIFT_SAMPLES][:used]
        spectrum = np.fft.rfft(frames * self._window, axis=1)  # (used, FFT_SAMPLES / 2 + 1)
        power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
        energies = np.full((FRAMES, self._filters.shape[1]), POWER_FLOOR, np.float32)
        energies[:used] = np.maximum(power @ self._filters, POWER_FLOOR)
        rows = np.log10(energies)
        return (np.maximum(rows, rows.max() - DECADES) + 4) / 4

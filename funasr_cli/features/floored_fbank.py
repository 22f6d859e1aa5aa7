"""Filter bank features with the edges of the filters rounded down to bins of the spectrum.

Source: OminiX-MLX ``funasr-qwen4b-mlx/src/audio.rs`` (``MelFrontend``, ``create_mel_filterbank``,
``apply_lfr``), as it is since commit 0e9b273, and as it was before. What differs: earlier versions also added
random noise of half an int16 step, and all cut a clip after 30 s.

Compared with Kaldi's features (`fbank`), samples are neither centred nor scaled, and a clip shorter than a frame
is filled with zeros. Two filters at low frequencies are always 0, since two of their edges are in one bin.
"""

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.features.fbank import (
    INT16_SCALE,
    LOW_FREQUENCY_HZ,
    POWER_FLOOR,
    PREEMPHASIS,
    WINDOWS,
    Frontend,
    FrontendConfig,
)


def floored_mel_filters(bins: int, fft_size: int, sample_rate_hz: int) -> np.ndarray:
    """Make triangular filters, evenly spaced in mel (HTK's formula) between 20 Hz and the Nyquist frequency.

    Returns:
        (fft_size // 2 + 1, bins) float32. The peak of each is 1, unless its edges are in one bin.
    """
    lowest, highest = (2595 * np.log10(1 + hz / 700) for hz in (LOW_FREQUENCY_HZ, sample_rate_hz / 2))
    edges_hz = 700 * (10 ** (np.linspace(lowest, highest, bins + 2) / 2595) - 1)  # (bins + 2,)
    edges = np.floor((fft_size + 1) * edges_hz / sample_rate_hz)
    places = np.arange(fft_size // 2 + 1)[:, None]  # (fft_size / 2 + 1, 1)
    left, center, right = edges[:-2], edges[1:-1], edges[2:]  # (bins,)
    rising = (places - left) / np.maximum(center - left, 1)
    falling = (right - places) / np.maximum(right - center, 1)
    inside = [(places >= left) & (places < center), (places >= center) & (places < right)]
    return np.select(inside, [rising, falling], 0.0).astype(np.float32)


class FlooredFrontend(Frontend):
    """Front end with these filters.

    Args:
        config: sizes; of all windows, "hamming" is the source's.
        is_scaled: multiply samples by 2^15 and emphasise high frequencies, as the source did at first.
    """

    def __init__(self, config: FrontendConfig, *, is_scaled: bool):
        super().__init__(config)
        self._is_scaled = is_scaled
        self._fft_size = 1 << (self._frame_samples - 1).bit_length()
        self._window = mx.array(WINDOWS[config.window](self._frame_samples).astype(np.float32))
        self._filters = mx.array(floored_mel_filters(config.mel_bins, self._fft_size, config.sample_rate_hz))

    def filter_bank(self, samples: np.ndarray) -> mx.array:
        """Compute log filter bank energies (frames, mel bins) from `samples` (samples,)."""
        wave = mx.array(np.ascontiguousarray(samples, dtype=np.float32))
        if self._is_scaled:
            wave = wave * INT16_SCALE
            wave = mx.concatenate([wave[:1], wave[1:] - PREEMPHASIS * wave[:-1]])
        wave = mx.pad(wave, (0, max(0, self._frame_samples - len(samples))))
        frames = 1 + (wave.shape[0] - self._frame_samples) // self._shift_samples
        x = mx.as_strided(wave, (frames, self._frame_samples), (self._shift_samples, 1)) * self._window
        spectrum = mx.fft.rfft(x, n=self._fft_size, axis=1)  # (frames, fft_size / 2 + 1)
        power = mx.square(spectrum.real) + mx.square(spectrum.imag)
        return mx.log(mx.maximum(power @ self._filters, POWER_FLOOR))

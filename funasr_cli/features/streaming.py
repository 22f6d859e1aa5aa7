"""Kaldi filter bank features of a recording that arrives in pieces, in NumPy.

The same features as those of `features.fbank`, which computes a whole clip in MLX. NumPy, because this runs in
threads that must not call MLX. Every frame is computed alone, in products of the same shape. So the result does
not depend on how the recording is divided into pieces.

Source: FunASR ``funasr/frontends/wav_frontend.py`` (``WavFrontendOnline``). What differs: one row for each filter
bank frame (``lfr_n`` 1) is the only supported step.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from funasr_cli.features.fbank import (
    INT16_SCALE,
    POWER_FLOOR,
    PREEMPHASIS,
    WINDOWS,
    FrontendConfig,
    mel_filters,
)


class StreamingFrontend:
    """Front end of one recording, with a state that is kept between calls."""

    def __init__(self, config: FrontendConfig):
        if config.stack_step != 1:
            raise ValueError(f"a row for every {config.stack_step} frames, not for each frame")
        self._frame = round(config.sample_rate_hz * config.frame_length_ms / 1000)
        self._shift = round(config.sample_rate_hz * config.frame_shift_ms / 1000)
        self._fft_size = 1 << (self._frame - 1).bit_length()
        self._window = WINDOWS[config.window](self._frame).astype(np.float32)
        self._filters = mel_filters(
            config.mel_bins, self._fft_size, config.sample_rate_hz
        )  # (fft_size / 2 + 1, bins)
        self._stacked = config.stack_frames
        self._wave = np.zeros(0, np.float32)  # samples from the next frame on
        self._recent = np.zeros((0, config.mel_bins), np.float32)  # frames that the next rows still need

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Add (samples,) float32 in [-1, 1] and return the rows (rows, row width) that are now complete."""
        self._wave = np.concatenate([self._wave, samples.astype(np.float32)])
        count = max(0, 1 + (len(self._wave) - self._frame) // self._shift)
        if count == 0:
            return self._rows(self._recent[:0])
        frames = self._filter_bank(sliding_window_view(self._wave, self._frame)[:: self._shift])  # (count, bins)
        self._wave = self._wave[count * self._shift :].copy()
        if len(self._recent) == 0:  # the first frame is repeated before the recording's start
            frames = np.concatenate([np.repeat(frames[:1], (self._stacked - 1) // 2, axis=0), frames])
        return self._rows(frames)

    def finish(self) -> np.ndarray:
        """Return the last rows, in which the last frame is repeated. Samples that fill no frame are left out."""
        return self._rows(np.repeat(self._recent[-1:], self._stacked // 2, axis=0))

    def _filter_bank(self, x: np.ndarray) -> np.ndarray:
        """Compute log filter bank energies: (frames, samples) -> (frames, bins)."""
        x = x * np.float32(INT16_SCALE)
        x -= x.mean(axis=1, keepdims=True)
        previous = np.concatenate([x[:, :1], x[:, :-1]], axis=1)
        x = (x - np.float32(PREEMPHASIS) * previous) * self._window
        spectrum = np.fft.rfft(x, n=self._fft_size, axis=1)  # (frames, fft_size / 2 + 1)
        power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
        energies = (power[:, None] @ self._filters)[:, 0]  # (frames, bins), one product per frame
        return np.log(np.maximum(energies, np.float32(POWER_FLOOR)))

    def _rows(self, frames: np.ndarray) -> np.ndarray:
        """Join the recent frames and new ones (frames, bins) into rows (rows, row width)."""
        frames = np.concatenate([self._recent, frames])
        count = max(0, len(frames) - self._stacked + 1)
        self._recent = frames[count:].copy()
        if count == 0:
            return np.zeros((0, self._stacked * frames.shape[1]), np.float32)
        windows = sliding_window_view(frames, self._stacked, axis=0)  # (rows, bins, stacked)
        return windows.transpose(0, 2, 1).reshape(count, -1)

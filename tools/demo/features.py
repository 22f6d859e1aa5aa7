"""Kaldi filter bank features, and low-frame-rate stacking, as FunASR's WavFrontend computes them."""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np

from .speak import SAMPLE_RATE_HZ

MEL_BINS, STACK_FRAMES, STACK_STEP = 80, 7, 6
ROW_WIDTH = MEL_BINS * STACK_FRAMES

_OPTIONS = knf.FbankOptions()
_OPTIONS.frame_opts.samp_freq = SAMPLE_RATE_HZ
_OPTIONS.frame_opts.window_type = "hamming"
_OPTIONS.frame_opts.dither = 0.0
_OPTIONS.mel_opts.num_bins = MEL_BINS
_OPTIONS.energy_floor = 0.0


def filter_bank(samples: np.ndarray) -> np.ndarray:
    """Return filter bank features, (frames, 80) float32, every 10 ms, of (samples,) in [-1, 1] at 16 kHz."""
    fbank = knf.OnlineFbank(_OPTIONS)
    fbank.accept_waveform(SAMPLE_RATE_HZ, samples * np.float32(32768))
    fbank.input_finished()
    return np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


def stack_rows(frames: np.ndarray) -> np.ndarray:
    """Stack 7 frames every 60 ms: (frames, 80) -> (ceil(frames / 6), 560)."""
    padded = np.concatenate([np.repeat(frames[:1], (STACK_FRAMES - 1) // 2, axis=0), frames])
    starts = np.arange(0, len(frames), STACK_STEP)
    index = np.minimum(starts[:, None] + np.arange(STACK_FRAMES), len(padded) - 1)
    return padded[index].reshape(len(starts), ROW_WIDTH)


def audio_token_count(rows: int) -> int:
    """Return the number of adaptor rows that enter the prompt under `use_low_frame_rate`."""
    rows = 1 + (rows - 3 + 2) // 2
    rows = 1 + (rows - 3 + 2) // 2
    return (rows - 1) // 2 + 1

"""Log-mel features: the filters, and what a window contains."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from funasr_cli.features.log_mel import DECADES, FRAMES, LogMel, slaney_filters

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bins", [80, 128])
def test_filters_are_those_of_librosa(bins: int) -> None:
    expected = librosa.filters.mel(sr=16000, n_fft=400, n_mels=bins, dtype=np.float64).T
    found = slaney_filters(bins)
    assert found.shape == (201, bins)
    assert np.abs(found - expected).max() < 1e-8


def by_hand(samples: np.ndarray, bins: int) -> np.ndarray:
    """Compute the features in float64, frame by frame, from the definition."""
    padded = np.pad(np.pad(samples.astype(np.float64), (0, 480000 - len(samples))), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    filters = librosa.filters.mel(sr=16000, n_fft=400, n_mels=bins, dtype=np.float64)
    rows = np.empty((FRAMES, bins))
    for frame in range(FRAMES):
        power = np.abs(np.fft.rfft(padded[160 * frame : 160 * frame + 400] * window)) ** 2
        rows[frame] = np.log10(np.maximum(filters @ power, 1e-10))
    return (np.maximum(rows, rows.max() - 8) + 4) / 4


@pytest.mark.parametrize("samples", [1, 159, 160, 201, 16000, 479_999, 480_000])
def test_features_of_any_length(samples: int) -> None:
    clip = RNG.normal(0, 0.1, samples).astype(np.float32)
    assert np.abs(LogMel(80)(clip) - by_hand(clip, 80)).max() < 1e-5


def test_silence_and_loudness() -> None:
    """The padding is as quiet as the loudest value allows, and a quieter clip has the same shape."""
    clip = RNG.normal(0, 0.1, 16000).astype(np.float32)
    loud, quiet = LogMel(128)(clip), LogMel(128)(clip / 10)
    assert loud.shape == (FRAMES, 128)
    assert np.allclose(loud[200:], loud.max() - DECADES / 4)
    assert np.allclose((loud - loud.max())[:98], (quiet - quiet.max())[:98], atol=1e-5)  # frames without padding
    assert np.allclose(LogMel(80)(np.zeros(100, np.float32)), (-10 + 4) / 4)


def test_more_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="30 s"):
        LogMel(80)(np.zeros(480_001, np.float32))

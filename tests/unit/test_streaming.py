"""Features of a recording in pieces, compared with those of the whole clip, which MLX computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.segmenting import noise

from funasr_cli.features.fbank import Frontend, FrontendConfig
from funasr_cli.features.streaming import StreamingFrontend

CONFIG = FrontendConfig(16000, "hamming", 80, 25, 10, 5, 1)
SAMPLES = noise(16000) * np.linspace(0, 1, 16000, dtype=np.float32)


def in_pieces(samples: np.ndarray, cuts: list[int], config: FrontendConfig = CONFIG) -> np.ndarray:
    frontend = StreamingFrontend(config)
    rows = [frontend(piece) for piece in np.split(samples, sorted(cuts))]
    return np.concatenate([*rows, frontend.finish()])


@pytest.mark.parametrize("stacked", [1, 2, 5, 7])
@pytest.mark.parametrize("window", ["hamming", "povey"])
@pytest.mark.parametrize("count", [400, 559, 560, 1200, 16000])
def test_the_same_features(count: int, window: str, stacked: int) -> None:
    config = FrontendConfig(16000, window, 80, 25, 10, stacked, 1)
    expected = np.array(Frontend(config)(SAMPLES[-count:]))
    np.testing.assert_allclose(in_pieces(SAMPLES[-count:], [], config), expected, atol=2e-3, rtol=1e-4)


@given(count=st.integers(0, 16000), cuts=st.lists(st.integers(0, 16000), max_size=8))
@settings(deadline=None)
def test_pieces_change_nothing(count: int, cuts: list[int]) -> None:
    rows = in_pieces(SAMPLES[:count], [min(cut, count) for cut in cuts])
    assert rows.shape == (max(0, 1 + (count - 400) // 160), CONFIG.row_width)
    np.testing.assert_array_equal(rows, in_pieces(SAMPLES[:count], []))


def test_refuses_steps() -> None:
    with pytest.raises(ValueError, match="6 frames"):
        StreamingFrontend(FrontendConfig(16000, "hamming", 80, 25, 10, 7, 6))

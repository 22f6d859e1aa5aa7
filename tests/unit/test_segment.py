"""An audio segment: its halves, and its deepest pause."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.segmenting import loudness_db, noise, seconds, with_dips

from funasr_cli.audio.segment import AudioSegment, deepest_pause
from funasr_cli.audio.vad import FRAME_SAMPLES


def a_segment(samples: np.ndarray) -> AudioSegment:
    return AudioSegment(7000, samples, loudness_db(samples) / 20)


@example(count=32 * FRAME_SAMPLES)
@example(count=32 * FRAME_SAMPLES - 1)
@given(count=st.integers(0, 60_000))
def test_halves_cover_the_segment(count: int) -> None:
    segment = a_segment(noise(count))
    halves = segment.halves()
    assert (halves is None) == (count < 32 * FRAME_SAMPLES)
    if halves:
        np.testing.assert_array_equal(np.concatenate([half.samples for half in halves]), segment.samples)
        np.testing.assert_array_equal(np.concatenate([half.activity for half in halves]), segment.activity)
        assert (halves[0].start, halves[0].end, halves[1].end) == (7000, halves[1].start, segment.end)
        assert all(half.duration_s >= 0.5 for half in halves)


@pytest.mark.parametrize("dip_s", [0.6, 2.0, 4.2])
def test_halves_meet_in_the_deepest_pause(dip_s: float) -> None:
    halves = a_segment(with_dips(5, dip_s)).halves()
    assert halves
    assert seconds(dip_s) <= halves[1].start - 7000 <= seconds(dip_s + 0.2)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=40), st.data())
def test_deepest_pause_has_the_least_speech_around_it(activity: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(activity) - 1))
    last = data.draw(st.integers(first, len(activity) - 1))

    def around(frame: int) -> int:
        return sum(activity[min(max(frame + step, 0), len(activity) - 1)] for step in (-2, -1, 0, 1, 2))

    assert deepest_pause(np.array(activity), first, last) == min(range(first, last + 1), key=around)

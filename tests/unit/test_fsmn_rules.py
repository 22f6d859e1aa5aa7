"""The rules of FSMN-VAD on made-up probabilities. parity/test_fsmn_vad_parity.py compares them with FunASR's."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.segmenting import flickering, fsmn_segments

from funasr_cli.audio.fsmn_rules import FsmnRules


def static(pause_ms: float = 800) -> FsmnRules:
    return FsmnRules(0.8, pause_ms)


def dynamic() -> FsmnRules:
    return FsmnRules(0.75, None)


def levels(*runs: tuple[int, float]) -> list[float]:
    """Return probabilities for runs of (frames, probability)."""
    return [level for frames, level in runs for _ in range(frames)]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], []),
        ([(300, 0.0)], []),
        ([(300, 0.79)], []),
        ([(300, 0.8)], [[0, 3000]]),
        ([(100, 0.0), (14, 1.0), (100, 0.0)], []),  # shorter than 150 ms: a click
        # Speech is noticed at its 15th frame, and begins 40 frames before that one. Silence is noticed at its 5th
        # frame, and ends the segment 65 frames later, of which 54 are left out.
        ([(100, 0.0), (100, 1.0), (200, 0.0)], [[740, 2160]]),
        ([(100, 0.0), (100, 1.0), (40, 0.0), (100, 1.0), (200, 0.0)], [[740, 3560]]),
        ([(100, 0.0), (100, 1.0)], [[740, 2000]]),  # open at the end
        ([(100, 0.0), (15, 1.0)], [[740, 1150]]),  # noticed in the last frame
    ],
)
def test_static_rules(runs: list[tuple[int, float]], expected: list[list[int]]) -> None:
    assert fsmn_segments(static(), levels(*runs)) == expected


@pytest.mark.parametrize(
    ("before_s", "pause_s", "found"),
    [(5, 1.5, 1), (5, 2.5, 2), (15, 0.6, 1), (15, 1.5, 2), (45, 0.1, 1), (45, 0.6, 2)],
)
def test_the_dynamic_schedule(before_s: float, pause_s: float, found: int) -> None:
    """The longer the segment, the shorter the pause that ends it."""
    speech = levels((int(100 * before_s), 1.0), (int(100 * pause_s), 0.0), (100, 1.0))
    assert len(fsmn_segments(dynamic(), speech)) == found


def test_the_schedule_begins_anew_with_each_segment() -> None:
    speech = levels((4500, 1.0), (100, 0.0), (300, 1.0), (100, 0.0), (300, 1.0))
    assert len(fsmn_segments(dynamic(), speech)) == 2


def test_a_limit_on_the_length() -> None:
    speech = levels((1000, 1.0))
    assert fsmn_segments(static(), speech) == [[0, 10_000]]
    assert fsmn_segments(FsmnRules(0.8, 800, longest_ms=4000), speech) == [[0, 4010], [4010, 8020], [8020, 10_000]]


@given(seed=st.integers(0, 10**6), frames=st.integers(0, 1500), pause_ms=st.none() | st.floats(100, 3000))
def test_segments_are_in_order_and_contain_all_lasting_speech(
    seed: int, frames: int, pause_ms: float | None
) -> None:
    speech = flickering(random.Random(seed), frames)
    found = fsmn_segments(FsmnRules(0.8, pause_ms), speech)
    edges = [edge for segment in found for edge in segment]
    assert edges == sorted(edges)
    assert all(start < end for start, end in found)
    assert edges[-1:] <= [10 * frames]
    run = 0
    for frame, level in enumerate(speech):
        run = run + 1 if level >= 0.8 else 0
        if run >= 35:  # regardless of the frames before, which the window still holds
            assert any(start <= 10 * frame < end for start, end in found), frame

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
    ("length_s", "pause_ms"), [(5, 2000), (15, 1000), (25, 800), (35, 600), (45, 400), (55, 200), (65, 150)]
)
def test_the_dynamic_schedule(length_s: int, pause_ms: int) -> None:
    """The longer the segment, the sooner silence ends it: noticed at its 5th frame, counted as 150 ms then."""
    rules = dynamic()
    assert all(rules.step(1.0) is None for _ in range(100 * length_s))
    silent = 1
    while rules.step(0.0) is None:
        silent += 1
    assert silent == 5 + max(1, (pause_ms - 150) // 10)


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

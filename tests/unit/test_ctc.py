"""CTC forced alignment: the most likely of all paths that spell the labels, and a clear error if there is none."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_cli.models.ctc import BLANK, AlignmentError, align, best_path

BLANK_CLASS = 0


def all_paths(frames: int, classes: int, labels: list[int]) -> list[tuple[int, ...]]:
    """Return every sequence of classes, one per frame, that collapses to the labels."""
    paths = itertools.product(range(classes), repeat=frames)
    return [path for path in paths if best_path(list(path), BLANK_CLASS) == labels]


def classes_of(path: np.ndarray, labels: list[int]) -> list[int]:
    return [BLANK_CLASS if index == BLANK else labels[index] for index in path]


def score(log_probs: np.ndarray, classes: list[int] | tuple[int, ...]) -> float:
    return float(sum(log_probs[frame, c] for frame, c in enumerate(classes)))


@st.composite
def small_cases(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Draw up to six frames of three classes with few distinct values, so that ties are frequent."""
    frames = draw(st.integers(1, 6))
    values = st.sampled_from([-np.inf, -3.0, -2.0, -1.0, -0.5, 0.0])
    rows = draw(st.lists(st.lists(values, min_size=3, max_size=3), min_size=frames, max_size=frames))
    return np.array(rows, np.float32), draw(st.lists(st.integers(1, 2), max_size=4))


@settings(max_examples=300, deadline=None)
@given(small_cases())
def test_it_is_the_best_of_all_paths(case: tuple[np.ndarray, list[int]]) -> None:
    log_probs, labels = case
    best = max((score(log_probs, path) for path in all_paths(len(log_probs), 3, labels)), default=-np.inf)
    if best == -np.inf:
        with pytest.raises(AlignmentError):
            align(log_probs, labels, BLANK_CLASS)
        return
    path = align(log_probs, labels, BLANK_CLASS)
    assert best_path(classes_of(path, labels), BLANK_CLASS) == labels
    assert [index for index, _ in itertools.groupby(path) if index != BLANK] == list(range(len(labels)))
    assert score(log_probs, classes_of(path, labels)) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("frames", "labels", "value", "message"),
    [
        (2, [1, 2, 1], 0, "3 labels need 3 frames, there are 2"),
        (2, [1, 1], 0, "2 labels need 3 frames, there are 2"),
        (0, [1], 0, "1 labels need 1 frames, there are 0"),
        *((5, [1], value, "frame 3 has log-probabilities that are not finite") for value in (np.nan, np.inf)),
    ],
)
def test_labels_that_cannot_be_aligned(frames: int, labels: list[int], value: float, message: str) -> None:
    log_probs = np.zeros((frames, 3))
    log_probs[3:4, 1] = value
    with pytest.raises(AlignmentError, match=f"^{message}$"):
        align(log_probs, labels, BLANK_CLASS)


@pytest.mark.parametrize("frames", [0, 4])
def test_no_labels_are_all_blank(frames: int) -> None:
    assert align(np.zeros((frames, 3)), [], BLANK_CLASS).tolist() == [BLANK] * frames


@pytest.mark.slow
def test_five_minutes_of_fast_speech_in_bounded_memory() -> None:
    """300 s are 5,000 frames, with half as many labels. The limit is 40 MB on top of the log-probabilities."""
    rng = np.random.default_rng(3)
    labels = rng.integers(1, 50, 2500).tolist()
    spoken = [label for pair in zip(labels, [BLANK_CLASS] * len(labels), strict=True) for label in pair]
    log_probs = np.full((5000, 50), -9.0, np.float32)
    log_probs[np.arange(5000), spoken] = -0.1
    tracemalloc.start()
    path = align(log_probs, labels, BLANK_CLASS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert classes_of(path, labels) == spoken
    assert peak < 40e6

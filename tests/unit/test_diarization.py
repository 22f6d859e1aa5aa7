"""Windows and clusters; clusters compared with SciPy's average linkage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_cli import diarization
from funasr_cli.diarization import STEP_S, WINDOW_S, cluster, windows


def voices(count: int, each: int, noise: float = 0.05, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings of voices that speak in turns of five windows, and who speaks in each window."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(count, 192)) / np.sqrt(192)
    who = np.tile(np.repeat(np.arange(count), 5), each)
    return centres[who] + draw.normal(scale=noise, size=(len(who), 192)), who


@given(st.floats(0.05, 200))
def test_windows_cover_a_segment(duration_s: float) -> None:
    found = list(windows(duration_s))
    assert found[0][0] == 0
    assert found[-1][1] == pytest.approx(max(duration_s, WINDOW_S))
    assert all(end_s - start_s == pytest.approx(WINDOW_S) for start_s, end_s in found)
    steps = np.diff([start_s for start_s, _ in found])
    assert (steps > 0).all()
    assert (steps < STEP_S + 1e-9).all()


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_number_of_voices(count: int) -> None:
    vectors, who = voices(count, 4)
    assert cluster(vectors, 0.75).tolist() == who.tolist()


def test_given_number() -> None:
    """Fewer or more than there are: the most similar voices are joined, or one is split."""
    vectors, _ = voices(4, 4)
    assert set(cluster(vectors, 0.75, 2, 2).tolist()) == {0, 1}
    assert set(cluster(vectors, 0.75, 1, 3).tolist()) == {0, 1, 2}
    assert set(cluster(vectors, 0.75, 5, 6).tolist()) == {0, 1, 2, 3, 4}


def test_few_windows_are_no_speaker() -> None:
    """A noise in two windows belongs to the nearest voice, also where the number is given."""
    vectors, who = voices(2, 4)
    vectors[[7, 8]] = np.eye(192)[3]
    for given_number in ({}, {"fewest": 2, "most": 2}):
        labels = cluster(vectors, 0.75, **given_number)
        others = np.setdiff1d(np.arange(len(who)), [7, 8])
        assert labels[others].tolist() == who[others].tolist()
        assert set(labels.tolist()) == {0, 1}


def directions(count: int, weights: dict[int, float], seed: int) -> np.ndarray:
    """Return unit vectors (count, 192) with these cosines to the first axes, otherwise random."""
    draw = np.random.default_rng(seed)
    rest = draw.normal(size=(count, 192 - 4))
    own = np.zeros((count, 4))
    own[:, [*weights]] = list(weights.values())
    scale = np.sqrt(1 - (own**2).sum(axis=1)) / np.linalg.norm(rest, axis=1)
    return np.hstack([own, rest * scale[:, None]])


def test_what_a_voice_sounds_like_now_and_then_is_no_speaker() -> None:
    """Six unusual windows of a voice are at 0.2 from its others, below the threshold; a guest's are at 0."""
    first, second = directions(150, {0: 0.7}, 0), directions(150, {1: 0.7}, 1)
    unusual, guest = directions(6, {0: 0.29, 2: 0.75}, 2), directions(6, {3: 0.8}, 3)
    vectors = np.concatenate([first, second, unusual, guest])
    labels = cluster(vectors, 0.75)
    assert [set(part.tolist()) for part in np.split(labels, [150, 300, 306])] == [{0}, {1}, {0}, {2}]
    assert set(cluster(vectors, 0.75, 4).tolist()) == {0, 1, 2, 3}  # unless there are more speakers
    similar = directions(150, {0: 0.3, 1: 0.6}, 4)  # nearer to the first voice than its unusual windows
    further = directions(6, {0: 0.23, 2: 0.75}, 5)
    labels = cluster(np.concatenate([first, similar, further]), 0.75, 2, 2)
    assert [set(part.tolist()) for part in np.split(labels, [150, 300])] == [{0}, {1}, {0}]
    short = np.concatenate([first[:40], second[:40], unusual])  # where six windows are a larger share
    assert set(cluster(short, 0.75).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(5))
def test_average_linkage(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    vectors, _ = voices(5, 3, noise=0.12, seed=seed)
    monkeypatch.setattr(diarization, "FEW_WINDOWS", 1)
    monkeypatch.setattr(diarization, "SMALL_SHARE", 0)
    for threshold in (0.5, 0.8, 0.95):
        tree = hierarchy.linkage(vectors, "average", metric="cosine")
        wanted = hierarchy.fcluster(tree, threshold, "distance")
        labels = cluster(vectors, threshold)
        assert len({*zip(wanted.tolist(), labels.tolist(), strict=True)}) == len({*wanted.tolist()})
        assert len({*labels.tolist()}) == len({*wanted.tolist()})


def test_many_windows_need_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours are joined first, and the speakers stay the same."""
    vectors, who = voices(3, 20)
    monkeypatch.setattr(diarization, "MOST_CLUSTERS", 80)
    assert cluster(vectors, 0.75).tolist() == who.tolist()


def test_no_windows_and_one() -> None:
    assert cluster(np.zeros((0, 192)), 0.75).tolist() == []
    assert cluster(np.ones((1, 192)), 0.75).tolist() == [0]


def test_clusters_of_one_voice_are_joined() -> None:
    """Noise makes the windows of all voices unlike each other: what counts is the share of their likeness."""
    first, second = directions(60, {0: 0.6}, 0), directions(60, {0: 0.45, 1: 0.35}, 1)
    vectors, stranger = np.concatenate([first, second]), directions(60, {0: 0.3, 2: 0.5}, 2)
    assert set(cluster(vectors, 0.7).tolist()) == {0, 1}
    assert set(cluster(vectors, 0.7, join_alike=True).tolist()) == {0}
    assert set(cluster(vectors, 0.7, 2, 2, join_alike=True).tolist()) == {0, 1}
    assert set(cluster(np.concatenate([first, stranger]), 0.7, join_alike=True).tolist()) == {0, 1}


@pytest.mark.parametrize("seed", range(5))
def test_likeness_leaves_out_near_windows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clusters are joined from the right likeness on, which is computed here pair by pair."""
    vectors, _ = voices(2, 3, noise=0.2, seed=seed)
    units = diarization.of_length_one(vectors)
    labels = np.random.default_rng(seed).integers(0, 2, len(units))
    labels = diarization.in_order(labels)
    alike = np.zeros((2, 2))
    for one, other in np.ndindex(2, 2):
        cosines = [
            units[a] @ units[b]
            for a in np.flatnonzero(labels == one)
            for b in np.flatnonzero(labels == other)
            if abs(int(a) - int(b)) > diarization.NEAR_WINDOWS
        ]
        alike[one, other] = np.mean(cosines)
    within = np.maximum(np.diag(alike), diarization.LEAST_WITHIN)
    ratio = alike[0, 1] / np.sqrt(within.prod())
    for change, number in ((-1e-6, 1), (1e-6, 2)):
        monkeypatch.setattr(diarization, "SAME_VOICE", ratio + change)
        assert len({*diarization._most_alike_joined(units, labels).tolist()}) == number


def test_voices_that_are_opposites_are_joined_if_one_is_asked_for() -> None:
    vectors = np.repeat(np.eye(8)[:2], 20, axis=0)
    vectors[:20, 1] = -0.1
    assert set(cluster(vectors, 0.74, 1, 1).tolist()) == {0}

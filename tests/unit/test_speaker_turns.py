"""Turns of speakers: corrections along time, the times of changes, and who says a word."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_cli.diarization import STEP_S, in_order, windows
from funasr_cli.speaker_turns import CHANGE_COST, Turn, Voiced, _likeliest, corrected, speaker_of, turns

VOICES = np.eye(8)


def mixed(said: list[tuple[float, int]]) -> tuple[Voiced, np.ndarray]:
    """Return a segment from each turn's end and speaker, whose windows sound like what they consist of.

    The speaker of each window is the one who says most of it.
    """
    end_s = said[-1][0]
    spans = list(windows(end_s))
    shares = np.zeros((len(spans), len(VOICES)))
    for place, (first_s, last_s) in enumerate(spans):
        begin_s = 0.0
        for until_s, speaker in said:
            shares[place, speaker] += max(0.0, min(last_s, until_s) - max(first_s, begin_s))
            begin_s = until_s
    return Voiced((0.0, end_s), spans, shares), shares.argmax(axis=1)


@pytest.mark.parametrize("change_s", np.arange(4.0, 6.0, 0.17).tolist())
def test_a_change_is_found_within_a_step(change_s: float) -> None:
    """Between windows, a change would be known to half a step at best."""
    speech, labels = mixed([(change_s, 0), (10.0, 1)])
    [first, second] = turns([speech], labels)
    assert first.end_s == second.start_s == pytest.approx(change_s, abs=STEP_S / 5)


@pytest.mark.parametrize("change_s", np.arange(4.0, 6.0, 0.17).tolist())
def test_a_window_that_is_given_to_the_wrong_speaker(change_s: float) -> None:
    """A window in which the speaker changes may sound like either of them, or be like neither."""
    speech, labels = mixed([(change_s, 0), (10.0, 1)])
    last = int(np.flatnonzero(labels == 0)[-1])
    others, whole = mixed([(10.0, 2)])
    wrong = labels.copy()
    wrong[last] = 2
    found = corrected([speech, others], np.concatenate([wrong, whole]))
    assert found[: len(labels)].tolist() in (
        labels.tolist(),
        np.where(np.arange(len(labels)) < last, 0, 1).tolist(),
    )
    assert set(found[len(labels) :].tolist()) == {2}


def test_no_speaker_is_lost_by_corrections() -> None:
    """A voice with one window, between two of another voice, stays if it was a speaker."""
    speech, labels = mixed([(10.0, 0)])
    labels[5] = 1
    assert set(corrected([speech], labels).tolist()) == {0, 1}


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 99))
def test_most_likely_sequence(length: int, speakers: int, seed: int) -> None:
    """No other sequence has a larger sum of cosines less changes."""
    alike = np.random.default_rng(seed).uniform(-0.3, 0.9, (length, speakers))

    def value(path: np.ndarray) -> float:
        return float(alike[np.arange(length), path].sum() - CHANGE_COST * (np.diff(path) != 0).sum())

    best = max(value(np.array(path)) for path in np.ndindex(*[speakers] * length))
    assert value(_likeliest(alike)) == pytest.approx(best)


def test_turns_meet_in_the_middle() -> None:
    """Windows without any mixture leave the change where it is most likely: in the middle of their overlap."""
    spans = [(10.0, 11.5), (10.75, 12.25), (11.5, 13.0), (12.25, 13.75)]
    speech = Voiced((10.0, 13.75), spans, VOICES[[0, 0, 1, 1]])
    found = turns([speech], np.array([0, 0, 1, 1]))
    assert [(turn.start_s, turn.end_s, turn.speaker) for turn in found] == [
        (10, pytest.approx(11.875), 0), (pytest.approx(11.875), 13.75, 1)
    ]  # fmt: skip


def test_short_turns_belong_to_the_longer_neighbour() -> None:
    spans = [(0.0, 1.5), (0.75, 2.25), (0.9, 2.4), (1.65, 3.15)]
    assert turns([Voiced((0.0, 3.15), spans, VOICES[[0, 1, 0, 0]])], np.array([0, 1, 0, 0])) == [Turn(0, 3.15, 0)]


@given(st.floats(0.1, 30), st.data())
def test_turns_cover_their_segment(duration_s: float, data: st.DataObject) -> None:
    spans = list(windows(duration_s))
    labels = in_order(np.array([data.draw(st.integers(0, 3)) for _ in spans]))
    vectors = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(len(spans), 8))
    speech = [Voiced((0.0, duration_s), spans, vectors)]
    for found in (turns(speech, labels), turns(speech, corrected(speech, labels))):
        assert found[0].start_s == 0
        assert found[-1].end_s == duration_s
        for before, after in pairwise(found):
            assert before.end_s == after.start_s
            assert before.speaker != after.speaker


def test_nothing_is_no_turn() -> None:
    assert turns([], np.zeros(0, int)) == []
    assert corrected([], np.zeros(0, int)).tolist() == []


def test_a_speaker_who_would_be_lost_stops_no_other_correction() -> None:
    spans = [(0.75 * place, 0.75 * place + 1.5) for place in range(12)]
    speech = [Voiced((0.0, 9.75), spans, VOICES[[voice] * 12]) for voice in (0, 1, 2)]
    labels = np.repeat([0, 1, 2], 12)
    labels[5], labels[17] = 3, 2  # 3 has no other window
    wanted = np.repeat([0, 1, 2], 12)
    wanted[5] = 3
    assert corrected(speech, labels).tolist() == wanted.tolist()


def test_nobody_joins_a_segment() -> None:
    """A window that sounds like a speaker of another segment stays with a speaker of its own segment."""
    spans = [(0.75 * place, 0.75 * place + 1.5) for place in range(5)]
    speech = [Voiced((0.0, 4.5), spans, VOICES[[0, 0, 0, 0, 1]]), Voiced((10.0, 14.5), spans, VOICES[[1] * 5])]
    labels = np.repeat([0, 1], 5)
    assert corrected(speech, labels).tolist() == labels.tolist()


def test_turns_of_several_segments() -> None:
    spans = [(0.0, 1.5), (0.75, 2.25)]
    later = [(start_s + 10, end_s + 10) for start_s, end_s in spans]
    speech = [Voiced((0.0, 2.25), spans, VOICES[[0, 0]]), Voiced((10.0, 12.25), later, VOICES[[1, 1]])]
    assert turns(speech, np.array([0, 0, 1, 1])) == [Turn(0, 2.25, 0), Turn(10, 12.25, 1)]


def test_a_short_turn_belongs_to_the_longer_of_unequal_neighbours() -> None:
    spans = [(0.0, 1.5), (0.1, 1.6), (0.75, 2.25), (1.5, 3.0), (2.25, 3.75)]
    speech = Voiced((0.0, 3.75), spans, VOICES[[0, 1, 2, 2, 2]])
    assert [turn.speaker for turn in turns([speech], np.array([0, 1, 2, 2, 2]))] == [0, 2]


def test_speaker_of_a_word() -> None:
    found = [Turn(0, 2, 0), Turn(2, 5, 1), Turn(8, 9, 2)]
    assert [speaker_of(1.5, 2.3, found), speaker_of(1.9, 2.3, found)] == [0, 1]
    assert speaker_of(7.5, 7.9, found) == 2  # none of them speaks: the nearest

"""Turns: who speaks from when to when, given the clusters of windows of speech.

A window in which the speaker changes sounds like a mixture of two voices, or like a third one. So clusters are
corrected along time, and the time of a change is found from how much the windows around it sound like each voice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

from funasr_cli.diarization import STEP_S, Span, of_length_one

SHORTEST_TURN_S = 0.7
CHANGE_COST = 0.2  # of a change of speaker within a segment, as a difference of cosines
MOST_ROUNDS = 3  # of corrections
CHANGE_STEP_S = 0.05  # between the times that are tried for a change
WINDOWS_AROUND = 2  # on each side of a change


@dataclass(frozen=True)
class Turn:
    """A stretch of speech of one speaker."""

    start_s: float
    end_s: float
    speaker: int


class Voiced(NamedTuple):
    """A segment of speech."""

    span: Span
    windows: list[Span]
    vectors: np.ndarray  # (windows, width) embeddings of the windows


def corrected(speech: Sequence[Voiced], labels: np.ndarray) -> np.ndarray:
    """Return the speaker (windows,) of each window, corrected along time; speakers are numbered without gaps.

    In each segment, the most likely sequence of its speakers is found (Viterbi). It has the largest sum of cosines
    between windows and the means of their speakers, less `CHANGE_COST` for each change. No other speaker joins a
    segment, or one with few windows would collect unusual windows of all others. Who would lose all windows
    keeps them.
    """
    borders = np.cumsum([len(segment.windows) for segment in speech])[:-1]
    for _ in range(MOST_ROUNDS if speech else 0):
        alike, _ = _likeness(speech, labels)
        parts = zip(np.split(alike, borders), np.split(labels, borders), strict=True)
        found = np.concatenate([(own := np.unique(old))[_likeliest(part[:, own])] for part, old in parts])
        lost = np.isin(labels, np.setdiff1d(labels, found))  # windows of speakers who would have none
        found[lost] = labels[lost]
        if (found == labels).all():
            break
        labels = found
    return labels


def turns(speech: Sequence[Voiced], labels: np.ndarray) -> list[Turn]:
    """Return the turns of a recording, in order, given the speaker (windows,) of each window.

    The turns of a segment cover it without gaps. One shorter than `SHORTEST_TURN_S` becomes part of its longer
    neighbour.
    """
    if not speech:
        return []
    alike, expected = _likeness(speech, labels)
    found, first = list[Turn](), 0
    for (_, end_s), windows, _ in speech:
        own = slice(first, first + len(windows))
        found += _without_short(_turns(np.array(windows), end_s, labels[own], alike[own], expected))
        first = own.stop
    return found


def _likeness(speech: Sequence[Voiced], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine of each window with each speaker's mean, and the averages of that for each speaker.

    Windows next to a change are left out of the mean, but not of the averages, if there are others: both speakers
    may be in them.

    Returns:
        (windows, speakers) and (speakers, speakers): the speaker of the window, then that of the mean.
    """
    units = of_length_one(np.concatenate([segment.vectors for segment in speech]))  # (windows, width)
    borders = np.cumsum([0, *(len(segment.windows) for segment in speech)])
    changes = np.ones(len(labels) + 1, bool)  # before each window, and after the last one
    changes[1:-1] = labels[1:] != labels[:-1]
    changes[borders] = False
    inside = ~(changes[1:] | changes[:-1])  # windows with one speaker
    own = [labels == speaker for speaker in range(labels.max() + 1)]
    means = [units[each & inside if (each & inside).any() else each].mean(axis=0) for each in own]
    alike = units @ of_length_one(np.stack(means)).T
    return alike, np.stack([alike[each].mean(axis=0) for each in own])


def _likeliest(alike: np.ndarray) -> np.ndarray:
    """Return the most likely speaker (windows,) of each window of a segment; `alike` is (windows, speakers)."""
    total, before = alike[0], []  # of the best sequences that end with each speaker; the speaker before
    for row in alike[1:]:
        best = int(total.argmax())
        stays = total >= total[best] - CHANGE_COST
        before.append(np.where(stays, np.arange(len(total)), best))
        total = np.maximum(total, total[best] - CHANGE_COST) + row
    path = [int(total.argmax())]
    for row in reversed(before):
        path.append(int(row[path[-1]]))
    return np.array(path[::-1])


def _turns(
    windows: np.ndarray, end_s: float, labels: np.ndarray, alike: np.ndarray, expected: np.ndarray
) -> list[Turn]:
    """Return the turns of a segment, given its windows (windows, 2); see `_likeness` for the other two."""
    changes = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    found, start_s = list[Turn](), float(windows[0, 0])
    for before, change, after in zip(changes, changes[1:], [*changes[2:], None], strict=False):
        speaker, until_s = int(labels[before]), end_s
        if after is not None:
            near = slice(max(before, change - WINDOWS_AROUND), min(after, change + WINDOWS_AROUND))
            pair = [speaker, int(labels[change])]
            middle_s = (windows[change - 1, 1] + windows[change, 0]) / 2
            until_s = _change_s(windows[near], alike[near][:, pair], expected[np.ix_(pair, pair)], middle_s)
            until_s = min(max(until_s, start_s), end_s)
        found.append(Turn(start_s, until_s, speaker))
        start_s = until_s
    return found


def _change_s(windows: np.ndarray, alike: np.ndarray, expected: np.ndarray, middle_s: float) -> float:
    """Return when one speaker ends and another begins, up to a step before or after the middle of the change.

    How much more a window sounds like the first than like the second one should depend on how much of the window
    is before the change. The time that fits best is returned (least squares), and of equal ones the most central.

    Args:
        windows: (windows, 2) times.
        alike: (windows, 2) their cosines with both speakers.
        expected: (2, 2) the same on average, of windows of the first speaker and of the second.
        middle_s: of the change.
    """
    steps = round(STEP_S / CHANGE_STEP_S)
    times = middle_s + CHANGE_STEP_S * np.arange(-steps, steps + 1)  # (times,)
    starts, ends = windows.T
    share = np.clip((times[:, None] - starts) / (ends - starts), 0, 1)  # (times, windows) before the change
    first, second = expected[:, 0] - expected[:, 1]
    errors = ((share * first + (1 - share) * second - (alike[:, 0] - alike[:, 1])) ** 2).sum(axis=1)
    return float(times[np.lexsort((np.abs(times - middle_s), errors.round(6)))[0]])


def _without_short(found: list[Turn]) -> list[Turn]:
    """Give turns shorter than `SHORTEST_TURN_S` to their longer neighbours, and join turns of one speaker."""
    found = _joined(found)
    while len(found) > 1:
        place = min(range(len(found)), key=lambda i: found[i].end_s - found[i].start_s)
        if found[place].end_s - found[place].start_s >= SHORTEST_TURN_S:
            break
        neighbours = [each for each in (place - 1, place + 1) if 0 <= each < len(found)]
        longer = max(neighbours, key=lambda i: found[i].end_s - found[i].start_s)
        found[place] = replace(found[place], speaker=found[longer].speaker)
        found = _joined(found)
    return found


def _joined(found: Sequence[Turn]) -> list[Turn]:
    """Join neighbouring turns of one speaker."""
    runs = (list(run) for _, run in groupby(found, key=lambda turn: turn.speaker))
    return [replace(run[0], end_s=run[-1].end_s) for run in runs]


def speaker_of(start_s: float, end_s: float, found: Sequence[Turn]) -> int:
    """Return who speaks longest between two times; the nearest speaker if none of them does."""

    def overlap_s(speaker: int) -> float:
        own = (turn for turn in found if turn.speaker == speaker)
        return sum(max(0.0, min(turn.end_s, end_s) - max(turn.start_s, start_s)) for turn in own)

    longest = max(dict.fromkeys(turn.speaker for turn in found), key=overlap_s)
    if overlap_s(longest):
        return longest
    return min(found, key=lambda turn: max(turn.start_s - end_s, start_s - turn.end_s)).speaker

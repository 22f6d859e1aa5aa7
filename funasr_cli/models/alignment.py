"""Forced alignment: the likeliest path through the CTC lattice that spells given labels.

Source: Graves et al. 2006, "Connectionist Temporal Classification", sections 3.1 and 4.1 (the label sequence with
blanks around each label, and which steps it allows), with the maximum over paths in place of their sum;
``torchaudio.functional.forced_align``, which FunASR calls in ``funasr/models/fun_asr_nano/tools/utils.py``. What
differs from the latter: labels that do not fit are an error here and an empty list there, NaN is refused, and of
paths that are equally likely the one that stays longest in a state is taken.
"""

from collections.abc import Sequence

import numpy as np

BLANK = -1  # in a path: the frame belongs to no label


class AlignmentError(ValueError):
    """No path spells these labels in these frames."""


def align(log_probs: np.ndarray, labels: Sequence[int] | np.ndarray, blank: int) -> np.ndarray:
    """Find the likeliest path that spells the labels.

    One step a frame: to stay, to go on to the next state, or to leave out a blank between different labels.

    Args:
        log_probs: (frames, classes) log-probabilities.
        labels: the class of each label, none of them blank.
        blank: the class that says nothing.

    Returns:
        (frames,) which of the labels, counted from 0, each frame says; `BLANK` where it says none.

    Raises:
        AlignmentError: there are more labels than the frames have room for, the log-probabilities are not finite
            (-inf, which is impossible, is allowed), or all paths are impossible.
    """
    classes = np.full(2 * len(labels) + 1, blank)  # (states,): blank, label, blank, label, ... blank
    classes[1::2] = labels
    needed = len(labels) + int(
        (classes[3::2] == classes[1:-2:2]).sum()
    )  # equal neighbours need a blank in between
    if len(log_probs) < needed:
        raise AlignmentError(f"{len(labels)} labels need {needed} frames, there are {len(log_probs)}")
    if not len(log_probs):
        return np.zeros(0, int)
    back, final = _forward(log_probs, classes)
    ends = final[-2:]  # the last label, and the blank behind it
    if not np.isfinite(ends.max()):
        raise AlignmentError("no path is possible")
    states = _trace(back, len(classes) - len(ends) + int(ends.argmax()))  # (frames,)
    return np.where(states % 2, states // 2, BLANK)


def _forward(log_probs: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best way to each state.

    Returns:
        (frames, states) how many states back it came from in each frame, and (states,) its score in the last one.
    """
    frames, states = len(log_probs), len(classes)
    no_skip = np.ones(max(states - 2, 0), bool)  # (states - 2,), of the third state on
    no_skip[1::2] = classes[3::2] == classes[1:-2:2]
    back = np.zeros((frames, states), np.int8)  # a byte each: 5,000 frames by 2,500 labels are 25 MB
    scores = np.full(states, -np.inf)
    scores[:2] = 0.0  # a path begins with a blank or the first label
    for frame, row in enumerate(log_probs):
        if frame:
            stayed = scores
            scores = stayed.copy()
            _improve(scores[1:], back[frame, 1:], stayed[:-1], 1)
            _improve(scores[2:], back[frame, 2:], np.where(no_skip, -np.inf, stayed[:-2]), 2)
        emitted = row[classes].astype(np.float64)
        if np.isnan(emitted).any() or emitted.max() == np.inf:
            raise AlignmentError(f"frame {frame} has log-probabilities that are not finite")
        scores += emitted
    return back, scores


def _improve(scores: np.ndarray, steps: np.ndarray, others: np.ndarray, step: int) -> None:
    """Where the other way to a state is better, take it."""
    better = others > scores
    scores[better] = others[better]
    steps[better] = step


def _trace(back: np.ndarray, state: int) -> np.ndarray:
    """(frames, states) steps -> (frames,) the states of the path that ends in this one."""
    path = np.empty(len(back), int)
    for frame in range(len(back) - 1, -1, -1):
        path[frame] = state
        state -= int(back[frame, state])
    return path

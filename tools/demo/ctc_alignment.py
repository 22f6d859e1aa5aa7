"""CTC forced alignment: the frame at which each label of a known text begins on the best path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def forced_alignment(log_probs: np.ndarray, labels: Sequence[int], blank: int) -> list[int]:
    """Return the first frame of each label on the best CTC path that spells `labels`; log_probs (T, classes)."""
    states = [blank]
    for label in labels:
        states += [label, blank]
    ids = np.array(states)
    skip = np.zeros(len(ids), bool)
    skip[3::2] = ids[3::2] != ids[1:-2:2]
    score = np.full(len(ids), -np.inf)
    score[:2] = log_probs[0, ids[:2]]
    back = np.zeros((len(log_probs), len(ids)), np.int8)
    for frame in range(1, len(log_probs)):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(skip, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf)
        choices = np.stack([score, one, two])
        back[frame] = choices.argmax(0)
        score = choices.max(0) + log_probs[frame, ids]
    state = len(ids) - 1 - int(score[-2] > score[-1])
    path = [state]
    for frame in range(len(log_probs) - 1, 0, -1):
        state -= int(back[frame, state])
        path.append(state)
    path.reverse()
    return [path.index(2 * index + 1) for index in range(len(labels))]

"""Word times from a decoder's cross-attention: when it looked at which part of the audio.

Source: openai-whisper ``whisper/timing.py`` (``find_alignment``, ``median_filter``, ``dtw_cpu``). What differs:
the search is vectorised, words are those of `units.word_spans`, and characters that share a token divide its time.
"""

from collections.abc import Iterable, Sequence
from functools import reduce

import numpy as np

from funasr_cli.decoding.text import clean_text
from funasr_cli.transcript import Word
from funasr_cli.units import is_spoken, word_spans

FILTER_WIDTH = 7  # of the median filter, in rows
LEFT, UP, BOTH = range(3)  # steps of a path: to the next row, to the next token, to both


def token_rows(groups: Iterable[np.ndarray], skipped: int) -> np.ndarray:
    """Find the row of the audio at which each token begins.

    Args:
        groups: heads of the cross-attention, each group (heads, tokens, rows) before the softmax, only the rows of
            the clip itself. The first tokens are the prompt, the last one is the end of the text. Groups are
            read one by one, since a large model's heads need 1.3 MB each.
        skipped: number of tokens whose successor is not part of the text.

    Returns:
        (text tokens + 1,) the row where each token of the text begins, and where the end token does.
    """
    total = reduce(np.add, (_relative(scores) for group in groups for scores in group))
    matrix = total[skipped:-1]  # (text tokens + 1, rows): the scale does not matter
    tokens, rows = cheapest_path(-matrix)
    return rows[np.flatnonzero(np.diff(tokens, prepend=-1))]


def _relative(scores: np.ndarray) -> np.ndarray:
    """Return how much more a head attends to a row of the audio for one token than for others: (tokens, rows)."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = (weights - weights.mean(axis=0)) / weights.std(axis=0)
    return median_filtered(np.nan_to_num(weights))


def median_filtered(values: np.ndarray) -> np.ndarray:
    """Filter the last axis with a running median, reflected at both ends; too short an axis stays unchanged."""
    margin = FILTER_WIDTH // 2
    if values.shape[-1] <= margin:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(margin, margin)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, FILTER_WIDTH, axis=-1)
    return np.median(windows, axis=-1)


def cheapest_path(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the cheapest monotonic path from the first to the last entry (dynamic time warping).

    The table is filled one diagonal at a time.

    Args:
        costs: (tokens, rows), at least one of each.

    Returns:
        The token and the row of each step of the path, in order.
    """
    tokens, rows = costs.shape
    # Entry [i, d] is that of token i on diagonal d = i + row, so all entries of a column are independent.
    steps = np.full((tokens, tokens + rows - 1), LEFT, np.int8)
    previous = before = np.full(tokens, np.inf)  # costs of the paths to the last two diagonals
    for diagonal in range(tokens + rows - 1):
        first, last = max(0, diagonal - rows + 1), min(tokens - 1, diagonal)
        inside = np.arange(first, last + 1)
        up, both = (np.full(len(inside), np.inf) for _ in range(2))
        has_upper = inside > 0
        up[has_upper], both[has_upper] = previous[inside[has_upper] - 1], before[inside[has_upper] - 1]
        left = previous[inside]
        best = np.where((both < up) & (both < left), BOTH, np.where((up < both) & (up < left), UP, LEFT))
        cost = np.choose(best, [left, up, both])
        if diagonal == 0:
            cost = np.zeros(1)
        steps[inside, diagonal] = best
        current = np.full(tokens, np.inf)
        current[inside] = cost + costs[inside, diagonal - inside]
        previous, before = current, previous
    path, token, row = [], tokens - 1, rows - 1
    while token > 0 or row > 0:
        path.append((token, row))
        step = LEFT if token == 0 else UP if row == 0 else int(steps[token, token + row])
        token, row = token - (step != LEFT), row - (step != UP)
    path.append((0, 0))
    found = np.array(path[::-1])
    return found[:, 0], found[:, 1]


def place_words(
    text: str,
    sources: Sequence[tuple[int, int]],
    begins_s: np.ndarray,
    probabilities: Sequence[float],
    start_s: float,
    end_s: float,
) -> tuple[Word, ...]:
    """Return the words of a segment with their times, in order, without overlaps, and within the segment.

    Args:
        text: all tokens as one text.
        sources: for each character, the first and the last token that form it.
        begins_s: (tokens + 1,) when each token, and the end, begins, in seconds from the start of the segment.
        probabilities: of each token. A word's score is that of its least likely token.
        start_s: start of the segment.
        end_s: end of the segment.
    """
    words = []
    for first, last in word_spans(text):
        spoken = [index for index in range(first, last) if is_spoken(text[index])]
        begun_s = _border(text, sources, begins_s, spoken[0])
        ended_s = _border(text, sources, begins_s, spoken[-1], after=True)
        begun_s, ended_s = (min(start_s + time_s, end_s) for time_s in (begun_s, max(begun_s, ended_s)))
        score = min(probabilities[sources[spoken[0]][0] : sources[spoken[-1]][1] + 1])
        words.append(Word(clean_text(text[first:last], has_marks=False), begun_s, ended_s, score))
    return tuple(words)


def _border(
    text: str, sources: Sequence[tuple[int, int]], begins_s: np.ndarray, index: int, *, after: bool = False
) -> float:
    """Return when a character begins, or ends. The characters of a token divide its time equally."""
    side = int(after)
    token = sources[index][side]
    inside = [
        other for other, ends in enumerate(sources) if ends[side] == token and not text[other].isspace()
    ]  # characters that begin, or end, in this token
    share = (inside.index(index) + side) / len(inside)
    begin_s, next_s = (float(each) for each in begins_s[token : token + 2])
    return begin_s + share * (next_s - begin_s)

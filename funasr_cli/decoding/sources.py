"""Words and scores of a text that states the token of each character, as models that read in one step do."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from funasr_cli.transcript import Score, Word
from funasr_cli.units import word_spans


def scores_of(text: str, sources: Sequence[int], probabilities: np.ndarray) -> tuple[Score, ...]:
    """Split a text into the tokens that it was made from.

    Args:
        text: the text.
        sources: the index of each character's token.
        probabilities: (tokens,).
    """
    scores, end = list[Score](), 0
    for source, run in groupby(sources):
        begin, end = end, end + len(list(run))
        scores.append(Score(text[begin:end], float(probabilities[source])))
    return tuple(scores)


def words_of(
    text: str,
    sources: Sequence[int],
    probabilities: np.ndarray,
    spans_s: Sequence[tuple[float, float]],
    start_s: float,
) -> tuple[Word, ...]:
    """Split a text into words, each with the lowest probability of its tokens.

    Args:
        text: the text.
        sources: the index of each character's token.
        probabilities: (tokens,).
        spans_s: start and end of each token, in seconds from the start of the segment.
        start_s: where the segment starts in the recording.
    """
    words = []
    for first, end in word_spans(text):
        own = list(sources[first:end])
        (begun_s, _), (_, ended_s) = spans_s[own[0]], spans_s[own[-1]]
        words.append(Word(text[first:end], start_s + begun_s, start_s + ended_s, float(probabilities[own].min())))
    return tuple(words)

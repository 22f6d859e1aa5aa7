"""Word times from cross-attention: the cheapest path, the median filter, and words from tokens."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_cli.decoding.cross_attention import cheapest_path, median_filtered, place_words, token_rows

RNG = np.random.default_rng(0)


def all_paths(tokens: int, rows: int) -> list[list[tuple[int, int]]]:
    """Return every monotonic path from corner to corner."""
    if tokens == rows == 1:
        return [[(0, 0)]]
    paths = []
    for down, right in ((1, 0), (0, 1), (1, 1)):
        if tokens - down >= 1 and rows - right >= 1:
            paths += [[*path, (tokens - 1, rows - 1)] for path in all_paths(tokens - down, rows - right)]
    return paths


@pytest.mark.parametrize(("tokens", "rows"), [*itertools.product((1, 2, 4), (1, 3, 5)), (5, 2)])
def test_the_cheapest_of_all_paths(tokens: int, rows: int) -> None:
    for _ in range(5):
        costs = RNG.normal(size=(tokens, rows))
        path = list(zip(*(each.tolist() for each in cheapest_path(costs)), strict=True))
        best = min(all_paths(tokens, rows), key=lambda path: sum(costs[place] for place in path))
        assert path == best


@given(st.integers(1, 30), st.integers(0, 3))
def test_the_median(length: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2, length))
    found = median_filtered(values)
    if length <= 3:
        assert np.array_equal(found, values)
        return
    for row, expected in zip(found, values, strict=True):
        reflected = [*expected[3:0:-1], *expected, *expected[-2:-5:-1]]
        assert row.tolist() == [sorted(reflected[index : index + 7])[3] for index in range(length)]


def test_tokens_begin_where_attention_moves_to_them() -> None:
    """Three tokens and the end, each attended to for some time; two tokens of the prompt come before."""
    begins = [0, 12, 30, 41]
    scores = np.zeros((2, 2 + 4 + 1, 60))
    for token, (first, last) in enumerate(itertools.pairwise([*begins, 60])):
        scores[:, 2 + token, first:last] = 8.0
    assert token_rows([scores], 2).tolist() == token_rows([scores[:1], scores[1:]], 2).tolist() == begins


def test_constant_attention_gives_times_in_order() -> None:
    rows = token_rows([np.zeros((1, 6, 20))], 2)
    assert len(rows) == 3
    assert rows.tolist() == sorted(rows.tolist())


def test_words() -> None:
    """A word lasts from its first to its last token, without punctuation; characters divide a token's time."""
    text = ' "Hi there, 你好。'
    spelled = [' "', "Hi", " the", "re", ",", " ", "你好", "。"]
    sources = [(index, index) for index, piece in enumerate(spelled) for _ in piece]
    begins_s = np.array([0.0, 0.2, 0.5, 0.7, 1.0, 1.1, 1.2, 2.0, 2.5])
    probabilities = [0.1, 0.9, 0.8, 0.7, 0.2, 0.3, 0.6, 0.1]
    words = place_words(text, sources, begins_s, probabilities, 10.0, 11.7)
    assert [word.text for word in words] == ['"Hi', "there,", "你", "好。"]
    assert [word.start_s for word in words] == pytest.approx([10.2, 10.5, 11.2, 11.6])
    assert [word.end_s for word in words] == pytest.approx([10.5, 11.0, 11.6, 11.7])
    assert [word.score for word in words] == [0.9, 0.7, 0.6, 0.6]


def test_a_character_of_several_tokens() -> None:
    words = place_words("房", [(0, 2)], np.array([0.0, 0.1, 0.2, 0.5]), [0.5, 0.4, 0.3], 0.0, 1.0)
    assert [(word.start_s, word.end_s, word.score) for word in words] == [(0.0, 0.5, 0.3)]

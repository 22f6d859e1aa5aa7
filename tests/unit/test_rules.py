"""Rules on logits, compared with a reading of the definition, one row and one token at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.rules import Exclusion, PresencePenalty, TimeRules, ruled

VOCABULARY, END, SPECIAL, FIRST = 20, 8, 9, 12  # text below END; times from FIRST on
NEVER, NOT_FIRST, LATEST = (3, SPECIAL), (0, END), 2


def allowed(tokens: list[int]) -> set[int]:
    """Return the tokens that may follow, before the comparison of probabilities."""
    times = [token for token in tokens if token >= FIRST]
    if not tokens:
        return set(range(FIRST, FIRST + LATEST + 1))
    after_time = tokens[-1] >= FIRST
    after_two = after_time and (len(tokens) < 2 or tokens[-2] >= FIRST)
    found = set()
    for token in set(range(VOCABULARY)) - set(NEVER):
        is_time = token >= FIRST
        if after_two and is_time:
            continue  # a pair, or the first time, is followed by text or the end
        if after_time and not after_two and token < END:
            continue  # a time that ends a piece is followed by another time or the end
        if is_time and times and token < times[-1] + (0 if after_time and not after_two else 1):
            continue  # times do not decrease, and a piece is not empty
        found.add(token)
    return found


texts = st.lists(st.sampled_from([1, 2, 4, 5, 12, 13, 14, 16, 19]), max_size=6)


@settings(max_examples=60)
@given(st.lists(texts, min_size=1, max_size=3), st.integers(0, 100))
def test_times(written: list[list[int]], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (len(written), VOCABULARY)).astype(np.float32)
    rules = TimeRules(VOCABULARY, NEVER, NOT_FIRST, END, FIRST, LATEST)
    found = np.array(rules(mx.array(logits), [len(tokens) for tokens in written], written))
    for row, values, tokens in zip(found, logits, written, strict=True):
        expected = allowed(tokens)
        total = np.exp([values[token] for token in expected if token >= FIRST]).sum()
        best = max([values[token] for token in expected if token < FIRST], default=-np.inf)
        if total and np.log(total) > best:
            expected = {token for token in expected if token >= FIRST}
        assert set(np.flatnonzero(np.isfinite(row)).tolist()) == expected
        assert all(row[token] == values[token] for token in expected)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=8), min_size=1, max_size=4),
    st.floats(-2, 2, width=32),
)
def test_presence_penalty(written: list[list[int]], penalty: float) -> None:
    """Once for each token that the row has written, however often; other rows and tokens stay as they are."""
    logits = np.random.default_rng(len(written)).normal(0, 2, (len(written), VOCABULARY)).astype(np.float32)
    rules = PresencePenalty(penalty)
    assert rules.need_tokens
    found = np.array(ruled(mx.array(logits), [rules] * len(written), [len(each) for each in written], written))
    for row, values, tokens in zip(found, logits, written, strict=True):
        for token in range(VOCABULARY):
            assert row[token] == np.float32(values[token] - np.float32(penalty * (token in tokens)))


def test_texts_without_times() -> None:
    rules = Exclusion(VOCABULARY, NEVER, NOT_FIRST)
    found = np.isfinite(np.array(rules(mx.zeros((2, VOCABULARY)), [0, 5], [[], [1]])))
    assert set(np.flatnonzero(~found[0]).tolist()) == {*NEVER, *NOT_FIRST}
    assert set(np.flatnonzero(~found[1]).tolist()) == {*NEVER}
    assert not rules.need_tokens

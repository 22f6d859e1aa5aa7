"""The decoder's cache and masks, sampling filters and CTC collapse, compared with simple loops."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.parity.small_decoder import SAMPLING, VOCAB_SIZE, decode_in_one_pass, random_prompt, small_decoder

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.sampling import keep_top_k, keep_top_p, make_sampler
from funasr_cli.models.cache import Positions
from funasr_cli.models.ctc import best_path
from funasr_cli.options import TranscribeOptions

BLANK = 0
logit_rows = st.lists(st.integers(-40, 40), min_size=2, max_size=12, unique=True)


@pytest.mark.parametrize("length", range(7))
def test_best_path_of_all_short_sequences(length: int) -> None:
    for frame_ids in itertools.product(range(3), repeat=length):
        merged = [token for token, _ in itertools.groupby(frame_ids)]
        assert best_path(list(frame_ids), BLANK) == [token for token in merged if token != BLANK]


@pytest.mark.slow
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.data())
@settings(max_examples=40, deadline=None)
def test_removed_columns_leave_no_trace(lengths: list[int], data: st.DataObject) -> None:
    """Rows read columns that are then removed, and continue as if these had never been read."""
    llm, rows = small_decoder(), len(lengths)
    cache = llm.make_cache(rows)
    kept: list[list[mx.array]] = [[] for _ in range(rows)]
    for piece in range(4):
        new = data.draw(st.integers(1, 5))
        columns = mx.stack([random_prompt(new, seed=100 * piece + row) for row in range(rows)])
        hidden = llm(columns, cache)
        back = [data.draw(st.integers(0, new)) for _ in range(rows)]
        cache.take_back(back)
        for row, count in enumerate(back):
            kept[row].append(columns[row, : new - count])
            if count < new:
                alone = decode_in_one_pass(llm, mx.concatenate(kept[row]))
                worst = np.abs(np.array(hidden[row, : new - count]) - alone[count - new :]).max()
                assert worst < 1e-4  # measured: 1.3e-5


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_attention_mask(lengths: list[int], new: int) -> None:
    positions = Positions(lengths, new)
    mask = positions.mask()
    if len(set(lengths)) == 1:
        assert mask == ("causal" if new > 1 else None)
        return
    assert mask.shape == (len(lengths), 1, new, max(lengths) + new)
    for row, length in enumerate(lengths):
        for query in range(new):
            for column in range(max(lengths) + new):
                assert mask[row, 0, query, column].item() == (column <= length + query)


@given(logit_rows, st.integers(1, 14))
@settings(max_examples=150, deadline=None)
def test_keep_top_k(values: list[int], count: int) -> None:
    logits = np.array([values, values[::-1]], np.float32)
    kept = np.array(keep_top_k(mx.array(logits), count))
    for row, result in zip(logits, kept, strict=True):
        best = sorted(row, reverse=True)[:count]
        assert result.tolist() == [value if value in best else -np.inf for value in row]


@given(logit_rows, st.floats(0.01, 1.0))
@settings(max_examples=150, deadline=None)
def test_keep_top_p(values: list[int], share: float) -> None:
    logits = np.array([values, values[::-1]], np.float32) / 8
    kept = np.array(keep_top_p(mx.array(logits), share))
    for row, result in zip(logits.astype(np.float64), kept, strict=True):
        weights = np.exp(row - row.max())
        probabilities = weights / weights.sum()
        held, expected = 0.0, np.full(len(row), -np.inf)
        for index in sorted(range(len(row)), key=lambda i: -row[i]):
            assume(abs(held - share) > 1e-5)  # rounding may go either way
            if held >= share:
                break
            expected[index] = row[index]
            held += probabilities[index]
        assert result.tolist() == expected.tolist()


def test_random_numbers_depend_only_on_the_seed_and_the_step() -> None:
    logits = mx.array(np.random.default_rng(0).standard_normal((1, VOCAB_SIZE)), mx.float32)
    in_order, anyhow = make_sampler(SAMPLING), make_sampler(SAMPLING)
    by_step = [int(in_order(logits, [step])[0]) for step in range(20)]
    assert len(set(by_step)) > 5
    steps = [19, 3, 0, 3, 11]
    assert anyhow(mx.repeat(logits, len(steps), axis=0), steps).tolist() == [by_step[step] for step in steps]
    assert int(anyhow(logits, [12])[0]) == by_step[12]
    other_seed = make_sampler(replace(SAMPLING, seed=8))
    assert [int(other_seed(logits, [step])[0]) for step in range(20)] != by_step


@pytest.mark.slow
def test_samples_follow_the_filtered_distribution() -> None:
    logits = mx.array([np.linspace(0, 2, VOCAB_SIZE).tolist()])
    options = TranscribeOptions(temperature=0.5, top_k=3, seed=1)
    sampler = make_sampler(options)
    counts = np.bincount([int(sampler(logits, [step])[0]) for step in range(2000)], minlength=VOCAB_SIZE)
    weights = np.exp(np.linspace(0, 2, VOCAB_SIZE)[-3:] / 0.5)
    assert counts[:-3].sum() == 0
    assert np.abs(counts[-3:] / 2000 - weights / weights.sum()).max() < 0.05

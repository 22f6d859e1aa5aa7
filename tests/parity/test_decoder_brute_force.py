"""The decoder's cache, its masks, sampling filters and CTC collapse against plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from parity.small_decoder import decode_in_one_pass, random_prompt, small_decoder

from funasr_cli.backend import mx
from funasr_cli.decoding.generate import bucketed, left_pad
from funasr_cli.decoding.sampling import keep_top_k, keep_top_p
from funasr_cli.models import cache as cache_module
from funasr_cli.models.cache import DecoderCache
from funasr_cli.models.ctc import best_path

BLANK = 0
logit_rows = st.lists(st.integers(-40, 40), min_size=2, max_size=12, unique=True)


@pytest.mark.parametrize("length", range(7))
def test_best_path_of_all_short_sequences(length: int) -> None:
    for frame_ids in itertools.product(range(3), repeat=length):
        merged = [token for token, _ in itertools.groupby(frame_ids)]
        assert best_path(list(frame_ids), BLANK) == [token for token in merged if token != BLANK]


@pytest.mark.parametrize("chunks", [[1] * 11, [4, 1, 1, 5], [10, 1]])
@pytest.mark.parametrize("growth", [1, 3, 256])
def test_cache_equals_one_pass(chunks: list[int], growth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "GROWTH_COLUMNS", growth)
    llm, prompt = small_decoder(), random_prompt(11)
    expected = decode_in_one_pass(llm, prompt)
    cache = llm.make_cache([0])
    parts = [llm(part[None], cache) for part in mx.split(prompt, np.cumsum(chunks)[:-1].tolist())]
    assert cache.length == 11
    assert np.allclose(np.array(mx.concatenate(parts, axis=1)[0]), expected, atol=1e-5)


# Up to 32 every length is a bucket; 33 is padded to 34, 70 to 72; 34 and 72 fill theirs.
@pytest.mark.parametrize("lengths", [(5, 2), (1, 7, 7, 3), (33,), (34,), (33, 33), (70, 33, 5), (72, 34)])
def test_padded_rows_equal_rows_alone(lengths: tuple[int, ...]) -> None:
    llm, tail = small_decoder(), random_prompt(3, seed=99)
    prompts = [random_prompt(length, seed=length) for length in lengths]
    padded, padding = left_pad(prompts)
    assert padding == [bucketed(max(lengths)) - length for length in lengths]
    cache = llm.make_cache(padding)
    # Rows that fill their bucket need no mask of their own.
    assert (cache.attention_mask(padded.shape[1]) == "causal") == (lengths == (34,))
    outputs = [llm(padded, cache)[:, -1:]]
    for step in range(3):
        outputs.append(llm(mx.broadcast_to(tail[step], (len(lengths), 1, tail.shape[1])), cache))
    together = np.array(mx.concatenate(outputs, axis=1))
    for row, prompt in enumerate(prompts):
        alone = decode_in_one_pass(llm, mx.concatenate([prompt, tail]))
        assert np.allclose(together[row], alone[-4:], atol=1e-5)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 5), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_attention_mask(padding: list[int], filled: int, new: int) -> None:
    cache = DecoderCache(1, padding)
    cache.layers[0].length = filled
    mask = cache.attention_mask(new)
    if not any(padding):
        assert mask == ("causal" if new > 1 else None)
        return
    assert mask.shape == (len(padding), 1, new, filled + new)
    for row, start in enumerate(padding):
        for query in range(new):
            for column in range(filled + new):
                now = filled + query
                # A padded column sees itself, so that its softmax is not empty.
                seen = column <= now and (column >= start or column == now)
                assert mask[row, 0, query, column].item() == seen


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
            assume(abs(held - share) > 1e-5)  # rounding may fall on either side
            if held >= share:
                break
            expected[index] = row[index]
            held += probabilities[index]
        assert result.tolist() == expected.tolist()

"""`generate` against a loop without cache, batch or look-ahead."""

from collections import defaultdict

import numpy as np
import pytest
from parity.small_decoder import VOCAB_SIZE, decode_in_one_pass, random_prompt, small_decoder

from funasr_cli.backend import mx
from funasr_cli.decoding.generate import StopReason, Token, generate, make_sampler
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.options import DEFAULTS, TranscribeOptions

LENGTHS = (4, 9, 1, 6)
PROMPTS = [random_prompt(length, seed=length) for length in LENGTHS]
SAMPLING = TranscribeOptions(temperature=1.3, top_k=20, top_p=0.95, seed=7)


def greedy_loop(llm: Qwen3, prompt: mx.array, stop: tuple[int, ...], budget: int) -> list[int]:
    """Everything anew for each token."""
    ids: list[int] = []
    while len(ids) < budget and not (ids and ids[-1] in stop):
        rows = mx.concatenate([prompt, llm.embed(mx.array(ids))]) if ids else prompt
        ids.append(int(llm.logits(mx.array(decode_in_one_pass(llm, rows)[-1])).argmax()))
    return ids


def decode(
    llm: Qwen3,
    prompts: list[mx.array],
    stop: tuple[int, ...] = (),
    budget: int = 10,
    options: TranscribeOptions = DEFAULTS,
) -> list[list[Token]]:
    """Events of each row; checks that they come step by step and that only the last one carries a reason."""
    rows: dict[int, list[Token]] = defaultdict(list)
    order = []
    for token in generate(llm, prompts, stop, budget, make_sampler(options)):
        order.append((len(rows[token.row]), token.row))
        rows[token.row].append(token)
    assert order == sorted(order)
    for events in rows.values():
        assert [token.stop is not None for token in events] == [False] * (len(events) - 1) + [True]
    return [rows[row] for row in range(len(prompts))]


def ids_of(rows: list[list[Token]]) -> list[list[int]]:
    return [[token.token_id for token in events] for events in rows]


def test_greedy_rows_equal_the_loop() -> None:
    llm = small_decoder()
    expected = [greedy_loop(llm, prompt, (), 10) for prompt in PROMPTS]
    assert len({tuple(ids) for ids in expected}) == len(PROMPTS)
    rows = decode(llm, PROMPTS)
    assert ids_of(rows) == expected
    assert {events[-1].stop for events in rows} == {StopReason.BUDGET}


def test_any_of_several_stop_tokens_ends_a_row() -> None:
    llm = small_decoder()
    free = [greedy_loop(llm, prompt, (), 10) for prompt in PROMPTS]
    stop = (free[0][2], free[1][5])
    rows = decode(llm, PROMPTS, stop)
    assert ids_of(rows) == [greedy_loop(llm, prompt, stop, 10) for prompt in PROMPTS]
    for events in rows:
        assert (events[-1].stop == StopReason.EOS) == (events[-1].token_id in stop)
    assert len({len(events) for events in rows}) > 1


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_budget(budget: int) -> None:
    llm = small_decoder()
    rows = decode(llm, PROMPTS, budget=budget)
    assert [len(events) for events in rows] == [budget] * len(PROMPTS)
    assert ids_of(rows) == [ids[:budget] for ids in ids_of(decode(llm, PROMPTS))]


def test_stop_token_at_the_end_of_the_budget_counts_as_a_stop() -> None:
    llm = small_decoder()
    free = greedy_loop(llm, PROMPTS[0], (), 10)
    last = next(k for k in range(1, 10) if free[k] not in free[:k])
    [events] = decode(llm, PROMPTS[:1], stop=(free[last],), budget=last + 1)
    assert events[-1].stop == StopReason.EOS


def test_log_probabilities() -> None:
    llm = small_decoder()
    [events] = decode(llm, PROMPTS[1:2], budget=4)
    written = llm.embed(mx.array([token.token_id for token in events[:-1]]))
    hidden = decode_in_one_pass(llm, mx.concatenate([PROMPTS[1], written]))[-4:]
    logits = np.array(llm.logits(mx.array(hidden)), np.float64)
    for row, token in zip(logits, events, strict=True):
        assert token.logprob == pytest.approx(row[token.token_id] - np.log(np.exp(row).sum()), abs=1e-4)


def test_a_row_that_meets_nan_stops_and_leaves_its_neighbours_alone() -> None:
    llm = small_decoder()
    broken = mx.concatenate([PROMPTS[1], mx.full((1, PROMPTS[1].shape[1]), mx.nan)])
    rows = decode(llm, [PROMPTS[0], broken, PROMPTS[3]])
    assert [(len(rows[1]), rows[1][0].stop)] == [(1, StopReason.NONFINITE)]
    assert ids_of([rows[0], rows[2]]) == [greedy_loop(llm, PROMPTS[k], (), 10) for k in (0, 3)]


def test_a_nan_weight_stops_every_row() -> None:
    llm = small_decoder()
    weight = np.array(llm.model.layers[1].mlp.up_proj.weight)
    weight[0, 0] = np.nan
    llm.model.layers[1].mlp.up_proj.weight = mx.array(weight)
    for events in decode(llm, PROMPTS):
        assert [token.stop for token in events] == [StopReason.NONFINITE]


def test_sampling_repeats_itself_with_the_same_seed_only() -> None:
    llm = small_decoder()
    seeds = [TranscribeOptions(temperature=1.3, seed=seed) for seed in (7, 7, 8)]
    first, again, other = (ids_of(decode(llm, PROMPTS, options=options)) for options in seeds)
    assert first == again
    assert first != other
    assert first != ids_of(decode(llm, PROMPTS))


@pytest.mark.parametrize("options", [DEFAULTS, SAMPLING])
def test_rows_do_not_depend_on_their_neighbours(options: TranscribeOptions) -> None:
    llm = small_decoder()
    together = ids_of(decode(llm, PROMPTS, options=options))
    alone = [ids_of(decode(llm, [prompt], options=options))[0] for prompt in PROMPTS]
    backwards = ids_of(decode(llm, PROMPTS[::-1], options=options))[::-1]
    assert together == alone == backwards


def test_samples_follow_the_filtered_distribution() -> None:
    logits = mx.array([np.linspace(0, 2, VOCAB_SIZE).tolist()])
    options = TranscribeOptions(temperature=0.5, top_k=3, seed=1)
    sampler = make_sampler(options)
    counts = np.bincount([int(sampler(logits)[0]) for _ in range(2000)], minlength=VOCAB_SIZE)
    weights = np.exp(np.linspace(0, 2, VOCAB_SIZE)[-3:] / 0.5)
    assert counts[:-3].sum() == 0
    assert np.abs(counts[-3:] / 2000 - weights / weights.sum()).max() < 0.05

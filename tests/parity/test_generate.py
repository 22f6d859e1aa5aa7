"""`BatchDecoder` against a loop without cache, batch or look-ahead."""

from dataclasses import replace

import numpy as np
import pytest
from support.batch import generate
from support.parity.small_decoder import VOCAB_SIZE, random_prompt, small_decoder, written_alone

from funasr_cli.backend import mx
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.generate import BatchDecoder
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.options import DEFAULTS, TranscribeOptions

LENGTHS = (4, 9, 1, 6)
PROMPTS = [random_prompt(length, seed=length) for length in LENGTHS]
SAMPLING = TranscribeOptions(temperature=1.3, top_k=20, top_p=0.95, seed=7)


@pytest.fixture(autouse=True, params=[False, True], ids=["step by step", "next step under way"])
def eager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `BatchDecoder` does on a CPU, and on a GPU."""
    monkeypatch.setattr("funasr_cli.decoding.generate.on_accelerator", lambda: request.param)


def decode(
    llm: Qwen3,
    prompts: list[mx.array],
    stop: tuple[int, ...] = (),
    max_tokens: int = 10,
    options: TranscribeOptions = DEFAULTS,
) -> list[list[Token]]:
    return generate(llm, prompts, stop, max_tokens, make_sampler(options))


def ids_of(rows: list[list[Token]]) -> list[list[int]]:
    return [[token.token_id for token in row] for row in rows]


def expected(options: TranscribeOptions = DEFAULTS) -> list[list[tuple[int, float]]]:
    """What the loop writes for each of `PROMPTS`."""
    return [written_alone(small_decoder(), prompt, 10, options) for prompt in PROMPTS]


@pytest.mark.parametrize("options", [DEFAULTS, SAMPLING], ids=["greedy", "sampling"])
def test_rows_equal_the_loop(options: TranscribeOptions) -> None:
    rows = decode(small_decoder(), PROMPTS, options=options)
    loops = expected(options)
    assert len({tuple(loop) for loop in loops}) == len(PROMPTS)
    for row, loop in zip(rows, loops, strict=True):
        assert [token.token_id for token in row] == [token_id for token_id, _ in loop]
        assert [token.logprob for token in row] == pytest.approx([logprob for _, logprob in loop], abs=1e-4)


def test_a_step_gives_each_row_a_token_in_the_order_of_adding() -> None:
    decoder = BatchDecoder(small_decoder(), make_sampler(DEFAULTS))
    assert (decoder.step(), len(decoder)) == ([], 0)
    numbers = decoder.add(PROMPTS[:2]) + decoder.add(PROMPTS[2:])
    assert numbers == [0, 1, 2, 3]
    for _ in range(3):
        assert [token.row for token in decoder.step()] == numbers
    decoder.end(1)
    assert len(decoder) == 3
    assert [token.row for token in decoder.step()] == [0, 2, 3]


def test_any_of_several_stop_tokens_ends_a_row() -> None:
    llm = small_decoder()
    free = [[token_id for token_id, _ in loop] for loop in expected()]
    stop = (free[0][2], free[1][5])
    rows = ids_of(decode(llm, PROMPTS, stop))
    for ids, unstopped in zip(rows, free, strict=True):
        ends = [k for k, token_id in enumerate(unstopped) if token_id in stop]
        assert ids == unstopped[: ends[0] + 1 if ends else None]
    assert len(set(map(len, rows))) > 1


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("options", [DEFAULTS, SAMPLING], ids=["greedy", "sampling"])
def test_a_row_that_breaks_is_flagged_and_leaves_its_neighbours_alone(
    options: TranscribeOptions, broken: float
) -> None:
    llm = small_decoder()
    bad = mx.concatenate([PROMPTS[1], mx.full((1, PROMPTS[1].shape[1]), broken)])
    rows = decode(llm, [PROMPTS[0], bad, PROMPTS[3]], options=options)
    assert [token.finite for token in rows[1]] == [False]
    assert all(token.finite for row in (rows[0], rows[2]) for token in row)
    assert ids_of([rows[0], rows[2]]) == ids_of(decode(llm, [PROMPTS[0], PROMPTS[3]], options=options))


def test_a_nan_weight_breaks_every_row() -> None:
    llm = small_decoder()
    weight = np.array(llm.model.layers[1].mlp.up_proj.weight)
    weight[0, 0] = np.nan
    llm.model.layers[1].mlp.up_proj.weight = mx.array(weight)
    for tokens in decode(llm, PROMPTS):
        assert [token.finite for token in tokens] == [False]


def test_sampling_repeats_itself_with_the_same_seed_only() -> None:
    llm = small_decoder()
    first, again, other = (
        ids_of(decode(llm, PROMPTS, options=replace(SAMPLING, seed=seed))) for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other
    assert first != ids_of(decode(llm, PROMPTS))


def test_random_numbers_depend_on_the_seed_and_the_step_alone() -> None:
    logits = mx.array(np.random.default_rng(0).standard_normal((1, VOCAB_SIZE)), mx.float32)
    in_order, anyhow = make_sampler(SAMPLING), make_sampler(SAMPLING)
    by_step = [int(in_order(logits, [step])[0]) for step in range(20)]
    assert len(set(by_step)) > 5
    steps = [19, 3, 0, 3, 11]
    assert anyhow(mx.repeat(logits, len(steps), axis=0), steps).tolist() == [by_step[step] for step in steps]
    assert int(anyhow(logits, [12])[0]) == by_step[12]


def test_samples_follow_the_filtered_distribution() -> None:
    logits = mx.array([np.linspace(0, 2, VOCAB_SIZE).tolist()])
    options = TranscribeOptions(temperature=0.5, top_k=3, seed=1)
    sampler = make_sampler(options)
    counts = np.bincount([int(sampler(logits, [step])[0]) for step in range(2000)], minlength=VOCAB_SIZE)
    weights = np.exp(np.linspace(0, 2, VOCAB_SIZE)[-3:] / 0.5)
    assert counts[:-3].sum() == 0
    assert np.abs(counts[-3:] / 2000 - weights / weights.sum()).max() < 0.05

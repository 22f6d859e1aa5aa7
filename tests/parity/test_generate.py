"""`BatchDecoder` against a loop without cache, batch or look-ahead."""

from dataclasses import replace

import numpy as np
import pytest
from support.batch import generate
from support.parity.small_decoder import SAMPLING, VOCAB_SIZE, random_prompt, small_decoder

from funasr_cli.backend import mx
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.options import DEFAULTS, TranscribeOptions

LENGTHS = (4, 9, 1, 6)
PROMPTS = [random_prompt(length) for length in LENGTHS]


@pytest.fixture(autouse=True, params=[False, True], ids=["step by step", "next step under way"])
def eager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `BatchDecoder` does on a CPU, and on a GPU."""
    monkeypatch.setattr("funasr_cli.decoding.generate.on_accelerator", lambda: request.param)


def decode(llm: Qwen3, options: TranscribeOptions = DEFAULTS) -> list[list[Token]]:
    return generate(llm, PROMPTS, (), 10, make_sampler(options))


def ids_of(rows: list[list[Token]]) -> list[list[int]]:
    return [[token.token_id for token in row] for row in rows]


def test_a_nan_weight_breaks_every_row() -> None:
    llm = small_decoder()
    weight = np.array(llm.model.layers[1].mlp.up_proj.weight)
    weight[0, 0] = np.nan
    llm.model.layers[1].mlp.up_proj.weight = mx.array(weight)
    for tokens in decode(llm):
        assert [token.finite for token in tokens] == [False]


def test_sampling_repeats_itself_with_the_same_seed_only() -> None:
    llm = small_decoder()
    first, again, other = (ids_of(decode(llm, replace(SAMPLING, seed=seed))) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert first != ids_of(decode(llm))


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

"""A batch on the C library: its slots, its shared prefix, and what it has in common with MLX."""

from __future__ import annotations

import gc
from unittest.mock import Mock

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT
from support.parity.small_decoder import ENGINES, LLM, SAMPLING, Watched, random_prompt, written, written_alone

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.native.decoder import SLOTS, NativeDecoder
from funasr_cli.options import DEFAULTS, TranscribeOptions

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
NATIVE = [engine for engine in ENGINES if engine != "mlx"] or ["none"]
natively = pytest.mark.parametrize("engine", NATIVE)


def decoder_of(engine: str) -> NativeDecoder:
    llm = ENGINES[engine]
    assert isinstance(llm, NativeDecoder)
    return llm


def free(engine: str) -> int:
    gc.collect()  # slots of earlier tests
    return decoder_of(engine).free_slots


@pytest.mark.parametrize("options", [DEFAULTS, SAMPLING], ids=["greedy", "sampling"])
def test_float32_writes_what_mlx_writes(options: TranscribeOptions) -> None:
    for length in (1, 3, 12, 33):
        ours, theirs = (written(length, options, engine) for engine in ("native float32", "mlx"))
        assert [token_id for token_id, _ in ours] == [token_id for token_id, _ in theirs]
        np.testing.assert_allclose(
            [each for _, each in ours], [each for _, each in theirs], atol=0.1
        )  # keys in float16


@natively
def test_logits_of_forced_tokens(engine: str) -> None:
    """They give back their slot and equal MLX's."""
    before, prompt = free(engine), random_prompt(33)
    logits = decoder_of(engine).logits_after(prompt, 5)
    expected = np.array(LLM.logits_after(prompt, 5))
    assert logits.shape == expected.shape
    tolerance = 0.15 if "int8" in engine else 5e-3
    assert np.abs(logits - expected).max() < tolerance * np.abs(expected).max()
    assert free(engine) == before


@natively
@pytest.mark.parametrize("options", [DEFAULTS, SAMPLING], ids=["greedy", "sampling"])
@pytest.mark.parametrize("shared_rows", [1, 9, 64, 70])
def test_the_common_prefix_is_read_once(
    shared_rows: int, options: TranscribeOptions, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one row, which each new row copies; every row still decodes as it does alone."""
    beginning, lengths = random_prompt(shared_rows, seed=99), [3, 12, 1, 40, 70]
    prompts = [mx.concatenate([beginning, random_prompt(length)]) for length in lengths]
    read: list[list[int]] = []  # new positions of each row
    run = NativeDecoder.run
    monkeypatch.setattr(
        NativeDecoder,
        "run",
        lambda llm, rows, inputs: read.append(list(map(len, inputs))) or run(llm, rows, inputs),
    )
    decoder, found = BatchDecoder(ENGINES[engine], make_sampler(options), shared_rows), dict[int, list[Token]]()
    for first, last in ((0, 2), (2, 5)):
        decoder.add(prompts[first:last])
        for _ in range(3):
            for token in decoder.step():
                found.setdefault(token.row, []).append(token)
    assert read == [[shared_rows], [3, 12], [1] * 2, [1] * 2, [1, 40, 70], [1] * 2, [1] * 5, [1] * 5]
    monkeypatch.undo()
    for row, prompt in enumerate(prompts):
        expected = written_alone(ENGINES[engine], prompt, len(found[row]), options)
        assert [token.token_id for token in found[row]] == [token_id for token_id, _ in expected]


@natively
def test_slots_are_given_back(engine: str) -> None:
    """At once when rows end, also the last ones, and when the decoder is closed."""
    before = free(engine)
    watched = Watched(engine=engine)
    watched.add([1, 3, 12, 33])
    assert free(engine) == before - 4
    for ended, row in enumerate((1, 2), 1):
        watched.end(row)
        assert free(engine) == before - 4 + ended
    watched.step()
    for row in list(watched.live):
        watched.end(row)
    assert free(engine) == before
    watched.step()

    decoder = BatchDecoder(ENGINES[engine], make_sampler(DEFAULTS), 1)
    decoder.add([random_prompt(4), random_prompt(5)])
    assert free(engine) == before - 3
    decoder.close()
    assert len(decoder) == 0
    assert free(engine) == before


@natively
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("runs", [0, 1])  # that succeed: none, or the new prompts, but not the earlier row's step
def test_slots_are_given_back_after_an_error(
    runs: int, error: type[BaseException], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, run = free(engine), NativeDecoder.run
    decoder = BatchDecoder(ENGINES[engine], make_sampler(DEFAULTS), 2)
    decoder.add([random_prompt(4)])
    decoder.step()
    results = [run] * runs + [Mock(side_effect=error)]
    monkeypatch.setattr(NativeDecoder, "run", lambda llm, rows, inputs: results.pop(0)(llm, rows, inputs))
    with pytest.raises(error):
        decoder.add([random_prompt(5), random_prompt(6)])
    decoder.close()
    assert free(engine) == before


@natively
def test_more_rows_than_slots(engine: str) -> None:
    before = free(engine)
    decoder = BatchDecoder(ENGINES[engine], make_sampler(DEFAULTS))
    with pytest.raises(MemoryError):
        decoder.add([random_prompt(1)] * (SLOTS + 1))
    assert free(engine) == before

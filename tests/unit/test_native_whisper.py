"""Whisper's encoder and decoder on the C library: what the networks on MLX compute."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from mlx.utils import tree_map_with_path
from support.native import LIBRARY, SETS, WITHOUT
from support.native_arrays import Arrays

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.whisper_decoder import WhisperDecoder, WhisperDecoderConfig
from funasr_cli.models.whisper_encoder import WhisperEncoder, WhisperEncoderConfig
from funasr_cli.native.decoder import Source
from funasr_cli.native.encoder import NativeEncoder
from funasr_cli.native.library import BFLOAT16, FLOAT32, INT8
from funasr_cli.native.whisper import NativeWhisperDecoder, NativeWhisperEncoder

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
ENCODER = WhisperEncoderConfig(mel_bins=10, positions=70, width=64, heads=2, layers=2)
WINDOWS = [np.random.default_rng(seed).standard_normal((140, 10)).astype(np.float32) for seed in range(3)]


def randomised(network: nn.Module) -> nn.Module:
    """Draw all parameters."""
    mx.random.seed(7)

    def draw(path: str, value: mx.array) -> mx.array:
        if "ln" in path:
            return mx.random.normal(value.shape) * 0.3 + path.endswith("weight")
        inputs = value.size // value.shape[0]
        return mx.random.normal(value.shape) * (inputs**-0.5 if value.ndim > 1 else 0.2)

    network.update(tree_map_with_path(draw, network.parameters()))
    return network


@cache
def encoder() -> nn.Module:
    return randomised(WhisperEncoder(ENCODER))


@pytest.mark.parametrize("name", SETS)
def test_the_encoder_is_what_mlx_computes(name: str) -> None:
    native = NativeWhisperEncoder(NativeEncoder(LIBRARY, 2, name), Arrays(encoder(), FLOAT32), ENCODER)
    found, expected = native(WINDOWS), np.array(encoder()(mx.array(np.stack(WINDOWS))))
    np.testing.assert_allclose(np.stack(found), expected, atol=2e-5 * np.abs(expected).max())
    for window, rows in zip(WINDOWS, found, strict=True):
        np.testing.assert_array_equal(native([window])[0], rows)


@pytest.mark.parametrize("name", SETS)
def test_the_encoder_in_bfloat16(name: str) -> None:
    native = NativeWhisperEncoder(NativeEncoder(LIBRARY, 2, name), Arrays(encoder(), BFLOAT16), ENCODER)
    found, expected = np.stack(native(WINDOWS)), np.array(encoder()(mx.array(np.stack(WINDOWS))))
    assert np.vdot(found, expected) / np.linalg.norm(found) / np.linalg.norm(expected) > 0.9999


# --- the decoder ---

DECODER = WhisperDecoderConfig(vocab_size=203, positions=80, width=128, heads=2, layers=3)
ENCODED = [np.random.default_rng(seed).standard_normal((70, 128)).astype(np.float32) for seed in range(3)]
PROMPTS = [[5], [7, 1, 9, 30], list(range(70))]


@cache
def reference() -> WhisperDecoder:
    return randomised(WhisperDecoder(DECODER))


@cache
def decoder(weights: int, name: str) -> NativeWhisperDecoder:
    return NativeWhisperDecoder(NativeEncoder(LIBRARY, 2, name), Arrays(reference(), weights), DECODER)


def expected_logits(index: int) -> np.ndarray:
    """Return MLX's logits after each token of a prompt."""
    llm, ids = reference(), mx.array(PROMPTS[index])
    cache = llm.make_cache(1, llm.memory(mx.array(ENCODED[index])[None]))
    return np.array(llm.logits(llm(llm.embed(ids)[None], cache))[0])


@pytest.mark.parametrize("name", SETS)
def test_the_decoder_is_what_mlx_computes(name: str) -> None:
    native = decoder(FLOAT32, name)
    memory = native.memory(ENCODED)
    rows = [native.new_row(each) for each in memory]
    hidden = native.run(rows, [native.embed(ids) for ids in PROMPTS])
    for index, states in enumerate(hidden):
        expected = expected_logits(index)
        np.testing.assert_allclose(native.logits(states), expected, atol=2e-3 * np.abs(expected).max())
        alone = native.run([native.new_row(memory[index])], [native.embed(PROMPTS[index])])[0]
        np.testing.assert_array_equal(states, alone)
    first = native.first_logits(PROMPTS[1][0], memory[1:2])
    np.testing.assert_array_equal(first, native.logits(hidden[1][:1]))


@pytest.mark.parametrize("name", SETS)
def test_the_decoder_in_int8(name: str) -> None:
    native = decoder(INT8, name)
    memory = native.memory(ENCODED)
    row = native.new_row(memory[2])
    [hidden] = native.run([row], [native.embed(PROMPTS[2])])
    assert _alike(native.logits(hidden), expected_logits(2)) > 0.998
    rows = [native.new_row(each) for each in memory]
    together = native.run(rows, [native.embed(ids) for ids in PROMPTS])
    np.testing.assert_array_equal(together[2], hidden)


def _alike(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the cosine of the angle between two arrays."""
    return float(np.vdot(found, expected) / np.linalg.norm(found) / np.linalg.norm(expected))


@pytest.mark.parametrize("rows", [1, 31, 33, 64, 65])
def test_keys_and_values_in_8_bits_give_the_scores_of_float32(rows: int) -> None:
    """Also where positions do not fill the last tile or group, and after a row that was not finite."""
    native, exact, heads = decoder(INT8, SETS[0]), decoder(FLOAT32, SETS[0]), [5, 0, 1]
    encoded = [ENCODED[0][:rows]]
    broken = np.full_like(native.embed(PROMPTS[2]), np.nan)
    assert np.isnan(native.run([native.new_row(native.memory(ENCODED[1:2])[0])], [broken])[0]).all()
    found, expected = (each.cross_scores(PROMPTS[1], each.memory(encoded)[0], heads) for each in (native, exact))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    [hidden], [expected_hidden] = (
        each.run([each.new_row(each.memory(encoded)[0])], [each.embed(PROMPTS[1])]) for each in (native, exact)
    )
    assert _alike(hidden, expected_hidden) > 0.998


def test_a_row_that_continues_is_a_row_read_at_once() -> None:
    native = decoder(FLOAT32, SETS[0])
    [source] = native.memory(ENCODED[:1])
    embedded = native.embed(PROMPTS[2])
    [whole] = native.run([native.new_row(source)], [embedded])
    row = native.new_row(source)
    native.run([row], [embedded[:67]])
    copied = native.copied(row)
    for each in (row, copied):
        np.testing.assert_array_equal(native.run([each], [embedded[67:]])[0], whole[67:])


@pytest.mark.parametrize("name", SETS)
def test_scores_of_cross_attention(name: str) -> None:
    native, llm, heads = decoder(FLOAT32, name), reference(), [5, 1, 0]
    found = native.cross_scores(PROMPTS[2], native.memory(ENCODED)[1], heads)
    [memory] = llm.memory(mx.array(ENCODED[1])[None])
    expected = np.array(llm.cross_scores(PROMPTS[2], memory, heads))
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", SETS)
def test_excluded_tokens_and_a_group_that_is_likelier_together(name: str) -> None:
    native, rng = decoder(FLOAT32, name), np.random.default_rng(4)
    hidden = rng.standard_normal((40, 128)).astype(np.float32) * 0.2
    logits = native.logits(hidden)
    excluded = rng.random(logits.shape) < 0.5
    excluded[0, 150:] = True
    first = rng.choice([150, 203], 40).astype(np.int32)
    first[0] = 150
    allowed = np.where(excluded, -np.inf, logits).astype(np.float64)
    wins = 0
    for row, start in zip(allowed, first, strict=True):
        with np.errstate(divide="ignore"):
            together = np.log(np.exp(row[start:]).sum())
        if together > row[:start].max():
            row[:start] = -np.inf
            wins += 1
    assert 0 < wins < 40
    ids, logprobs = native.choose(hidden, excluded, first)
    np.testing.assert_array_equal(ids, allowed.argmax(-1))
    exact = allowed.max(-1) - np.log(np.exp(allowed).sum(-1))
    np.testing.assert_allclose(logprobs, exact, atol=1e-5)
    np.testing.assert_array_equal(native.choose(hidden)[0], logits.argmax(-1))
    for wrong in (excluded[1:], excluded[:, 1:]):
        with pytest.raises(ValueError, match="exclude"):
            native.choose(hidden, wrong, first)


def test_a_row_without_a_source_is_refused() -> None:
    native = decoder(FLOAT32, SETS[0])
    with pytest.raises(ValueError, match="refuses"):
        native.run([native.new_row()], [native.embed([1])])


@pytest.mark.parametrize("weights", [FLOAT32, INT8])
def test_sources_that_the_library_would_read_beyond_their_ends_are_refused(weights: int) -> None:
    native = decoder(weights, SETS[0])
    [source, other] = native.memory(ENCODED[:2])
    [short] = native.memory([ENCODED[0][:3]])
    kept = source.keys_and_values  # (layers, bytes)
    wrong = (
        Source(kept[:2], 70), Source(kept[:, :-1], 70), Source(kept[0], 70), Source(kept, 130), Source(kept, 3),
        Source(kept, -1), Source(kept[:, :0], 0), Source(kept.astype(np.float32), 70),
        Source(np.repeat(kept, 2, axis=1)[:, ::2], 70),
    )  # fmt: skip
    for each in wrong:
        with pytest.raises(ValueError, match="refuses"):
            native.new_row(each)
    for rows in ([source, None], [None, source], [source, short]):
        with pytest.raises(ValueError, match="refuses"):
            native.run([native.new_row(each) for each in rows], [native.embed([1]), native.embed([2])])
    together = native.run([native.new_row(source), native.new_row(other)], [native.embed([1])] * 2)
    np.testing.assert_array_equal(together[1], native.run([native.new_row(other)], [native.embed([1])])[0])


def test_shapes_that_are_refused() -> None:
    assert NativeWhisperDecoder.why_unsupported(DECODER) is None
    for changed in ({"width": 100}, {"heads": 4}):
        assert NativeWhisperDecoder.why_unsupported(replace(DECODER, **changed))

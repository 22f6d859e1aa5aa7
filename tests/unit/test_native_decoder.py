"""The decoder of the C library: compared with the one on MLX, and rows in a batch with rows alone."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.native import LIBRARY, SETS, WITHOUT

from funasr_cli.compute.backend import mx
from funasr_cli.models.qwen3 import Qwen3, Qwen3Config
from funasr_cli.native.decoder import NativeDecoder, dense_matrices, why_unsupported
from funasr_cli.native.library import FLOAT32, INT8

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
WIDTH, VOCAB = 128, 150
CONFIG = Qwen3Config(
    hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
    intermediate_size=192, vocab_size=VOCAB, rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=True,
    attention_bias=False,
)  # fmt: skip
LENGTHS = (1, 3, 64, 65, 131)  # on both sides of a page of keys


@cache
def reference() -> Qwen3:
    mx.random.seed(11)
    llm = Qwen3(CONFIG)
    for name, value in tree_flatten(llm.parameters()):
        if "norm" in name:
            llm.load_weights([(name, 1 + 0.3 * mx.random.normal(value.shape))], strict=False)
    return llm


@cache
def decoder(weights: int, name: str, threads: int = 2) -> NativeDecoder:
    arrays = {name: np.array(value) for name, value in tree_flatten(reference().parameters())}
    matrices = dense_matrices(LIBRARY, arrays, weights)
    return NativeDecoder(LIBRARY, CONFIG, weights, matrices, lambda name: arrays[f"{name}.weight"], threads, name)


def prompt(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal((length, WIDTH)).astype(np.float32)


@cache
def expected(length: int) -> np.ndarray:
    """Hidden states of a prompt on MLX: (length, hidden)."""
    llm = reference()
    return np.array(llm(mx.array(prompt(length))[None], llm.make_cache(1))[0])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("length", LENGTHS)
def test_float32_equals_mlx(length: int, name: str) -> None:
    """Up to the rounding of keys and values to float16."""
    native = decoder(FLOAT32, name)
    [hidden] = native.run([native.new_row()], [prompt(length)])
    assert np.abs(hidden - expected(length)).max() < 2e-3 * np.abs(expected(length)).max()
    logits = native.logits(hidden)
    exact = np.array(reference().logits(mx.array(hidden)))
    assert np.abs(logits - exact).max() < 1e-4 * np.abs(exact).max()
    ids, logprobs = native.choose(hidden)
    assert ids.tolist() == logits.argmax(-1).tolist()
    shares = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    np.testing.assert_allclose(logprobs, -np.log(np.exp(shares).sum(-1)), atol=1e-5)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("length", LENGTHS)
def test_8_bits_are_near(length: int, name: str) -> None:
    native = decoder(INT8, name)
    [hidden] = native.run([native.new_row()], [prompt(length)])
    assert cosine(hidden, expected(length)) > 0.9995


@pytest.mark.parametrize("weights", [FLOAT32, INT8])
@pytest.mark.parametrize("name", SETS)
def test_a_row_is_what_it_is_alone(weights: int, name: str) -> None:
    """In a batch, in pieces, after a copy, and with positions taken back: bit by bit."""
    native = decoder(weights, name)
    alone = [native.run([native.new_row()], [prompt(length)])[0] for length in LENGTHS]
    rows = [native.new_row() for _ in LENGTHS]
    for hidden, one in zip(native.run(rows, [prompt(length) for length in LENGTHS]), alone, strict=True):
        np.testing.assert_array_equal(hidden, one)

    whole, row = alone[-1], native.new_row()
    pieces = [native.run([row], [prompt(131)[start : start + 10]])[0] for start in range(0, 131, 10)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)

    other = native.copied(row)
    for each in (row, other):
        each.length = 70
    native.run([row, other], [prompt(9), prompt(5)])
    for each in (row, other):
        each.length = 70
        np.testing.assert_array_equal(native.run([each], [prompt(131)[70:]])[0], whole[70:])


@pytest.mark.parametrize("weights", [FLOAT32, INT8])
def test_instruction_sets_agree(weights: int) -> None:
    """Where integers are summed exactly; the rest differs in the last bits."""
    hidden = [
        native.run([native.new_row()], [prompt(65)])[0] for native in (decoder(weights, name) for name in SETS)
    ]
    for each in hidden:
        assert np.abs(each - hidden[-1]).max() < (2e-3 if weights == FLOAT32 else 3e-2) * np.abs(each).max()


@pytest.mark.parametrize("weights", [FLOAT32, INT8])
def test_embeddings(weights: int) -> None:
    native = decoder(weights, SETS[0])
    table = np.array(reference().model.embed_tokens.weight)
    ids = [0, 17, VOCAB - 1]
    worst = np.abs(native.embed(ids) - table[ids]).max()
    assert worst <= (0 if weights == FLOAT32 else np.abs(table).max() / 127)
    with pytest.raises(ValueError, match="refuses"):
        native.embed([VOCAB])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weights", [FLOAT32, INT8])
@pytest.mark.parametrize("name", SETS)
def test_what_is_not_finite_is_noticed(name: str, weights: int, value: float) -> None:
    """In the row itself, from that position on, and in no other row."""
    native = decoder(weights, name)
    broken, rows = prompt(65), [native.new_row(), native.new_row()]
    broken[40, 7] = value
    hidden = np.concatenate(native.run(rows, [broken, prompt(64)]))
    _, logprobs = native.choose(hidden)
    assert np.isfinite(logprobs).tolist() == [True] * 40 + [False] * 25 + [True] * 64
    [alone] = native.run([native.new_row()], [prompt(64)])
    np.testing.assert_array_equal(hidden[65:], alone)


def test_rows_come_and_go() -> None:
    """More than there are slots, one after the other; too many at a time are refused."""
    native = decoder(INT8, SETS[0])
    for _ in range(600):
        native.run([native.new_row()], [prompt(1)])
    rows = [native.new_row() for _ in range(256)]
    with pytest.raises(MemoryError):
        native.new_row()
    rows.pop().end()
    native.new_row()


def test_what_is_not_supported_is_named() -> None:
    assert why_unsupported(CONFIG) is None
    for field, value in {"hidden_size": 100, "head_dim": 24, "attention_bias": True}.items():
        assert why_unsupported(Qwen3Config(**(vars(CONFIG) | {field: value})))


def test_threads_take_turns() -> None:
    """What each of several threads computes with the same decoder is what it computes alone."""
    native = decoder(INT8, SETS[0])
    alone = {length: native.run([native.new_row()], [prompt(length)])[0] for length in LENGTHS}

    def run(length: int) -> bool:
        return all(
            np.array_equal(native.run([native.new_row()], [prompt(length)])[0], alone[length]) for _ in range(20)
        )

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(run, LENGTHS)) == [True] * 5

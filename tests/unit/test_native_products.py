"""Products of the C library: against NumPy, between instruction sets, and rows by themselves."""

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.native import LIBRARY, SETS, WITHOUT

from funasr_cli.families.native import rounded as affine
from funasr_cli.native.library import FLOAT32, GROUP, INT8, Packed, check

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)


def product(packed: Packed, x: np.ndarray, instruction_set: str, threads: int = 1) -> np.ndarray:
    """Multiply (n, columns) by a packed matrix: (n, rows)."""
    out = np.full((len(x), packed.matrix.rows), np.nan, np.float32)
    matrix = ctypes.byref(packed.matrix)
    check(LIBRARY.fn_product(matrix, x, len(x), out, threads, instruction_set.encode()))
    return out


def rounded(x: np.ndarray, *, weights: bool = False) -> np.ndarray:
    """Round (n, columns) to 8 bits in groups, in float32 as the library does: values, or weights when packed."""
    groups = x.reshape(len(x), -1, GROUP)
    peaks = np.abs(groups).max(-1, keepdims=True)
    peaks[peaks == 0] = 1
    scales = peaks / np.float32(127)
    whole = np.rint(groups / scales if weights else groups * (np.float32(127) / peaks))
    return (whole.astype(np.float64) * scales).reshape(x.shape)


shapes = st.tuples(st.integers(1, 70), st.integers(1, 5).map(lambda groups: groups * GROUP), st.integers(1, 21))


@given(shapes, st.integers(0, 2**32 - 1))
def test_8_bits(shape: tuple[int, int, int], seed: int) -> None:
    """Every instruction set gives the product of the rounded factors, to float32's precision."""
    rows, columns, n = shape
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((rows, columns)).astype(np.float32) * rng.choice([0, 1e-3, 1, 50], (rows, 1))
    x = rng.standard_normal((n, columns)).astype(np.float32) * rng.choice([0, 1e-3, 1, 1e3], (n, 1))
    weights, x = weights.astype(np.float32), x.astype(np.float32)
    packed = Packed.of(LIBRARY, weights, INT8)
    exact = rounded(x) @ rounded(weights, weights=True).T
    scale = np.abs(rounded(x)) @ np.abs(rounded(weights, weights=True)).T + 1e-30
    for name in SETS:
        assert (np.abs(product(packed, x, name) - exact) / scale).max() < 1e-5, name


@given(st.integers(1, 70), st.integers(1, 37), st.integers(0, 2**32 - 1))
def test_instruction_sets_sum_the_same_integers(rows: int, n: int, seed: int) -> None:
    """One group of inputs gives the same in all of them, bit by bit."""
    rng = np.random.default_rng(seed)
    packed = Packed.of(LIBRARY, rng.standard_normal((rows, GROUP)).astype(np.float32), INT8)
    x = rng.standard_normal((n, GROUP)).astype(np.float32)
    first, *others = (product(packed, x, name) for name in SETS)
    for each in others:
        np.testing.assert_array_equal(each, first)


@given(shapes, st.integers(1, 8), st.sampled_from([64, 128]), st.integers(0, 2**32 - 1))
def test_stored_values_are_used_as_they_are(shape: tuple[int, int, int], bits: int, group: int, seed: int) -> None:
    """Of 8 bits or fewer, with the scales and offsets that they were stored with."""
    rows, columns, n = shape
    columns *= group // GROUP
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**bits, (rows, columns)).astype(np.uint8)
    scales, offsets = rng.standard_normal((2, rows, columns // group)).astype(np.float32)
    x = rng.standard_normal((n, columns)).astype(np.float32)
    packed = Packed.of_affine(LIBRARY, values, scales, offsets, group)
    stated = values * scales.astype(np.float64).repeat(group, 1) + offsets.repeat(group, 1)
    parts = (values + 128) * np.abs(scales).repeat(group, 1) + np.abs(offsets).repeat(group, 1)
    scale = np.abs(rounded(x)) @ parts.T
    for name in SETS:
        assert (np.abs(product(packed, x, name) - rounded(x) @ stated.T) / scale).max() < 1e-5, name


@given(shapes, st.integers(0, 2**32 - 1))
def test_float32(shape: tuple[int, int, int], seed: int) -> None:
    rows, columns, n = shape
    rng = np.random.default_rng(seed)
    weights, x = (rng.standard_normal((each, columns)).astype(np.float32) for each in (rows, n))
    packed = Packed.of(LIBRARY, weights, FLOAT32)
    for name in SETS:
        np.testing.assert_allclose(product(packed, x, name), x @ weights.T, atol=1e-5 * columns)


@pytest.mark.parametrize("weights", [FLOAT32, INT8])
@pytest.mark.parametrize("name", SETS)
def test_a_row_is_what_it_is_alone(weights: int, name: str) -> None:
    """Bit by bit, in a batch of any size and with any number of threads."""
    rng = np.random.default_rng(5)
    packed = Packed.of(LIBRARY, rng.standard_normal((500, 192)).astype(np.float32), weights)
    x = rng.standard_normal((37, 192)).astype(np.float32)
    alone = np.concatenate([product(packed, row[None], name) for row in x])
    for n in (2, 3, 5, 8, 9, 37):
        for threads in (1, 2, 5):
            np.testing.assert_array_equal(product(packed, x[:n], name, threads), alone[:n])


@pytest.mark.parametrize("name", SETS)
def test_extremes_of_8_bits(name: str) -> None:
    """Sums of 16 bits would overflow here."""
    values = np.full((16, GROUP), 0, np.uint8)
    values[8:] = 255
    packed = Packed.of_affine(
        LIBRARY, values, np.ones((16, 1), np.float32), np.full((16, 1), -128, np.float32), GROUP
    )
    x = np.full((2, GROUP), 1, np.float32)
    x[1] = -1
    expected = np.outer([GROUP, -GROUP], [-128] * 8 + [127] * 8)
    np.testing.assert_allclose(product(packed, x, name), expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", SETS)
def test_what_is_not_finite_stays_so(bad: float, name: str) -> None:
    packed = Packed.of(LIBRARY, np.ones((16, GROUP), np.float32), INT8)
    x = np.full((1, GROUP), bad, np.float32)
    assert not np.isfinite(product(packed, x, name)).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SETS)
def test_a_weight_that_is_not_finite_stays_so(bad: float, name: str) -> None:
    """In its output and in no other, whether it is packed here or rounded when a model is loaded."""
    weights = np.ones((20, 2 * GROUP), np.float32)
    weights[[3, 19], [5, 70]] = bad
    loaded = affine(weights)
    for packed in (Packed.of(LIBRARY, weights, INT8), Packed.of_affine(LIBRARY, *loaded, GROUP)):
        finite = np.isfinite(product(packed, np.ones((1, 2 * GROUP), np.float32), name)[0])
        assert np.flatnonzero(~finite).tolist() == [3, 19]


@pytest.mark.parametrize("name", SETS)
def test_tiny_values_count_as_zeros(name: str) -> None:
    """Since 127 divided by them is infinite."""
    ones, tiny = (np.full((16, GROUP), value, np.float32) for value in (1, 1.5e-37))
    for weights, x in ((ones, tiny), (tiny, ones)):
        assert not product(Packed.of(LIBRARY, weights, INT8), x, name).any()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="refuses"):
        Packed.of(LIBRARY, np.ones((4, GROUP + 1), np.float32), INT8)
    packed = Packed.of(LIBRARY, np.ones((4, GROUP), np.float32), INT8)
    with pytest.raises(ValueError, match="instruction set"):
        product(packed, np.ones((1, GROUP), np.float32), "unknown")

"""Products of the C library: against NumPy, between instruction sets, and rows by themselves."""

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.native import LIBRARY, SETS, WITHOUT
from support.native_arrays import dequantized, four_bits, in_four_bits

from funasr_cli.families.native import rounded as affine
from funasr_cli.native.library import FLOAT32, GROUP, INT4, INT4_HALF, INT8, Packed, check

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


@given(shapes, st.sampled_from([INT4, INT4_HALF]), st.sampled_from([64, 128]), st.integers(0, 2**32 - 1))
def test_4_bits(shape: tuple[int, int, int], weights: int, group: int, seed: int) -> None:
    """Every instruction set gives the product of the rounded inputs with the stored weights, and reads these."""
    rows, columns, n = shape
    columns *= group // GROUP
    rng = np.random.default_rng(seed)
    packed, exact = four_bits(rng, rows, columns, weights, group)
    x = rng.standard_normal((n, columns)).astype(np.float32) * rng.choice([0, 1e-3, 1, 1e3], (n, 1))
    x = x.astype(np.float32)
    scale = np.abs(rounded(x)) @ np.abs(exact).T + 16 * np.abs(rounded(x)).sum(1, keepdims=True) + 1e-30
    for name in SETS:
        assert (np.abs(product(packed, x, name) - rounded(x) @ exact.T) / scale).max() < 1e-5, name
    read = np.empty((rows, columns), np.float32)
    check(LIBRARY.fn_unpack(packed.matrix, np.arange(rows, dtype=np.int32), rows, read))
    np.testing.assert_allclose(read, exact, rtol=1e-6, atol=1e-6)


@given(st.integers(1, 70), st.integers(1, 37), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_4_bits_are_exact(rows: int, n: int, groups: int, seed: int) -> None:
    """Where float32 holds every sum: scales are powers of two, and inputs are rounded to themselves."""
    rng = np.random.default_rng(seed)
    columns = groups * GROUP
    values = rng.integers(0, 16, (rows, columns)).astype(np.uint8)
    scales = np.float32(2) ** rng.integers(-1, 2, (rows, groups)).astype(np.float32)
    offsets = rng.integers(-8, 8, (rows, groups)).astype(np.float32)
    x = rng.integers(-127, 128, (n, columns)).astype(np.float32)
    x[:, ::GROUP] = 127
    stated = dequantized(values, scales, offsets)
    for weights in (INT4, INT4_HALF):
        packed = in_four_bits(values, scales, offsets, weights)
        for name in SETS:
            np.testing.assert_array_equal(product(packed, x, name), x @ stated.T, err_msg=name)


@given(st.lists(st.sampled_from([INT8, INT4, INT4_HALF]), min_size=2, max_size=4), st.integers(0, 2**32 - 1))
def test_rows_that_are_stored_in_different_ways(kinds: list[int], seed: int) -> None:
    """One below the other they are what they are alone; the last ones need not be whole tiles."""
    rng = np.random.default_rng(seed)
    parts = []
    for number, weights in enumerate(kinds):
        rows = 32 * int(rng.integers(1, 4)) + (7 if number == len(kinds) - 1 else 0)
        dense = rng.standard_normal((rows, 128)).astype(np.float32)
        parts.append(Packed.of(LIBRARY, dense, INT8) if weights == INT8 else four_bits(rng, rows, 128, weights)[0])
    stacked, x = Packed.stacked(parts), rng.standard_normal((5, 128)).astype(np.float32)
    assert stacked.matrix.rows == sum(part.matrix.rows for part in parts)
    for name in SETS:
        alone = np.concatenate([product(part, x, name) for part in parts], axis=1)
        for threads in (1, 3):
            np.testing.assert_array_equal(product(stacked, x, name, threads), alone)
    read, numbers = (
        np.empty((stacked.matrix.rows, 128), np.float32),
        np.arange(stacked.matrix.rows, dtype=np.int32),
    )
    check(LIBRARY.fn_unpack(stacked.matrix, numbers, len(numbers), read))
    for part in parts:
        own = np.empty((part.matrix.rows, 128), np.float32)
        check(LIBRARY.fn_unpack(part.matrix, numbers[: len(own)], len(own), own))
        np.testing.assert_array_equal(read[: len(own)], own)
        read = read[len(own) :]


@given(shapes, st.integers(0, 2**32 - 1))
def test_float32(shape: tuple[int, int, int], seed: int) -> None:
    rows, columns, n = shape
    rng = np.random.default_rng(seed)
    weights, x = (rng.standard_normal((each, columns)).astype(np.float32) for each in (rows, n))
    packed = Packed.of(LIBRARY, weights, FLOAT32)
    for name in SETS:
        np.testing.assert_allclose(product(packed, x, name), x @ weights.T, atol=1e-5 * columns)


@pytest.mark.parametrize("weights", [FLOAT32, INT8, INT4, INT4_HALF])
@pytest.mark.parametrize("name", SETS)
def test_a_row_is_what_it_is_alone(weights: int, name: str) -> None:
    """Bit by bit, in a batch of any size and with any number of threads."""
    rng = np.random.default_rng(5)
    if weights in (INT4, INT4_HALF):
        packed, _ = four_bits(rng, 500, 192, weights)
    else:
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


@pytest.mark.parametrize("name", SETS)
def test_extremes_of_4_bits(name: str) -> None:
    """Sums of 16 bits hold the products of 32 inputs, no more."""
    values = np.repeat([[0], [15]], [20, 20], axis=0).repeat(2 * GROUP, 1).astype(np.uint8)
    ones, zeros = np.ones((40, 2), np.float32), np.zeros((40, 2), np.float32)
    x = np.repeat([[127], [-127]], 2 * GROUP, axis=1).astype(np.float32)
    expected = np.outer([127 * 2 * GROUP, -127 * 2 * GROUP], [0] * 20 + [15] * 20)
    np.testing.assert_array_equal(product(in_four_bits(values, ones, zeros, INT4), x, name), expected)


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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", SETS)
def test_a_scale_of_4_bits_that_is_not_finite_stays_so(bad: float, name: str) -> None:
    """In its output and in no other."""
    scales, offsets = np.ones((2, 40, 2), np.float32)
    scales[3, 0] = offsets[37, 1] = bad
    for weights in (INT4, INT4_HALF):
        packed = in_four_bits(np.ones((40, 2 * GROUP), np.uint8), scales, offsets, weights)
        finite = np.isfinite(product(packed, np.ones((1, 2 * GROUP), np.float32), name)[0])
        assert np.flatnonzero(~finite).tolist() == [3, 37]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="refuses"):
        Packed.of(LIBRARY, np.ones((4, GROUP), np.float32), INT4)  # it is not known how to round
    above, below = (Packed.of(LIBRARY, np.ones((rows, GROUP), np.float32), INT8) for rows in (40, 32))
    with pytest.raises(ValueError, match="refuses"):  # 40 rows are no whole tiles
        product(Packed.stacked([above, below]), np.ones((1, GROUP), np.float32), SETS[0])
    with pytest.raises(ValueError, match="refuses"):
        Packed.of(LIBRARY, np.ones((4, GROUP + 1), np.float32), INT8)
    packed = Packed.of(LIBRARY, np.ones((4, GROUP), np.float32), INT8)
    with pytest.raises(ValueError, match="instruction set"):
        product(packed, np.ones((1, GROUP), np.float32), "unknown")

"""The inner loops of the C library, called one by one: compared with NumPy. Its pool of threads."""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from math import erfc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from support.native import LIBRARY, NAMED, SETS, WITHOUT

from funasr_cli.compute.backend import mx
from funasr_cli.native import build
from funasr_cli.native.library import GROUP

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
HALVES = np.arange(1 << 16, dtype=np.uint16)
KERNELS = (
    "round_group", "product_u8", "product_u4", "product_f32", "scores", "add_weighted", "to_half", "maximum",
    "exponentials", "sum_of_squares", "scale_by", "swiglu", "product_bf16", "to_bfloat", "layer_norm", "add",
    "add_products", "relu", "gelu",
)  # fmt: skip
each_set = pytest.mark.parametrize("name", SETS)


class Kernels(ctypes.Structure):
    """``struct kernels``."""

    _fields_ = (("name", ctypes.c_char_p), *((name, ctypes.c_void_p) for name in KERNELS))


@cache
def exporting() -> ctypes.CDLL:
    """Return the library with all its names exported: the one under test, or one that is compiled for this."""
    if hasattr(LIBRARY, "find_kernels"):
        return LIBRARY
    if build.compiler() is None:
        pytest.skip("no C compiler")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "libfunasr.so"
        build.compile_library(path, ["-fvisibility=default"])
        return ctypes.CDLL(str(path))


def kernel(instruction_set: str, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    find = exporting().find_kernels
    find.restype, find.argtypes = ctypes.POINTER(Kernels), [ctypes.c_char_p]
    kernels = find(instruction_set.encode()).contents
    assert kernels.name == instruction_set.encode()
    return ctypes.CFUNCTYPE(result, *arguments)(getattr(kernels, name))


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def to_half(instruction_set: str, values: np.ndarray) -> np.ndarray:
    out = np.empty(len(values), np.uint16)
    kernel(instruction_set, "to_half", None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(
        address(values), len(values), address(out)
    )
    return out.view(np.float16)


def assert_same_bits(ours: np.ndarray, expected: np.ndarray) -> None:
    """NaN equals any NaN of the same sign."""
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(expected))


@each_set
def test_every_half_is_read_and_written(name: str) -> None:
    exact = HALVES.view(np.float16).astype(np.float32)
    read, weight = np.zeros(len(HALVES), np.float32), np.ones(1, np.float32)
    pointers, integers = ctypes.c_void_p, ctypes.c_int
    kernel(
        name, "add_weighted", None, pointers, ctypes.c_size_t, integers, pointers, integers, integers, pointers
    )(address(weight), 1, 1, address(HALVES), 1, len(HALVES), address(read))
    np.testing.assert_array_equal(read, exact)  # 0 + -0 is 0
    assert_same_bits(to_half(name, exact), exact.astype(np.float16))


@each_set
def test_floats_are_rounded_to_the_nearest_half(name: str) -> None:
    """To the even one in the middle of two; what is too large becomes infinite, what is too small zero."""
    finite = np.sort(HALVES.view(np.float16)[np.isfinite(HALVES.view(np.float16))].astype(np.float32))
    middles = np.append((finite[1:] + finite[:-1]) / 2, [65520, -65520]).astype(np.float32)
    near = [np.nextafter(middles, np.float32(towards)) for towards in (-np.inf, np.inf)]
    bits = np.random.default_rng(1).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    values = np.concatenate([middles, *near, bits.view(np.float32)])
    values = values[: len(values) // 16 * 16].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        assert_same_bits(to_half(name, values), values.astype(np.float16))


@each_set
@pytest.mark.parametrize("d", [16, 48, 128, 160])
def test_attention(d: int, name: str) -> None:
    """Scores and sums of values, for queries that share them; each query's do not depend on the others."""
    rng = np.random.default_rng(d)
    for count, n in ((1, 1), (2, 7), (3, 64), (5, 6)):
        queries, half = rng.standard_normal((count, d)).astype(np.float32), rng.standard_normal((n, d))
        half = half.astype(np.float16)
        scores = np.full((count, n + 3), 7, np.float32)
        multiply = kernel(
            name, "scores", None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int,
            ctypes.c_void_p, ctypes.c_size_t,
        )  # fmt: skip
        multiply(address(queries), count, address(half), n, d, address(scores), n + 3)
        exact = queries.astype(np.float64) @ half.astype(np.float64).T
        np.testing.assert_allclose(scores[:, :n], exact, atol=1e-4)
        assert (scores[:, n:] == 7).all()
        before = rng.standard_normal((count, d)).astype(np.float32)
        sums = before.copy()
        add = kernel(
            name, "add_weighted", None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p,
            ctypes.c_int, ctypes.c_int, ctypes.c_void_p,
        )  # fmt: skip
        add(address(scores), n + 3, count, address(half), n, d, address(sums))
        np.testing.assert_allclose(sums, before + scores[:, :n] @ half.astype(np.float32), atol=1e-2, rtol=1e-4)
        alone, last = np.empty(n, np.float32), np.ascontiguousarray(queries[-1])
        multiply(address(last), 1, address(half), n, d, address(alone), n)
        np.testing.assert_array_equal(alone, scores[-1, :n])


@each_set
def test_swiglu(name: str) -> None:
    """Also of gates whose exponential float32 cannot hold."""
    gate = np.array([0, 1, -1, 30, -30, 87, -87, 89, -89, 200, -200, 1e4, -1e4, 1e30, -1e30, -3e38, 2], np.float32)
    up, out = np.full(len(gate), 3, np.float32), np.empty(len(gate), np.float32)
    kernel(name, "swiglu", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(
        address(gate), address(up), len(gate), address(out)
    )
    with np.errstate(over="ignore"):
        exact = 3 * gate.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64)))
    huge = gate < -1e6  # -gate / 2e38 instead of 0
    np.testing.assert_allclose(out[~huge], exact[~huge], rtol=1e-6, atol=1e-30)
    assert (np.abs(out[huge]) < 6).all()


@each_set
def test_exponentials(name: str) -> None:
    """Of values far below the peak, and of lengths that fill no register."""
    for length in (1, 7, 8, 16, 33):
        x = np.linspace(-300, 5, length, dtype=np.float32)
        x[length // 2] = -np.inf
        out = np.empty(length, np.float32)
        function = kernel(
            name, "exponentials", ctypes.c_float, ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_void_p
        )
        total = function(address(x), length, 5.0, address(out))
        exact = np.exp(x.astype(np.float64) - 5)
        np.testing.assert_allclose(out, exact, rtol=1e-6, atol=1e-37)
        assert total == pytest.approx(exact.sum(), rel=1e-6, abs=1e-30)


@each_set
@pytest.mark.parametrize("peak", [0, 1e-45, 1.2e-38, 3.7e-37, 1.9e-36, 2.1e-36, 1e-30, 1, 3e38])
def test_groups_of_tiny_values_are_zeros(peak: float, name: str) -> None:
    """Since their scale, or its inverse, is not a normal number."""
    x = np.random.default_rng(2).uniform(-1, 1, GROUP).astype(np.float32) * np.float32(peak)
    x[17] = -peak
    rounded, scale, total = np.empty(GROUP, np.int8), np.empty(1, np.float32), np.empty(1, np.int32)
    kernel(name, "round_group", None, *[ctypes.c_void_p] * 4)(*map(address, (x, rounded, scale, total)))
    assert total[0] == rounded.sum(dtype=int)
    if peak < 2e-36:
        assert scale[0] == 0
        assert not rounded.any()
    else:
        assert rounded[17] == -127
        assert np.abs(rounded * scale.astype(np.float64) - x).max() <= scale[0] * 0.501


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="no /proc/cpuinfo")
def test_instruction_sets_are_those_of_the_cpu() -> None:
    """As the kernel lists them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    listed = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    flags = set(listed.split(":")[1].split())
    avx512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx2", "fma", "f16c"}
    emulated = NAMED in os.environ  # see test_build.py
    needed = {
        "amx": avx512 | {"amx_tile", "amx_int8"} if not emulated else avx512,
        "avx512bf16": avx512 | {"avx512_bf16"},
        "avx512": avx512,
        "avxvnni": {"avx_vnni", "avx2", "fma", "f16c"},
        "avx2": {"avx2", "fma", "f16c"},
        "neon": {"asimddp"},
        "scalar": set(),
    }
    assert list(SETS) == [name for name, flags_needed in needed.items() if flags_needed <= flags]


@each_set
def test_floats_are_rounded_to_the_nearest_bfloat(name: str) -> None:
    """To the even one in the middle of two; NaN stays NaN, and lengths fill no register."""
    bits = np.random.default_rng(3).integers(0, 1 << 32, 1 << 14, dtype=np.uint32)
    bits[:4096] = bits[:4096] & 0xFFFF0000 | 0x8000  # middles
    values = bits.view(np.float32)[:-3].copy()
    values[np.abs(values) < 1.2e-38] = 0  # some processors round subnormal numbers to zero
    function = kernel(name, "to_bfloat", None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    out = np.empty(len(values), np.uint16)
    function(address(values), len(values), address(out))
    exact = np.array(mx.array(values).astype(mx.bfloat16).astype(mx.float32))
    found = (out.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found, exact)


@each_set
def test_gelu_and_relu(name: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [np.nan, -0.0, 1e4, -1e4]]).astype(np.float32)
    for kind, exact in (
        ("gelu", [each / 2 * erfc(-each / 2**0.5) for each in x.tolist()]),
        ("relu", [each if not each < 0 else 0 for each in x.tolist()]),
    ):
        out = np.empty_like(x)
        kernel(name, kind, None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(address(x), len(x), address(out))
        np.testing.assert_allclose(out, exact, rtol=1e-6, atol=4e-7)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_a_job_computes_each_chunk_once(threads: int) -> None:
    """Also if there are fewer chunks than threads, and while threads start or sleep."""
    shared = exporting()
    pointers, integers = ctypes.c_void_p, ctypes.c_int
    shared.pool_new.restype, shared.pool_new.argtypes = pointers, [integers]
    shared.pool_free.restype, shared.pool_free.argtypes = None, [pointers]
    shared.pool_run.restype, shared.pool_run.argtypes = None, [pointers, pointers, pointers, integers]
    taken: list[int] = []
    task = ctypes.CFUNCTYPE(None, pointers, integers)(lambda _, chunk: taken.append(chunk))
    pool = shared.pool_new(threads)
    try:
        for chunks in [0, 1, 2, 3, 7, 64, 100] * 20:
            shared.pool_run(pool, task, None, chunks)
            assert sorted(taken) == list(range(chunks))
            taken.clear()
    finally:
        shared.pool_free(pool)

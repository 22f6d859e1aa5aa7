"""AMX's products, with its tile registers emulated in plain C; a CPU that has them is in the other tests' list."""

from pathlib import Path

import numpy as np
import pytest
from support.native import EMULATING, LIBRARY, SETS, WITHOUT
from support.native_arrays import four_bits

from funasr_cli.native import build
from funasr_cli.native.library import GROUP, INT4, INT4_HALF, INT8, Packed, check, instruction_sets, load

pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason=WITHOUT),
    pytest.mark.skipif("avx512" not in SETS, reason="no AVX512"),
    pytest.mark.skipif(build.compiler() is None, reason="no C compiler"),
    pytest.mark.process,
]


@pytest.fixture(scope="module")
def emulating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("emulating") / "libfunasr.so"
    build.compile_library(path, [EMULATING])
    return path


def product(packed: Packed, x: np.ndarray, instruction_set: str) -> np.ndarray:
    out = np.full((len(x), packed.matrix.rows), np.nan, np.float32)
    check(packed._library.fn_product(packed.matrix, x, len(x), out, 2, instruction_set.encode()))
    return out


@pytest.mark.parametrize("kind", ["8 bits", "8 bits with offsets", "4 bits", "4 bits, float16"])
def test_products_equal_those_of_avx512(kind: str, emulating: Path) -> None:
    """Bit by bit; with one group of inputs also the scalar ones, whose sums are the same integers."""
    loaded, rng = load(emulating), np.random.default_rng(3)
    assert instruction_sets(loaded)[0] == "amx"
    for groups in (1, 5):
        shape = (70, groups * GROUP)
        if kind.startswith("4"):
            packed, _ = four_bits(rng, *shape, INT4_HALF if kind.endswith("float16") else INT4)
            packed._library = loaded
        elif kind == "8 bits with offsets":
            scales, offsets = rng.standard_normal((2, 70, groups)).astype(np.float32)
            values = rng.integers(0, 256, shape).astype(np.uint8)
            packed = Packed.of_affine(loaded, values, scales, offsets, GROUP)
        else:
            packed = Packed.of(loaded, rng.standard_normal(shape).astype(np.float32), INT8)
        x = rng.standard_normal((37, groups * GROUP)).astype(np.float32)
        for n in (1, 8, 9, 15, 16, 17, 37):
            ours = product(packed, x[:n], "amx")
            np.testing.assert_array_equal(ours, product(packed, x[:n], "avx512"))
            if groups == 1 and kind == "8 bits":
                np.testing.assert_array_equal(ours, product(packed, x[:n], "scalar"))


@pytest.mark.parametrize("outcome", ["refused", "wrong"])
def test_tiles_that_cannot_be_used(
    outcome: str, emulating: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system refuses them, or a first product is wrong: another instruction set is used."""
    monkeypatch.setenv("AMX_EMULATION", outcome)
    copy = tmp_path / "libfunasr.so"  # loaded again, under a new name
    copy.write_bytes(emulating.read_bytes())
    assert instruction_sets(load(copy))[0] in ("avx512bf16", "avx512")

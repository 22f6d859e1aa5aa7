"""NumPy archives as checkpoints: what they state is checked on opening."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.errors import refused
from support.whisper import random_tensors, write_mlx

from funasr_cli.checkpoints.npz import open_npz
from funasr_cli.families.open import open_model


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    folder = write_mlx(tmp_path / "mlx", random_tensors(), npz=True)
    stored = dict(np.load(folder / "weights.npz"))
    np.savez_compressed(folder / "weights.npz", **{"decoder.ln.bias": stored["decoder.ln.bias"]})
    with refused("model-unsafe"):
        open_model(folder)
    (folder / "weights.npz").write_bytes(b"PK\x03\x04 not an archive")
    with refused("model-damaged"):
        open_model(folder)


def npy(shape: tuple[int, ...], kind: str = "<f4", values: bytes = bytes(8)) -> bytes:
    """Return a file of NumPy's whose header states a shape and a type, whatever its values are."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": kind})
    return file.getvalue() + values


@pytest.mark.parametrize(
    "entry",
    [npy((2,), "|O", bytes(16)), npy((1 << 40, 1 << 40)), npy((3,)), npy((1,)), npy((-1, -2)), npy((-2,))],
    ids=["objects", "absurd", "too short", "too long", "negative", "negative size"],
)
def test_an_array_of_another_size_than_it_states_is_refused_on_opening(tmp_path: Path, entry: bytes) -> None:
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.npy", npy((2,)))
    assert open_npz(path)["good"].shape == (2,)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bad.npy", entry)
    with refused("model-damaged"):
        open_npz(path)

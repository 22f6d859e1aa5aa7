"""Headers of safetensors files: what is read of them, and which are refused."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from funasr_cli import demo
from funasr_cli.checkpoints.headers import ITEM_BYTES, StoredTensor, safetensors_header
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT
from funasr_cli.errors import ModelError


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        safetensors_header(path)
    assert (caught.value.message + caught.value.hint).isprintable()  # one line, too
    return caught.value


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)
    return path


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_header_that_is_read(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "mlx"},
        "b": entry([2, 3], 2, 26),
        "a": entry([], 0, 2, "BF16"),
        "nothing": entry([0, 7], 26, 26),
    }
    path = write(tmp_path / "a.safetensors", header, bytes(26))
    begin = path.stat().st_size - 26
    assert list(safetensors_header(path).items()) == [
        ("b", StoredTensor("b", "F32", (2, 3), begin + 2, begin + 26)),
        ("a", StoredTensor("a", "BF16", (), begin, begin + 2)),
        ("nothing", StoredTensor("nothing", "F32", (0, 7), begin + 26, begin + 26)),
    ]


def test_the_header_of_the_bundled_model_agrees_with_the_library() -> None:
    path = demo.MODEL / "model.safetensors"
    with safe_open(path, "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        expected = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in safetensors_header(path).items()} == expected
    assert expected


KNOWN = ", ".join(ITEM_BYTES)
CUT = ": not a safetensors file, or cut short"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry([4], 0, 15)}, ": a of shape (4,) in F32 takes 15 bytes"),
        ({"a": entry([4], 16, 0)}, ": a of shape (4,) in F32 takes -16 bytes"),
        ({"a": entry([2**40, 2**40], 0, 16)}, ": a of shape (1099511627776, 1099511627776) in F32 takes 16 bytes"),
        ({"a": entry([2**64], 0, 16)}, ": a is of shape [18446744073709551616]"),
        ({"a": entry([-4], 0, 16)}, ": a is of shape [-4]"),
        ({"a": entry([True], 0, 4)}, ": a is of shape [True]"),
        ({"a": entry([4.0], 0, 16)}, ": a is of shape [4.0]"),
        ({"a": entry("4", 0, 16)}, ": a is of shape '4'"),
        ({"a": entry([1] * 9, 0, 4)}, ": a is of shape [1, 1, 1, 1, 1, 1, 1, 1, 1]"),
        ({"a": entry([4], 0, 16, "F8_E4M3")}, f": a is of type 'F8_E4M3', not one of {KNOWN}"),
        ({"a": entry([4], 0, 16, ["F32"])}, f": a is of type ['F32'], not one of {KNOWN}"),
        ({"a": {"dtype": "F32", "shape": [4]}}, ": a is not described by dtype, shape and data_offsets"),
        ({"a": entry([4], 0, 16) | {"x": 1}}, ": a is not described by dtype, shape and data_offsets"),
        ({"a": [1]}, ": a is not described by dtype, shape and data_offsets"),
        ({"a": entry([4], 0, None)}, ": a lies at [0, None]"),
        ({"a": entry([4], -16, 0)}, ": a lies at [-16, 0]"),
        ({"a": entry([1], 0, 4), "b": entry([2], 8, 16)}, ": b leaves a gap before it"),
        ({"b": entry([2], 8, 16)}, ": b leaves a gap before it"),
        ({"a": entry([3], 0, 12), "b": entry([2], 8, 16)}, ": b overlaps the tensor before it"),
        ({"a": entry([4], 0, 16), "b": entry([4], 0, 16)}, ": b overlaps the tensor before it"),
        ({"a": entry([3], 0, 12)}, ": 4 bytes behind the last tensor"),
        ({}, ": 16 bytes behind the last tensor"),
        ({"": entry([4], 0, 16)}, ": '' is no name of a tensor"),
        ({"a\n": entry([4], 0, 16)}, ": 'a\\n' is no name of a tensor"),
        ({"a" * 257: entry([4], 0, 16)}, f": '{'a' * 199}... is no name of a tensor"),
        ({"__metadata__": {"a": 1}}, ": __metadata__ is not an object of strings"),
        ({"__metadata__": []}, ": __metadata__ is not an object of strings"),
        ([], ": the header: not a JSON object"),
        (b"{}" * 9, ": the header: cannot be read (Extra data: line 1 column 3 (char 2))"),
        (b'{"a":{},"a":{}}', ": the header: cannot be read ('a' stands twice in one object)"),
        (b'{"a":' * 99, ": the header: nested deeper than 32 levels"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, header: Any, message: str) -> None:
    path = write(tmp_path / "a.safetensors", header, bytes(16))
    assert refusal(path).message == f"{path}{message}"


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": entry([4], 0, 16)}, bytes(16))
    size_bytes = path.stat().st_size
    os.truncate(path, size_bytes - 1)
    error = refusal(path)
    assert (error.message, error.hint) == (
        f"{path}: cut short: {size_bytes - 1} bytes of {size_bytes}",
        DAMAGED_HINT,
    )
    for kept in (size_bytes - 17, 9, 8, 7, 0):
        os.truncate(path, kept)
        assert refusal(path).message == f"{path}{CUT}"


def test_headers_of_other_lengths(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for length in (0, 1, 3, 2**63, 2**64 - 1):
        assert refusal(write(path, {}, length=length)).message == f"{path}{CUT}"
    write(path, {}, length=1 << 30)
    os.truncate(path, 1 << 31)
    assert refusal(path).message == f"{path}: a header of 1,073,741,824 bytes, more than 16,777,216"
    path.write_bytes(b"<html><body>404</body></html>")
    assert refusal(path).message == f"{path}{CUT}"


def test_no_metadata_as_mlx_writes_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"__metadata__": None, "a": entry([4], 0, 16)}, bytes(16))
    assert list(safetensors_header(path)) == ["a"]

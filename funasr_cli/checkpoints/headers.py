"""Headers of safetensors files, looked at before anybody reads the tensors behind them."""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, open_file, parse_json, quoted
from funasr_cli.errors import ModelError

HEADER_LIMIT_BYTES = 1 << 24  # that of a release's 1,540 tensors has 0.2 MB
HIGHEST_RANK = 8
LONGEST_NAME = 256

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a file.

    Attributes:
        dtype: safetensors' code, as in `ITEM_BYTES`.
        begin: its first byte, counted from the beginning of the file.
        end: the byte behind its last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, in the order of its header; their values are not read.

    The format: eight bytes with the header's length, the header as a JSON object, the tensors without a gap.

    Raises:
        ModelError: the header does not describe just this file.
    """
    with open_file(path) as (file, size_bytes):
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        data_begin = 8 + length
        if length < 2 or data_begin > size_bytes:
            raise ModelError(f"{path}: not a safetensors file, or cut short", DAMAGED_HINT)
        if length > HEADER_LIMIT_BYTES:
            raise ModelError(f"{path}: a header of {length:,} bytes, more than {HEADER_LIMIT_BYTES:,}")
        content = file.read(length)
    header = parse_json(content, f"{path}: the header")
    try:
        _check_metadata(header.pop("__metadata__", None))
        tensors = {name: _stored_tensor(name, entry, data_begin) for name, entry in header.items()}
        _check_ranges(tensors.values(), data_begin, size_bytes)
    except _Fault as error:
        raise ModelError(f"{path}: {error}", DAMAGED_HINT) from error
    return tensors


class _Fault(Exception):
    """What is wrong with a header."""


def _check_metadata(metadata: Any) -> None:
    if metadata is None:  # MLX writes null where there is none
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Fault("__metadata__ is not an object of strings")


def _stored_tensor(name: str, entry: Any, data_begin: int) -> StoredTensor:
    if not is_tensor_name(name):
        raise _Fault(f"{quoted(name)} is no name of a tensor")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Fault(f"{name} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _Fault(f"{name} is of type {quoted(dtype)}, not one of {', '.join(ITEM_BYTES)}")
    if not _are_extents(shape) or len(shape) > HIGHEST_RANK:
        raise _Fault(f"{name} is of shape {quoted(shape)}")
    if not _are_extents(offsets) or len(offsets) != 2:
        raise _Fault(f"{name} lies at {quoted(offsets)}")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _Fault(f"{name} of shape {tuple(shape)} in {dtype} takes {end - begin} bytes")
    return StoredTensor(name, dtype, tuple(shape), data_begin + begin, data_begin + end)


def is_tensor_name(name: str) -> bool:
    """Whether a tensor may be called so: messages name it."""
    return name.isprintable() and 0 < len(name) <= LONGEST_NAME


def _are_extents(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _check_ranges(tensors: Iterable[StoredTensor], data_begin: int, size_bytes: int) -> None:
    end = data_begin
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != end:
            fault = "overlaps the tensor" if tensor.begin < end else "leaves a gap"
            raise _Fault(f"{tensor.name} {fault} before it")
        end = tensor.end
    if end > size_bytes:
        raise _Fault(f"cut short: {size_bytes:,} bytes of {end:,}")
    if end < size_bytes:
        raise _Fault(f"{size_bytes - end:,} bytes behind the last tensor")

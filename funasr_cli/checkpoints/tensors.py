"""Tensors on disk: type and shape before they are read, and reading them one at a time."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, open_file, quoted, unreadable
from funasr_cli.compute.backend import mx
from funasr_cli.errors import ModelError

Shape = tuple[int, ...]

# Types that a model can be stored in: name in safetensors, name in MLX.
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "U32": "uint32"}
DTYPE_CODES = {name: code for code, name in DTYPES.items()} | {"uint8": "U8"}  # bytes, only in files of our own
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "uint32": 4, "uint8": 1}
FLOATING = ("float32", "bfloat16", "float16")
EXPONENTS = {"float32": 0x7F800000, "bfloat16": 0x7F80, "float16": 0x7C00}  # bit masks
PIECE = 1 << 18  # values checked at a time
LONGEST_NAME = 256
HIGHEST_RANK = 8


@dataclass(frozen=True)
class Tensor:
    """A tensor that has not been read yet."""

    dtype: str  # MLX's name; for unsupported types, the file's
    shape: Shape
    read: Callable[[], mx.array]  # reads the values at each call; nothing is cached
    parts: tuple[tuple[str, int], ...] = ()  # its names in the file, each with its number of rows, in order

    @property
    def size_bytes(self) -> int:
        """Size of the values in bytes."""
        return size_bytes(self.dtype, self.shape)

    def read_in(self, dtype: str) -> mx.array:
        """Read the tensor and cast it to a type."""
        return self.read().astype(getattr(mx, dtype))

    def raw(self, dtype: str = "") -> np.ndarray:
        """Read the tensor, cast it to a type if one is given, and return its bytes as (bytes,) uint8."""
        return to_bytes(self.read_in(dtype) if dtype else self.read())

    def swapped(self) -> "Tensor":
        """Return the tensor with its last two axes swapped, or unchanged if it has fewer than two."""
        if len(self.shape) < 2:
            return self
        *others, rows, columns = self.shape
        return Tensor(self.dtype, (*others, columns, rows), lambda: self.read().swapaxes(-1, -2))


def size_bytes(dtype: str, shape: Shape) -> int:
    """Return the size of a tensor in bytes."""
    return math.prod(shape) * DTYPE_BYTES[dtype]


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors along the first axis."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    names = tuple(name for part in parts for name in part.parts)
    return Tensor(parts[0].dtype, shape, lambda: mx.concatenate([part.read() for part in parts]), names)


def open_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, in file order. Their values are not read yet.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with open_file(path), safe_open(path, "numpy") as file:
            stored = {name: file.get_slice(name) for name in file.offset_keys()}
            described = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in stored.items()}
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
    take = _values(path)
    found = {
        name: Tensor(DTYPES.get(code, code), shape, partial(take, name))
        for name, (code, shape) in described.items()
    }
    return presentable(found, path)


def presentable(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors unchanged; raise a `ModelError` for an implausible name or shape."""
    for name, tensor in tensors.items():
        if not (name.isprintable() and 0 < len(name) <= LONGEST_NAME and len(tensor.shape) <= HIGHEST_RANK):
            what = f"{quoted(name)} of shape {quoted(tensor.shape)}"
            raise ModelError(f"{path}: {what} is not a tensor of a model", DAMAGED_HINT, code="model-damaged")
    return tensors


def _values(path: Path) -> Callable[[str], mx.array]:
    """Return a function that hands out each tensor of a safetensors file once. MLX reads the values lazily."""
    unread: dict[str, mx.array] = {}
    name = str(path)
    is_utf8 = name.encode(errors="ignore").decode() == name  # MLX can open only UTF-8 file names

    def take(tensor: str) -> mx.array:
        try:
            if tensor not in unread:
                unread.update(mx.load(name if is_utf8 else path.open("rb"), format="safetensors"))
        except (RuntimeError, OSError) as error:
            raise unreadable(path, error, DAMAGED_HINT) from error
        return unread.pop(tensor)

    return take


def usual_dtype(tensors: Mapping[str, Tensor]) -> str:
    """Return the most common floating-point type of the tensors, or "none" if there is none."""
    counts = Counter(tensor.dtype for tensor in tensors.values() if tensor.dtype in FLOATING)
    return counts.most_common(1)[0][0] if counts else "none"


def to_bytes(values: mx.array) -> np.ndarray:
    """Return the bytes of an array in memory as (bytes,) uint8. NumPy has no bfloat16."""
    return np.frombuffer(memoryview(mx.contiguous(values).view(mx.uint8)).cast("B"), np.uint8)


def is_finite(raw: np.ndarray, dtype: str) -> bool:
    """Return whether all values in ``raw``, (bytes,) uint8 of a type in `FLOATING`, are finite.

    A value is finite if its exponent does not have all bits set. The pieces checked fit in the CPU cache.
    """
    words = raw.view(f"u{DTYPE_BYTES[dtype]}")
    mask = words.dtype.type(EXPONENTS[dtype])
    pieces = (words[begin : begin + PIECE] for begin in range(0, len(words), PIECE))
    return not any(np.any((piece & mask) == mask) for piece in pieces)

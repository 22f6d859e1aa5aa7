"""Tensors on disk: what is known of them before they are read, and reading one at a time."""

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

# What safetensors calls the types that a model can be stored in, and MLX.
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "U32": "uint32"}
DTYPE_CODES = {name: code for code, name in DTYPES.items()}
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "uint32": 4}
FLOATING = ("float32", "bfloat16", "float16")
EXPONENTS = {"float32": 0x7F800000, "bfloat16": 0x7F80, "float16": 0x7C00}  # their bits
PIECE = 1 << 18  # values that are looked at together
LONGEST_NAME = 256
HIGHEST_RANK = 8


@dataclass(frozen=True)
class Tensor:
    """A tensor that has not been read yet."""

    dtype: str  # as MLX calls it; for types that no model is stored in, as the file does
    shape: Shape
    read: Callable[[], mx.array]  # anew at each call: nothing is kept

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return size_bytes(self.dtype, self.shape)

    def read_in(self, dtype: str) -> mx.array:
        """Read it, cast to a type."""
        return self.read().astype(getattr(mx, dtype))

    def raw(self, dtype: str = "") -> np.ndarray:
        """(bytes,) of uint8; cast to a type, if one is given."""
        return to_bytes(self.read_in(dtype) if dtype else self.read())

    def swapped(self) -> "Tensor":
        """With the last two axes in the other order; unchanged where there are not two."""
        if len(self.shape) < 2:
            return self
        *others, rows, columns = self.shape
        return Tensor(self.dtype, (*others, columns, rows), lambda: self.read().swapaxes(-1, -2))


def size_bytes(dtype: str, shape: Shape) -> int:
    """Bytes that a tensor takes."""
    return math.prod(shape) * DTYPE_BYTES[dtype]


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Several tensors below one another, along the first axis."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Tensor(parts[0].dtype, shape, lambda: mx.concatenate([part.read() for part in parts]))


def open_safetensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a safetensors file, in the order of their values, which are not read yet.

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
    """The same, if messages can name them; a `ModelError` of the first that is called or shaped like none."""
    for name, tensor in tensors.items():
        if not (name.isprintable() and 0 < len(name) <= LONGEST_NAME and len(tensor.shape) <= HIGHEST_RANK):
            what = f"{quoted(name)} of shape {quoted(tensor.shape)}"
            raise ModelError(f"{path}: {what} is no tensor of a model", DAMAGED_HINT, code="model-damaged")
    return tensors


def _values(path: Path) -> Callable[[str], mx.array]:
    """What gives each tensor of a safetensors file away; MLX reads it when it is computed with."""
    unread: dict[str, mx.array] = {}
    name = str(path)
    is_utf8 = name.encode(errors="ignore").decode() == name  # MLX opens no other names

    def take(tensor: str) -> mx.array:
        try:
            if tensor not in unread:
                unread.update(mx.load(name if is_utf8 else path.open("rb"), format="safetensors"))
        except (RuntimeError, OSError) as error:
            raise unreadable(path, error, DAMAGED_HINT) from error
        return unread.pop(tensor)

    return take


def usual_dtype(tensors: Mapping[str, Tensor]) -> str:
    """The floating-point type that most of the tensors have; "none" where there is none."""
    counts = Counter(tensor.dtype for tensor in tensors.values() if tensor.dtype in FLOATING)
    return counts.most_common(1)[0][0] if counts else "none"


def to_bytes(values: mx.array) -> np.ndarray:
    """(bytes,) of uint8, as they lie in memory; NumPy has no bfloat16."""
    return np.frombuffer(memoryview(mx.contiguous(values).view(mx.uint8)).cast("B"), np.uint8)


def is_finite(raw: np.ndarray, dtype: str) -> bool:
    """Whether all values of (bytes,) of uint8 are numbers: no exponent has all bits set.

    In pieces, which stay in the cache. The type is one of `FLOATING`.
    """
    words = raw.view(f"u{DTYPE_BYTES[dtype]}")
    mask = words.dtype.type(EXPONENTS[dtype])
    pieces = (words[begin : begin + PIECE] for begin in range(0, len(words), PIECE))
    return not any(np.any((piece & mask) == mask) for piece in pieces)

"""Tensors on disk: what is known of them before they are read, and reading one at a time."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from funasr_cli.backend import mx
from funasr_cli.checkpoints.headers import StoredTensor, safetensors_header

Shape = tuple[int, ...]

# What safetensors calls the types that a model can be stored in, and MLX.
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "U32": "uint32"}
DTYPE_CODES = {name: code for code, name in DTYPES.items()}
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "uint32": 4}
FLOATING = ("float32", "bfloat16", "float16")
PIECE = 1 << 18  # values that are looked at together


@dataclass(frozen=True)
class Tensor:
    """A tensor that has not been read yet.

    Attributes:
        dtype: as MLX calls it; for types that no model is stored in, as the file does.
        read: reads it, anew at each call: nothing is kept.
    """

    dtype: str
    shape: Shape
    read: Callable[[], mx.array]

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def swapped(self) -> "Tensor":
        """With the last two axes in the other order."""
        return Tensor(self.dtype, swapped_shape(self.shape), lambda: self.read().swapaxes(-1, -2))


def swapped_shape(shape: Sequence[int]) -> Shape:
    """Shape with the last two axes in the other order; unchanged where there are not two."""
    return (*shape[:-2], shape[-1], shape[-2]) if len(shape) > 1 else tuple(shape)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Several tensors below one another, along the first axis."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Tensor(parts[0].dtype, shape, lambda: mx.concatenate([part.read() for part in parts]))


def stackable(parts: Sequence[Tensor]) -> bool:
    """Whether they have one type, and one shape but for the first axis."""
    return len({(part.dtype, part.shape[1:]) for part in parts}) == 1 and all(part.shape for part in parts)


def open_safetensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a safetensors file, whose header is checked; nothing else is read yet.

    Raises:
        ModelError: the file is missing or damaged.
    """
    return {name: _stored(path, entry) for name, entry in safetensors_header(path).items()}


def _stored(path: Path, entry: StoredTensor) -> Tensor:
    dtype = DTYPES.get(entry.dtype, entry.dtype)

    def read() -> mx.array:
        raw = np.memmap(path, np.uint8, "r", offset=entry.begin, shape=(entry.end - entry.begin,))
        return from_bytes(raw, dtype, entry.shape)

    return Tensor(dtype, entry.shape, read)


def from_bytes(raw: np.ndarray, dtype: str, shape: Shape) -> mx.array:
    """A copy of the bytes as an array, since NumPy has no bfloat16.

    Args:
        raw: (bytes,) of uint8, at least one.
        dtype: one of `DTYPE_BYTES`.
        shape: of the result.
    """
    words = raw.view(f"u{DTYPE_BYTES[dtype]}")
    return mx.array(words).view(getattr(mx, dtype)).reshape(shape)


def usual_dtype(tensors: Mapping[str, Tensor]) -> str:
    """The floating-point type that most of the tensors have; "none" where there is none."""
    counts = Counter(tensor.dtype for tensor in tensors.values() if tensor.dtype in FLOATING)
    return counts.most_common(1)[0][0] if counts else "none"


def is_finite(values: mx.array) -> bool:
    """Whether all are numbers: no exponent has all bits set. Looked at in pieces, which stay in the cache.

    Args:
        values: of one of the types in `FLOATING`.
    """
    exponent = {mx.float32: 0x7F800000, mx.bfloat16: 0x7F80, mx.float16: 0x7C00}[values.dtype]
    words = as_words(values)
    mask = words.dtype.type(exponent)
    pieces = (words[begin : begin + PIECE] for begin in range(0, len(words), PIECE))
    return not any(np.any((piece & mask) == mask) for piece in pieces)


def same_bytes(a: mx.array, b: mx.array) -> bool:
    """Whether two arrays hold the same, bit for bit."""
    return a.dtype == b.dtype and np.array_equal(as_words(a), as_words(b))


def as_words(values: mx.array) -> np.ndarray:
    """(values,) of unsigned integers with the same bits, as NumPy has no bfloat16."""
    return np.frombuffer(memoryview(mx.contiguous(values).view(mx.uint8)).cast("B"), f"u{values.itemsize}")

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
EXPONENTS = {"float32": 0x7F800000, "bfloat16": 0x7F80, "float16": 0x7C00}  # their bits
PIECE = 1 << 18  # values that are looked at together


@dataclass(frozen=True)
class Tensor:
    """A tensor that has not been read yet.

    Attributes:
        dtype: as MLX calls it; for types that no model is stored in, as the file does.
        read: reads it, anew at each call: nothing is kept.
        mapped: (bytes,) of uint8, as they lie in the file and without a copy of them; None where they lie there in
            another order.
    """

    dtype: str
    shape: Shape
    read: Callable[[], mx.array]
    mapped: Callable[[], np.ndarray] | None = None

    @classmethod
    def of_file(cls, dtype: str, shape: Shape, mapped: Callable[[], np.ndarray]) -> "Tensor":
        """One that lies in a file as it is wanted."""
        return cls(dtype, shape, lambda: from_bytes(mapped(), dtype, shape), mapped)

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def raw(self) -> np.ndarray:
        """(bytes,) of uint8; to be read only."""
        return self.mapped() if self.mapped else to_bytes(self.read())

    def raw_in(self, dtype: str) -> np.ndarray:
        """The same, cast to a type."""
        return self.raw() if self.dtype == dtype else to_bytes(self.read().astype(getattr(mx, dtype)))

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

    def mapped() -> np.ndarray:
        return np.memmap(path, np.uint8, "r", offset=entry.begin, shape=(entry.end - entry.begin,))

    return Tensor.of_file(dtype, entry.shape, mapped)


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


def to_bytes(values: mx.array) -> np.ndarray:
    """(bytes,) of uint8: the opposite of `from_bytes`."""
    return np.frombuffer(memoryview(mx.contiguous(values).view(mx.uint8)).cast("B"), np.uint8)


def is_finite(raw: np.ndarray, dtype: str) -> bool:
    """Whether all values are numbers: no exponent has all bits set. In pieces, which stay in the cache.

    Args:
        raw: (bytes,) of uint8.
        dtype: one of `FLOATING`.
    """
    words = raw.view(f"u{DTYPE_BYTES[dtype]}")
    mask = words.dtype.type(EXPONENTS[dtype])
    pieces = (words[begin : begin + PIECE] for begin in range(0, len(words), PIECE))
    return not any(np.any((piece & mask) == mask) for piece in pieces)

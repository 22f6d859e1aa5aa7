"""Loading a decoder for the CPU engine: the checkpoint's tensors, packed one matrix after the other, or as kept.

With int8, a matrix that is stored in 8 or fewer bits is used with its scales and biases as stored; any other is
rounded to 8 bits. Matrices that the engine computes together are packed into one; if one of them is quantized, all
get a scale and an offset.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.quantize import BIASES, SCALES, Groups
from funasr_cli.compute.backend import mx, on_accelerator
from funasr_cli.errors import SetupError, UsageError
from funasr_cli.families.family import Family, NativePart
from funasr_cli.families.kept import LEAST_PACKED_BYTES, Kept
from funasr_cli.native.decoder import NativeDecoder, interleaved, why_unsupported
from funasr_cli.native.library import FLOAT32, GROUP, INT8, TINY, Packed, library, packed_size, why_missing
from funasr_cli.options import INT8 as INT8_DTYPE

OPTION = "--engine native"
WEIGHTS = {INT8_DTYPE: INT8, "float32": FLOAT32}  # by --dtype
ROWS_AT_ONCE = 8192  # of a matrix, while it is packed: the embeddings would take 0.6 GB in float32


class Affine(NamedTuple):
    """Rows of a matrix, w = scale * value + offset, with a scale and an offset for each group of inputs."""

    values: np.ndarray  # (rows, columns) uint8
    scales: np.ndarray  # (rows, columns / GROUP) float32
    offsets: np.ndarray


def native_part(checkpoint: Checkpoint, family: Family, dtype: str, option: str = OPTION) -> NativePart:
    """Return what the engine computes of a model. ``option`` is what asked for it, for messages.

    Raises:
        UsageError: the family, the model's shape or quantization, or the device rules it out.
        SetupError: the library cannot be used here.
    """
    part = family.native
    if part is None:
        unable = f"{option}: {family.upstream_class} has nothing that the native engine can compute"
        raise UsageError(unable, f"omit {option}; MLX computes it", code="option-unsupported")
    if on_accelerator():
        on_cpu = f"add --device cpu, or omit {option}"
        raise UsageError(f"{option} computes on a CPU, but MLX uses the GPU", on_cpu, code="options-conflict")
    problem = why_unsupported(part.config(checkpoint.config))
    if problem is None and dtype == INT8_DTYPE:
        problem = _odd_group(checkpoint, part)
    if problem:
        message = (
            f"{option}: the native engine cannot compute the decoder of this {family.upstream_class}: {problem}"
        )
        raise UsageError(message, f"omit {option}", code="option-unsupported")
    if missing := why_missing():
        hint = f"install a C compiler and then this package again, unset FUNASR_NATIVE, or omit {option}"
        raise SetupError(f"{option}: the native engine is missing: {missing}", hint, code="package-missing")
    return part


def _odd_group(checkpoint: Checkpoint, part: NativePart) -> str | None:
    """Return which matrix of the decoder is quantized in groups that the engine does not support."""
    for module, groups in checkpoint.quantized().items():
        if module.startswith(f"{part.prefix}.") and groups.group_size % GROUP:
            return f"{module} is quantized in groups of {groups.group_size}, not a multiple of {GROUP}"
    return None


class Matrices:
    """A model's packed matrices by name, in int8 those that are kept from an earlier start."""

    def __init__(self, dtype: str, kept: Kept | None = None):
        """Look for kept matrices, which `kept` may have; the type is "int8" or "float32"."""
        self._kept = kept if dtype == INT8_DTYPE else None
        self._found = self._kept.packed() if self._kept else {}
        self._all: dict[str, Packed] = {}
        self.weights, self.has_new = WEIGHTS[dtype], False

    def get(
        self, name: str, rows: int, columns: int, *, has_offset: bool, pack: Callable[[Packed], None]
    ) -> Packed:
        """Return a matrix; call `pack` to fill it if it is not kept, or is not of this size."""
        loaded = library()
        assert loaded is not None
        try:
            packed = Packed.view(loaded, self._found[name], rows, columns, self.weights, has_offset=has_offset)
        except (KeyError, ValueError):
            packed = Packed(loaded, rows, columns, self.weights, has_offset=has_offset)
            pack(packed)
            self.has_new = True
        self._all[name] = packed
        return packed

    def keep(self) -> None:
        """Keep the matrices for later starts, if some were packed by this one."""
        if self._kept and self.has_new:
            self._kept.keep_packed({name: packed.bytes for name, packed in self._all.items()})


def needed_bytes(checkpoint: Checkpoint, part: NativePart, dtype: str) -> int:
    """Return the memory that the decoder takes, with the largest tensor while it is being packed."""
    tensors = (tensor for name, tensor in checkpoint.tensors.items() if name.startswith(f"{part.prefix}."))
    has_offset = dtype == INT8_DTYPE and bool(checkpoint.quantized())
    return max(tensor.size_bytes for tensor in tensors) + _packed_bytes(checkpoint, part, dtype, has_offset)


def kept_bytes(source: Checkpoint, family: Family, *, quantized: bool) -> int:
    """Return the size of the packed matrices that a conversion of this source keeps; 0 without the engine."""
    try:
        part = native_part(source, family, INT8_DTYPE)
    except (UsageError, SetupError):
        return 0
    size_bytes = _packed_bytes(source, part, INT8_DTYPE, quantized)
    return size_bytes if size_bytes >= LEAST_PACKED_BYTES else 0


def _packed_bytes(checkpoint: Checkpoint, part: NativePart, dtype: str, has_offset: bool) -> int:
    """Return the size of the decoder's packed matrices."""
    loaded, quantized, total = library(), checkpoint.quantized(), 0
    assert loaded is not None
    for name, tensor in checkpoint.tensors.items():
        module, _, kind = name.rpartition(".")
        if name.startswith(f"{part.prefix}.") and kind == "weight" and len(tensor.shape) == 2:
            columns = _columns(tensor.shape[1], quantized.get(module))
            total += packed_size(loaded, tensor.shape[0], columns, WEIGHTS[dtype], has_offset)
    return total


def load_decoder(checkpoint: Checkpoint, part: NativePart, matrices: Matrices) -> NativeDecoder:
    """Load a decoder that `native_part` has accepted."""
    loaded, weights = library(), matrices.weights
    assert loaded is not None
    reader = Reader(checkpoint, part.prefix)

    def matrix(*names: str, interleave: bool) -> Packed:
        shapes = [reader.shape(name) for name in names]
        affine = weights == INT8 and any(map(reader.groups, names))

        def pack(packed: Packed) -> None:
            parts, start = [reader.matrix(name) for name in names], 0
            for side_by_side in [parts] if interleave else [[each] for each in parts]:
                for row in range(0, side_by_side[0].rows, ROWS_AT_ONCE):
                    rows = slice(row, row + ROWS_AT_ONCE)
                    pieces = [each.affine(rows) if affine else (each.dense(rows),) for each in side_by_side]
                    columns = zip(*pieces, strict=True)
                    fused = [interleaved(*arrays) if interleave else arrays[0] for arrays in columns]
                    put: Callable[..., None] = packed.put_affine if affine else packed.put
                    put(start, *fused)
                    start += len(fused[0])

        name = f"{part.prefix}.{'+'.join(names)}"
        return matrices.get(name, sum(rows for rows, _ in shapes), shapes[0][1], has_offset=affine, pack=pack)

    return NativeDecoder(loaded, part.config(checkpoint.config), weights, matrix, reader.norm)


def _columns(width: int, groups: Groups | None) -> int:
    """Return the columns of a matrix whose rows are stored in this number of values or 32-bit integers."""
    return width * 32 // groups.bits if groups else width


class Stored:
    """A matrix of the checkpoint, dense or quantized, whose rows are read piece by piece."""

    def __init__(self, weight: mx.array, scales: mx.array | None, biases: mx.array | None, groups: Groups | None):
        self._weight, self._scales, self._biases, self.groups = weight, scales, biases, groups
        self.rows, width = weight.shape
        self.columns = _columns(width, groups)

    def dense(self, rows: slice) -> np.ndarray:
        """Read rows as (rows, columns) float32."""
        if self.groups is None:
            return np.array(self._weight[rows].astype(mx.float32))
        assert self._scales is not None
        assert self._biases is not None
        return self._dequantized(rows, self._scales[rows], self._biases[rows])

    def affine(self, rows: slice) -> Affine:
        """Read rows with scales and offsets: as stored, or rounded to 8 bits if they are dense."""
        if self.groups is None:
            return rounded(self.dense(rows))
        assert self._scales is not None
        assert self._biases is not None
        shape = self._scales[rows].shape
        values = self._dequantized(rows, mx.ones(shape), mx.zeros(shape)).astype(np.uint8)
        repeats = self.groups.group_size // GROUP
        scales, offsets = (
            np.repeat(np.array(each[rows].astype(mx.float32)), repeats, axis=1)
            for each in (self._scales, self._biases)
        )
        return Affine(values, scales, offsets)

    def _dequantized(self, rows: slice, scales: mx.array, biases: mx.array) -> np.ndarray:
        assert self.groups is not None
        size, bits = self.groups.group_size, self.groups.bits
        dense = mx.dequantize(self._weight[rows], scales, biases, group_size=size, bits=bits)
        return np.array(dense.astype(mx.float32))


class Reader:
    """Reads the decoder's tensors by their names within it."""

    def __init__(self, checkpoint: Checkpoint, prefix: str):
        self._tensors, self._quantized, self._prefix = checkpoint.tensors, checkpoint.quantized(), prefix

    def groups(self, name: str) -> Groups | None:
        """Return how a matrix is quantized; None if it is dense."""
        return self._quantized.get(f"{self._prefix}.{name}")

    def shape(self, name: str) -> tuple[int, int]:
        """Return the rows and columns of a matrix, which is not read."""
        rows, width = self._tensors[f"{self._prefix}.{name}.weight"].shape
        return rows, _columns(width, self.groups(name))

    def matrix(self, name: str) -> Stored:
        """Open a matrix."""
        module, groups = f"{self._prefix}.{name}", self.groups(name)
        weight = self._tensors[f"{module}.weight"].read()
        if groups is None:
            return Stored(weight, None, None, None)
        scales, biases = (self._tensors[f"{module}.{part}"].read() for part in (SCALES, BIASES))
        return Stored(weight, scales, biases, groups)

    def norm(self, name: str) -> np.ndarray:
        """Read the (width,) weights of a norm."""
        return np.array(self._tensors[f"{self._prefix}.{name}.weight"].read_in("float32"))


def rounded(values: np.ndarray) -> Affine:
    """Round (rows, columns) float32 to 8 bits, as the library rounds a matrix without offsets."""
    rows, columns = values.shape
    groups = values.reshape(rows, columns // GROUP, GROUP)
    peaks = np.abs(groups).max(axis=-1)  # (rows, groups)
    scales = np.where(np.isfinite(peaks), np.where(peaks >= TINY, peaks / np.float32(127), 0), np.nan)
    scales = scales.astype(np.float32)
    steps = np.divide(groups, scales[..., None], out=np.zeros_like(groups), where=scales[..., None] > 0)
    integers = np.clip(np.rint(steps), -127, 127) + 128
    return Affine(integers.astype(np.uint8).reshape(rows, columns), scales, -128 * scales)

"""Loading a decoder for the CPU engine: the checkpoint's tensors, packed one matrix after the other.

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
from funasr_cli.native.decoder import NativeDecoder, interleaved, why_unsupported
from funasr_cli.native.library import FLOAT32, GROUP, INT8, TINY, Packed, library, packed_size, why_missing
from funasr_cli.options import INT8 as INT8_DTYPE

OPTION = "--engine native"
OMIT = f"omit {OPTION}"
WEIGHTS = {INT8_DTYPE: INT8, "float32": FLOAT32}  # by --dtype
ROWS_AT_ONCE = 8192  # of a matrix, while it is packed: the embeddings would take 0.6 GB in float32


class Affine(NamedTuple):
    """Rows of a matrix, w = scale * value + offset, with a scale and an offset for each group of inputs."""

    values: np.ndarray  # (rows, columns) uint8
    scales: np.ndarray  # (rows, columns / GROUP) float32
    offsets: np.ndarray


def native_part(checkpoint: Checkpoint, family: Family, dtype: str) -> NativePart:
    """Return what the engine computes of a model.

    Raises:
        UsageError: the family, the model's shape or quantization, or the device rules it out.
        SetupError: the library cannot be used here.
    """
    part = family.native
    if part is None:
        unable = f"{OPTION}: {family.title} has nothing that this engine can compute"
        raise UsageError(unable, f"{OMIT}; MLX computes it", code="option-unsupported")
    if on_accelerator():
        on_cpu = f"add --device cpu, or {OMIT}"
        raise UsageError(f"{OPTION} computes on a CPU, but MLX uses the GPU", on_cpu, code="options-conflict")
    problem = why_unsupported(part.config(checkpoint.config))
    if problem is None and dtype == INT8_DTYPE:
        problem = _odd_group(checkpoint, part)
    if problem:
        message = f"{OPTION} cannot compute the decoder of this {family.title}: {problem}"
        raise UsageError(message, OMIT, code="option-unsupported")
    if missing := why_missing():
        hint = "install a C compiler and then this package again, unset FUNASR_NATIVE, or omit --engine native"
        raise SetupError(f"{OPTION}: the engine is missing: {missing}", hint, code="package-missing")
    return part


def _odd_group(checkpoint: Checkpoint, part: NativePart) -> str | None:
    """Return which matrix of the decoder is quantized in groups that the engine does not support."""
    for module, groups in checkpoint.quantized().items():
        if module.startswith(f"{part.prefix}.") and groups.group_size % GROUP:
            return f"{module} is quantized in groups of {groups.group_size}, not a multiple of {GROUP}"
    return None


def needed_bytes(checkpoint: Checkpoint, part: NativePart, dtype: str) -> int:
    """Return the memory that the decoder takes, with the largest tensor while it is being packed."""
    loaded, quantized = library(), checkpoint.quantized()
    assert loaded is not None
    tensors = {name: each for name, each in checkpoint.tensors.items() if name.startswith(f"{part.prefix}.")}
    total = max(tensor.size_bytes for tensor in tensors.values())
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and len(tensor.shape) == 2:
            columns = _columns(tensor.shape[1], quantized.get(module))
            has_offset = dtype == INT8_DTYPE and bool(quantized)
            total += packed_size(loaded, tensor.shape[0], columns, WEIGHTS[dtype], has_offset)
    return total


def load_decoder(checkpoint: Checkpoint, part: NativePart, dtype: str) -> NativeDecoder:
    """Pack the tensors of a decoder that `native_part` has accepted."""
    loaded, weights = library(), WEIGHTS[dtype]
    assert loaded is not None
    reader = Reader(checkpoint, part.prefix)

    def matrix(*names: str, interleave: bool) -> Packed:
        parts = [reader.matrix(name) for name in names]
        affine = weights == INT8 and any(each.groups for each in parts)
        packed = Packed(loaded, sum(each.rows for each in parts), parts[0].columns, weights, has_offset=affine)
        start = 0
        for side_by_side in [parts] if interleave else [[each] for each in parts]:
            for row in range(0, side_by_side[0].rows, ROWS_AT_ONCE):
                rows = slice(row, row + ROWS_AT_ONCE)
                pieces = [each.affine(rows) if affine else (each.dense(rows),) for each in side_by_side]
                fused = [interleaved(*arrays) if interleave else arrays[0] for arrays in zip(*pieces, strict=True)]
                put: Callable[..., None] = packed.put_affine if affine else packed.put
                put(start, *fused)
                start += len(fused[0])
        return packed

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

    def matrix(self, name: str) -> Stored:
        """Open a matrix."""
        module = f"{self._prefix}.{name}"
        weight = self._tensors[f"{module}.weight"].read()
        if module not in self._quantized:
            return Stored(weight, None, None, None)
        scales, biases = (self._tensors[f"{module}.{part}"].read() for part in (SCALES, BIASES))
        return Stored(weight, scales, biases, self._quantized[module])

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

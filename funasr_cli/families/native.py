"""Loading what the CPU engine computes of a model: its tensors, packed one matrix after the other, or as kept.

With int8, a decoder's matrix that is stored in 8 or fewer bits is used with its scales and biases as stored: in 4
bits if it has no more and its scales have 16, else in 8. Any other is rounded to 8 bits. Matrices that the engine
computes together are packed into one, which may have rows of 4 and of 8 bits; if one of those with 8 bits is
quantized, all of them get a scale and an offset. The other networks are computed in bfloat16 where the CPU
multiplies it fast, otherwise in float32.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.quantize import BIASES, SCALES, Groups
from funasr_cli.checkpoints.tensors import size_bytes
from funasr_cli.compute.backend import mx, on_accelerator
from funasr_cli.errors import SetupError, UsageError
from funasr_cli.families.family import SPEECH, TEXT, Download, Family, NativePart
from funasr_cli.families.kept import LEAST_PACKED_BYTES, Kept
from funasr_cli.native.decoder import NativeDecoder
from funasr_cli.native.encoder import NativeEncoder, NativeNetwork
from funasr_cli.native.library import (
    BFLOAT16,
    BITS,
    FLOAT32,
    GROUP,
    INT4,
    INT4_HALF,
    INT8,
    PAIR,
    TINY,
    TYPES,
    Packed,
    encoder_type,
    library,
    packed_size,
    remedy,
    why_missing,
)
from funasr_cli.native.qwen3 import interleaved
from funasr_cli.options import INT8 as INT8_DTYPE

OPTION = "--engine native"
IN_4_BITS = {"bfloat16": INT4, "float16": INT4_HALF}  # by the type of scales and offsets
ROWS_AT_ONCE = 8192  # of a matrix, while it is packed: the embeddings would take 0.6 GB in float32


class Affine(NamedTuple):
    """Rows of a matrix, w = scale * value + offset, with a scale and an offset for each group of inputs."""

    values: np.ndarray  # (rows, columns) uint8
    scales: np.ndarray  # (rows, columns / GROUP) float32; or uint16, the bits of 16-bit numbers
    offsets: np.ndarray


def refuse_engine(family: Family | None, option: str = OPTION) -> None:
    """Raise an error if the engine computes no model of a family, or nothing on this machine.

    Args:
        family: the family; None if it is not known yet.
        option: what asked for the engine, for messages.

    Raises:
        UsageError: the family or the device rules it out.
        SetupError: the library cannot be used here.
    """
    if family and not family.native:
        unable = f"{option}: {family.title} has nothing that the native engine can compute"
        raise UsageError(unable, f"omit {option}; MLX computes it", code="option-unsupported")
    if on_accelerator():
        on_cpu = f"add --device cpu, or omit {option}"
        raise UsageError(f"{option} computes on a CPU, but MLX uses the GPU", on_cpu, code="options-conflict")
    if missing := why_missing():
        hint = f"{way}, or omit {option}" if (way := remedy()) else f"omit {option}"
        raise SetupError(f"{option}: the native engine is missing: {missing}", hint, code="package-missing")


def native_parts(checkpoint: Checkpoint, family: Family, dtype: str, option: str = OPTION) -> list[NativePart]:
    """Return what the engine computes of a model. ``option`` is what asked for it, for messages.

    Raises:
        UsageError: the family, the model's shape or quantization, or the device rules it out.
        SetupError: the library cannot be used here.
    """
    refuse_engine(family, option)
    if dtype == INT8_DTYPE and family.kind not in (SPEECH, TEXT):  # int8 is proven by texts
        unable = f"{option}: {family.title} is computed in float32 only"
        raise UsageError(unable, f"omit {option}", code="option-unsupported")
    parts = [part for part in family.native if part.config(checkpoint.config) is not None]
    for part in parts:
        if not issubclass(part.network, NativeDecoder):
            continue
        problem = part.network.why_unsupported(part.config(checkpoint.config))
        if problem is None and dtype == INT8_DTYPE:
            problem = _odd_group(checkpoint, part)
        if problem:
            unable = f"the native engine cannot compute the decoder of this {family.title}: {problem}"
            raise UsageError(f"{option}: {unable}", f"omit {option}", code="option-unsupported")
    return parts


def rounding(family: Family) -> str:
    """Name what rounds with ``--dtype int8``, for messages: int8, or the encoder's type without a decoder."""
    if any(issubclass(part.network, NativeDecoder) for part in family.native):
        return INT8_DTYPE
    return TYPES[BFLOAT16] if encoder_type() == BFLOAT16 else "the native engine"


def _odd_group(checkpoint: Checkpoint, part: NativePart) -> str | None:
    """Return which matrix of the decoder is quantized in groups that the engine does not support."""
    for module, groups in checkpoint.quantized().items():
        if module.startswith(f"{part.prefix}.") and groups.group_size % GROUP:
            return f"{module} is quantized in groups of {groups.group_size}, not a multiple of {GROUP}"
    return None


def belongs(name: str, part: NativePart) -> bool:
    """Tell whether a tensor is one of a part."""
    return name.startswith(f"{part.prefix}.")


def _packed_type(part: NativePart, dtype: str) -> int:
    """Return how the matrices of a part are packed."""
    if dtype != INT8_DTYPE:
        return FLOAT32
    return INT8 if issubclass(part.network, NativeDecoder) else encoder_type()


def needed_bytes(checkpoint: Checkpoint, parts: list[NativePart], dtype: str) -> int:
    """Return the memory that the parts take, with the largest tensor while it is being packed.

    Convolutions are packed in float32. Working memory is counted where a network needs much.
    """
    has_offset = bool(checkpoint.quantized())
    own = [tensor for name, tensor in checkpoint.tensors.items() if any(belongs(name, part) for part in parts)]
    largest = max(tensor.size_bytes for tensor in own)
    convolutions = sum(size_bytes("float32", tensor.shape) for tensor in own if len(tensor.shape) == 3)
    working = sum(part.network.working_bytes(part.config(checkpoint.config)) for part in parts)
    packed = _packed_bytes(checkpoint, parts, dtype, partial(_own_type, checkpoint), has_offset=has_offset)
    return largest + convolutions + working + packed


def kept_bytes(source: Checkpoint, family: Family, chosen: Mapping[str, Groups], dtype: str) -> int:
    """Return the size of the packed matrices that a conversion of this source keeps; 0 without the engine.

    Args:
        source: the dense checkpoint.
        family: its family.
        chosen: the matrices that the conversion quantizes, and how.
        dtype: the type in which it stores their scales, and all else.
    """
    try:
        parts = native_parts(source, family, INT8_DTYPE)
    except (UsageError, SetupError):
        return 0

    def own_type(module: str, usual: int) -> int:
        return _in_own_bits(chosen.get(module), {dtype}, usual)

    size_bytes = _packed_bytes(source, parts, INT8_DTYPE, own_type, has_offset=bool(chosen))
    return size_bytes if size_bytes >= LEAST_PACKED_BYTES else 0


def stated_kept_bytes(download: Download) -> int:
    """Return about the size of the packed matrices that will be kept of a download; 0 without the engine."""
    try:
        refuse_engine(None)
    except (UsageError, SetupError):
        return 0
    decoder, others = download.packed_values
    size_bytes = decoder + 4 * (decoder // GROUP) + others * (4 if encoder_type() == FLOAT32 else 2)
    return size_bytes if size_bytes >= LEAST_PACKED_BYTES else 0


def _packed_bytes(
    checkpoint: Checkpoint,
    parts: list[NativePart],
    dtype: str,
    own_type: Callable[[str, int], int],
    *,
    has_offset: bool,
) -> int:
    """Return the size of the packed matrices of these parts.

    Args:
        checkpoint: the checkpoint.
        parts: its parts.
        dtype: what is computed in.
        own_type: returns how a matrix is packed, given its name and how it usually is; see `_in_own_bits`.
        has_offset: whether those in 8 bits have offsets.
    """
    loaded, quantized, total = library(), checkpoint.quantized(), 0
    assert loaded is not None
    types = {part.prefix: _packed_type(part, dtype) for part in parts}
    for name, tensor in checkpoint.tensors.items():
        module, _, kind = name.rpartition(".")
        packed_type = types.get(name.partition(".")[0])
        if packed_type is not None and kind == "weight" and len(tensor.shape) == 2:
            columns = _columns(tensor.shape[1], quantized.get(module))
            own = own_type(module, packed_type)
            total += packed_size(loaded, tensor.shape[0], columns, own, has_offset and own == INT8)
    return total


class Matrices:
    """A model's packed matrices by name: those that are kept from an earlier start, and those packed now."""

    def __init__(self, kept: Kept | None = None):
        self._kept, self._found = kept, kept.packed() if kept else {}
        self._all: dict[str, Packed] = {}
        self.has_new = False

    def get(
        self, name: str, shape: tuple[int, int], packed_type: int, has_offset: bool, pack: Callable[[Packed], None]
    ) -> Packed:
        """Return a matrix of this shape; call `pack` to fill it if it is not kept, or is not of this size."""
        loaded = library()
        assert loaded is not None
        try:
            packed = Packed.view(loaded, self._found[name], *shape, packed_type, has_offset=has_offset)
        except (KeyError, ValueError):
            packed = Packed(loaded, *shape, packed_type, has_offset=has_offset)
            pack(packed)
            self.has_new = True
        self._all[name] = packed
        return packed

    def keep(self) -> None:
        """Keep the matrices for later starts, if some were packed by this one."""
        if self._kept and self.has_new:
            self._kept.keep_packed({name: packed.bytes for name, packed in self._all.items()})


def load_parts(
    checkpoint: Checkpoint, parts: list[NativePart], dtype: str, kept: Kept | None = None
) -> dict[str, NativeNetwork]:
    """Load the networks of parts that `native_parts` has returned; return them by their prefixes.

    Packed matrices are kept, unless `kept` is None or everything is float32: that is packed again at each start.
    """
    loaded = library()
    assert loaded is not None
    encoder, made = NativeEncoder(loaded), dict[str, NativeNetwork]()
    matrices = Matrices(kept if dtype == INT8_DTYPE else None)
    for part in parts:
        weights = PartWeights(checkpoint, part.prefix, _packed_type(part, dtype), matrices)
        made[part.prefix] = part.network(encoder, weights, part.config(checkpoint.config))
    matrices.keep()
    return made


def _columns(width: int, groups: Groups | None) -> int:
    """Return the columns of a matrix whose rows are stored in this number of values or 32-bit integers."""
    return width * 32 // groups.bits if groups else width


def _own_type(checkpoint: Checkpoint, module: str, usual: int) -> int:
    """Return how a matrix of a checkpoint is packed; see `_in_own_bits`."""
    groups = checkpoint.quantized().get(module)
    if groups is None:
        return usual
    types = {checkpoint.tensors[f"{module}.{part}"].dtype for part in (SCALES, BIASES)}
    return _in_own_bits(groups, types, usual)


def _in_own_bits(groups: Groups | None, types: Collection[str], usual: int) -> int:
    """Return how a matrix is packed that is usually packed in one way: instead of `INT8`, perhaps in 4 bits.

    Args:
        groups: how it is quantized.
        types: of its scales and biases.
        usual: the usual way.
    """
    if usual != INT8 or groups is None or groups.bits > BITS[INT4] or len(types) > 1:
        return usual
    return IN_4_BITS.get(next(iter(types)), INT8)


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
        """Read rows with scales and offsets in float32: as stored, or rounded to 8 bits if they are dense."""
        if self.groups is None:
            return rounded(self.dense(rows))
        return self._as_stored(rows, lambda each: each.astype(mx.float32))

    def four_bits(self, rows: slice) -> Affine:
        """Read rows of 4 bits or fewer, with the bits of their scales and offsets of 16 bits."""
        return self._as_stored(rows, lambda each: each.view(mx.uint16))

    def _as_stored(self, rows: slice, read: Callable[[mx.array], mx.array]) -> Affine:
        assert self.groups is not None
        assert self._scales is not None
        assert self._biases is not None
        shape = self._scales[rows].shape
        values = self._dequantized(rows, mx.ones(shape), mx.zeros(shape)).astype(np.uint8)
        repeats = self.groups.group_size // GROUP
        scales, offsets = (
            np.repeat(np.array(read(each[rows])), repeats, axis=1) for each in (self._scales, self._biases)
        )
        return Affine(values, scales, offsets)

    def _dequantized(self, rows: slice, scales: mx.array, biases: mx.array) -> np.ndarray:
        assert self.groups is not None
        size, bits = self.groups.group_size, self.groups.bits
        dense = mx.dequantize(self._weight[rows], scales, biases, group_size=size, bits=bits)
        return np.array(dense.astype(mx.float32))


class PartWeights:
    """Reads and packs a part's tensors by their names within it."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, packed_type: int, matrices: Matrices):
        self._checkpoint, self._prefix = checkpoint, prefix
        self._tensors, self._quantized = checkpoint.tensors, checkpoint.quantized()
        self.type, self._matrices = packed_type, matrices

    def matrix(self, *names: str, interleave: bool = False) -> Packed:
        """Pack the matrices of these names, one below the other; with `interleave`, 16 rows of each in turns.

        Each is packed in its own number of bits, unless rows of several are in one pair of tiles.
        """
        types = [_own_type(self._checkpoint, f"{self._prefix}.{name}", self.type) for name in names]
        if len(set(types)) == 1:
            return self._in_one_way(names, types[0], interleave=interleave)
        if interleave or any(self._shape(name)[0] % PAIR for name in names[:-1]):
            return self._in_one_way(names, self.type, interleave=interleave)
        runs = groupby(zip(types, names, strict=True), key=itemgetter(0))
        return Packed.stacked([self._in_one_way([name for _, name in run], own) for own, run in runs])

    def _in_one_way(self, names: Sequence[str], packed_type: int, *, interleave: bool = False) -> Packed:
        """Pack matrices into one whose rows are all stored in the same way."""
        shapes = [self._shape(name) for name in names]
        has_offset = packed_type != self.type or (self.type == INT8 and any(map(self._groups, names)))

        def read(stored: Stored, rows: slice) -> Sequence[np.ndarray]:
            if packed_type in IN_4_BITS.values():
                return stored.four_bits(rows)
            return stored.affine(rows) if has_offset else (stored.dense(rows),)

        def pack(packed: Packed) -> None:
            parts, start, waiting = [self._stored(name) for name in names], 0, list[np.ndarray]()
            for side_by_side in [parts] if interleave else [[each] for each in parts]:
                for row in range(0, side_by_side[0].rows, ROWS_AT_ONCE):
                    rows = slice(row, row + ROWS_AT_ONCE)
                    pieces = [read(each, rows) for each in side_by_side]
                    columns = zip(*pieces, strict=True)
                    fused = [interleaved(*arrays) if interleave else arrays[0] for arrays in columns]
                    if waiting:
                        fused = [np.concatenate(both) for both in zip(waiting, fused, strict=True)]
                    whole = len(fused[0]) // PAIR * PAIR  # the rows after them wait for the next matrix
                    if whole:
                        put(packed, start, [array[:whole] for array in fused])
                    start, waiting = start + whole, [array[whole:] for array in fused]
            if len(waiting[0]):  # the last rows
                put(packed, start, waiting)

        def put(packed: Packed, start: int, arrays: list[np.ndarray]) -> None:
            in_4_bits = packed_type in IN_4_BITS.values()
            affine: Callable[..., None] = packed.put_4_bits if in_4_bits else packed.put_affine
            function: Callable[..., None] = affine if has_offset else packed.put
            function(start, *arrays)

        name, rows = f"{self._prefix}.{'+'.join(names)}", sum(rows for rows, _ in shapes)
        return self._matrices.get(name, (rows, shapes[0][1]), packed_type, has_offset, pack)

    def _groups(self, name: str) -> Groups | None:
        """Return how a matrix is quantized; None if it is dense."""
        return self._quantized.get(f"{self._prefix}.{name}")

    def _shape(self, name: str) -> tuple[int, int]:
        """Return the rows and columns of a matrix, which is not read."""
        rows, width = self._tensors[f"{self._prefix}.{name}.weight"].shape
        return rows, _columns(width, self._groups(name))

    def _stored(self, name: str) -> Stored:
        module, groups = f"{self._prefix}.{name}", self._groups(name)
        weight = self._tensors[f"{module}.weight"].read()
        if groups is None:
            return Stored(weight, None, None, None)
        scales, biases = (self._tensors[f"{module}.{part}"].read() for part in (SCALES, BIASES))
        return Stored(weight, scales, biases, groups)

    def vector(self, name: str) -> np.ndarray:
        """Read a tensor as contiguous float32."""
        return np.array(self._tensors[f"{self._prefix}.{name}"].read_in("float32"))


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

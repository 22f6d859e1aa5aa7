"""The C library through ctypes: its structures and functions, as `src/native.h` declares them."""

import ctypes
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from funasr_cli.native.build import LIBRARY, LOG, SWITCH, is_wanted, sources_hash

ABI = 8
# Increase it when results may change, however little: what was proven about int8 is then proven again.
ARITHMETIC = 3
# How weights are stored. INT4 and INT4_HALF differ in the type of scales and offsets: bfloat16, or float16.
FLOAT32, INT8, BFLOAT16, INT4, INT4_HALF = range(5)
TYPES = {FLOAT32: "float32", INT8: "int8", BFLOAT16: "bfloat16"}  # of the inputs of a product
BITS = {FLOAT32: 32, INT8: 8, BFLOAT16: 16, INT4: 4, INT4_HALF: 4}  # of a weight
GROUP = 64  # inputs that share a scale
TILE, PAIR = 16, 32  # outputs of a tile; outputs that are computed together
TINY = 2e-36  # a group of smaller values counts as zeros
ALIGNMENT = 64
FAST_BFLOAT16 = ("amx", "avx512bf16")  # instruction sets that multiply it
SLOWEST = "scalar"  # the reference, for tests: too slow to be used
STALE = "compiled from other sources; install this package again, or run python -m funasr_cli.native.build"

floats = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
integers = np.ctypeslib.ndpointer(np.int32, flags="C_CONTIGUOUS")
bytes_ = np.ctypeslib.ndpointer(np.uint8, flags="C_CONTIGUOUS")
halves = np.ctypeslib.ndpointer(np.uint16, flags="C_CONTIGUOUS")
ARRAYS = (floats, integers, bytes_, halves)


class Matrix(Structure):
    """A packed matrix: ``struct fn_matrix``."""

    _fields_ = (
        ("data", c_void_p),
        *((name, c_int32) for name in ("rows", "columns", "weights", "has_offset")),
        ("below", c_void_p),
    )


class Linear(Structure):
    """A product with a bias: ``struct fn_linear``."""

    _fields_ = (("matrix", Matrix), ("bias", c_void_p))


class Norm(Structure):
    """A layer norm or RMS norm: ``struct fn_norm``."""

    _fields_ = (("weights", c_void_p), ("bias", c_void_p), ("eps", c_float), ("kind", c_int32), ("width", c_int32))


class Shape(Structure):
    """Sizes of a decoder: ``struct fn_shape``."""

    _fields_ = (
        *((name, c_int32) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")),
        *((name, c_int32) for name in ("num_key_value_heads", "head_dim", "intermediate_size", "vocab_size")),
        *((name, c_int32) for name in ("weights", "activation")),
        ("rope_theta", c_float),
    )


class Layer(Structure):
    """Weights of a decoder's layer: ``struct fn_layer``."""

    _fields_ = (
        *(
            (name, Norm)
            for name in ("attention_norm", "cross_norm", "feed_forward_norm", "query_norm", "key_norm")
        ),
        *((name, Linear) for name in ("qkv", "output", "cross_query", "cross_output", "up", "down")),
    )


class Sources(Structure):
    """What a step's positions attend to, in addition to their slots: ``struct fn_sources``."""

    _fields_ = (
        ("keys_and_values", POINTER(c_void_p)),
        *((name, c_int32) for name in ("rows", "watched_count")),
        ("watched", POINTER(c_int32)),
        ("scores", c_void_p),
    )


class Block(Structure):
    """Weights of a Transformer layer: ``struct fn_block``."""

    _fields_ = (
        *((name, Norm) for name in ("attention_norm", "cross_norm", "feed_forward_norm")),
        *((name, Linear) for name in ("qkv", "output", "cross_query", "cross_key_value", "cross_output")),
        *((name, Linear) for name in ("up", "down")),
        ("memory", c_void_p),
        *((name, c_int32) for name in ("taps", "taps_before", "heads", "activation", "norm_after")),
    )


class Steps(Structure):
    """How many floats lie between the images, lines and rows of an array: ``struct fn_steps``."""

    _fields_ = tuple((name, c_int32) for name in ("image", "line", "row"))


class Convolution(Structure):
    """A convolution: ``struct fn_convolution``."""

    _fields_ = (
        ("linear", Linear),
        *((name, c_int32) for name in ("parts", "part_step", "activation", "images", "lines", "rows")),
        *((name, Steps) for name in ("input", "output")),
    )


class DenseLayer(Structure):
    """Weights of a layer of a densely connected network: ``struct fn_dense_layer``."""

    _fields_ = (
        *((name, c_void_p) for name in ("factor", "summand")),
        *((name, Linear) for name in ("narrow", "local", "squeeze", "gate")),
        *((name, c_int32) for name in ("dilation", "run")),
    )


def load(path: Path) -> ctypes.CDLL:
    """Load a library and declare its functions.

    Raises:
        OSError: it cannot be loaded, or was compiled from other sources than those of this package.
    """
    library = ctypes.CDLL(str(path))
    try:
        _declare(library, path)
    except AttributeError as error:  # it lacks a function
        raise OSError(f"{path}: {STALE}") from error
    return library


def _declare(library: ctypes.CDLL, path: Path) -> None:
    """Check where a library comes from, and declare the types of its functions."""
    library.fn_sources.restype = c_char_p
    if library.fn_sources().decode() != sources_hash():
        raise OSError(f"{path}: {STALE}")
    if library.fn_abi() != ABI:
        raise OSError(f"{path}: version {library.fn_abi()} of the interface, not {ABI}")
    matrices = (POINTER(Shape), POINTER(Layer), POINTER(Norm), POINTER(Matrix), POINTER(Matrix))
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "fn_instruction_sets": (POINTER(c_char_p), []),
        "fn_packed_size": (c_size_t, [c_int32, c_int32, c_int32, c_int32]),
        "fn_pack": (c_int, [c_void_p, floats, c_int32, c_int32, c_int32]),
        "fn_pack_affine": (c_int, [c_void_p, bytes_, floats, floats, c_int32, c_int32, c_int32]),
        "fn_pack_4_bits": (c_int, [c_void_p, bytes_, halves, halves, c_int32, c_int32, c_int32, c_int32]),
        "fn_unpack": (c_int, [POINTER(Matrix), integers, c_int32, floats]),
        "fn_product": (c_int, [POINTER(Matrix), floats, c_int32, floats, c_int32, c_char_p]),
        "fn_decoder_new": (c_int, [POINTER(c_void_p), *matrices, c_int32, c_int32, c_char_p]),
        "fn_decoder_free": (None, [c_void_p]),
        "fn_decoder_instruction_set": (c_char_p, [c_void_p]),
        "fn_embed": (c_int, [c_void_p, integers, c_int32, floats]),
        "fn_step": (c_int, [c_void_p, c_int32, integers, integers, floats, POINTER(Sources), c_void_p]),
        "fn_logits": (c_int, [c_void_p, c_int32, floats, c_void_p, c_void_p, c_void_p, integers, floats]),
        "fn_copy_slot": (c_int, [c_void_p, c_int32, c_int32, c_int32]),
        "fn_clear_slot": (None, [c_void_p, c_int32]),
        "fn_encoder_new": (c_int, [POINTER(c_void_p), c_int32, c_char_p]),
        "fn_encoder_free": (None, [c_void_p]),
        "fn_encoder_instruction_set": (c_char_p, [c_void_p]),
        "fn_run_block": (
            c_int,
            [c_void_p, POINTER(Block), c_int32, integers, c_void_p, c_void_p, c_void_p, floats],
        ),
        "fn_run_linear": (c_int, [c_void_p, POINTER(Linear), c_int32, c_int32, floats, floats]),
        "fn_source_size": (c_size_t, [c_int32, c_int32, c_int32, c_int32]),
        "fn_keys_and_values": (
            c_int,
            [c_void_p, POINTER(Linear), c_int32, c_int32, floats, c_int32, bytes_],
        ),
        "fn_convolve": (c_int, [c_void_p, POINTER(Convolution), c_void_p, c_void_p, c_void_p]),
        "fn_run_dense_layer": (c_int, [c_void_p, POINTER(DenseLayer), c_int32, c_int32, c_int32, floats]),
        "fn_run_norm": (c_int, [c_void_p, POINTER(Norm), c_int32, c_int32, floats, floats]),
        "fn_highest": (c_int, [c_void_p, c_int32, c_int32, floats, integers, floats]),
    }
    for name, (result, arguments) in signatures.items():
        setattr(library, name, _caller(getattr(library, name), result, arguments))


def _caller(function: Any, result: Any, kinds: Sequence[Any]) -> Callable[..., Any]:
    """Return what calls a function, with the addresses of arrays whose types it has checked.

    If ctypes checked them itself, in Python, a Ctrl-C at that moment would become a ctypes.ArgumentError.
    """
    function.restype, function.argtypes = result, [c_void_p if kind in ARRAYS else kind for kind in kinds]

    def call(*arguments: Any) -> Any:
        passed = list(arguments)  # `arguments` keeps the arrays
        for place, (kind, argument) in enumerate(zip(kinds, arguments, strict=True)):
            if kind in ARRAYS:
                kind.from_param(argument)
                passed[place] = argument.ctypes.data
        return function(*passed)

    return call


def why_missing() -> str | None:
    """Return what keeps the library from being used here; None if nothing does."""
    if sys.platform != "linux":
        return "it exists for Linux only"
    if not is_wanted():
        return f"it is switched off by {SWITCH}=0"
    if not LIBRARY.is_file():
        log = f"; the reason is in {LOG}" if LOG.is_file() else ""
        return f"the library was not compiled when this package was installed{log}"
    try:
        fastest = instruction_sets(_loaded())[0]
    except OSError as error:
        return f"it cannot be loaded ({error})"
    if fastest != SLOWEST:
        return None
    lacking = {"x86_64": "AVX2", "aarch64": "the dot product of bytes (asimddp)"}.get(platform.machine())
    if lacking is None:
        return f"it is fast on x86-64 and 64-bit ARM only, and this CPU is {platform.machine()}"
    return f"this CPU does not have {lacking}"


def remedy() -> str | None:
    """Return what to do about a missing library; None if it cannot be used on this machine."""
    if sys.platform != "linux":
        return None
    if not is_wanted():
        return f"unset {SWITCH}"
    with suppress(OSError):
        if LIBRARY.is_file() and _loaded():
            return None
    return "install a C compiler and then this package again"


def library() -> ctypes.CDLL | None:
    """Return the library that was compiled with this package; None if it cannot be used here (`why_missing`)."""
    return None if why_missing() else _loaded()


@cache
def _loaded() -> ctypes.CDLL:
    return load(LIBRARY)


def instruction_sets(loaded: ctypes.CDLL) -> tuple[str, ...]:
    """Name the instruction sets that this CPU has, the fastest first."""
    names = loaded.fn_instruction_sets()
    found: list[str] = []
    while names[len(found)]:
        found.append(names[len(found)].decode())
    return tuple(found)


def is_bfloat16_fast(loaded: ctypes.CDLL) -> bool:
    """Return whether this CPU multiplies bfloat16, faster than float32."""
    return instruction_sets(loaded)[0] in FAST_BFLOAT16


def encoder_type() -> int:
    """Return how matrices of everything but a decoder are packed with int8: `BFLOAT16`, or `FLOAT32`."""
    loaded = library()
    return BFLOAT16 if loaded and is_bfloat16_fast(loaded) else FLOAT32


def packed_size(loaded: ctypes.CDLL, rows: int, columns: int, weights: int, has_offset: bool) -> int:
    """Return the bytes of a packed matrix."""
    return int(loaded.fn_packed_size(rows, columns, weights, has_offset))


class Packed:
    """A packed matrix and the memory that holds it; see `stacked` for one that is stored in several ways."""

    below: "Packed | None" = None  # the last rows, if they are stored in another way

    def __init__(self, loaded: ctypes.CDLL, rows: int, columns: int, weights: int, *, has_offset: bool = False):
        self._library = loaded
        size_bytes = packed_size(loaded, rows, columns, weights, has_offset)
        buffer = np.empty(size_bytes + ALIGNMENT, np.uint8)
        start = -buffer.ctypes.data % ALIGNMENT
        self.bytes = buffer[start : start + size_bytes]
        self.matrix = Matrix(self.bytes.ctypes.data, rows, columns, weights, has_offset)

    @classmethod
    def view(
        cls, loaded: ctypes.CDLL, content: np.ndarray, rows: int, columns: int, weights: int, *, has_offset: bool
    ) -> "Packed":
        """Use packed bytes, (bytes,) uint8, where they are.

        Raises:
            ValueError: they are not exactly those of such a matrix, or not aligned.
        """
        size_bytes = packed_size(loaded, rows, columns, weights, has_offset)
        if content.nbytes != size_bytes or content.ctypes.data % ALIGNMENT:
            raise ValueError(f"{content.nbytes} bytes are not a packed matrix of {rows} x {columns}")
        packed = cls.__new__(cls)
        packed._library, packed.bytes = loaded, content
        packed.matrix = Matrix(packed.bytes.ctypes.data, rows, columns, weights, has_offset)
        return packed

    @classmethod
    def of(cls, loaded: ctypes.CDLL, values: np.ndarray, weights: int) -> "Packed":
        """Pack (rows, columns) float32; columns must be a multiple of `GROUP`."""
        rows, columns = values.shape
        packed = cls(loaded, rows, columns, weights)
        packed.put(0, values)
        return packed

    @classmethod
    def of_affine(
        cls, loaded: ctypes.CDLL, values: np.ndarray, scales: np.ndarray, offsets: np.ndarray, group: int
    ) -> "Packed":
        """Pack (rows, columns) uint8, w = scale * value + offset, with (rows, columns / group) of both."""
        rows, columns = values.shape
        packed = cls(loaded, rows, columns, INT8, has_offset=True)
        packed.put_affine(0, values, scales, offsets, group)
        return packed

    @classmethod
    def stacked(cls, parts: Sequence["Packed"]) -> "Packed":
        """Make one matrix of several, each below the last and stored in its own way, in 8 or 4 bits.

        All but the last one have a multiple of `PAIR` rows.
        """
        *above, stacked = parts
        for part in reversed(above):
            own, both = part.matrix, cls.__new__(cls)
            both._library, both.bytes, both.below = part._library, part.bytes, stacked
            rows, below = own.rows + stacked.matrix.rows, ctypes.addressof(stacked.matrix)
            both.matrix = Matrix(own.data, rows, own.columns, own.weights, own.has_offset, below)
            stacked = both
        return stacked

    @property
    def parts(self) -> tuple["Packed", ...]:
        """The matrix, and what is below it, each stored in one way."""
        return (self, *(self.below.parts if self.below else ()))

    def put(self, start: int, values: np.ndarray) -> None:
        """Pack some of the rows, as `of` does: whole pairs of tiles, `PAIR` rows, or the last rows.

        Raises:
            ValueError: the first row is not the first of a pair, or the rows do not fit into the matrix.
        """
        values = np.ascontiguousarray(values, np.float32)
        check(self._library.fn_pack(self._place(start, values), values, *values.shape, self.matrix.weights))

    def put_affine(
        self, start: int, values: np.ndarray, scales: np.ndarray, offsets: np.ndarray, group: int = GROUP
    ) -> None:
        """Pack some of the rows, as `of_affine` does; see `put`."""
        values = np.ascontiguousarray(values)
        scales, offsets = (np.ascontiguousarray(each, np.float32) for each in (scales, offsets))
        place, groups = self._place(start, values), (len(values), values.shape[1] // group)
        if not (scales.shape == offsets.shape == groups and self.matrix.has_offset):
            raise ValueError(f"{scales.shape} scales and {offsets.shape} offsets do not fit {groups} groups")
        check(self._library.fn_pack_affine(place, values, scales, offsets, *values.shape, group))

    def put_4_bits(
        self, start: int, values: np.ndarray, scales: np.ndarray, offsets: np.ndarray, group: int = GROUP
    ) -> None:
        """Pack some of the rows of an `INT4` or `INT4_HALF` matrix; see `put`.

        Values are (rows, columns) uint8 below 16. Scales and offsets, (rows, columns / group) each, are the bits
        of bfloat16 or float16, as uint16.
        """
        values, scales, offsets = (np.ascontiguousarray(each) for each in (values, scales, offsets))
        place, groups = self._place(start, values), (len(values), values.shape[1] // group)
        if not scales.shape == offsets.shape == groups:
            raise ValueError(f"{scales.shape} scales and {offsets.shape} offsets do not fit {groups} groups")
        shape, weights = values.shape, self.matrix.weights
        check(self._library.fn_pack_4_bits(place, values, scales, offsets, *shape, group, weights))

    def _place(self, row: int, values: np.ndarray) -> int:
        """Return the address of rows that begin a pair of tiles and are all within the matrix."""
        matrix, (rows, columns) = self.matrix, values.shape
        end = row + rows
        is_whole = row % PAIR == 0 and (end % PAIR == 0 or end == matrix.rows)
        if not (is_whole and row >= 0 and end <= matrix.rows and columns == matrix.columns):
            shape = f"{matrix.rows} x {matrix.columns}"
            raise ValueError(f"rows {row} to {end} of {columns} columns are no whole tiles of a {shape} matrix")
        return int(matrix.data) + packed_size(
            self._library, row, matrix.columns, matrix.weights, matrix.has_offset
        )


def check(status: int) -> None:
    """Raise a MemoryError or ValueError for what a function returned, unless it succeeded."""
    if status == -1:
        raise MemoryError("not enough memory for the CPU engine")
    if status == -3:
        raise ValueError("this CPU does not have the instruction set")
    if status:
        raise ValueError("the CPU engine refuses its arguments")

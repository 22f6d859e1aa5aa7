"""Transformer layers computed by the C library over whole sequences, without padding.

`models.layers` and the networks in `models` are the same on MLX, and what this is compared with.
"""

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from funasr_cli.native.library import BITS, TYPES, Block, Convolution, DenseLayer, Linear, Norm, Packed, check
from funasr_cli.native.threads import usual_threads

IDENTITY, RELU, GELU, SWIGLU = range(4)  # activations
LAYER_NORM, RMS_NORM = range(2)


class Weights(Protocol):
    """Reads a network's tensors by their names within it."""

    type: int  # how matrices are packed

    def matrix(self, *names: str, interleave: bool = False) -> Packed:
        """Pack the matrices of these names, one below the other; with `interleave`, 16 rows of each in turns."""

    def vector(self, name: str) -> np.ndarray:
        """Read a tensor as contiguous float32."""


class Batch(NamedTuple):
    """Sequences one after the other."""

    x: np.ndarray  # (frames of all, width) float32
    offsets: np.ndarray  # (sequences + 1,) int32: where each begins, and the end

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> "Batch":
        """Join (length, width) arrays."""
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        return cls(np.ascontiguousarray(np.concatenate(rows), np.float32), offsets)

    def split(self) -> list[np.ndarray]:
        """Return the (length, width) array of each sequence."""
        return np.split(self.x, self.offsets[1:-1])


class NativeEncoder:
    """Computes layers on a CPU: threads and working memory, which several networks may share."""

    def __init__(self, loaded: ctypes.CDLL, threads: int | None = None, instruction_set: str | None = None):
        """Make an encoder.

        Args:
            loaded: the library.
            threads: None takes `usual_threads`.
            instruction_set: None takes the fastest.

        Raises:
            MemoryError: there is not enough.
            ValueError: the CPU lacks the instruction set.
        """
        self.library, made = loaded, ctypes.c_void_p()
        self.threads = usual_threads() if threads is None else threads
        check(
            loaded.fn_encoder_new(ctypes.byref(made), self.threads, instruction_set and instruction_set.encode())
        )
        self._encoder, self._lock = made.value, threading.Lock()
        # Not at exit: a daemon thread may still compute, and the system takes the memory back.
        weakref.finalize(self, loaded.fn_encoder_free, self._encoder).atexit = False

    @property
    def instruction_set(self) -> str:
        """What it computes with."""
        return str(self.library.fn_encoder_instruction_set(self._encoder).decode())

    def block(self, block: Block, batch: Batch, source: Batch | None = None) -> Batch:
        """Run one layer over a batch, with cross-attention to `source` if the layer has it.

        Raises:
            ValueError: the layer's weights do not fit together, or the batch is not as wide as they are.
        """
        _require(batch.x, block.qkv.matrix.columns, batch.offsets)
        if source:
            _require(source.x, block.cross_key_value.matrix.columns, source.offsets)
        out = np.empty((len(batch.x), block.output.matrix.rows), np.float32)
        addresses = (source.x.ctypes.data, source.offsets.ctypes.data) if source else (None, None)
        arguments = (block, len(batch.offsets) - 1, batch.offsets, batch.x.ctypes.data, *addresses, out)
        self._call(self.library.fn_run_block, *arguments)
        return Batch(out, batch.offsets)

    def linear(self, linear: Linear, x: np.ndarray, activation: int = IDENTITY) -> np.ndarray:
        """Compute activation(product + bias): (frames, in) -> (frames, out); out is half the rows with SwiGLU."""
        _require(x, linear.matrix.columns)
        outputs = linear.matrix.rows // (2 if activation == SWIGLU else 1)
        out = np.empty((len(x), outputs), np.float32)
        self._call(self.library.fn_run_linear, linear, activation, len(x), x, out)
        return out

    def keys_and_values(self, linear: Linear, heads: int, x: np.ndarray, out: np.ndarray) -> None:
        """Compute those of a cross-attention, (rows, in) -> `source_bytes`, in the type of the matrix."""
        _require(x, linear.matrix.columns)
        weights, head_dim = linear.matrix.weights, linear.matrix.rows // (2 * heads)
        if out.nbytes != source_bytes(self.library, heads, head_dim, len(x), weights):
            raise ValueError(f"the CPU engine refuses to write keys and values into {out.nbytes} bytes")
        self._call(self.library.fn_keys_and_values, linear, heads, len(x), x, weights, out)

    def convolve(
        self,
        convolution: Convolution,
        x: np.ndarray,
        out: np.ndarray,
        added: np.ndarray | None = None,
        starts: tuple[int, int] = (0, 0),
    ) -> None:
        """Compute a convolution from one array to another, and add a third one to it.

        Args:
            convolution: the weights, and the steps from value to value in both arrays.
            x: the input.
            out: the output.
            added: what is added, at the same places as in the output; None for nothing.
            starts: the place of the first value in the input and in the output.

        Raises:
            ValueError: the matrix does not fit, or the steps lead out of an array.
        """
        c, matrix, arrays = convolution, convolution.linear.matrix, [x, out, out if added is None else added]
        ends = [
            starts[0] + (c.parts - 1) * c.part_step + matrix.columns // max(c.parts, 1),
            starts[1] + matrix.rows,
        ]
        for place, steps in enumerate((c.input, c.output)):
            ends[place] += (c.images - 1) * steps.image + (c.lines - 1) * steps.line + (c.rows - 1) * steps.row
        for array, end in zip(arrays, (*ends, ends[1]), strict=True):
            if array.dtype != np.float32 or not array.flags.c_contiguous or end > array.size or min(starts) < 0:
                raise ValueError(f"the CPU engine refuses an array of {array.shape}, not {end} float32 values")
        addresses = [
            array.ctypes.data + 4 * start for array, start in zip(arrays, (*starts, starts[1]), strict=True)
        ]
        from_, to, more = addresses
        self._call(self.library.fn_convolve, c, from_, None if added is None else more, to)

    def dense_layer(self, layer: DenseLayer, x: np.ndarray) -> None:
        """Run one layer of a densely connected network over (images, frames, stride), which it adds values to."""
        self._call(self.library.fn_run_dense_layer, layer, *x.shape, x)

    def norm(self, norm: Norm, x: np.ndarray) -> np.ndarray:
        """Norm each row of (frames, width)."""
        out = np.empty_like(x)
        self._call(self.library.fn_run_norm, norm, *x.shape, x, out)
        return out

    def highest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's highest place, the first of several, and the log of its sum of exponentials.

        (frames, classes) -> (frames,) each.
        """
        places, log_totals = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
        self._call(self.library.fn_highest, *x.shape, x, places, log_totals)
        return places, log_totals

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        """Call a function of the library, which computes for one thread at a time; Python runs meanwhile."""
        with self._lock:
            check(function(self._encoder, *arguments))


def source_bytes(loaded: ctypes.CDLL, heads: int, head_dim: int, rows: int, weights: int) -> int:
    """Return the bytes of the keys and values of a layer's cross-attention: float16, or 8 bits with `INT8`."""
    return int(loaded.fn_source_size(heads, head_dim, rows, weights))


def _require(x: np.ndarray, width: int, offsets: np.ndarray | None = None) -> None:
    """Raise a ValueError for other rows than the library will read, (frames, width)."""
    if x.ndim != 2 or x.shape[1] != width or (offsets is not None and offsets[-1] != len(x)):
        raise ValueError(
            f"the CPU engine refuses {x.shape} values: it needs rows of {width}, up to the last offset"
        )


class NativeNetwork:
    """Base class of networks on a `NativeEncoder`: keeps the memory that the library points to.

    Layers are run one by one, so that Ctrl-C waits for one of them only.
    """

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: Any):
        self.encoder, self._weights, self.config = encoder, weights, config
        self._kept: list[Packed | np.ndarray] = []

    @staticmethod
    def working_bytes(config: Any) -> int:
        """Return the memory for a computation, without the weights; 0 where it depends on the recording."""
        return 0

    @property
    def size_bytes(self) -> int:
        """Bytes of its packed weights."""
        return sum(part.bytes.nbytes for part in self._packed)

    @property
    def type(self) -> str:
        """Number type of its products' inputs."""
        return TYPES[self._weights.type]

    @property
    def bits(self) -> set[int]:
        """Bits of its packed weights."""
        return {BITS[part.matrix.weights] for part in self._packed}

    @property
    def _packed(self) -> list[Packed]:
        return [part for kept in self._kept if isinstance(kept, Packed) for part in kept.parts]

    @property
    def instruction_set(self) -> str:
        """What it computes with."""
        return self.encoder.instruction_set

    def _linear(self, *names: str, unbiased: str | None = None) -> Linear:
        """Pack linear layers as one, with their biases; all have the same width if one is ``unbiased``."""
        linear = self._unbiased(*names)
        none = np.zeros(linear.matrix.rows // len(names), np.float32)
        biases = [
            none if name.rpartition(".")[2] == unbiased else self._weights.vector(f"{name}.bias") for name in names
        ]
        linear.bias = self._address(np.concatenate(biases))
        return linear

    def _unbiased(self, *names: str, interleave: bool = False) -> Linear:
        """Pack linear layers without biases as one; see `Weights.matrix`."""
        self._kept.append(packed := self._weights.matrix(*names, interleave=interleave))
        return Linear(packed.matrix, None)

    def _norm(self, name: str, eps: float) -> Norm:
        """Read a layer norm."""
        weights, bias = (self._weights.vector(f"{name}.{part}") for part in ("weight", "bias"))
        return Norm(self._address(weights), self._address(bias), eps, LAYER_NORM, len(weights))

    def _address(self, array: np.ndarray) -> int:
        kept = np.ascontiguousarray(array, np.float32)
        self._kept.append(kept)
        return int(kept.ctypes.data)

    def _run(self, blocks: Sequence[Block], batch: Batch) -> Batch:
        for block in blocks:
            batch = self.encoder.block(block, batch)
        return batch

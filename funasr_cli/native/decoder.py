"""Decoders computed by the C library: rows of different lengths, each in its own slot.

`models` has the same networks on MLX, and they are what these are compared with.
"""

import ctypes
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.native.encoder import NativeEncoder, NativeNetwork, Weights, source_bytes
from funasr_cli.native.library import Layer, Matrix, Norm, Shape, Sources, check

SLOTS = 256  # rows that may have keys and values at a time: more than any batch has
POSITIONS_AT_ONCE = 64  # of prompts: Ctrl-C waits for them, and they need memory; 128 are no faster
PAGE = 64  # positions of a slot that are allocated together
HALF_BYTES = 2  # of a key's or value's number


class Tables(NamedTuple):
    """A decoder's embeddings, last norm and head."""

    final_norm: Norm
    embeddings: Matrix
    head: Matrix


class Source(NamedTuple):
    """What a row attends to with cross-attention."""

    keys_and_values: np.ndarray  # (layers, source_bytes) uint8
    rows: int  # of the encoder


class NativeDecoder(NativeNetwork, ABC):
    """Computes steps of a decoder on a CPU; a subclass for each kind reads its weights."""

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: Any):
        """Make a decoder, whose matrices are `FLOAT32`, or in 8 or 4 bits.

        Args:
            encoder: computes what is not a step; a decoder has the same number of threads itself.
            weights: of the decoder.
            config: sizes.

        Raises:
            MemoryError: there is not enough.
            ValueError: the sizes are not supported (`why_unsupported`).
        """
        super().__init__(encoder, weights, config)
        self._library, self._sizes = encoder.library, self._shape()
        count = self._sizes.num_hidden_layers
        layers, tables = (Layer * count)(*map(self._layer, range(count))), self._tables()
        made = ctypes.c_void_p()
        check(self._library.fn_decoder_new(
            ctypes.byref(made), self._sizes, layers, tables.final_norm, tables.head, tables.embeddings, SLOTS,
            encoder.threads, encoder.instruction_set.encode(),
        ))  # fmt: skip
        self._decoder = made.value
        # Not at exit: a daemon thread may still compute, and the system takes the memory back.
        weakref.finalize(self, self._library.fn_decoder_free, self._decoder).atexit = False
        self._lock = threading.Lock()
        # By slot, until they end. Without callbacks, in which Python would swallow a Ctrl-C.
        self._rows = dict[int, weakref.ref[Row]]()

    @staticmethod
    @abstractmethod
    def why_unsupported(config: Any) -> str | None:
        """Return what keeps the library from computing a decoder of this shape; None if nothing does."""

    @abstractmethod
    def _shape(self) -> Shape:
        """Return the sizes."""

    @abstractmethod
    def _layer(self, number: int) -> Layer:
        """Pack a layer."""

    @abstractmethod
    def _tables(self) -> Tables:
        """Pack the rest."""

    @property
    def dtype(self) -> mx.Dtype:
        """Type of embeddings and hidden states."""
        return mx.float32

    def row_bytes(self, columns: int) -> int:
        """Return the memory of a row of this length: whole pages of keys and values."""
        sizes = self._sizes
        values = 2 * sizes.num_hidden_layers * sizes.num_key_value_heads * sizes.head_dim  # of a token
        return -(-columns // PAGE) * PAGE * values * HALF_BYTES

    def embed(self, ids: Sequence[int] | mx.array) -> np.ndarray:
        """Look up embeddings: token ids -> (tokens, hidden) float32."""
        out = np.empty((len(ids), self._sizes.hidden_size), np.float32)
        self._call(self._library.fn_embed, np.asarray(ids, np.int32), len(ids), out)
        return out

    @property
    def free_slots(self) -> int:
        """Number of rows that may still be taken."""
        return SLOTS - sum(kept() is not None for kept in list(self._rows.values()))

    def new_row(self, source: Source | None = None) -> "Row":
        """Take a slot for a new row, and give back those of rows that were forgotten without their end.

        With cross-attention, the row attends to ``source``. An exception at any moment, as of Ctrl-C, leaves at
        most a slot that the next row takes.

        Raises:
            MemoryError: there is no slot.
            ValueError: the source is of another shape or type.
        """
        if source is not None:
            self._require_source(source)
        with self._lock:
            for slot, kept in list(self._rows.items()):
                if kept() is None:
                    self._library.fn_clear_slot(self._decoder, slot)
                    self._rows.pop(slot, None)
            free = next((slot for slot in range(SLOTS) if slot not in self._rows), None)
            if free is None:
                raise MemoryError("too many rows for the CPU engine")
            row = Row(self, free, source)
            self._rows[free] = weakref.ref(row)
            return row

    def end(self, row: "Row") -> None:
        """Give back the slot of a row, which is not used again."""
        # Without the lock, since nothing else computes with this slot.
        if (kept := self._rows.get(row.slot)) and kept() is row:
            self._library.fn_clear_slot(self._decoder, row.slot)
            self._rows.pop(row.slot, None)

    def run(
        self, rows: Sequence["Row"], inputs: Sequence[np.ndarray], watched: Sequence[int] = ()
    ) -> list[np.ndarray]:
        """Append (new, hidden) embeddings to each row; return the hidden states after the final norm of each.

        Prompts are read in pieces. A row that has failed midway keeps its old length. With ``watched`` heads of
        the cross-attention, as layer * heads + head, their scores before the softmax are returned instead,
        (heads, new, source rows) of each row.

        Raises:
            ValueError: the embeddings have another width, or the rows' sources are not of one length.
        """
        for each in inputs:
            self._require_hidden(each)
        counts = [len(each) for each in inputs]
        slots = np.repeat(np.array([row.slot for row in rows], np.int32), counts)
        positions = np.concatenate(
            [row.length + np.arange(count) for row, count in zip(rows, counts, strict=True)]
        ).astype(np.int32)
        x = np.ascontiguousarray(np.concatenate(inputs), np.float32)  # (pairs, hidden)
        hidden, scores = np.empty_like(x), list[np.ndarray]()
        sources = [row.source for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        x = self._placed(x, positions)
        for start in range(0, len(x), POSITIONS_AT_ONCE):
            piece = slice(start, start + POSITIONS_AT_ONCE)
            attended, kept = self._attended(sources[piece], watched)
            self._call(
                self._library.fn_step,
                len(x[piece]),
                slots[piece],
                positions[piece],
                x[piece],
                attended,
                hidden[piece].ctypes.data,
            )
            scores.append(kept)
        for row, count in zip(rows, counts, strict=True):
            row.length += count
        borders = np.cumsum(counts)[:-1]
        return np.split(np.concatenate(scores, axis=1), borders, axis=1) if watched else np.split(hidden, borders)

    def _placed(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Add learned positions (n,) to the embeddings (n, hidden), if the decoder has them."""
        return x

    def _attended(
        self, sources: Sequence[Source | None], watched: Sequence[int]
    ) -> tuple[Sources | None, np.ndarray]:
        """Return the sources of a step's positions, and the array of the watched scores."""
        present = [source for source in sources if source is not None]
        if not present:
            return None, np.empty(0)
        if len(present) < len(sources) or len({source.rows for source in present}) > 1:
            raise ValueError("the CPU engine refuses rows together whose sources are not of one length")
        addresses = (ctypes.c_void_p * len(sources))(*(each.keys_and_values.ctypes.data for each in present))
        heads, rows = (ctypes.c_int32 * len(watched))(*watched), present[0].rows
        scores = np.empty((len(watched), len(sources), rows), np.float32)
        return Sources(addresses, rows, len(watched), heads, scores.ctypes.data), scores

    def _require_hidden(self, x: np.ndarray) -> None:
        """Raise a ValueError for other rows than the library will read, (n, hidden)."""
        if x.ndim != 2 or x.shape[1] != self._sizes.hidden_size:
            raise ValueError(
                f"the CPU engine refuses {x.shape} values: it needs rows of {self._sizes.hidden_size}"
            )

    def _source_shape(self, rows: int) -> tuple[int, int]:
        """Return the shape of a source's keys and values."""
        sizes = self._sizes
        heads, head_dim = sizes.num_attention_heads, sizes.head_dim
        return sizes.num_hidden_layers, source_bytes(self._library, heads, head_dim, rows, sizes.weights)

    def _require_source(self, source: Source) -> None:
        """Raise a ValueError for anything but what the library will read as a source."""
        found, wanted = source.keys_and_values, self._source_shape(source.rows)
        if found.shape != wanted or 0 in wanted or found.dtype != np.uint8 or not found.flags.c_contiguous:
            raise ValueError(
                f"the CPU engine refuses a source of {found.shape} {found.dtype} values for {source.rows} rows"
            )

    def choose(
        self, hidden: np.ndarray, excluded: np.ndarray | None = None, first_of_group: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the likeliest token after each of (n, hidden) states, and its log-probability: (n,) each.

        Args:
            hidden: the states.
            excluded: (n, vocab) bool, tokens that are not chosen; None excludes none.
            first_of_group: (n,) int32, given with ``excluded``. If all tokens from this one on are together
                likelier than the likeliest before, one of them is chosen. The vocabulary's size: no such group.
        """
        return self._logits(hidden, None, excluded, first_of_group)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Compute logits: (n, hidden) -> (n, vocab) float32."""
        out = np.empty((len(hidden), self._sizes.vocab_size), np.float32)
        self._logits(hidden, out)
        return out

    def _logits(
        self,
        hidden: np.ndarray,
        out: np.ndarray | None,
        excluded: np.ndarray | None = None,
        first_of_group: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        self._require_hidden(hidden)
        n = len(hidden)
        ids, logprobs = np.empty(n, np.int32), np.empty(n, np.float32)
        if excluded is not None:
            excluded = np.ascontiguousarray(excluded, np.bool_)
            if excluded.shape != (n, self._sizes.vocab_size) or first_of_group is None or len(first_of_group) != n:
                raise ValueError(f"the CPU engine refuses to exclude tokens by {excluded.shape} values")
            first_of_group = np.ascontiguousarray(first_of_group, np.int32)
        addresses = (None if array is None else array.ctypes.data for array in (excluded, first_of_group, out))
        self._call(self._library.fn_logits, n, hidden, *addresses, ids, logprobs)
        return ids, logprobs

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        """Call a function of the library, which computes for one thread at a time; Python runs meanwhile."""
        with self._lock:
            check(function(self._decoder, *arguments))

    def copied(self, row: "Row") -> "Row":
        """Return a new row with the same keys and values."""
        new = self.new_row(row.source)
        self._call(self._library.fn_copy_slot, row.slot, new.slot, row.length)
        new.length = row.length
        return new


class Row:
    """A slot of the decoder: keys and values of the positions before `length`, and those of `source`.

    To take positions back, lower `length`: what follows is overwritten.
    """

    def __init__(self, decoder: NativeDecoder, slot: int, source: Source | None):
        self._decoder, self.slot, self.length, self.source = decoder, slot, 0, source

    def end(self) -> None:
        """Give the slot back."""
        self._decoder.end(self)

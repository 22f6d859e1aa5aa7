"""A Qwen3 decoder computed by the C library: rows of different lengths, each in its own slot.

`models.qwen3.Qwen3` is the same network on MLX, and what this is compared with.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.native.library import FLOAT32, GROUP, PAIR, TILE, TYPES, Layer, Matrix, Packed, Shape, check

SLOTS = 256  # rows that may have keys and values at a time: more than any batch has
POSITIONS_AT_ONCE = 64  # of prompts: Ctrl-C waits for them, and they need memory; 128 are no faster
PAGE = 64  # positions of a slot that are allocated together
MOST_THREADS = 16  # a step has too little work for more
CGROUP = Path("/sys/fs/cgroup")
HALF_BYTES = 2  # of a key's or value's number
HEAD = "lm_head"
EMBEDDINGS = "model.embed_tokens"

SIZES = [field[0] for field in Shape._fields_ if field[0] != "weights"]


def why_unsupported(config: Qwen3Config) -> str | None:
    """Return what keeps the library from computing a decoder of this shape; None if nothing does."""
    widths = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "the queries' width": config.num_attention_heads * config.head_dim,
    }
    for name, width in widths.items():
        if width % GROUP:
            return f"{name} is {width}, not a multiple of {GROUP}"
    if config.head_dim % TILE:
        return f"head_dim is {config.head_dim}, not a multiple of {TILE}"
    if (width := config.num_key_value_heads * config.head_dim) % PAIR:
        return f"the keys' width is {width}, not a multiple of {PAIR}"
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        return f"num_attention_heads is {heads}, not a multiple of num_key_value_heads, {kv_heads}"
    return "its attention has biases" if config.attention_bias else None


def interleaved(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Put TILE rows of the gate before the same rows of up: twice (rows, columns) -> (2 * rows, columns)."""
    rows, columns = gate.shape
    both = np.stack([each.reshape(rows // TILE, TILE, columns) for each in (gate, up)], axis=1)
    return both.reshape(2 * rows, columns)


class NativeDecoder:
    """Computes steps of a decoder on a CPU."""

    def __init__(
        self,
        loaded: ctypes.CDLL,
        config: Qwen3Config,
        weights: int,
        matrix: Callable[..., Packed],
        norm: Callable[[str], np.ndarray],
        threads: int | None = None,
        instruction_set: str | None = None,
    ):
        """Make a decoder.

        Args:
            loaded: the library.
            config: sizes.
            weights: `FLOAT32` or `INT8`.
            matrix: pack the matrices of these names, one below the other; with ``interleave``, 16 rows of each in
                turns.
            norm: return the (width,) float32 weights of a norm.
            threads: None takes `usual_threads`.
            instruction_set: None takes the fastest.

        Raises:
            MemoryError: there is not enough.
            ValueError: the sizes are not supported (`why_unsupported`), or the CPU lacks the instruction set.
        """
        self.config = config
        self._library, self._weights = loaded, weights
        self._packed: list[Packed] = []  # keeps the memory that the library points to

        def pack(*names: str, interleave: bool = False) -> Matrix:
            self._packed.append(matrix(*names, interleave=interleave))
            return self._packed[-1].matrix

        norms = []

        def pointer(name: str) -> int:
            norms.append(np.ascontiguousarray(norm(name), np.float32))
            return norms[-1].ctypes.data

        layers = (Layer * config.num_hidden_layers)()
        for number, layer in enumerate(layers):
            prefix = f"model.layers.{number}"
            attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
            layer.qkv = pack(*(f"{attention}.{name}_proj" for name in "qkv"))
            layer.output = pack(f"{attention}.o_proj")
            layer.gate_up = pack(f"{mlp}.gate_proj", f"{mlp}.up_proj", interleave=True)
            layer.down = pack(f"{mlp}.down_proj")
            layer.input_norm = pointer(f"{prefix}.input_layernorm")
            layer.attention_norm = pointer(f"{prefix}.post_attention_layernorm")
            layer.query_norm, layer.key_norm = pointer(f"{attention}.q_norm"), pointer(f"{attention}.k_norm")
        embeddings = pack(EMBEDDINGS)
        head = embeddings if config.tie_word_embeddings else pack(HEAD)
        sizes = {name: getattr(config, name) for name in SIZES}
        made = ctypes.c_void_p()
        check(loaded.fn_decoder_new(
            ctypes.byref(made), Shape(weights=weights, **sizes), layers,
            np.ascontiguousarray(norm("model.norm"), np.float32), head, embeddings, SLOTS,
            usual_threads() if threads is None else threads, instruction_set and instruction_set.encode(),
        ))  # fmt: skip
        self._decoder = made.value
        # Not at exit: a daemon thread may still compute, and the system takes the memory back.
        weakref.finalize(self, loaded.fn_decoder_free, self._decoder).atexit = False
        self._lock = threading.Lock()
        # By slot, until they end. Without callbacks, in which Python would swallow a Ctrl-C.
        self._rows = dict[int, weakref.ref[Row]]()

    @property
    def instruction_set(self) -> str:
        """What it computes with."""
        return self._library.fn_decoder_instruction_set(self._decoder).decode()

    @property
    def size_bytes(self) -> int:
        """Bytes of its packed weights."""
        return sum(packed.bytes.nbytes for packed in self._packed)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of embeddings and hidden states."""
        return mx.float32

    @property
    def type(self) -> str:
        """Number type of its products."""
        return TYPES[self._weights]

    def row_bytes(self, columns: int) -> int:
        """Return the memory of a row of this length: whole pages of keys and values."""
        return -(-columns // PAGE) * PAGE * self.config.cache_values_a_token * HALF_BYTES

    def embed(self, ids: Sequence[int] | mx.array) -> np.ndarray:
        """Look up embeddings: token ids -> (tokens, hidden) float32."""
        out = np.empty((len(ids), self.config.hidden_size), np.float32)
        self._call(self._library.fn_embed, np.asarray(ids, np.int32), len(ids), out)
        return out

    @property
    def free_slots(self) -> int:
        """Number of rows that may still be taken."""
        return SLOTS - sum(kept() is not None for kept in list(self._rows.values()))

    def new_row(self) -> "Row":
        """Take a slot for a new row, and give back those of rows that were forgotten without their end.

        An exception at any moment, as of Ctrl-C, leaves at most a slot that the next row takes.
        """
        with self._lock:
            for slot, kept in list(self._rows.items()):
                if kept() is None:
                    self._library.fn_clear_slot(self._decoder, slot)
                    self._rows.pop(slot, None)
            free = next((slot for slot in range(SLOTS) if slot not in self._rows), None)
            if free is None:
                raise MemoryError("too many rows for the CPU engine")
            row = Row(self, free)
            self._rows[free] = weakref.ref(row)
            return row

    def end(self, row: "Row") -> None:
        """Give back the slot of a row, which is not used again."""
        # Without the lock, since nothing else computes with this slot.
        if (kept := self._rows.get(row.slot)) and kept() is row:
            self._library.fn_clear_slot(self._decoder, row.slot)
            self._rows.pop(row.slot, None)

    def run(self, rows: Sequence["Row"], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Append (new, hidden) embeddings to each row; return the hidden states after the final norm of each.

        Prompts are read in pieces. A row that has failed midway keeps its old length.

        Raises:
            ValueError: the embeddings have another width.
        """
        for each in inputs:
            self._require_hidden(each)
        counts = [len(each) for each in inputs]
        slots = np.repeat(np.array([row.slot for row in rows], np.int32), counts)
        positions = np.concatenate(
            [row.length + np.arange(count) for row, count in zip(rows, counts, strict=True)]
        ).astype(np.int32)
        x = np.ascontiguousarray(np.concatenate(inputs), np.float32)  # (pairs, hidden)
        hidden = np.empty_like(x)
        for start in range(0, len(x), POSITIONS_AT_ONCE):
            piece = slice(start, start + POSITIONS_AT_ONCE)
            self._call(
                self._library.fn_step,
                len(x[piece]),
                slots[piece],
                positions[piece],
                x[piece],
                hidden[piece].ctypes.data,
            )
        for row, count in zip(rows, counts, strict=True):
            row.length += count
        return np.split(hidden, np.cumsum(counts)[:-1])

    def _require_hidden(self, x: np.ndarray) -> None:
        """Raise a ValueError for other rows than the library will read, (n, hidden)."""
        if x.ndim != 2 or x.shape[1] != self.config.hidden_size:
            raise ValueError(
                f"the CPU engine refuses {x.shape} values: it needs rows of {self.config.hidden_size}"
            )

    def choose(self, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the likeliest token after each of (n, hidden) states, and its log-probability: (n,) each."""
        self._require_hidden(hidden)
        ids, logprobs = np.empty(len(hidden), np.int32), np.empty(len(hidden), np.float32)
        self._call(self._library.fn_logits, len(hidden), hidden, None, ids, logprobs)
        return ids, logprobs

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Compute logits: (n, hidden) -> (n, vocab) float32."""
        self._require_hidden(hidden)
        out = np.empty((len(hidden), self.config.vocab_size), np.float32)
        ids, logprobs = np.empty(len(hidden), np.int32), np.empty(len(hidden), np.float32)
        self._call(self._library.fn_logits, len(hidden), hidden, out.ctypes.data, ids, logprobs)
        return out

    def logits_after(self, embeddings: mx.array | np.ndarray, count: int) -> np.ndarray:
        """Compute the logits after each of the last positions of one row: (columns, hidden) -> (count, vocab)."""
        row = self.new_row()
        try:
            [hidden] = self.run([row], [np.array(embeddings)])
        finally:
            row.end()
        return self.logits(hidden[-count:])

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        """Call a function of the library, which computes for one thread at a time; Python runs meanwhile."""
        with self._lock:
            check(function(self._decoder, *arguments))

    def copied(self, row: "Row") -> "Row":
        """Return a new row with the same keys and values."""
        new = self.new_row()
        self._call(self._library.fn_copy_slot, row.slot, new.slot, row.length)
        new.length = row.length
        return new


def usual_threads() -> int:
    """Return the number of threads: the cores that may be used, at most `MOST_THREADS` and OMP_NUM_THREADS."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": 4, then 2 in each of them
    limit = int(wanted) if wanted.isdecimal() and int(wanted) else MOST_THREADS
    return max(1, min(len(os.sched_getaffinity(0)), limit, MOST_THREADS, *_container_cores()))


def _container_cores() -> Iterator[int]:
    """Yield the cores that the control group's quota allows, rounded down; nothing without a quota.

    More threads than that would all be stopped for the rest of each period.
    """
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()  # "max 100000" without a quota
        yield int(quota) // int(period)
    with suppress(OSError, ValueError):  # version 1
        quota, period = ((CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            yield int(quota) // int(period)


class Row:
    """A slot of the decoder: keys and values of the positions before `length`.

    To take positions back, lower `length`: what follows is overwritten.
    """

    def __init__(self, decoder: NativeDecoder, slot: int):
        self._decoder, self.slot, self.length = decoder, slot, 0

    def end(self) -> None:
        """Give the slot back."""
        self._decoder.end(self)


def dense_matrices(loaded: ctypes.CDLL, arrays: Mapping[str, np.ndarray], weights: int) -> Callable[..., Packed]:
    """Return what packs matrices out of (rows, columns) float32 arrays, for `NativeDecoder`."""

    def matrix(*names: str, interleave: bool = False) -> Packed:
        parts = [np.asarray(arrays[f"{name}.weight"], np.float32) for name in names]
        return Packed.of(loaded, interleaved(*parts) if interleave else np.concatenate(parts), weights)

    return matrix


__all__ = ["FLOAT32", "NativeDecoder", "Row", "dense_matrices", "interleaved", "why_unsupported"]

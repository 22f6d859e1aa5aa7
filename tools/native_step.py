"""Measure steps of the CPU engine's decoder at the published size, with random weights, and reading them once.

python -m tools.native_step --rows 1,4,8,16 --prompts 75,100
"""

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np

from funasr_cli.checkpoints.quantize import Groups
from funasr_cli.compute.backend import mx
from funasr_cli.families.native import Stored
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.native.decoder import NativeDecoder, Row
from funasr_cli.native.encoder import NativeEncoder
from funasr_cli.native.library import (
    FLOAT32,
    GROUP,
    INT4,
    INT8,
    PAIR,
    SLOWEST,
    Packed,
    instruction_sets,
    library,
    why_missing,
)
from funasr_cli.native.qwen3 import NativeQwen3
from funasr_cli.native.threads import usual_threads

CONFIG = Qwen3Config(
    hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
    intermediate_size=3072, vocab_size=151936, rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=True,
    attention_bias=False,
)  # fmt: skip
OUTPUTS = {
    "q_proj": 2048, "k_proj": 1024, "v_proj": 1024, "o_proj": 1024, "gate_proj": 3072, "up_proj": 3072,
    "down_proj": 1024, "embed_tokens": CONFIG.vocab_size,
}  # fmt: skip
INPUTS = {"o_proj": 2048, "down_proj": 3072}  # others: hidden_size
WEIGHTS = {"int8": INT8, "int4": INT4, "float32": FLOAT32}  # int4: weights; inputs of products are int8
PIECE = 8 * PAIR  # rows that are packed once and repeated: random values differ enough, and packing takes long


class RandomWeights:
    """Random matrices, the same for all instruction sets, and norms of 1; see `native.encoder.Weights`."""

    def __init__(self, packed_type: int):
        self.type = INT8 if packed_type == INT4 else packed_type
        self._make = random_matrices(packed_type)
        self._made = dict[tuple[str, ...], Packed]()

    def matrix(self, *names: str, interleave: bool = False) -> Packed:
        """Pack a matrix when it is first asked for."""
        if names not in self._made:
            self._made[names] = self._make(*names, interleave=interleave)
        return self._made[names]

    def vector(self, name: str) -> np.ndarray:
        """Return the weights of a norm."""
        is_narrow = name.endswith(("q_norm.weight", "k_norm.weight"))
        return np.ones(CONFIG.head_dim if is_narrow else CONFIG.hidden_size, np.float32)


def random_matrices(weights: int) -> Callable[..., Packed]:
    """Return what makes packed matrices of random weights."""
    loaded, rng, pieces = library(), np.random.default_rng(1), dict[int, Packed]()
    assert loaded is not None

    def matrix(*names: str, interleave: bool = False) -> Packed:
        parts = [name.rpartition(".")[2] for name in names]
        rows, columns = sum(OUTPUTS[part] for part in parts), INPUTS.get(parts[0], CONFIG.hidden_size)
        if columns not in pieces:
            values = rng.standard_normal((PIECE, columns), np.float32) / np.float32(columns**0.5)
            pieces[columns] = in_4_bits(loaded, values) if weights == INT4 else Packed.of(loaded, values, weights)
        packed = Packed(loaded, rows, columns, weights, has_offset=weights == INT4)
        packed.bytes[:] = np.resize(pieces[columns].bytes, packed.bytes.size)
        return packed

    return matrix


def in_4_bits(loaded: ctypes.CDLL, values: np.ndarray) -> Packed:
    """Pack (rows, columns) float32, rounded to 4 bits by MLX."""
    weights, scales, offsets = mx.quantize(mx.array(values).astype(mx.bfloat16), group_size=GROUP, bits=4)
    rows, columns = values.shape
    packed = Packed(loaded, rows, columns, INT4, has_offset=True)
    stored = Stored(weights, scales, offsets, Groups(4, GROUP))
    packed.put_4_bits(0, *stored.four_bits(slice(None)))
    return packed


def milliseconds(
    calls: Sequence[Callable[[], object]], trials: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Return the sorted times of each call. They take turns, after a first time that is not measured."""
    times: list[list[float]] = [[] for _ in calls]
    for trial in range(-1, trials):
        for call, each in zip(calls, times, strict=True):
            start = clock()
            call()
            if trial >= 0:
                each.append(1000 * (clock() - start))
    return [sorted(each) for each in times]


def reading(decoder: NativeDecoder, threads: int) -> Callable[[], object]:
    """Return what reads the decoder's packed weights once, without computing anything else of use."""
    words = [packed.bytes.view(np.int32) for packed in decoder._kept if isinstance(packed, Packed)]
    pieces = [piece for each in words for piece in np.array_split(each, max(1, each.nbytes >> 20))]
    pool = ThreadPoolExecutor(threads)

    def read(first: int) -> list[int]:
        return [np.maximum.reduce(piece) for piece in pieces[first::threads]]

    return lambda: list(pool.map(read, range(threads)))


class Steps:
    """A decoder and rows that have read a prompt, for steps that are taken back."""

    def __init__(self, decoder: NativeDecoder, before: int, most_rows: int):
        self.decoder, self.rng = decoder, np.random.default_rng(2)
        first = decoder.new_row()
        decoder.run([first], [self.inputs(before)])
        self.rows = [first, *(decoder.copied(first) for _ in range(most_rows - 1))]

    def inputs(self, positions: int) -> np.ndarray:
        """Make random embeddings, (positions, hidden)."""
        return self.rng.standard_normal((positions, CONFIG.hidden_size), np.float32)

    def step(self, rows: int) -> Callable[[], object]:
        """Return what computes a step of this number of rows, up to their next tokens."""
        chosen, inputs = self.rows[:rows], [self.inputs(1) for _ in range(rows)]
        return lambda: self._run(chosen, inputs)

    def prompt(self, positions: int) -> Callable[[], object]:
        """Return what reads a prompt of this length after that of one row, up to its first token."""
        inputs = [self.inputs(positions)]
        return lambda: self._run(self.rows[:1], inputs)

    def _run(self, rows: Sequence[Row], inputs: Sequence[np.ndarray]) -> None:
        hidden = self.decoder.run(rows, inputs)
        self.decoder.choose(np.stack([each[-1] for each in hidden]))
        for row, each in zip(rows, inputs, strict=True):
            row.length -= len(each)


def numbers(text: str) -> list[int]:
    """Split 1,4,8."""
    return [int(each) for each in text.split(",")]


def main() -> None:
    """Print a table with a row for each instruction set and type: median and shortest time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=numbers, default=[1, 4, 8, 16], help="rows of a step")
    parser.add_argument("--prompts", type=numbers, default=[75, 100], help="positions of a prompt")
    parser.add_argument("--before", type=int, default=100, help="positions before a step")
    parser.add_argument("--sets", type=lambda text: text.split(","), help="instruction sets [all but scalar]")
    parser.add_argument("--dtype", choices=WEIGHTS, nargs="+", default=["int8"], help="measured in turns")
    parser.add_argument("--threads", type=int, default=usual_threads())
    parser.add_argument("--trials", type=int, default=15)
    parser.add_argument(
        "--processor-time", action="store_true", help="of all threads: where other programs are running"
    )
    given = parser.parse_args()
    loaded = library()
    if loaded is None:
        sys.exit(why_missing())
    weights = {dtype: RandomWeights(WEIGHTS[dtype]) for dtype in given.dtype}
    titles = [f"{rows} rows" for rows in given.rows] + [f"prompt of {length}" for length in given.prompts]
    print(f"{'ms':16}", *(f"{title:>14}" for title in [*titles, "read once"]))
    for name in given.sets or [name for name in instruction_sets(loaded) if name != SLOWEST]:
        calls, sizes_gb = list[Callable[[], object]](), dict[str, float]()
        for dtype in given.dtype:
            decoder = NativeQwen3(NativeEncoder(loaded, given.threads, name), weights[dtype], CONFIG)
            steps, sizes_gb[dtype] = Steps(decoder, given.before, max(given.rows)), decoder.size_bytes / 1e9
            calls += [*map(steps.step, given.rows), *map(steps.prompt, given.prompts)]
            calls.append(reading(decoder, given.threads))
        clock = time.process_time if given.processor_time else time.perf_counter
        times = milliseconds(calls, given.trials, clock)
        by_dtype = np.array(times).reshape(len(given.dtype), -1, given.trials)
        for dtype, own in zip(given.dtype, by_dtype, strict=True):
            shown = (f"{f'{median(each):.1f} ({each[0]:.1f})':>14}" for each in own)
            print(f"{name:10} {dtype:5}", *shown, flush=True)
    sizes = ", ".join(f"{size_gb:.2f} GB in {dtype}" for dtype, size_gb in sizes_gb.items())
    print(f"weights: {sizes}; {given.threads} threads, {given.before} positions before")


if __name__ == "__main__":
    main()

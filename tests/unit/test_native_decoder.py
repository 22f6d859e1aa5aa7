"""The decoder of the C library: compared with the one on MLX, and rows in a batch with rows alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.native import LIBRARY, NAMED, SETS, WITHOUT
from support.native_arrays import dequantized, quantized
from support.native_decoder import CONFIG, VOCAB, WIDTH, make, prompt, reference, run

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.cost import RunCost
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.native import library as native_library
from funasr_cli.native import threads as native_threads
from funasr_cli.native.build import LIBRARY as BUILT
from funasr_cli.native.decoder import POSITIONS_AT_ONCE, NativeDecoder
from funasr_cli.native.library import FLOAT32, INT4, INT8, check, load
from funasr_cli.native.qwen3 import why_unsupported
from funasr_cli.native.threads import usual_threads

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
LENGTHS = (1, 3, 64, 65, 131)  # on both sides of a page of keys


@cache
def decoder(weights: int, name: str) -> NativeDecoder:
    return make(weights, name)


@cache
def expected(length: int) -> np.ndarray:
    """Hidden states of a prompt on MLX: (length, hidden)."""
    llm = reference()
    return np.array(llm(mx.array(prompt(length))[None], llm.make_cache(1))[0])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("length", LENGTHS)
def test_float32_equals_mlx(length: int, name: str) -> None:
    """Up to the rounding of keys and values to float16."""
    native = decoder(FLOAT32, name)
    [hidden] = native.run([native.new_row()], [prompt(length)])
    assert np.abs(hidden - expected(length)).max() < 2e-3 * np.abs(expected(length)).max()
    logits = native.logits(hidden)
    exact = np.array(reference().logits(mx.array(hidden)))
    assert np.abs(logits - exact).max() < 1e-4 * np.abs(exact).max()
    ids, logprobs = native.choose(hidden)
    assert ids.tolist() == logits.argmax(-1).tolist()
    shares = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    np.testing.assert_allclose(logprobs, -np.log(np.exp(shares).sum(-1)), atol=1e-5)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("length", LENGTHS)
def test_8_bits_are_near(length: int, name: str) -> None:
    native = decoder(INT8, name)
    [hidden] = native.run([native.new_row()], [prompt(length)])
    assert cosine(hidden, expected(length)) > 0.9995


@cache
def in_4_bits() -> Qwen3:
    """The reference with the weights that 4 bits hold."""
    llm = Qwen3(CONFIG)
    tensors = {name: np.array(value) for name, value in tree_flatten(reference().parameters())}
    dense = {name: dequantized(*quantized(each, INT4)) for name, each in tensors.items() if each.ndim == 2}
    llm.load_weights([(name, mx.array((tensors | dense)[name].astype(np.float32))) for name in tensors])
    return llm


@pytest.mark.parametrize("name", SETS)
def test_4_bits_are_used_as_stored(name: str) -> None:
    """They are as near to MLX in float32 with the same weights as 8 bits are, and embeddings are equal."""
    native, llm = decoder(INT4, name), in_4_bits()
    [hidden] = native.run([native.new_row()], [prompt(65)])
    exact = np.array(llm(mx.array(prompt(65))[None], llm.make_cache(1))[0])
    assert cosine(hidden, exact) > 0.9995
    assert cosine(native.logits(hidden), np.array(llm.logits(mx.array(hidden)))) > 0.9995
    np.testing.assert_allclose(native.embed([0, 7, VOCAB - 1]), llm.model.embed_tokens.weight[[0, 7, VOCAB - 1]])
    assert native.bits == {4}
    assert native.size_bytes < 0.57 * decoder(INT8, name).size_bytes
    assert RunCost.of(native).fixed < RunCost.of(decoder(INT8, name)).fixed  # a pass reads fewer bytes


@pytest.mark.parametrize("weights", [FLOAT32, INT8, INT4])
@pytest.mark.parametrize("name", SETS)
def test_a_row_is_what_it_is_alone(weights: int, name: str) -> None:
    """In a batch, in pieces, after a copy, and with positions taken back: bit by bit."""
    native = decoder(weights, name)
    alone = [native.run([native.new_row()], [prompt(length)])[0] for length in LENGTHS]
    rows = [native.new_row() for _ in LENGTHS]
    for hidden, one in zip(native.run(rows, [prompt(length) for length in LENGTHS]), alone, strict=True):
        np.testing.assert_array_equal(hidden, one)

    whole, row = alone[-1], native.new_row()
    pieces = [native.run([row], [prompt(131)[start : start + 10]])[0] for start in range(0, 131, 10)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)

    other = native.copied(row)
    for each in (row, other):
        each.length = 70
    native.run([row, other], [prompt(9), prompt(5)])
    for each in (row, other):
        each.length = 70
        np.testing.assert_array_equal(native.run([each], [prompt(131)[70:]])[0], whole[70:])


@pytest.mark.parametrize("weights", [FLOAT32, INT8, INT4])
def test_instruction_sets_agree(weights: int) -> None:
    """Where integers are summed exactly; the rest differs in the last bits."""
    hidden = [
        native.run([native.new_row()], [prompt(65)])[0] for native in (decoder(weights, name) for name in SETS)
    ]
    for each in hidden:
        assert np.abs(each - hidden[-1]).max() < (2e-3 if weights == FLOAT32 else 3e-2) * np.abs(each).max()


@pytest.mark.parametrize("weights", [FLOAT32, INT8])
def test_embeddings(weights: int) -> None:
    native = decoder(weights, SETS[0])
    table = np.array(reference().model.embed_tokens.weight)
    ids = [0, 17, VOCAB - 1]
    worst = np.abs(native.embed(ids) - table[ids]).max()
    assert worst <= (0 if weights == FLOAT32 else np.abs(table).max() / 127)
    with pytest.raises(ValueError, match="refuses"):
        native.embed([VOCAB])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weights", [FLOAT32, INT8])
@pytest.mark.parametrize("name", SETS)
def test_what_is_not_finite_is_noticed(name: str, weights: int, value: float) -> None:
    """In the row itself, from that position on, and in no other row."""
    native = decoder(weights, name)
    broken, rows = prompt(65), [native.new_row(), native.new_row()]
    broken[40, 7] = value
    hidden = np.concatenate(native.run(rows, [broken, prompt(64)]))
    _, logprobs = native.choose(hidden)
    assert np.isfinite(logprobs).tolist() == [True] * 40 + [False] * 25 + [True] * 64
    [alone] = native.run([native.new_row()], [prompt(64)])
    np.testing.assert_array_equal(hidden[65:], alone)


def test_rows_come_and_go() -> None:
    """More than there are slots, one after the other; too many at a time are refused."""
    native = decoder(INT8, SETS[0])
    for _ in range(600):
        native.run([native.new_row()], [prompt(1)])
    rows = [native.new_row() for _ in range(256)]
    with pytest.raises(MemoryError):
        native.new_row()
    rows.pop().end()
    native.new_row()


def test_what_is_not_supported_is_named() -> None:
    assert why_unsupported(CONFIG) is None
    for field, value in {"hidden_size": 100, "head_dim": 24, "attention_bias": True}.items():
        assert why_unsupported(replace(CONFIG, **{field: value}))
    assert "num_key_value_heads, 4" in str(why_unsupported(replace(CONFIG, num_key_value_heads=4)))


def test_threads_take_turns() -> None:
    """What each of several threads computes with the same decoder is what it computes alone."""
    native = decoder(INT8, SETS[0])
    alone = {length: native.run([native.new_row()], [prompt(length)])[0] for length in LENGTHS}

    def run(length: int) -> bool:
        return all(
            np.array_equal(native.run([native.new_row()], [prompt(length)])[0], alone[length]) for _ in range(20)
        )

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(run, LENGTHS)) == [True] * 5


# --- arithmetic at the edges ---


@pytest.mark.parametrize("weights", [FLOAT32, INT8])
@pytest.mark.parametrize("name", SETS)
def test_the_first_of_equal_logits_is_chosen(weights: int, name: str) -> None:
    table = np.array(reference().model.embed_tokens.weight)
    table[[5, 40, VOCAB - 1]] = 3 * np.abs(table).max()
    native = make(weights, name, embed_tokens=table)
    ids, _ = native.choose(np.ones((3, WIDTH), np.float32))
    assert ids.tolist() == [5] * 3


@pytest.mark.parametrize("name", SETS)
def test_epsilon_of_the_norms(name: str) -> None:
    """It outweighs what is much smaller."""
    small, llm = prompt(9) * np.float32(1e-4), reference(1e-2)
    native = make(FLOAT32, name, config=replace(CONFIG, rms_norm_eps=1e-2))
    exact = np.array(llm(mx.array(small)[None], llm.make_cache(1))[0])
    assert np.abs(run(native, small) - exact).max() < 2e-3 * np.abs(exact).max()


def test_long_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """They equal MLX's to the end, and are read in pieces, between which Ctrl-C is noticed."""
    native, length, counts = decoder(FLOAT32, SETS[0]), 700, list[int]()
    step = LIBRARY.fn_step

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(LIBRARY, name)

        def fn_step(self, pointer: int, count: int, *arguments: object) -> int:
            counts.append(count)
            return int(step(pointer, count, *arguments))

    monkeypatch.setattr(native, "_library", Counting())
    hidden = run(native, prompt(length))
    assert np.abs(hidden - expected(length)).max() < 2e-3 * np.abs(expected(length)).max()
    assert sum(counts) == length
    assert max(counts) == POSITIONS_AT_ONCE <= 256


# --- what is refused ---


def test_slots_and_positions_that_do_not_exist() -> None:
    native, x, hidden = decoder(INT8, SETS[0]), prompt(1), np.empty((1, WIDTH), np.float32)
    row = native.new_row()
    native.run([row], [prompt(70)])  # two pages
    for slot, position in ((-1, 0), (256, 0), (row.slot, -1)):
        with pytest.raises(ValueError, match="refuses"):
            native._call(
                LIBRARY.fn_step,
                1,
                np.array([slot], np.int32),
                np.array([position], np.int32),
                x,
                None,
                hidden.ctypes.data,
            )
    other = native.new_row().slot
    for source, target, length in (
        (-1, other, 1), (256, other, 1), (row.slot, -1, 1), (row.slot, 256, 1), (row.slot, row.slot, 1),
        (row.slot, other, -1), (row.slot, other, 129), (other, row.slot, 1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="refuses"):
            native._call(LIBRARY.fn_copy_slot, source, target, length)
    native._call(LIBRARY.fn_copy_slot, row.slot, other, 128)
    for slot in (-1, 256):
        LIBRARY.fn_clear_slot(native._decoder, slot)


def test_rows_of_another_width_are_not_read() -> None:
    """They would be read past their end; the row stays as long as it was."""
    native = decoder(INT8, SETS[0])
    row, narrow = native.new_row(), prompt(3)[:, :-64].copy()
    for inputs in ([narrow], [prompt(1).ravel()]):
        with pytest.raises(ValueError, match="refuses"):
            native.run([row], inputs)
    for function in (native.choose, native.logits):
        with pytest.raises(ValueError, match="refuses"):
            function(narrow)
    assert row.length == 0


@pytest.mark.parametrize(
    ("matrix", "shape"),
    [("embed_tokens", (VOCAB + 1, WIDTH)), ("o_proj", (WIDTH, 64)), ("k_proj", (128, WIDTH)),
     ("down_proj", (WIDTH + 16, 192))],
)  # fmt: skip
def test_matrices_that_do_not_fit(matrix: str, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="refuses"):
        make(**{matrix: np.ones(shape, np.float32)})


def test_sizes_that_are_not_supported() -> None:
    """They are not mistaken for too little memory."""
    for change in ({"num_key_value_heads": 4}, {"head_dim": 24}, {"num_hidden_layers": 0}, {"vocab_size": 0}):
        with pytest.raises(ValueError, match="refuses"):
            make(config=replace(CONFIG, **change))
    with pytest.raises(ValueError, match="refuses"):
        make(threads=0)
    with pytest.raises(ValueError, match="instruction set"):
        make(name="unknown")


def test_a_library_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "ABI", native_library.ABI + 1)
    with pytest.raises(OSError, match="version"):
        load(Path(os.environ.get(NAMED) or BUILT))


def test_statuses() -> None:
    check(0)
    for status, error in ((-1, MemoryError), (-2, ValueError), (-3, ValueError)):
        with pytest.raises(error):
            check(status)


# --- threads and processes ---


@pytest.mark.parametrize(
    ("cores", "wanted", "quota", "expected_threads"),
    [
        (8, None, None, 8), (8, "3", None, 3), (8, "4,2", None, 4), (8, " 5 ", None, 5), (8, "64", None, 8),
        (8, "0", None, 8), (8, "many", None, 8), (8, "", None, 8), (192, None, None, 16), (192, "100", None, 16),
        (8, None, "max 100000", 8), (8, None, "250000 100000", 2), (8, None, "50000 100000", 1),
        (8, "1", "250000 100000", 1), (8, None, "damaged", 8), (8, None, "v1 400000", 4), (8, None, "v1 -1", 8),
    ],
)  # fmt: skip
def test_the_number_of_threads(
    cores: int, wanted: str | None, quota: str | None, expected_threads: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The cores that may be used, within the container's quota, at most 16 or what the user wants."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(native_threads, "CGROUP", tmp_path)
    if wanted is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    if quota and quota.startswith("v1"):
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota.split()[1] + "\n")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    elif quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usual_threads() == expected_threads


def blocked_signals() -> Iterator[tuple[str, int]]:
    """Yield the threads of this process, each with the set of signals that it does not take."""
    for task in Path("/proc/self/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        yield task.name, next((int(line.split()[1], 16) for line in lines if line.startswith("SigBlk")), -1)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc")
def test_signals_are_for_the_threads_of_python() -> None:
    """Ctrl-C is not taken by a thread of the library, and the caller's own signals stay as they were."""
    before = dict(blocked_signals())
    native = make(threads=4)
    after = dict(blocked_signals())
    new = after.keys() - before.keys()
    assert len(new) == 2 * 3  # of the decoder, and of its encoder
    for name in new:
        assert all(after[name] >> signal - 1 & 1 for signal in (2, 15))  # SIGINT, SIGTERM
    assert {name: after[name] for name in before if name in after} == {
        name: blocked for name, blocked in before.items() if name in after
    }
    del native


PROGRAM = """
import os, signal, sys, threading, time
from support.native_decoder import make, prompt, run
native = make()
alone = run(native, prompt(65))
os.register_at_fork(after_in_child=lambda: signal.alarm(20))  # ends a child that hangs
"""
PROGRAMS = {
    "a daemon thread computes at exit": """
def forever():
    while True:
        run(native, prompt(131))
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
""",
    "a child exits": """
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0)
""",
    "a child computes": """
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0)
os._exit(0 if (run(native, prompt(65)) == alone).all() else 3)
""",
    "a child deletes the decoder": """
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0)
del native
os._exit(0)
""",
}


@pytest.mark.process
@pytest.mark.parametrize("case", PROGRAMS)
def test_the_end_of_a_process(case: str) -> None:
    """It neither crashes nor hangs."""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM + PROGRAMS[case]],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

"""Decode or encode with the C library while exceptions come at random moments; a process: WHAT ROUNDS SEED."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.native import LIBRARY
from support.native_arrays import Arrays
from support.native_decoder import make, prompt

from funasr_cli.decoding.native_batch import NativeBatch
from funasr_cli.decoding.sampling import greedy
from funasr_cli.models.sanm import SANMConfig, SANMEncoder
from funasr_cli.models.whisper_decoder import WhisperDecoder, WhisperDecoderConfig
from funasr_cli.native.decoder import SLOTS, NativeDecoder
from funasr_cli.native.encoder import NativeEncoder
from funasr_cli.native.library import FLOAT32, INT8
from funasr_cli.native.networks import NativeSANM
from funasr_cli.native.whisper import NativeWhisperDecoder


class Interrupt(BaseException):
    """What comes at a random moment, as KeyboardInterrupt does."""


def interrupt(*_: Any) -> None:
    """Raise it: a signal handler."""
    raise Interrupt


def decode(native: NativeDecoder) -> list[Any]:
    """Read a prefix and three prompts of different lengths, and make four steps."""
    prefix = NativeBatch.read_prefix(native, prompt(5))
    batch = NativeBatch(native, greedy, [0, 1, 2], [None] * 3, prefix)
    try:
        tokens = [batch.prefill([prompt(length) for length in (3, 40, 70)])]
        tokens += [batch.step(run_ahead=False) for _ in range(4)]
    finally:
        batch.close()
    return tokens


def make_encoder(threads: int) -> NativeSANM:
    """Make an encoder of five layers."""
    config = SANMConfig(
        input_dim=64, width=64, heads=4, ffn_dim=128, blocks=3, tp_blocks=2, memory_taps=11, memory_shift=0
    )
    return NativeSANM(NativeEncoder(LIBRARY, threads), Arrays(SANMEncoder(config), FLOAT32), config)


def encode(encoder: NativeSANM) -> list[Any]:
    """Encode sequences of different lengths, then a longer one, which needs more working memory."""
    batches = [[prompt(length)[:, :64] for length in lengths] for lengths in ((3, 40, 7), (90,))]
    return [rows.tobytes() for batch in batches for rows in encoder(batch)]


def make_whisper(threads: int) -> NativeWhisperDecoder:
    """Make a decoder with cross-attention."""
    config = WhisperDecoderConfig(vocab_size=80, positions=80, width=128, heads=2, layers=3)
    return NativeWhisperDecoder(NativeEncoder(LIBRARY, threads), Arrays(WhisperDecoder(config), INT8), config)


def listen(native: NativeWhisperDecoder) -> list[Any]:
    """Read three prompts that attend to different windows, and make four steps; find scores of a head."""
    memory = native.memory([prompt(70) + number for number in range(3)])
    first = native.first_logits(5, memory).tobytes()
    batch = NativeBatch(native, greedy, [0, 1, 2], [None] * 3, memory)
    try:
        tokens = [batch.prefill([native.embed(range(length)) for length in (3, 40, 70)])]
        tokens += [batch.step(run_ahead=False) for _ in range(4)]
    finally:
        batch.close()
    return [first, tokens, native.cross_scores(range(70), memory[1], [2]).tobytes()]


def threads() -> int:
    """Count the threads of this process."""
    return len(list(Path("/proc/self/task").iterdir()))


def resident_kb() -> int:
    """Return the memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def main(what: str, rounds: int, seed: int) -> None:
    """Print what happened, and what is left, as JSON."""
    chance = random.Random(seed)
    subjects: dict[str, tuple[Callable[..., Any], Callable[[Any], list[Any]]]]
    subjects = {"decoder": (make, decode), "encoder": (make_encoder, encode), "whisper": (make_whisper, listen)}
    make_native, compute = subjects[what]
    native = make_native(threads=3)
    expected = compute(native)
    start = time.perf_counter()
    compute(native)
    usual_s = time.perf_counter() - start
    signal.signal(signal.SIGALRM, interrupt)
    interrupted, swallowed = 0, []
    sys.unraisablehook = lambda raised: swallowed.append(raised.exc_type.__name__)
    found: dict[str, Any] = {"threads_before": threads()}
    for number in range(rounds):
        if number == rounds // 5:
            found["kb_before"] = resident_kb()
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 1.3 * usual_s))
            try:
                compute(native)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            interrupted += 1
    found |= {"threads": threads(), "kb": resident_kb(), "interrupted": interrupted, "swallowed": len(swallowed)}
    found["same"] = compute(native) == expected
    if isinstance(native, NativeDecoder):
        found["rows"] = len([native.new_row() for _ in range(SLOTS)])
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Decode with the C library while exceptions come at random moments; run as a process: ROUNDS SEED."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from support.native_decoder import make, prompt

from funasr_cli.decoding.native_batch import NativeBatch
from funasr_cli.decoding.sampling import greedy
from funasr_cli.native.decoder import SLOTS, NativeDecoder


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


def threads() -> int:
    """Count the threads of this process."""
    return len(list(Path("/proc/self/task").iterdir()))


def resident_kb() -> int:
    """Return the memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def main(rounds: int, seed: int) -> None:
    """Print what happened, and what is left, as JSON."""
    chance = random.Random(seed)
    native = make(threads=3)
    expected = decode(native)
    start = time.perf_counter()
    decode(native)
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
                decode(native)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            interrupted += 1
    found |= {"threads": threads(), "kb": resident_kb(), "interrupted": interrupted, "swallowed": len(swallowed)}
    found["same"] = decode(native) == expected
    found["rows"] = len([native.new_row() for _ in range(SLOTS)])
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

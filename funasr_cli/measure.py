"""Timing, spreads of repeated measurements, and the memory of this process."""

import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Summarise one or more values."""
        return cls(statistics.median(values), min(values), max(values))


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the duration of a block to the seconds of a stage."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began


def peak_process_bytes() -> int:
    """Return the peak resident memory of this process, on Linux since the last `reset_peak_process`."""
    with suppress(OSError, IndexError, ValueError):  # Linux; `ru_maxrss` below cannot be reset
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def reset_peak_process() -> None:
    """Reset the peak resident memory of this process. Only Linux supports this; elsewhere nothing happens."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

"""Spreads of measurements, and memory."""

import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.compute.backend import mx, on_accelerator


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Summarise at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time that a block takes to that of a stage."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began


def peak_process_bytes() -> int:
    """Most memory that this process had resident, since `reset_peak_process` where that has an effect."""
    with suppress(OSError, IndexError, ValueError):  # Linux; `ru_maxrss` below cannot be reset
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def reset_peak_process() -> None:
    """Start counting the process's peak anew, where the system lets us (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def total_bytes() -> int:
    """Memory that the device has for MLX, or this machine's."""
    if on_accelerator():
        info = mx.device_info()
        names = ("max_recommended_working_set_size", "memory_size", "total_memory")  # Metal's, and CUDA's
        return next((int(info[name]) for name in names if info.get(name)), 0)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """Memory that can still be taken: the device's, or this machine's within its container."""
    if on_accelerator():
        free = mx.device_info().get("free_memory")  # CUDA's
        return int(free) if free else max(0, total_bytes() - int(mx.get_active_memory()))
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        available = int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):  # macOS has no such file
        available = total_bytes() // 2
    return min(available, *_container_bytes())


def _container_bytes() -> Iterator[int]:
    """What a control group leaves us, if there is one with a limit."""
    folder = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit, used = ((folder / f"memory.{name}").read_text() for name in ("max", "current"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = int(counts.get("inactive_file", 0))  # given back when somebody wants it
        yield max(0, int(limit) - int(used) + cached)
    yield sys.maxsize

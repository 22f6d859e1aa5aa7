"""Available memory, and cleanup of what MLX keeps: freed buffers, and the streams of threads."""

import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from funasr_cli.compute.backend import mx, on_accelerator

FREED_BUFFERS_BYTES = 1 << 29  # limit of freed memory that MLX keeps for reuse


def total_bytes() -> int:
    """Return the total memory that MLX can use: the GPU's, or this machine's."""
    if on_accelerator():
        info = mx.device_info()
        names = ("max_recommended_working_set_size", "memory_size", "total_memory")  # two on Metal, one on CUDA
        return next((int(info[name]) for name in names if info.get(name)), 0)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """Return the available memory: the GPU's, or this machine's within the limits of container and process."""
    if on_accelerator():
        free = mx.device_info().get("free_memory")  # on CUDA
        return int(free) if free else max(0, total_bytes() - int(mx.get_active_memory()))
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        available = int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):  # macOS has no such file
        available = total_bytes() // 2
    return min(available, *_container_bytes(), *_process_bytes())


def _container_bytes() -> Iterator[int]:
    """Yield the memory that is free within the control group's limit, if there is one, and no limit otherwise."""
    folder = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit, used = ((folder / f"memory.{name}").read_text() for name in ("max", "current"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = int(counts.get("inactive_file", 0))  # page cache, released on demand
        yield max(0, int(limit) - int(used) + cached)
    yield sys.maxsize


def _process_bytes() -> Iterator[int]:
    """Yield how much this process may still map (`ulimit -v`), if that is limited: beyond it, MLX crashes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            yield max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))


class _FreedBuffers:
    """Limit on the freed memory that MLX keeps during computations. It is released after each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limit_before = 0

    @contextmanager
    def limited(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._limit_before = mx.set_cache_limit(FREED_BUFFERS_BYTES)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    mx.set_cache_limit(self._limit_before)
            mx.clear_cache()


FREED_BUFFERS = _FreedBuffers()


class _Streams:
    """Object that clears a thread's MLX streams when the thread ends. Otherwise MLX aborts the process."""

    def __del__(self) -> None:
        mx.clear_streams()


_of_thread = threading.local()  # its content is deleted when the thread ends, and in that thread


def clear_streams_with_thread() -> None:
    """Arrange for this thread's MLX streams to be cleared when it ends."""
    if threading.current_thread() is not threading.main_thread():
        _of_thread.streams = getattr(_of_thread, "streams", None) or _Streams()

"""What MLX keeps for itself: buffers that have been freed, and streams of threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from funasr_cli.compute.backend import mx

FREED_BUFFERS_BYTES = 1 << 29  # of what MLX has freed, the most that is kept for reuse


class _FreedBuffers:
    """Limits what MLX keeps of freed memory while anybody computes here, and gives it back behind each."""

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
    """MLX's streams of a thread, or MLX aborts the process when that thread has ended."""

    def __del__(self) -> None:
        mx.clear_streams()


_of_thread = threading.local()  # what it holds goes away with its thread, and in it


def clear_streams_with_thread() -> None:
    """Let MLX's streams of this thread end with it."""
    if threading.current_thread() is not threading.main_thread():
        _of_thread.streams = getattr(_of_thread, "streams", None) or _Streams()

"""Reading ahead: an iterator that works in a thread of its own."""

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
POLL_S = 0.1  # how soon the thread notices that nobody wants more


class ReadAhead(Generic[T]):
    """Runs a generator in a thread, a limited number of items ahead of whoever takes them.

    Used as a context manager: leaving it stops the thread and closes the generator.

    Args:
        items: made, run and closed in the thread.
        limit: items that may wait.
    """

    def __init__(self, items: Iterator[T], limit: int):
        self._items = items
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(limit)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.ended = False  # everything has been taken

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=2.0)  # it may hang in a read that never returns

    def take(self, timeout_s: float | None) -> T | None:
        """The next item; None when none came within the time (None waits as long as it takes) or all are taken.

        Raises:
            Whatever ended the generator.
        """
        if self.ended:
            return None
        try:
            item, error = self._queue.get(timeout=timeout_s) if timeout_s != 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        self.ended = item is None
        if error is not None:
            raise error
        return item

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as raised:  # handed over to whoever takes
            error = raised
        finally:
            close = getattr(self._items, "close", None)
            if close:
                close()
        self._put(None, error)

    def _put(self, item: T | None, error: BaseException | None = None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put((item, error), timeout=POLL_S)
                return True
            except queue.Full:
                continue
        return False

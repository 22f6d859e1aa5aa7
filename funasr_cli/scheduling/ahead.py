"""Reading ahead: a generator that works in a thread of its own."""

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")
POLL_S = 0.1  # how soon the thread notices that nobody wants more
LONGEST_WAIT_S = 2.0  # for the thread to end: it may hang in a read that never returns


class ReadAhead(Generic[T]):
    """Runs a generator in a thread, a limited number of items ahead of whoever takes them, until it is closed.

    Args:
        items: run and closed in the thread.
        limit: items that may wait.
    """

    def __init__(self, items: Generator[T], limit: int):
        self._items = items
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(limit)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self.ended = False  # everything has been taken

    def close(self) -> None:
        """Stop the thread, and close the generator there."""
        self._stop.set()
        self._thread.join(LONGEST_WAIT_S)

    def take(self, timeout_s: float | None) -> T | None:
        """The next item; None when none came within the time (None waits as long as it takes) or all are taken.

        Raises:
            Whatever ended the generator.
        """
        if self.ended:
            return None
        try:
            item, error = self._queue.get(block=timeout_s != 0, timeout=timeout_s)
        except queue.Empty:
            return None
        self.ended = item is None
        if error is not None:
            raise error
        return item

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            with closing(self._items):
                for item in self._items:
                    if not self._put(item):
                        break
        except BaseException as raised:  # handed over to whoever takes
            error = raised
        self._put(None, error)

    def _put(self, item: T | None, error: BaseException | None = None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put((item, error), timeout=POLL_S)
                return True
            except queue.Full:
                continue
        return False

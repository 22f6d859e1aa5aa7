"""Reading ahead in a thread: the items, their order, and the end of the thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.waiting import PATIENCE_S, wait_for

from funasr_cli.scheduling.intake import Prefetcher


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Numbers:
    """An endless generator that records its own state."""

    def __init__(self) -> None:
        self.made = 0
        self.worked_in: set[int] = set()
        self.closed_in: int | None = None

    def __call__(self) -> Iterator[int]:
        try:
            while True:
                self.worked_in.add(threading.get_ident())
                self.made += 1
                yield self.made
        finally:
            self.closed_in = threading.get_ident()


def test_everything_comes_in_order() -> None:
    with closing(Prefetcher((number for number in (3, 1, 2)), 1)) as ahead:
        assert [ahead.take(PATIENCE_S) for _ in range(3)] == [3, 1, 2]
        assert not ahead.ended
        assert ahead.take(PATIENCE_S) is None
        assert ahead.ended
        assert ahead.take(PATIENCE_S) is None
        assert ahead.take(0.0) is None


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_no_further_ahead_than_it_may(limit: int) -> None:
    """The limit applies to waiting items, plus one that the thread holds."""
    numbers = Numbers()
    with closing(Prefetcher(numbers(), limit)) as ahead:
        for taken in range(3):
            wait_for(lambda taken=taken: numbers.made == taken + limit + 1)
            time.sleep(0.15)  # time to exceed the limit
            assert numbers.made == taken + limit + 1
            assert ahead.take(PATIENCE_S) == taken + 1


def test_it_waits_at_most_the_given_time() -> None:
    gate = threading.Event()

    def items() -> Iterator[str]:
        gate.wait()
        yield "late"

    with closing(Prefetcher(items(), 2)) as ahead:
        assert ahead.take(0.0) is None
        assert ahead.take(0.01) is None
        assert not ahead.ended
        timer = threading.Timer(0.05, gate.set)
        timer.start()
        assert ahead.take(None) == "late"
        timer.join()


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError(), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("before", [0, 2])
def test_errors_come_after_the_items_before_them(error: BaseException, before: int) -> None:
    def items() -> Iterator[int]:
        yield from range(1, before + 1)
        raise error

    with closing(Prefetcher(items(), 1)) as ahead:
        assert [ahead.take(PATIENCE_S) for _ in range(before)] == list(range(1, before + 1))
        with pytest.raises(type(error)) as raised:
            ahead.take(PATIENCE_S)
        assert raised.value is error
        assert ahead.ended
        assert ahead.take(PATIENCE_S) is None


@pytest.mark.parametrize("taken", [0, 3])
def test_leaving_stops_it_and_closes_the_generator_in_its_thread(taken: int) -> None:
    numbers = Numbers()
    with closing(Prefetcher(numbers(), 2)) as ahead:
        for _ in range(taken):
            ahead.take(PATIENCE_S)
        wait_for(lambda: numbers.made == taken + 3)
    assert numbers.made == taken + 3
    assert numbers.worked_in == {numbers.closed_in}
    assert numbers.closed_in != threading.get_ident()


@pytest.mark.slow
def test_leaving_does_not_wait_for_a_read_that_never_returns() -> None:
    gate, closed = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            gate.wait()
            yield 1
        finally:
            closed.set()

    before = set(threading.enumerate())
    with closing(Prefetcher(items(), 2)):
        pass
    (left,) = set(threading.enumerate()) - before
    assert left.daemon  # it does not keep the process alive
    assert not closed.is_set()
    gate.set()
    left.join(PATIENCE_S)
    assert closed.is_set()

"""A pytest plugin: tests that start processes are marked `process`, and others must not start one.

Most are found by the functions they call: `subprocess`, or test helpers that end up there. A test that starts a
process only through the package needs an explicit mark; without it, the start is refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
STARTS = {"subprocess": {"Popen", "run", "check_output", "check_call"}, "os": {"fork"}, "pty": {"fork", "spawn"}}
EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}

_unmarked = ""  # id of the running test if it may not start a process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that visibly start processes."""
    for item in items:
        assert isinstance(item, pytest.Function)
        fixtures = [found.func for named in item._fixtureinfo.name2fixturedefs.values() for found in named]
        used = filter(is_ours, (item.function, *fixtures))
        if any(map(starts_process, used)):
            item.add_marker("process")


@cache
def starts_process(function: Any) -> bool:
    """Return whether a function or class in the tests starts a process, directly or through another one."""
    seen: set[Any] = set()
    waiting = [function]
    while waiting:
        found = waiting.pop()
        if found in seen:
            continue
        seen.add(found)
        for names, scope in names_of(found):
            for name in names:
                value = scope.get(name)
                if STARTS.get(getattr(value, "__name__", ""), set()) & names:
                    return True
                parts = [vars(value).get(part) for part in names] if isinstance(value, ModuleType) else [value]
                waiting += [part for part in parts if isinstance(part, FunctionType | type) and is_ours(part)]
    return False


def names_of(found: Any) -> Iterator[tuple[set[str], dict[str, Any]]]:
    """Yield the names that a function, or each method of a class, refers to, and the namespace they belong to."""
    found = getattr(found, "__wrapped__", found)
    methods = vars(found).values() if isinstance(found, type) else [found]
    for method in methods:
        method = getattr(method, "__func__", getattr(method, "fget", method))
        if isinstance(method, FunctionType):
            method = getattr(method, "__wrapped__", method)
            yield set(names_in(method.__code__)), method.__globals__


def names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from names_in(inner)


@cache
def is_ours(value: Any) -> bool:
    """Return whether an object is defined in the tests."""
    file = getattr(sys.modules.get(value.__module__), "__file__", None)
    return file is not None and Path(file).is_relative_to(TESTS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Keep track of the running test."""
    global _unmarked
    _unmarked = "" if item.get_closest_marker("process") else item.nodeid
    try:
        return (yield)
    finally:
        _unmarked = ""


def refuse(event: str, values: tuple[Any, ...]) -> None:
    """Refuse a fork, or another Python. Quick system calls of libraries, such as listing fonts, are allowed."""
    if _unmarked and event in EVENTS:
        program = os.path.basename(os.fsdecode(values[0])) if values else ""
        if not program or program.startswith(("python", "funasr")):
            raise AssertionError(f"{_unmarked} starts a process: it takes @pytest.mark.process")


sys.addaudithook(refuse)

"""Tests that start processes are found, and other tests cannot start one."""

import subprocess
import sys
from operator import attrgetter

import pytest
from support.killing import victims
from support.processes import starts_process
from support.running import funasr, invoke, tree
from support.terminal import on_terminal

START = attrgetter("check_call")  # hides the name from the search


@pytest.mark.parametrize(
    ("helper", "starts"), [(funasr, True), (on_terminal, True), (victims, True), (invoke, False), (tree, False)]
)
def test_helpers_that_start_processes_are_found(helper: object, starts: bool) -> None:
    assert starts_process(helper) == starts


def test_a_test_without_the_mark_starts_none() -> None:
    with pytest.raises(AssertionError, match=r"takes @pytest\.mark\.process"):
        START(subprocess)([sys.executable, "-c", ""])


@pytest.mark.process
def test_one_with_the_mark_does() -> None:
    assert START(subprocess)([sys.executable, "-c", ""]) == 0

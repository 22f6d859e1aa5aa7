"""Waiting for what another thread or process does, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 30.0  # limit for things that should happen immediately


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail if it does not for long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.005)

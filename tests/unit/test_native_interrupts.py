"""Exceptions and Ctrl-C at random moments while the C library computes: nothing is left, and the process ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.native import LIBRARY, WITHOUT

pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason=WITHOUT),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc"),
    pytest.mark.process,
]
FOREVER = """
from support.interrupting import {make}, {compute}
native = {make}(threads=3)
{compute}(native)  # once before, since the first import of numpy.random swallows a Ctrl-C in `except: pass`
print("ready", flush=True)
while True:
    {compute}(native)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("rounds", [300, pytest.param(5000, marks=pytest.mark.full)])
@pytest.mark.parametrize("what", ["decoder", "encoder", "whisper"])
def test_nothing_is_left(what: str, rounds: int) -> None:
    """No slot, no thread, no memory; the exception arrives as it was raised, and later results are the same."""
    out, errors = start("-m", "support.interrupting", what, str(rounds), "1").communicate(timeout=300)
    assert out, errors
    found = json.loads(out)
    assert found["interrupted"] > rounds / 10
    assert found["swallowed"] == 0
    assert found["threads"] == found["threads_before"]
    assert found["kb"] - found["kb_before"] < 4096
    assert found["same"]
    assert found.get("rows", 256) == 256


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("make", "compute"), [("make", "decode"), ("make_encoder", "encode"), ("make_whisper", "listen")]
)
def test_ctrl_c_ends_the_process(make: str, compute: str, times: int) -> None:
    chance = random.Random(times)
    for _ in range(times):
        process = start("-c", FOREVER.format(make=make, compute=compute))
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGINT, errors
        assert "KeyboardInterrupt" in errors

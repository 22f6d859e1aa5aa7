"""Processes to be killed: forked after the imports, so that each takes a moment, most of it in what is tested.

`with victims("support.placing") as kill:` starts a process that forks; `kill(job, ...)` has it run a job in a
child and kill that with SIGKILL, some time after it has made its first folder, or before a step. A step is what
Python audits and what concerns a folder: opening, listing, making, renaming and removing files and folders in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RENAMES = ("renameat2", "renamex_np")

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Death:
    """How a child ended.

    Attributes:
        exit_code: -9 if it was killed.
        writing_s: from its first folder to its end.
        steps: how many it took; 0 if it was killed.
    """

    exit_code: int
    writing_s: float
    steps: int


@contextmanager
def victims(imports: str) -> Iterator[Callable[..., Death]]:
    """What runs `job(*arguments)` of `JOBS` in children that have imported everything.

    The function takes: the job's name and arguments; `within`, the folder that steps are counted in; `after_s` or
    `at_step`, when to kill; `in_steps`, whether the file system cannot exchange folders.
    """
    from support.running import PYTHON, environment

    process = subprocess.Popen(
        [PYTHON, "-m", "support.killing", imports],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))),
    )
    assert process.stdin
    assert process.stdout
    stdin, stdout = process.stdin, process.stdout

    def kill(job: str, *arguments: Any, within: Path, **options: Any) -> Death:
        request = {"job": job, "arguments": arguments, "within": str(within), **options}
        print(json.dumps(request, default=str), file=stdin, flush=True)
        return Death(**json.loads(stdout.readline()))

    with process:
        yield kill
        stdin.close()


# --- what runs in the other process ---


def write(out: str, replace: bool) -> None:
    """Write what passes for a model."""
    from support.placing import convert

    convert(Path(out), replace=replace)


def command(*arguments: str) -> None:
    """Run the command line."""
    from funasr_cli.cli import app

    sys.argv = ["funasr", *arguments]
    app.main()


JOBS: dict[str, Callable[..., None]] = {"write": write, "command": command}


def fork_when_asked() -> None:
    """One request on each line of stdin, one answer on each of stdout."""
    for line in sys.stdin:
        request = json.loads(line)
        after_s = request.pop("after_s", None)
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())
            run_and_exit(writing, **request)
        os.close(writing)
        os.read(reading, 1)  # the first folder, or the end
        begin = time.monotonic()
        if after_s is not None:
            time.sleep(after_s)
            os.kill(pid, signal.SIGKILL)  # nobody else has its number before it is waited for
        _, status = os.waitpid(pid, 0)
        writing_s = time.monotonic() - begin
        with open(reading) as file:
            steps = int(file.read() or 0)
        code = os.waitstatus_to_exitcode(status)
        answer = {"exit_code": code, "writing_s": writing_s, "steps": steps}
        print(json.dumps(answer), flush=True)


def run_and_exit(
    writing: int, job: str, arguments: list[Any], within: str, at_step: int | None = None, in_steps: bool = False
) -> None:
    """Run a job; into a pipe goes a byte when it makes its first folder, and how many steps it took."""
    from funasr_cli.checkpoints import rename

    if in_steps:
        rename._rename = lambda *_: False
    steps, made = 0, False

    def on_event(event: str, values: tuple[Any, ...]) -> None:
        nonlocal steps, made
        paths = [os.fsdecode(value) for value in values if isinstance(value, str | bytes | os.PathLike)]
        if any(within in path or path in RENAMES for path in paths):
            steps += 1
            if event == "os.mkdir" and not made:
                made = True
                os.write(writing, b" ")
            if steps == at_step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
    code = 1
    try:
        JOBS[job](*arguments)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os.write(writing, str(steps).encode())
        os._exit(code)


if __name__ == "__main__":
    for module in sys.argv[1].split(","):
        __import__(module)
    fork_when_asked()

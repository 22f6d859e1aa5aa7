"""Processes to be killed.

They are forked after the imports, so that each runs only briefly, mostly in the code under test.

`with victims("support.placing") as kill:` starts a process that forks. `kill(job, ...)` runs a job in a child and
sends it SIGKILL, either some time after it has created its first folder or before a given step. A step is an event
that Python audits and that concerns the watched folder: opening, listing, creating, renaming or removing a file or
folder in it.
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

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Death:
    """How a child ended.

    Attributes:
        exit_code: -9 if it was killed.
        writing_s: time from its first folder to its end.
        steps: number of steps it took; 0 if it was killed.
    """

    exit_code: int
    writing_s: float
    steps: int


@contextmanager
def victims(imports: str) -> Iterator[Callable[..., Death]]:
    """Yield a function that runs `job(*arguments)` of `JOBS` in a child that has imported everything.

    The function takes the job's name and arguments; `within`, the folder to count steps in; and `after_s` or
    `at_step`, the time to kill the child.
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


# --- runs in the other process ---


def write(out: str, replace: bool) -> None:
    """Write a folder that passes for a model."""
    from support.placing import convert

    convert(Path(out), replace=replace)


def command(*arguments: str) -> None:
    """Run the command line."""
    from funasr_cli.cli import app

    sys.argv = ["funasr", *arguments]
    app.main()


JOBS: dict[str, Callable[..., None]] = {"write": write, "command": command}


def fork_when_asked() -> None:
    """Read one request from each line of stdin and write one answer per line to stdout."""
    for line in sys.stdin:
        request = json.loads(line)
        after_s = request.pop("after_s", None)
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())
            run_and_exit(writing, **request)
        os.close(writing)
        os.read(reading, 1)  # returns on the first folder, or at the end
        begin = time.monotonic()
        if after_s is not None:
            time.sleep(after_s)
            os.kill(pid, signal.SIGKILL)  # safe: the process id is not reused before waitpid
        _, status = os.waitpid(pid, 0)
        writing_s = time.monotonic() - begin
        with open(reading) as file:
            steps = int(file.read() or 0)
        code = os.waitstatus_to_exitcode(status)
        answer = {"exit_code": code, "writing_s": writing_s, "steps": steps}
        print(json.dumps(answer), flush=True)


def run_and_exit(writing: int, job: str, arguments: list[Any], within: str, at_step: int | None = None) -> None:
    """Run a job. Write a byte to the pipe when it creates its first folder, and the number of steps at the end."""
    steps, made = 0, False

    def on_event(event: str, values: tuple[Any, ...]) -> None:
        nonlocal steps, made
        paths = [os.fsdecode(value) for value in values if isinstance(value, str | bytes | os.PathLike)]
        if any(within in path for path in paths):
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

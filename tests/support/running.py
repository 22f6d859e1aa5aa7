"""Run the command line as users do, in a separate process, or in this one where the result is the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer.main
from typer.testing import CliRunner

from funasr_cli.cli import console
from funasr_cli.cli.app import app
from funasr_cli.cli.resume import NOTES
from funasr_cli.cli.run import DEMO_NOTE
from funasr_cli.compute import device
from funasr_cli.compute.backend import mx
from funasr_cli.families.load import load_model
from funasr_cli.options import AUTO_DTYPE, AUTO_ENGINE
from funasr_cli.speech_model import SpeechModel

PYTHON = sys.executable
COMMAND = [PYTHON, "-m", "funasr_cli"]
LONGEST_S = 120  # time limit of a command
# Variables of the developer's shell that must not reach a test.
UNWANTED = ("FUNASR_HOME", "FUNASR_BLAS", "HF_TOKEN", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONIOENCODING")


@dataclass(frozen=True)
class Result:
    """The result of a run. The note that the demo model knows few phrases is recorded apart from stderr."""

    exit_code: int
    stdout: str
    stderr: str
    has_demo_note: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        """Move the note, since most tests give the demo model recordings of their own."""
        rest = self.stderr.replace(f"{DEMO_NOTE}\n", "")
        object.__setattr__(self, "has_demo_note", rest != self.stderr)
        object.__setattr__(self, "stderr", rest)

    def assert_fails(self, exit_code: int, *parts: str) -> None:
        """Assert that it ended with this code, no result, and a readable message with these parts."""
        assert self.exit_code == exit_code, self
        assert self.stdout == ""
        assert "Traceback" not in self.stderr
        said = re.sub(r"^error\[[a-z0-9-]+\]", "error", self.stderr, flags=re.MULTILINE)
        for part in parts:
            assert part in self.stderr or part in said, self.stderr

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Return the code and the message of every error on stderr, in order."""
        return re.findall(r"^error\[([a-z0-9-]+)\]: (.*)$", self.stderr, re.MULTILINE)

    def assert_error(self, exit_code: int, code: str, *values: str) -> None:
        """Assert that it ended with this exit code, no result, and one error with this code and these values."""
        assert self.exit_code == exit_code, self
        assert self.stdout == ""
        assert "Traceback" not in self.stderr
        assert [found for found, _ in self.errors] == [code], self.stderr
        for value in values:
            assert value in self.stderr


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a run, without the developer's settings and without network access."""
    base = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    return base | {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "PYTHONFAULTHANDLER": "1"} | changes


def funasr(*arguments: Any, env: dict[str, str] | None = None, **options: Any) -> Result:
    """Run `python -m funasr_cli` with pipes for stdout and stderr. If it hangs, show where."""
    command = [*COMMAND, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if "input" in options:
        pipes["stdin"] = subprocess.PIPE
    content = options.pop("input", None)
    with subprocess.Popen(command, env=environment(**env or {}), **pipes, **options) as process:
        try:
            stdout, stderr = process.communicate(content, timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # makes Python print the stacks of all threads
            _, stderr = process.communicate()
            raise AssertionError(f"{command} hangs:\n{stderr.decode(errors='replace')}") from None
    return Result(
        process.returncode, stdout.decode(errors="surrogateescape"), stderr.decode(errors="surrogateescape")
    )


@cache
def command() -> Any:
    """Return the app as Typer builds it for each run; it keeps no state between runs."""
    return typer.main.get_command(app)


@lru_cache(maxsize=4)
def load_once(folder: Path, dtype: str | None, engine: str, *_: Any) -> SpeechModel:
    """Load and cache a model. No run changes it; the remaining arguments are cache keys."""
    return load_model(folder, dtype, engine)


def load(folder: Path, dtype: str | None = AUTO_DTYPE, engine: str = AUTO_ENGINE) -> SpeechModel:
    """Load a model like `load_model`, but read it only once unless its files or the device have changed."""
    files = [(path, path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(folder.rglob("*"))]
    return load_once(folder, dtype, engine, str(mx.default_device()), device.available_bytes, *files)


def invoke(*arguments: Any, env: dict[str, str | None] | None = None) -> Result:
    """Run the command in this process, for behaviour that does not depend on the process."""
    before, exit_code = mx.default_device(), 0
    isolation = CliRunner().isolation(env={"COLUMNS": "200", **(env or {})})
    with isolation as (stdout, stderr, _), patch("funasr_cli.families.load.load_model", load):
        try:
            command().main(list(map(str, arguments)), prog_name="funasr")
        except SystemExit as ended:
            exit_code = int(ended.code or 0)
        finally:  # reset what would end with a process
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
            console.set_volume(quiet=False, verbose=False)
            console.stderr.cache_clear()
            mx.set_default_device(before)
        return Result(exit_code, stdout.getvalue().decode(), stderr.getvalue().decode())


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, except the notes of --resume, to detect changes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != NOTES)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}

"""Run the command on a pseudo-terminal, and interpret what is drawn."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from pathlib import Path

from support.running import COMMAND, PYTHON, environment

CONTROL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x08]")
COLOURS = re.compile(r"\x1b\[(?:3|4|9)[0-9]")
COSTS = re.compile(r"([0-9:]+) of audio in [0-9:.]+(?: s)?, [0-9]+(?:\.[0-9])?x real time")
# Draw every change immediately, so that the output does not depend on timing.
EAGER = [PYTHON, "-c", "from funasr_cli.cli import app, display; display.REDRAW_S = -1.0; app.main()"]


def terminal_environment(**changes: str) -> dict[str, str]:
    return environment(**({"TERM": "xterm-256color", "COLUMNS": "400", "LINES": "40"} | changes))


def on_terminal(
    *arguments: object,
    command: list[str] = COMMAND,
    stdout_too: bool = True,
    cwd: Path | None = None,
    answer: str = "",
    **env: str,
) -> tuple[int, str, str]:
    """Run on a terminal with this input; return exit code, terminal output, and stdout if it is a pipe."""
    controller, terminal = pty.openpty()
    os.write(controller, answer.encode())
    stdout = terminal if stdout_too else subprocess.PIPE
    run = [*command, *map(str, arguments)]
    base = terminal_environment(**env)
    with subprocess.Popen(run, stdout=stdout, stderr=terminal, stdin=terminal, env=base, cwd=cwd) as process:
        os.close(terminal)
        shown, printed = read_all(controller), b""
        if process.stdout:
            printed = process.stdout.read()
    os.close(controller)
    return process.returncode, shown.decode(), printed.decode()


def read_all(descriptor: int) -> bytes:
    chunks = []
    while select.select([descriptor], [], [], 60)[0]:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except OSError:  # on Linux: the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)


def screen(shown: str) -> list[str]:
    """Return the lines that remain at the end. Interprets only the line clearing that Rich uses."""
    lines = [""]
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", shown):
        if part == "\n":
            lines.append("")
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part == "\x1b[1A":
            lines.pop()
        elif part != "\r" and not part.startswith("\x1b"):
            lines[-1] += part
    return [line.rstrip() for line in lines][: -1 if not lines[-1] else None]


def account(shown: str) -> tuple[list[str], list[list[str]], str, list[str]]:
    """Return the text above the table of all inputs, its rows, the audio totals, and the text below."""
    lines = screen(shown)
    head = next(index for index, line in enumerate(lines) if line.startswith(" input"))
    end = lines.index("", head)
    assert lines[head - 1] == ""
    assert set(lines[head + 1].strip()) == {"─"}
    costs = COSTS.fullmatch(lines[end + 1])
    assert costs, lines[end + 1]
    return lines[: head - 1], [line.split() for line in lines[head + 2 : end]], costs[1], lines[end + 2 :]


def frames(shown: str) -> list[str]:
    """Return every line that was ever drawn, in order."""
    return CONTROL_CODES.sub("", shown.replace("\x1b[2K", "\n")).split("\n")


def drafts(shown: str, clock: str = "0:00") -> list[str]:
    """Return each frame drawn for the segment that begins at `clock`."""
    return [line.removeprefix(f"{clock} ") for line in frames(shown) if line.startswith(f"{clock} ")]

"""Streaming text: through pipes, on terminals, with a reader that closes the pipe, and after Ctrl-C."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from rich._loop import loop_last
from rich.console import Console
from support.expected import lines_of
from support.running import COMMAND, environment
from support.terminal import read_all, screen, terminal_environment

from funasr_cli import demo
from funasr_cli.cli import console, display
from funasr_cli.cli.display import Region
from funasr_cli.cli.outcome import LOST
from funasr_cli.scheduling.events import PartialText

CLIPS = demo.clips()
PATHS = [clip.path for clip in CLIPS]


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Start the command with pipes for stdout and stderr."""
    command = [*COMMAND, "transcribe", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())


def test_piped_lines_come_before_the_recording_ends(joined: Path, tmp_path: Path) -> None:
    """The first segment is printed before the end of the recording has been sent."""
    os.mkfifo(tmp_path / "live.wav")
    content = joined.read_bytes()
    with start("-m", "demo", tmp_path / "live.wav", "--stream") as process:
        assert process.stdout
        with open(tmp_path / "live.wav", "wb") as live:
            live.write(content[: len(content) * 3 // 4])
            live.flush()
            assert select.select([process.stdout], [], [], 60)[0], "no output before the end of the recording"
            first = os.read(process.stdout.fileno(), 1 << 16).decode()
            live.write(content[len(content) * 3 // 4 :])
        rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = lines_of("demo", joined).splitlines(keepends=True)
    assert len(lines) == len(CLIPS)
    assert first in {"".join(lines[:count]) for count in range(1, len(lines))}
    assert first + rest.decode() == "".join(lines)
    assert stderr.decode().startswith("100.0% of 0:2")


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_reader_that_closes_the_pipe(options: tuple[str, ...], tmp_path: Path) -> None:
    """As in `funasr transcribe ... | head -c 1`. The long names make the output exceed the pipe's buffer."""
    folder = tmp_path.joinpath(*["a" * 200] * 4)
    folder.mkdir(parents=True)
    (folder / "a.flac").symlink_to(PATHS[2])
    with start("-m", "demo", *[folder / "a.flac"] * 100, *options) as process:
        assert process.stdout
        assert process.stderr
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        stderr = process.stderr.read().decode()
    assert (process.returncode, stderr) == (1, "")


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_ctrl_c(options: tuple[str, ...]) -> None:
    """After the first text: exit code 130, a message on stderr, no traceback, only complete lines on stdout."""
    with start("-m", "demo", *PATHS * 300, *options) as process:
        assert process.stdout
        first = os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=60)
    lost = "" if options else f": {LOST}"
    assert (process.returncode, stderr.decode()) == (130, f"warning: interrupted{lost}\n")
    lines = (first + rest).decode().splitlines(keepends=True)
    wanted = [f"{clip.path}: {clip.written}\n" for clip in CLIPS * 300]
    assert 0 < len(lines) < len(wanted)
    assert lines == wanted[: len(lines)]


def test_ctrl_c_on_a_terminal() -> None:
    """The live region is removed and the cursor is shown again."""
    controller, terminal = pty.openpty()
    command = [*COMMAND, "transcribe", "-m", "demo", *map(str, PATHS * 300), "--stream"]
    base = terminal_environment()
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, stdin=terminal, env=base) as process:
        os.close(terminal)
        shown = b""
        while CLIPS[0].written.encode() + b"\r\n" not in shown:
            assert select.select([controller], [], [], 60)[0]
            shown += os.read(controller, 1 << 16)
        process.send_signal(signal.SIGINT)
        shown += read_all(controller)
    os.close(controller)
    assert process.returncode == 130
    lines = screen(shown.decode())
    assert lines[-1] == "warning: interrupted"
    wanted = [f"{clip.path}: {clip.written}" for clip in CLIPS * 300]
    assert lines[:-1] == wanted[: len(lines) - 1]
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") > 0


def test_ctrl_c_while_the_live_region_starts_or_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the live region starts or stops is raised, but only after the terminal has been restored."""
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=80)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    show_cursor = Console.show_cursor

    def interrupted(self: Console, show: bool = True) -> bool:
        signal.raise_signal(signal.SIGINT)
        return show_cursor(self, show)

    monkeypatch.setattr(Console, "show_cursor", interrupted)
    region = Region(PATHS, partial_texts=True)
    for change, code in ((region.__enter__, "\x1b[?25l"), (region.__exit__, "\x1b[?25h")):
        with pytest.raises(KeyboardInterrupt):
            change()
        assert re.findall(r"\x1b\[\?25[lh]", shown.getvalue())[-1] == code
    before = shown.getvalue()
    region.__exit__()
    terminal.print("a line")
    assert shown.getvalue() == f"{before}a line\n", "the live region must be gone"


def test_ctrl_c_while_the_live_region_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it has just become taller, nothing of it remains on screen."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(display, "REDRAW_S", -1.0)

    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=80)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    region = Region(["a.wav"], partial_texts=True)
    terminal.print("above")

    def interrupted(lines: list[Any]) -> Any:  # Rich has already stored the new height, but drawn nothing
        signal.raise_signal(signal.SIGINT)
        return loop_last(lines)

    with region:
        region.show(PartialText(0, 0.0, "a draft"))
        monkeypatch.setattr("rich.live_render.loop_last", interrupted)
        with pytest.raises(KeyboardInterrupt):
            region.show(PartialText(0, 9.0, "another"))
        monkeypatch.setattr("rich.live_render.loop_last", loop_last)
    terminal.print("below")
    assert screen(shown.getvalue()) == ["above", "below"]


def test_ctrl_c_while_reading(small_model: Path, tmp_path: Path) -> None:
    """The command waits for a recording that never arrives."""
    os.mkfifo(tmp_path / "pipe")
    with start("-m", small_model, tmp_path / "pipe") as process:
        writer = os.open(tmp_path / "pipe", os.O_WRONLY)  # returns once the reader has opened it
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        os.close(writer)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, b"", f"warning: interrupted: {LOST}\n".encode())

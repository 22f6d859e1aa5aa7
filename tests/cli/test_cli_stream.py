"""Text while it is being written: through pipes, on terminals, and when somebody stops reading or waiting."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from running import COMMAND, environment, funasr

import funasr_cli

CONTROL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x08]")


def text_of(model: Path, clip: Path, **options: object) -> str:
    return funasr_cli.transcribe(clip, funasr_cli.load(str(model)), **options).text


@pytest.mark.parametrize("count", [1, 2])
def test_piped_pieces_join_to_the_final_text(small_model: Path, zh_wav: Path, en_flac: Path, count: int) -> None:
    """Read as fast as it comes: every read is whole characters, all of them the text, nothing else on stdout."""
    clips = [zh_wav, en_flac][:count]
    command = [*COMMAND, "transcribe", "-m", str(small_model), *map(str, clips), "--stream", "--max-tokens", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout
        assert process.stderr
        reads = list(iter(lambda: os.read(process.stdout.fileno(), 1 << 16), b""))
        stderr = process.stderr.read().decode()
    assert process.returncode == 4
    assert len(reads) > 5
    pieces = [read.decode() for read in reads]  # raises on half a character
    names = [f"{clip}: " if count > 1 else "" for clip in clips]
    assert "".join(pieces) == "".join(
        f"{name}{text_of(small_model, clip, max_tokens=60)}\n" for name, clip in zip(names, clips, strict=True)
    )
    assert stderr.splitlines() == [
        f"warning: {c}: cut short after 60 tokens: the end may be missing" for c in clips
    ]


def test_stream_and_files(small_model: Path, zh_wav: Path, tmp_path: Path) -> None:
    """With an output folder, the data goes there and the text to stdout."""
    options = ("--stream", "--output-dir", tmp_path / "out", "--format", "json", "--max-tokens", 20)
    result = funasr("transcribe", "-m", small_model, zh_wav, *options)
    assert result.stdout == text_of(small_model, zh_wav, max_tokens=20) + "\n"
    assert os.listdir(tmp_path / "out") == ["zh-6s.json"]
    assert f"wrote {tmp_path / 'out/zh-6s.json'}\n" in result.stderr


def test_bad_files_in_a_stream(small_model: Path, zh_wav: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    result = funasr("transcribe", "-m", small_model, tmp_path / "a.wav", zh_wav, "--stream", "--max-tokens", 5)
    assert result.stdout == f"{zh_wav}: {text_of(small_model, zh_wav, max_tokens=5)}\n"
    assert f"error: {tmp_path / 'a.wav'}: the file is empty\n" in result.stderr
    assert result.exit_code == 1


def on_terminal(*arguments: object, stdout_too: bool = True, **env: str) -> tuple[int, str, str]:
    """Run on a terminal: exit code, what the terminal got, and what a pipe in stdout's place got."""
    controller, terminal = pty.openpty()
    stdout = terminal if stdout_too else subprocess.PIPE
    command = [*COMMAND, *map(str, arguments)]
    base = environment(TERM="xterm-256color", COLUMNS="120", LINES="40", **env)
    with subprocess.Popen(command, stdout=stdout, stderr=terminal, stdin=terminal, env=base) as process:
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
        except OSError:  # Linux's way of saying that the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)


def screen(shown: str) -> str:
    """What a terminal still shows at the end: just the line clearing that Rich uses."""
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
    return "\n".join(lines)


@pytest.fixture(scope="module")
def plain_text(small_model: Path, zh_wav: Path) -> str:
    return text_of(small_model, zh_wav, max_tokens=25)


def test_live_region_on_a_terminal(small_model: Path, zh_wav: Path, plain_text: str) -> None:
    """The text grows in a region that is taken away, and stands there once at the end."""
    code, shown, _ = on_terminal("transcribe", "-m", small_model, zh_wav, "--stream", "--max-tokens", 25)
    assert code == 4
    assert screen(shown).count(plain_text) == 1
    assert plain_text in screen(shown).splitlines()
    assert CONTROL_CODES.sub("", shown).count(plain_text[:4]) > 3, "it was shown while it grew"


def test_terminal_without_stream(small_model: Path, zh_wav: Path, plain_text: str) -> None:
    """The progress bar steps aside for the text."""
    code, shown, _ = on_terminal("transcribe", "-m", small_model, zh_wav, zh_wav, "--max-tokens", 25)
    assert code == 4
    assert screen(shown).splitlines().count(f"{zh_wav}: {plain_text}") == 2
    assert "0/2" in shown
    assert "/2" not in screen(shown)


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_stdout_piped_and_stderr_on_a_terminal(
    small_model: Path, zh_wav: Path, plain_text: str, options: tuple[str, ...]
) -> None:
    """`funasr transcribe a.wav > a.txt`: the file gets text without a control code, the terminal the progress."""
    arguments = ("transcribe", "-m", small_model, zh_wav, "--max-tokens", 25, *options)
    code, shown, printed = on_terminal(*arguments, stdout_too=False)
    assert (code, printed) == (4, plain_text + "\n")
    assert "\x1b[" in shown
    assert "warning: " in screen(shown)
    assert plain_text not in shown


def test_no_color(small_model: Path, zh_wav: Path) -> None:
    arguments = ("transcribe", "-m", small_model, zh_wav, "--max-tokens", 2)
    assert re.search(r"\x1b\[3\d", on_terminal(*arguments)[1])
    assert not re.search(r"\x1b\[(3|4|9)\d", on_terminal(*arguments, NO_COLOR="1")[1])


def test_markup_in_names_on_a_terminal(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    clip = tmp_path / "[bold]a[red].wav"
    clip.write_bytes(short_wav.read_bytes())
    model = tmp_path / "[red]m"
    model.symlink_to(small_model)
    for options in (("--stream",), ()):
        arguments = ("transcribe", "-m", model, clip, clip, "--max-tokens", 2, *options)
        code, shown, _ = on_terminal(*arguments)
        assert code == 4
        assert "loading [red]m" in shown
        assert screen(shown).count("[bold]a[red].wav: ") == 4  # two results, two warnings


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_reader_that_goes_away(small_model: Path, zh_wav: Path, options: tuple[str, ...]) -> None:
    """As in `funasr transcribe ... | head -c 1`."""
    arguments = ["transcribe", "-m", str(small_model), *[str(zh_wav)] * 3, "--max-tokens", "60", *options]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout
        assert process.stderr
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        stderr = process.stderr.read().decode()
    assert process.returncode != 0
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr
    assert "error" not in stderr


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_ctrl_c(small_model: Path, zh_wav: Path, options: tuple[str, ...], tmp_path: Path) -> None:
    """Sent once text has begun to come: 130, a word on stderr, no traceback."""
    arguments = ["transcribe", "-m", str(small_model), *[str(zh_wav)] * 50, "--max-tokens", "400", *options]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout
        assert process.stderr
        os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    stdout.decode()
    assert stderr.decode().splitlines()[-1] == "warning: interrupted"
    assert "Traceback" not in stderr.decode()


def test_ctrl_c_while_reading(small_model: Path, tmp_path: Path) -> None:
    """While it waits for a recording that never comes."""
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(
        [*COMMAND, "transcribe", "-m", str(small_model), str(tmp_path / "pipe")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    ) as process:  # fmt: skip
        writer = os.open(tmp_path / "pipe", os.O_WRONLY)  # returns once it has been opened for reading
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        os.close(writer)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, b"")
    assert b"Traceback" not in stderr

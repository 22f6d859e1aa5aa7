"""``funasr serve`` as a process: what it refuses, its models, and its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from support.running import invoke

from funasr_cli import demo
from funasr_cli.cli.serve import _folders, _key
from funasr_cli.errors import ExitCode
from funasr_cli.hubs.find import ALIASES

CLIP = demo.clips()[3].path


@contextmanager
def served(
    *options: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the server on a free port; yield its address and the process."""
    command = [sys.executable, "-m", "funasr_cli", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {}))
    try:
        assert process.stderr
        said = ""
        while not (found := re.search(r"listening on (\S+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield found[1], process
    finally:
        process.kill()
        process.wait()


def ask(address: str, **rest: object) -> httpx.Response:
    return httpx.post(
        f"{address}/v1/audio/transcriptions", files={"file": ("a", CLIP.read_bytes())}, timeout=60, **rest
    )  # type: ignore[arg-type]


@pytest.mark.process
def test_a_request_and_the_end(tmp_path: Path) -> None:
    """The key comes from a variable. Nothing is left in the temporary folder."""
    key = {"FUNASR_API_KEY": "s3cret", "TMPDIR": str(tmp_path)}
    with served("-m", "demo", environment=key) as (address, process):
        assert ask(address).status_code == 401
        answer = ask(address, headers={"Authorization": "Bearer s3cret"})
        assert answer.json()["text"]
        assert list(tmp_path.glob("funasr*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
        assert not list(tmp_path.glob("funasr*"))


@pytest.mark.process
def test_sigterm_while_a_request_is_open(tmp_path: Path) -> None:
    """It is finished, even its upload; others are refused, and nothing is left."""
    with served("-m", "demo", environment={"TMPDIR": str(tmp_path)}) as (address, process):
        host, port = address.removeprefix("http://").split(":")
        start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        body = start + CLIP.read_bytes() + b"\r\n--x--\r\n"
        head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body[:99]
            )
            deadline = time.monotonic() + 30
            while not list(tmp_path.glob("funasr-serve-*/*")) and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            with suppress(httpx.TransportError):
                while ask(address).status_code in (200, 503):
                    assert time.monotonic() < deadline, "it still answers others"
            connection.sendall(body[99:])
            answer = b""
            while b'"text"' not in answer and (part := connection.recv(1 << 16)):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert process.wait(30) == -signal.SIGTERM
        assert not list(tmp_path.glob("funasr*"))


@pytest.mark.process
def test_ctrl_c_while_a_request_is_open() -> None:
    with served("-m", "demo") as (address, process):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
            )
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("options", "exit_code", "said"),
    [
        (["--host", "0.0.0.0"], ExitCode.USAGE, "--api-key-file"),
        (["--host", "203.0.113.1", "--no-api-key"], ExitCode.ENVIRONMENT, "203.0.113.1:8000"),
        (["--allowed-host", "speech.example:8443"], ExitCode.USAGE, "speech.example:8443"),
        (["--allowed-host", "https://speech.example"], ExitCode.USAGE, "https://speech.example"),
        (["--allowed-host", ""], ExitCode.USAGE, "--allowed-host"),
        (["-m", "no-such-model"], ExitCode.MODEL, "no-such-model"),
        (["--api-key-file", "/no/such/file"], ExitCode.USAGE, "/no/such/file"),
        (["--port", "70000"], ExitCode.USAGE, "--port"), (["--keep-alive", "-1"], ExitCode.USAGE, "--keep-alive"),
    ],
)  # fmt: skip
def test_what_cannot_be_served(options: list[str], exit_code: ExitCode, said: str) -> None:
    result = invoke("serve", *(["-m", "demo"] if "-m" not in options else []), *options)
    assert result.exit_code == exit_code
    assert said in result.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = invoke("serve", "-m", "demo", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == ExitCode.ENVIRONMENT


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\nb", bytes(5000)])
def test_a_file_without_a_key(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    assert invoke("serve", "-m", "demo", "--api-key-file", str(tmp_path / "key")).exit_code == ExitCode.USAGE


@pytest.mark.parametrize("value", [" \n", "a\nb", "a" * 5000])
def test_a_variable_without_a_key(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_API_KEY", value)
    assert invoke("serve", "-m", "demo").exit_code == ExitCode.USAGE
    monkeypatch.setenv("FUNASR_API_KEY", "")
    assert _key(None) is None


def test_the_key_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """White space around it does not count."""
    monkeypatch.setenv("FUNASR_API_KEY", " of the variable\n")
    assert _key(None) == "of the variable"
    (tmp_path / "key").write_text(" schlüssel\r\n", encoding="utf-8")
    assert _key(tmp_path / "key") == "schlüssel"


def test_a_key_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("a key")
    for options in (["--api-key-file", str(tmp_path / "key")], []):
        result = invoke("serve", "-m", "demo", "--no-api-key", *options)
        assert result.exit_code == ExitCode.USAGE
        assert "--no-api-key" in result.stderr
        monkeypatch.setenv("FUNASR_API_KEY", "a key")


def test_the_key_is_not_in_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_API_KEY", "s3cret")
    result = invoke("info", "--json")
    assert result.exit_code == ExitCode.OK
    assert "s3cret" not in result.stdout + result.stderr
    assert "FUNASR_API_KEY" not in result.stderr


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("funasr_cli.cli.serve.missing", lambda *packages: ("serve",))
    result = invoke("serve", "-m", "demo")
    assert result.exit_code == ExitCode.ENVIRONMENT
    assert "serve" in result.stderr


def test_the_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All on this machine, except the demo; or those that are named. A folder has its own name."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    one = tmp_path / "models/owner/one"
    (one / "config.json").parent.mkdir(parents=True)
    (one / "config.json").write_text("{}")
    assert dict(_folders([])) == {"owner/one": one}
    assert list(_folders(["demo", "one"]).items()) == [("demo", demo.MODEL), ("owner/one", one)]
    assert list(_folders([str(one), str(demo.MODEL)])) == ["owner/one", "demo"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{}")
    assert list(_folders([str(tmp_path / "other")])) == ["other"]


def test_several_models_without_a_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are offered. The first by name is the default, which is reported; Fun-ASR-Nano comes before it."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))

    def add(name: str) -> None:
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")

    for name in ("demo", "owner/two", "owner/one"):
        add(name)
    assert list(_folders([])) == ["owner/one", "demo", "owner/two"]
    assert "owner/one" in capsys.readouterr().err
    add(ALIASES["nano"])
    assert list(_folders([])) == [ALIASES["nano"], "demo", "owner/one", "owner/two"]
    assert capsys.readouterr().err == ""

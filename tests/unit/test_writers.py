"""Transcripts as text and JSON, and files that are never overwritten."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from funasr_cli import writers
from funasr_cli.errors import OutputError
from funasr_cli.transcript import Segment, Timings, Transcript
from funasr_cli.writers import as_json, as_json_line, as_text, output_path, write_new

TIMINGS = Timings(0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 5)


def transcript(*texts: str, stop_reason: str = "eos") -> Transcript:
    segments = tuple(
        Segment(float(i), i + 1.0, text, "hm", stop_reason, 5, -0.5, None) for i, text in enumerate(texts)
    )
    return Transcript("[a].wav", float(len(texts)), "nano", None, segments, TIMINGS)


def test_text() -> None:
    assert as_text(transcript("你好", "", "a")) == "你好 a\n"
    assert as_text(transcript("")) == "\n"


def test_json_says_everything() -> None:
    data = json.loads(as_json(transcript("你好", stop_reason="budget")))
    assert data == json.loads(as_json_line(transcript("你好", stop_reason="budget")))
    assert data == {
        "text": "你好", "complete": False, "source": "[a].wav", "duration_s": 1.0, "model": "nano",
        "language": None, "warnings": [],
        "segments": [{"start_s": 0.0, "end_s": 1.0, "text": "你好", "thinking": "hm", "stop_reason": "budget",
                      "tokens": 5, "mean_logprob": -0.5, "ctc_text": None}],
        "timings": {"features_s": 0.1, "encoder_s": 0.2, "prefill_s": 0.3, "decode_s": 0.4, "first_token_s": 0.5,
                    "total_s": 1.0, "tokens": 5},
    }  # fmt: skip


def test_json_line_is_one_line_of_plain_characters() -> None:
    line = as_json_line(transcript('a\n"b"\u2028你'))
    assert line.count("\n") == 1
    assert line.endswith("}\n")
    assert "你" in line


def test_tokens_per_second() -> None:
    assert TIMINGS.tokens_per_s == 10
    assert Timings(0, 0, 0, 0, 0, 0, 1).tokens_per_s == 0


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("x/a.wav", "a.txt"),
        ("a.b.wav", "a.b.txt"),
        ("a", "a.txt"),
        (".wav", ".wav.txt"),
        ("录音.flac", "录音.txt"),
    ],
)
def test_output_path(tmp_path: Path, source: str, name: str) -> None:
    assert output_path(source, tmp_path, "txt") == tmp_path / name


def test_write_new(tmp_path: Path) -> None:
    write_new(tmp_path / "a.txt", "你好\r\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == "你好\r\nb\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_new(tmp_path / "a.txt", "a")
    finally:
        assert os.umask(before) == umask
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_never_overwrites(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.txt"
    {
        "file": lambda: path.write_text("old"),
        "link": lambda: path.symlink_to(tmp_path / "nowhere"),
        "folder": path.mkdir,
    }[kind]()
    with pytest.raises(OutputError) as caught:
        write_new(path, "new")
    assert caught.value.message == f"{path}: exists already"
    assert caught.value.hint == "choose another --output-dir, or remove it first"
    assert os.listdir(tmp_path) == ["a.txt"]
    assert kind != "file" or path.read_text() == "old"


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_new(tmp_path / "no" / "a.txt", "a")


@pytest.mark.parametrize("length", [255, 256])
def test_names_as_long_as_the_file_system_takes_them(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("a" * length)
    if length > 255:
        with pytest.raises(OutputError, match="cannot be written"):
            write_new(path, "a")
    else:
        write_new(path, "a")
    assert len(os.listdir(tmp_path)) == (length <= 255)


def no_links(*_: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on exFAT: still whole, still never over another file."""
    monkeypatch.setattr(writers.os, "link", no_links)
    write_new(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    with pytest.raises(OutputError, match="exists already"):
        write_new(tmp_path / "a.txt", "newer")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_nothing_is_left_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writers.os, "chmod", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_new(tmp_path / "a.txt", "new")
    assert os.listdir(tmp_path) == []

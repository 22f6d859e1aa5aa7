"""Transcripts as text and JSON, and files that are never overwritten."""

import errno
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import refused

from funasr_cli.formats import as_json_line, as_lines
from funasr_cli.transcript import Segment, Timings, Transcript, join_texts
from funasr_cli.writers import LEFTOVER, refuse_name, refuse_unwritable, write_new, write_whole

TIMINGS = Timings(0.1, 0.05, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0, 5, ctc_s=0.07, decoder_calls=3, drafted=4, accepted=2)


def segment(start_s: float, end_s: float, text: str, stop_reason: str = "eos", retries: int = 0) -> Segment:
    return Segment(start_s, end_s, text, "hm", stop_reason, retries, 5, -0.5)


def test_lines_with_a_prefix() -> None:
    segments = [segment(0, 1, "你好"), segment(1, 2, ""), segment(2, 3, "a")]
    assert as_lines(segments, "[a].wav: ") == "[a].wav: 你好\n[a].wav: a\n"
    assert as_lines(iter(segments)) == "你好\na\n"
    assert as_lines([], "[a].wav: ") == as_lines([segment(0, 1, "")], "[a].wav: ") == ""


SAMPLE = 1 / 16000
PARTS = st.tuples(
    st.integers(0, 10**7),  # samples of silence before the segment
    st.integers(1, 10**6),  # samples of the segment
    st.sampled_from(["eos", "budget", "loop", "nonfinite"]),
    st.integers(0, 2),
)


@given(st.lists(PARTS, max_size=12), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 12.5]))
def test_the_ledger_sums_to_the_length(parts: list[Any], silent_end: int, unread_s: float) -> None:
    """Every second is counted once, whatever its outcome, in the transcript and in its JSON."""
    segments, position = [], 0
    wanted = {"transcribed_s": 0, "repaired_s": 0, "failed_s": 0, "silence_s": silent_end, "doubtful_s": 0}
    wanted["untranslated_s"] = 0
    for silence, samples, stop_reason, retries in parts:
        start, position = position + silence, position + silence + samples
        segments.append(segment(start * SAMPLE, position * SAMPLE, "a", stop_reason, retries))
        state = "failed_s" if stop_reason != "eos" else "repaired_s" if retries else "transcribed_s"
        wanted["silence_s"] += silence
        wanted[state] += samples
    duration_s = (position + silent_end) * SAMPLE + unread_s
    said = Transcript("a.wav", duration_s, "nano", None, tuple(segments), TIMINGS, unread_s)
    ledger = json.loads(as_json_line(said))["ledger"]
    assert sum(ledger.values()) == pytest.approx(duration_s, abs=1e-5)
    assert min(ledger.values()) >= 0
    expected = {state: samples * SAMPLE for state, samples in wanted.items()}
    expected["failed_s"] += unread_s
    assert ledger == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ([], ""), (["", ""], ""), (["a", "b c"], "a b c"), (["", "a", "", "b", ""], "a b"),
        (["你好。", "世界"], "你好。世界"),
        (["こんにちは", "カタカナ、", "「漢字」"], "こんにちはカタカナ、「漢字」"),
        (["你好", "ok", "世界"], "你好 ok 世界"), (["619", "你好"], "619 你好"), (["안녕", "세계"], "안녕 세계"),
        (["！", "？"], "！？"), (["时时々", "ｶﾀｶﾅ", "𠮷野家"], "时时々ｶﾀｶﾅ𠮷野家"),
    ],
)  # fmt: skip
def test_texts_are_joined_by_script(texts: list[str], joined: str) -> None:
    """There is a space between words, but not between Chinese or Japanese characters."""
    assert join_texts(texts) == join_texts(iter(texts)) == joined


def test_tokens_per_second() -> None:
    assert TIMINGS.tokens_per_s == 8
    assert Timings(0, 0, 0, 0, 0, 1, 0, 1, 1).tokens_per_s == 0
    assert Timings(0, 0, 0, 0, 0, 0, 0, 0, 3).tokens_per_s == 0


def test_write_new(tmp_path: Path) -> None:
    write_new(tmp_path / "a.txt", "你好\r\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == "你好\r\nb\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask itself is never changed, because another thread may create a file at the same time."""
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patched:
            patched.delattr(os, "umask")
            write_new(tmp_path / "a.txt", "a")
    finally:
        assert os.umask(before) == umask
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_never_overwrites(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.txt"
    make = {"file": lambda: path.write_text("old"), "link": lambda: path.symlink_to("/no"), "folder": path.mkdir}
    make[kind]()
    with refused("output-exists", path):
        write_new(path, "new")
    assert os.listdir(tmp_path) == ["a.txt"]
    assert kind != "file" or path.read_text() == "old"


@pytest.mark.parametrize("name", ["no/a.txt", "a" * 256])
def test_invalid_names(tmp_path: Path, name: str) -> None:
    with refused("output-unwritable", name):
        write_new(tmp_path / name, "a")
    assert os.listdir(tmp_path) == []
    write_new(tmp_path / ("a" * 255), "a")


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, *names: str) -> None:
    """Make these file system calls fail."""
    for name in names:
        monkeypatch.setattr(os, name, Mock(side_effect=OSError(number, os.strerror(number))))


@pytest.mark.parametrize("call", ["chmod", "fchmod", "fsync", "link", "unlink"])
def test_calls_that_a_file_system_may_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Network shares, FUSE and exFAT do so; files are still complete and never overwrite others."""
    refuse(monkeypatch, errno.ENOTSUP, call)
    for _ in range(3):
        refuse_unwritable(tmp_path, "")
        refuse_name(tmp_path / "a.txt")
        refuse_name(tmp_path / "b.txt")
    write_new(tmp_path / "a.txt", "new")
    with refused("output-exists", tmp_path / "a.txt"):
        write_new(tmp_path / "a.txt", "newer")
    assert (tmp_path / "a.txt").read_text() == "new"
    write_whole(tmp_path / "a.txt", b"newest", replace=True)
    assert (tmp_path / "a.txt").read_text() == "newest"
    monkeypatch.undo()
    left = [LEFTOVER] if call == "unlink" else []
    assert sorted(os.listdir(tmp_path)) == [*left, "a.txt"]


@pytest.mark.parametrize(
    ("number", "calls", "code"),
    [
        (errno.ENOSPC, ["fsync"], "disk-full"), (errno.EDQUOT, ["fsync"], "disk-full"),
        (errno.ENOTSUP, ["link", "replace"], "output-unwritable"),
        (errno.EACCES, ["replace"], "output-unwritable"),  # --force needs it
    ],
)  # fmt: skip
def test_faults_that_would_lose_a_result_are_found_in_advance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, calls: list[str], code: str
) -> None:
    """A trial in the folder, or in its nearest existing parent, fails like writing. Neither leaves anything."""
    refuse(monkeypatch, number, *calls)
    for folder in (tmp_path, tmp_path / "not/there"):
        with refused(code, f"{tmp_path}:", "elsewhere"):
            refuse_unwritable(folder, "elsewhere")
    with refused(code):
        write_whole(tmp_path / "a.txt", b"new", replace=True)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc there")
def test_a_folder_in_which_nothing_can_be_made() -> None:
    """Linux reports that the new file does not exist, which explains nothing."""
    with refused("output-unwritable", "/proc") as caught:
        refuse_unwritable(Path("/proc/x"), "")
    assert os.strerror(errno.ENOENT) not in caught.value.message


@pytest.mark.parametrize("name", ["a" * 256, "字" * 86, "file/a.txt", f"{'b' * 256}/a.txt", "folder"])
def test_names_are_tried_before(tmp_path: Path, name: str) -> None:
    """Invalid names fail in the trial. Valid ones leave nothing, and no file with the name itself."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with refused("output-unwritable"):
        refuse_name(tmp_path / name)
    refuse_name(tmp_path / "new" / ("字" * 85))
    refuse_name(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "new"]
    assert os.listdir(tmp_path / "new") == []

"""Files that somebody else wrote: which are opened, what is read of them, and what is said of the others."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from funasr_cli.checkpoints.headers import safetensors_header
from funasr_cli.checkpoints.plain_yaml import read_yaml
from funasr_cli.checkpoints.untrusted import (
    DAMAGED_HINT,
    file_in,
    optional_file_in,
    quoted,
    read_ctc_vocabulary,
    read_index,
    read_json,
    read_tokenizer,
)
from funasr_cli.errors import ModelError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def refusal(read: Callable[..., Any], *arguments: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read(*arguments)
    error = caught.value
    assert len((error.message + error.hint).splitlines()) == 1
    assert (error.message + error.hint).isprintable()
    return error


# --- which files ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with a file, and a secret beside it."""
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "checkpoint"
    (folder / "decoder").mkdir(parents=True)
    for name in ("a.json", "decoder/b.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["a.json", "decoder/b.json"])
def test_files_in_a_folder(folder: Path, name: str) -> None:
    assert file_in(folder, name) == optional_file_in(folder, name) == folder / name


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "/etc/passwd", "..", "../secret", "decoder/../../secret", "decoder/../a.json", ".", "./a.json",
        "decoder//b.json", "decoder/", "..\\secret", "decoder\\b.json", "C:a.json", "c:/a.json", "a.json\0", "a\n",
        "\x1b[2J", "\ud800", "a\u202ejson",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(folder: Path, name: str) -> None:
    for find in (file_in, optional_file_in):
        assert refusal(find, folder, name).message == f"{folder}: {quoted(name)} is not the name of a file in it"


def test_files_that_are_missing(folder: Path) -> None:
    error = refusal(file_in, folder, "c.json", "copy it")
    assert (error.message, error.hint) == (f"{folder / 'c.json'}: missing", "copy it")
    assert refusal(file_in, folder, "a.json/c.json").message == f"{folder / 'a.json/c.json'}: missing"
    assert refusal(file_in, folder / "none", "a.json").message == f"{folder / 'none/a.json'}: missing"
    assert optional_file_in(folder, "c.json") is None
    assert optional_file_in(folder, "none/c.json") is None
    assert "cannot be read (" in refusal(file_in, folder, "a" * 300).message


@pytest.mark.parametrize("find", [file_in, optional_file_in])
def test_what_is_no_file(folder: Path, find: Callable[..., Any]) -> None:
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    assert refusal(find, folder, "decoder").message == f"{folder / 'decoder'}: not a file"
    assert refusal(find, folder, "pipe").message == f"{folder / 'pipe'}: not a file"
    error = refusal(find, folder, "empty")
    assert (error.message, error.hint) == (f"{folder / 'empty'}: empty", DAMAGED_HINT)


@pytest.mark.parametrize("find", [file_in, optional_file_in])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../secret", "a link that leads out of the folder"),
        ("/dev/zero", "a link that leads out of the folder"),
        ("..", "a link that leads out of the folder"),
        ("nothing", "a link that leads nowhere"),
        ("link", "cannot be read ("),
        ("decoder", "not a file"),
        (".", "not a file"),
    ],
)
def test_links(folder: Path, find: Callable[..., Any], target: str, message: str) -> None:
    (folder / "link").symlink_to(target)
    assert refusal(find, folder, "link").message.startswith(f"{folder / 'link'}: {message}")


def test_links_of_folders(folder: Path) -> None:
    """Out of the checkpoint they lead nowhere; the checkpoint itself may be anywhere."""
    (folder / "away").symlink_to("..")
    (folder / "other").symlink_to("decoder")
    assert "leads out" in refusal(file_in, folder, "away/secret").message
    assert file_in(folder, "other/b.json") == folder / "other/b.json"
    (folder.parent / "name").symlink_to(folder)
    assert file_in(folder.parent / "name", "a.json") == folder.parent / "name/a.json"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """As Hugging Face's cache has it."""
    root = tmp_path / "models--owner--model"
    (root / "blobs/deep").mkdir(parents=True)
    for name in ("blobs/1234", "blobs/deep/1234", "refs"):
        (root / name).write_text("{}")
    snapshot = root / "snapshots/c0ffee"
    (snapshot / "decoder").mkdir(parents=True)
    (snapshot / "a.json").symlink_to("../../blobs/1234")
    (snapshot / "decoder/b.json").symlink_to("../../../blobs/1234")
    return snapshot


def test_links_into_the_blobs_of_a_cache(snapshot: Path, tmp_path: Path) -> None:
    for name in ("a.json", "decoder/b.json"):
        assert file_in(snapshot, name) == snapshot / name
    (tmp_path / "name").symlink_to(snapshot)
    assert file_in(tmp_path / "name", "a.json") == tmp_path / "name/a.json"


def test_only_snapshots_have_blobs(snapshot: Path) -> None:
    moved = snapshot.parent.rename(snapshot.parents[1] / "others") / snapshot.name
    assert "leads out of the folder" in refusal(file_in, moved, "a.json").message


@pytest.mark.parametrize("target", ["../../refs", "../../blobs/deep/1234", "../other/a.json", "../../../secret"])
def test_links_to_elsewhere_in_a_cache(snapshot: Path, target: str) -> None:
    (snapshot.parent / "other").mkdir()
    (snapshot.parent / "other/a.json").write_text("{}")
    (snapshot.parents[2] / "secret").write_text("x")
    (snapshot / "link").symlink_to(target)
    assert "leads out of the folder" in refusal(file_in, snapshot, "link").message


def test_blobs_that_are_a_link_themselves(snapshot: Path) -> None:
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(blobs.with_name("elsewhere"))
    blobs.symlink_to("elsewhere")
    assert "leads out of the folder" in refusal(file_in, snapshot, "a.json").message


READERS: list[Callable[[Path], Any]] = [
    read_json, read_index, read_yaml, safetensors_header, read_ctc_vocabulary,
    lambda path: read_tokenizer(path, 9),
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
def test_every_reader_refuses_what_is_no_file(folder: Path, read: Callable[[Path], Any]) -> None:
    """Whether anybody has asked `file_in` or not, and without waiting for the other end of a pipe."""
    os.mkfifo(folder / "pipe")
    (folder / "pointer").write_bytes(POINTER)
    (folder / "closed").write_text("{}")
    (folder / "closed").chmod(0)
    assert refusal(read, folder / "none").message == f"{folder / 'none'}: missing"
    assert refusal(read, folder / "pipe").message == f"{folder / 'pipe'}: not a file"
    assert refusal(read, folder).message == f"{folder}: not a file"
    assert refusal(read, Path("/dev/zero")).message == "/dev/zero: not a file"
    error = refusal(read, folder / "pointer")
    assert error.message == f"{folder / 'pointer'}: a pointer of git-lfs, not the file itself"
    assert error.hint == "run: git lfs pull"
    if os.geteuid():
        assert (
            refusal(read, folder / "closed").message == f"{folder / 'closed'}: cannot be read (Permission denied)"
        )
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    ("read", "limit"),
    [
        (read_json, "1,048,576"),
        (read_index, "16,777,216"),
        (read_yaml, "65,536"),
        (READERS[-1], "33,554,432"),
        (read_ctc_vocabulary, "16,777,216"),
    ],
)
def test_files_that_are_too_large(tmp_path: Path, read: Callable[[Path], Any], limit: str) -> None:
    """They need not even take space on the disk."""
    path = tmp_path / "a"
    path.touch()
    os.truncate(path, 1 << 40)
    message = refusal(read, path).message
    path.unlink()  # pytest would keep it
    assert message == f"{path}: 1,099,511,627,776 bytes, more than the {limit} read of such a file"


# --- JSON ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b"", "cannot be read (Expecting value: line 1 column 1 (char 0))"),
        (b'{"a": 1', "cannot be read (Expecting ',' delimiter: line 1 column 8 (char 7))"),
        (b'{"a": 1, "a": 2}', "cannot be read ('a' stands twice in one object)"),
        (b'{"b": {"a": 1, "a": 1}}', "cannot be read ('a' stands twice in one object)"),
        (b'{"a": NaN}', "cannot be read (the number NaN)"),
        (b'{"a": -Infinity}', "cannot be read (the number -Infinity)"),
        (b'{"a": 1e999}', "cannot be read (the number 1e999)"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read (a number of 5000 digits)"),
        (b'{"a": ' + b"9" * 21 + b"}", "cannot be read (a number of 21 digits)"),
        (
            b'{"a": "\xff"}',
            "cannot be read ('utf-8' codec can't decode byte 0xff in position 7: invalid start byte)",
        ),
        (b'{"a": "\\ud800"}', "cannot be read ('utf-8' codec can't encode character '\\ud800' in position 7:"),
        (b'{"a": ' * 33 + b"1" + b"}" * 33, "nested deeper than 32 levels"),
        (b'{"a": ' + b"[" * 1_000_000, "nested deeper than 32 levels"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert refusal(read_json, path).message.startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"a": [{"b": [1, -2.5e-6, None, True, "ä\n"]}], "c": 10**19},
        {"brackets": "[" * 100, "quotes": '"' * 7 + "[" * 100, "backslashes": "\\" * 3 + '"' + "[" * 100},
        {"a" * 31: json.loads("[" * 31 + "]" * 31)},
        {"\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"): "emoji, escaped"},
    ],
)
def test_json_that_is_read(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert read_json(path) == content


def test_an_index(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"x": "a.json", "y": "a.json"}}))
    assert read_index(path) == {"x": "a.json", "y": "a.json"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "{path}: weight_map is not an object of file names"),
        ({}, "{path}: weight_map is not an object of file names"),
        (["a.json"], "{path}: weight_map is not an object of file names"),
        ({"x": 1}, "{path}: weight_map is not an object of file names"),
        ({"x": "../secret"}, "{folder}: '../secret' is not the name of a file in it"),
        ({"x": "/dev/zero"}, "{folder}: '/dev/zero' is not the name of a file in it"),
        ({"x": "decoder/b.json"}, "{path}: 'decoder/b.json' is not beside it"),
    ],
)
def test_an_index_that_leads_elsewhere(folder: Path, names: Any, message: str) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": names}))
    assert refusal(read_index, path).message == message.format(folder=folder, path=path)


# --- YAML ---

LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a mapping"),
        (b"- a", "not a mapping"),
        (b"a: &x 1", "cannot be read (anchors and aliases are not read, line 1)"),
        (LAUGHS.encode(), "cannot be read (anchors and aliases are not read, line 1)"),
        (b"a: 1\nb: *x", "cannot be read (anchors and aliases are not read, line 2)"),
        (b"a: 1\n<<: {b: 2}", "cannot be read (keys are not merged, line 2)"),
        (b"a: !!python/object/apply:os.system ['true']", "cannot be read (tags are not read, line 1)"),
        (b"a: !!str 1", "cannot be read (tags are not read, line 1)"),
        (b"a: !x 1", "cannot be read (tags are not read, line 1)"),
        (b"a: 1\nb: {c: 1, c: 2}", "cannot be read (a key stands twice in one mapping, line 2)"),
        (b"a: 1\na: 2", "cannot be read (a key stands twice in one mapping, line 1)"),
        (b"a: " + b"9" * 5000, "cannot be read (a number of 5000 digits, line 1)"),
        (b"a: 0x" + b"f" * 5000, "cannot be read (a number of 5002 digits, line 1)"),
        (b"a: 1" + b":59" * 5000, "cannot be read (a number of 15001 digits, line 1)"),
        (b"a: " + b"[" * 33 + b"]" * 33, "cannot be read (nested deeper than 32 levels, line 1)"),
        (b"a: " + b"[" * 60_000, "cannot be read (nested deeper than 32 levels, line 1)"),
        (b"? [a]\n: 1", "cannot be read (found unhashable key, line 1)"),
        (b"a: 1\n---\nb: 1", "cannot be read (but found another document, line 2)"),
        (b'a: "\\ud800"', "cannot be read ('utf-8' codec can't encode character '\\ud800' in position 0:"),
        (b"\xff", "cannot be read ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"),
        (b"a: \0", "cannot be read (unacceptable character #x0000: special characters are not allowed"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert refusal(read_yaml, path).message.startswith(f"{path}: {message}")


def test_yaml_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "# a comment\nmodel: FunASRNano\nconf: {fs: 16000, ratio: 0.5, none: null, on: yes, ref: '${a.b}'}\n"
        "list:\n- 1\n- [2]\ndate: 2026-11-21\nlarge: .inf\n? key\n: value\n",
        encoding="utf-8",
    )
    assert read_yaml(path) == {
        "model": "FunASRNano",
        "conf": {"fs": 16000, "ratio": 0.5, "none": None, True: True, "ref": "${a.b}"},
        "list": [1, [2]],
        "date": "2026-11-21",
        "large": float("inf"),
        "key": "value",
    }


def test_what_is_quoted_stays_short() -> None:
    assert quoted("a" * 1000) == f"'{'a' * 199}..."
    assert quoted("\x1b\n") == r"'\x1b\n'"

"""Files from untrusted sources: which are opened, what is read, and errors about the others."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from support.checkpoints import upstream_config
from support.damaged import BOMB, POINTER
from support.errors import refused
from support.layouts import write_mlx_audio, write_transformers
from support.small import SMALL

from funasr_cli import demo
from funasr_cli.checkpoints.tensors import DTYPE_BYTES, open_safetensors
from funasr_cli.checkpoints.untrusted import (
    SHOWN_CHARACTERS,
    file_in,
    optional_file_in,
    quoted,
    read_index,
    read_json,
    read_yaml,
    readable,
)
from funasr_cli.checkpoints.vocabularies import read_ctc_vocabulary, read_tokenizer
from funasr_cli.errors import FunASRError, ModelError
from funasr_cli.families.open import open_checkpoint

FIND = pytest.mark.parametrize("find", [file_in, optional_file_in])


def refusal(code: str, read: Callable[..., Any], *arguments: Any) -> FunASRError:
    with refused(code) as caught:
        read(*arguments)
    assert (caught.value.message + caught.value.hint).isprintable()  # including that it is a single line
    return caught.value


# --- paths ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with a file, next to a file that must not be read."""
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "checkpoint"
    (folder / "decoder").mkdir(parents=True)
    for name in ("a.json", "decoder/b.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["a.json", "decoder/b.json"])
def test_files_in_a_folder(folder: Path, name: str) -> None:
    assert file_in(folder, name) == optional_file_in(folder, name) == folder / name


@FIND
@pytest.mark.parametrize(
    "name",
    [
        "", "/", "/etc/passwd", "..", "../secret", "decoder/../../secret", "decoder/../a.json", ".", "./a.json",
        "decoder//b.json", "decoder/", "..\\secret", "decoder\\b.json", "C:a.json", "c:/a.json", "a.json\0", "a\n",
        "\x1b[2J", "\ud800", "a\u202ejson",
    ],
)  # fmt: skip
def test_names_outside_of_the_folder(folder: Path, find: Callable[..., Any], name: str) -> None:
    assert quoted(name) in refusal("model-path", find, folder, name).message


def test_files_that_are_missing(folder: Path) -> None:
    assert refusal("model-missing", file_in, folder, "c.json", "copy it").hint == "copy it"
    refusal("model-missing", file_in, folder, "a.json/c.json")
    refusal("model-missing", file_in, folder / "none", "a.json")
    assert optional_file_in(folder, "c.json") is None
    assert optional_file_in(folder, "none/c.json") is None
    refusal("model-damaged", file_in, folder, "a" * 300)


@FIND
def test_paths_that_are_not_files(folder: Path, find: Callable[..., Any]) -> None:
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    for name, code in (("decoder", "model-path"), ("pipe", "model-path"), ("empty", "model-damaged")):
        assert f"{folder / name}: " in refusal(code, find, folder, name).message


@FIND
@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("../secret", "model-path"), ("/dev/zero", "model-path"), ("..", "model-path"),
        ("nothing", "model-missing"), ("link", "model-damaged"), ("decoder", "model-path"), (".", "model-path"),
    ],
)  # fmt: skip
def test_links(folder: Path, find: Callable[..., Any], target: str, code: str) -> None:
    (folder / "link").symlink_to(target)
    assert f"{folder / 'link'}: " in refusal(code, find, folder, "link").message


def test_links_of_folders(folder: Path) -> None:
    """Links in a checkpoint that lead out of it are refused; the checkpoint itself may be a link."""
    (folder / "away").symlink_to("..")
    (folder / "other").symlink_to("decoder")
    refusal("model-path", file_in, folder, "away/secret")
    assert file_in(folder, "other/b.json") == folder / "other/b.json"
    (folder.parent / "name").symlink_to(folder)
    assert file_in(folder.parent / "name", "a.json") == folder.parent / "name/a.json"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot in Hugging Face's cache."""
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
    moved = snapshot.parent.rename(snapshot.parents[1] / "others") / snapshot.name
    refusal("model-path", file_in, moved, "a.json")  # only snapshots have blobs


@pytest.mark.parametrize("target", ["../../refs", "../../blobs/deep/1234", "../other/a.json", "../../../secret"])
def test_links_to_elsewhere_in_a_cache(snapshot: Path, target: str) -> None:
    (snapshot.parent / "other").mkdir()
    (snapshot.parent / "other/a.json").write_text("{}")
    (snapshot.parents[2] / "secret").write_text("x")
    (snapshot / "link").symlink_to(target)
    refusal("model-path", file_in, snapshot, "link")


# --- contents ---

READERS = [
    read_json, read_index, read_yaml, open_safetensors, read_ctc_vocabulary,
    pytest.param(lambda path: read_tokenizer(path, 2048), id="read_tokenizer"),
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
def test_files_that_cannot_be_opened(folder: Path, read: Callable[[Path], Any]) -> None:
    """It does not matter whether `file_in` has checked them. A pipe does not block."""
    os.mkfifo(folder / "pipe")
    (folder / "pointer").write_bytes(POINTER)
    (folder / "closed").write_text("{}")
    (folder / "closed").chmod(0)
    refusal("model-missing", read, folder / "none")
    for path in (folder / "pipe", folder, Path("/dev/zero")):
        refusal("model-path", read, path)
    assert refusal("model-damaged", read, folder / "pointer").hint == "run: git lfs pull"
    if os.geteuid():
        refusal("model-damaged", read, folder / "closed")


@pytest.mark.parametrize("read", READERS)
def test_files_that_are_too_large(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    """Sparse files take no space on disk."""
    path = tmp_path / "a"
    path.touch()
    os.truncate(path, 1 << 40)
    refusal("model-damaged", read, path)
    path.unlink()  # pytest would keep it


@pytest.mark.parametrize("content", [
    b"a: [", b"a: !x 1", b"a: !!python/object/apply:os.system ['true']", b"a: " + b"9" * 5000, b"a: 2026-99-99",
    b"? [a]\n: 1", b"a: 1\n---\nb: 1", b"\xff", b"a: \0", b"a: !!timestamp x",
    b"a: !!bool x", b"b: *x", b"a: !!int x", pytest.param(b"a: " + b"[" * 60_000, marks=pytest.mark.slow),
])  # fmt: skip
def test_yaml_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    refusal("model-damaged", read_yaml, path)


@pytest.mark.parametrize("read", [read_json, read_yaml])
@pytest.mark.parametrize("content", [b"[]", b'"a"', b"3", b"null"])
def test_contents_that_are_not_mappings(tmp_path: Path, read: Callable[[Path], Any], content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    refusal("model-config", read, tmp_path / "a")


def test_valid_contents(tmp_path: Path) -> None:
    content = {"a": [{"b": [1, -2.5e-6, None, True, "ä\n"]}], "brackets": "[" * 100, "c": 10**19}
    path = tmp_path / "a"
    path.write_text(json.dumps(content))
    assert read_json(path) == read_yaml(path) == content
    path.write_text("# a comment\nmodel: FunASRNano\nconf: {fs: 16000, ratio: 0.5, none: null, ref: '${a.b}'}\n")
    expected = {"fs": 16000, "ratio": 0.5, "none": None, "ref": "${a.b}"}
    assert read_yaml(path) == {"model": "FunASRNano", "conf": expected}


@pytest.mark.parametrize("merge", [False, True])
def test_a_billion_laughs(tmp_path: Path, merge: bool) -> None:
    """Shared nodes are small unless they are expanded."""
    doubled = (f"{after}: &{after} {{<<: [*{name}, *{name}]}}\n" for name, after in pairwise(ascii_lowercase))
    merged = "a: &a {k: 1}\n" + "".join(doubled)
    path = tmp_path / "config.yaml"
    path.write_text(merged if merge else BOMB)
    found = read_yaml(path)
    assert len(quoted(found)) < 2 * SHOWN_CHARACTERS


def test_an_index(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"x": "a.json", "y": "a.json"}}))
    assert read_index(path) == {"x": "a.json", "y": "a.json"}


def test_quoted_values_stay_short() -> None:
    """They are also shown in one line."""
    circle: list[Any] = []
    circle.append(circle)
    for value in (
        "a" * 10**6,
        "\x1b\n" * 1000,
        ["a" * 100] * 10**5,
        circle,
        10**5000,
        {"a": {"b": {"c": {"d": {}}}}},
    ):
        assert quoted(value).isprintable()
        assert len(quoted(value)) < SHOWN_CHARACTERS + 10
    assert quoted("\x1b\n") == r"'\x1b\n'"
    assert readable("a\nb\x07" + "c" * 1000) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}" + "c" * 196


# --- any content: a valid value or one error, in little memory ---

FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
MOST_BYTES = 64 << 20


def outcome(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return a value, or None for an error, after asserting that it is one short printable line."""
    refusals = []
    tracemalloc.start()
    try:
        return read(*arguments)
    except ModelError as error:
        refusals = (error.message + error.hint).splitlines()
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < MOST_BYTES
        assert all(line.isprintable() and len(line) < 1000 for line in refusals)


def changed(content: bytes) -> st.SearchStrategy[bytes]:
    """Draw a file with some bytes changed, a piece removed or inserted, or a part cut off."""
    position = st.integers(0, len(content))
    flips = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(1, 255)), min_size=1, max_size=4)
    return st.one_of(
        flips.map(lambda changes: flipped(content, changes)),
        position.map(lambda end: content[:end]),
        st.tuples(position, st.integers(1, 64)).map(lambda cut: content[: cut[0]] + content[sum(cut) :]),
        st.tuples(position, st.binary(max_size=16)).map(
            lambda put: content[: put[0]] + put[1] + content[put[0] :]
        ),
    )


def flipped(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(content)
    for position, mask in changes:
        damaged[position] ^= mask
    return bytes(damaged)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


SAFETENSORS = save({"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16), "c": np.ones(0, np.float32)})


@FUZZ
@given(st.binary(max_size=200) | changed(SAFETENSORS))
def test_any_safetensors(path: Path, content: bytes) -> None:
    """A file that is accepted can be read, regardless of its content."""
    path.write_bytes(content)
    for tensor in (outcome(open_safetensors, path) or {}).values():
        if tensor.dtype in DTYPE_BYTES:
            assert outcome(tensor.read).shape == tensor.shape


PIECES = st.sampled_from(
    ["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<: ", "!!int ", "!x ", "? ", "| ", "> ",
     "'", '"', "\\", "%", "---\n", "...\n", "#", "1", "0x_", "1:1", ".", "=", "~", "2026-99-99", "\t", "\r"]
)  # fmt: skip


@FUZZ
@given(
    st.binary(max_size=200)
    | st.lists(PIECES, max_size=40).map("".join).map(str.encode)
    | changed(yaml.safe_dump(upstream_config(SMALL), sort_keys=False).encode())
)
def test_any_yaml_and_json(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read in (read_yaml, read_json, read_index):
        assert isinstance(outcome(read, path), dict | None)


TOKENIZER = (demo.MODEL / "tokenizer.json").read_bytes()
HEAD, TAIL = TOKENIZER[:6000], TOKENIZER[6000:]  # most of it is the vocabulary


@FUZZ
@given(st.binary(max_size=200) | changed(HEAD).map(lambda head: head + TAIL) | changed(TOKENIZER))
def test_any_tokenizer(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tokenizer = outcome(read_tokenizer, path, 2048)
    assert tokenizer is None or max(tokenizer.get_vocab().values()) < 2048


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_transformers, write_mlx_audio])
def test_edited_layouts(write: Callable[..., Path], small_checkpoint: Path, tmp_path: Path) -> None:
    """One value after the other is replaced, with all files present."""
    folder = write(small_checkpoint, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    places = [(key, inner) for key, part in content.items() if isinstance(part, dict) for inner in part]

    @FUZZ
    @given(st.sampled_from([*places, *((key, None) for key in content)]), VALUES)
    def edit(place: tuple[str, str | None], value: Any) -> None:
        key, inner = place
        edited = content | {key: value if inner is None else content[key] | {inner: value}}
        (folder / "config.json").write_text(json.dumps(edited))
        outcome(open_checkpoint, folder, "model")

    edit()

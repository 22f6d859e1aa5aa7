"""Whatever stands in a file of a checkpoint: it gives a valid value or one `ModelError`, in little memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from support.checkpoints import upstream_config
from support.layouts import write_mlx_audio, write_transformers
from support.small import SMALL

from funasr_cli import demo
from funasr_cli.checkpoints.sources import open_checkpoint
from funasr_cli.checkpoints.tensors import DTYPE_BYTES, open_safetensors
from funasr_cli.checkpoints.untrusted import read_index, read_json, read_yaml
from funasr_cli.checkpoints.vocabularies import read_tokenizer
from funasr_cli.errors import ModelError

FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
MOST_BYTES = 64 << 20


def outcome(read: Callable[..., Any], *arguments: Any) -> Any:
    """What comes of it; of a refusal, only that it says one short printable line."""
    refused = None
    tracemalloc.start()
    try:
        return read(*arguments)
    except ModelError as error:
        refused = error
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < MOST_BYTES
    assert refused.code
    lines = (refused.message + refused.hint).splitlines()
    assert all(line.isprintable() and len(line) < 1000 for line in lines)
    return None


def changed(content: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes exchanged, a piece taken out or put in, or cut short."""
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
    """What is let through can be read, whatever is in it."""
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
    """One value after the other is exchanged, with all files at hand."""
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

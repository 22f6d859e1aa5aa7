"""Tokenizer files: which are read, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_untrusted import refusal
from tokenizers import Tokenizer

from funasr_cli import demo
from funasr_cli.checkpoints.plain_tokenizer import QWEN_SPLIT
from funasr_cli.checkpoints.untrusted import read_tokenizer


def test_a_tokenizer_that_is_read() -> None:
    path = demo.MODEL / "tokenizer.json"
    tokenizer = read_tokenizer(path, 2048)
    assert tokenizer.encode("hello").ids == Tokenizer.from_file(str(path)).encode("hello").ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model": {"type": "BPE"}}', "damaged ("),
        (b"{}", "unlike Qwen's tokenizer: model None"),
        (b"\xff", "cannot be read ("),
        (b"", "cannot be read ("),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 32 levels"),
    ],
)
def test_a_tokenizer_that_is_damaged(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    error = refusal(read_tokenizer, path, 2048)
    assert error.message.startswith(f"{path}: {message}")


def replaced(steps: int) -> dict[str, Any]:
    """Each step makes twenty letters of one."""
    step = {"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 20}
    return {"type": "Sequence", "normalizers": [step] * steps}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPLIT = {"type": "Split", "pattern": {"Regex": QWEN_SPLIT}, "behavior": "Isolated", "invert": False}
SLOW_SPLIT = SPLIT | {"pattern": {"Regex": "(a+)+$"}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
TEMPLATE = {
    "type": "TemplateProcessing", "single": [TEXT],
    "pair": [TEXT, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {},
}  # fmt: skip


def in_sequence(members: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", members: list(parts)}


def demo_tokenizer(path: Path, place: str, part: Any) -> Path:
    content = json.loads((demo.MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {place: part}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("normalizer", None),
        ("normalizer", {"type": "NFC"}),
        ("pre_tokenizer", BYTE_LEVEL),
        ("pre_tokenizer", SPLIT),
        ("pre_tokenizer", in_sequence("pretokenizers", SPLIT, BYTE_LEVEL)),
        ("post_processor", None),
        ("post_processor", BYTE_LEVEL),
        ("post_processor", TEMPLATE),
        ("post_processor", in_sequence("processors", BYTE_LEVEL, TEMPLATE)),
        ("decoder", BYTE_LEVEL),
        ("decoder", in_sequence("decoders", BYTE_LEVEL)),
    ],
)
def test_parts_of_a_tokenizer_that_are_known(tmp_path: Path, place: str, part: Any) -> None:
    """As Qwen's own file and transformers' save_pretrained have them."""
    path = demo_tokenizer(tmp_path / "tokenizer.json", place, part)
    assert read_tokenizer(path, 2048).encode("hello").ids == Tokenizer.from_file(str(path)).encode("hello").ids


@pytest.mark.parametrize(
    ("place", "part", "message"),
    [
        ("normalizer", replaced(7), "normalizer 'Sequence'"),
        ("normalizer", {"type": "\x1b[31m\n"}, r"normalizer '\x1b[31m\n'"),
        ("pre_tokenizer", SLOW_SPLIT, "pre_tokenizer 'Split' by another pattern than Qwen's"),
        ("pre_tokenizer", in_sequence("pretokenizers", BYTE_LEVEL, BYTE_LEVEL), "pre_tokenizer 'ByteLevel' twice"),
        ("pre_tokenizer", in_sequence("pretokenizers", *[SPLIT] * 9), "pre_tokenizer of more than 8 steps"),
        ("pre_tokenizer", {"type": "Metaspace"}, "pre_tokenizer 'Metaspace'"),
        ("pre_tokenizer", {"type": "Sequence"}, "pre_tokenizer 'Sequence'"),
        ("pre_tokenizer", [BYTE_LEVEL], f"pre_tokenizer {[BYTE_LEVEL]}"),
        ("post_processor", TEMPLATE | {"single": [TEXT] * 9}, "post_processor 'TemplateProcessing'"),
        ("decoder", {"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}, "decoder 'Replace'"),
        ("model", {"type": "Unigram", "unk_id": 0, "vocab": []}, "model 'Unigram'"),
        ("model", {"type": "BPE", "vocab": {"a" * 1025: 0}, "merges": []}, "tokens of more than 1024 characters"),
        ("model", {"type": "BPE", "dropout": 0.5, "vocab": {}, "merges": []}, "model with dropout"),
        ("added_tokens", [{"id": 0, "content": "a"}] * 10_001, "10,001 added tokens"),
        ("added_tokens", [{"id": 0, "content": "a" * 1025}], "added tokens of more than 1024 characters"),
        ("added_tokens", [1], "added_tokens that are no list of objects"),
    ],
)
def test_parts_of_a_tokenizer_that_are_not_known(tmp_path: Path, place: str, part: Any, message: str) -> None:
    """They can make gigabytes of a line of text, or search for ever."""
    path = demo_tokenizer(tmp_path / "tokenizer.json", place, part)
    error = refusal(read_tokenizer, path, 2048)
    assert error.message == f"{path}: unlike Qwen's tokenizer: {message}"
    assert error.hint == "copy the tokenizer of Qwen3"


def test_a_tokenizer_with_an_id_beyond_the_embeddings(tmp_path: Path) -> None:
    """However few tokens there are: such a row would be read from somewhere in memory."""
    path = tmp_path / "tokenizer.json"
    content = json.loads((demo.MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["!"] = 4_000_000_000
    path.write_text(json.dumps(content))
    error = refusal(read_tokenizer, path, 2048)
    assert error.message == f"{path}: not every id is below the decoder's 2048"
    assert error.hint == "it is another model's"

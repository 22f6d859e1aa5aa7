"""Tokenizer files and CTC vocabularies: which are accepted; no other one crashes the process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.errors import refused
from support.tokenizers_bpe import QWEN_SPLIT
from tokenizers import Tokenizer

from funasr_cli import demo
from funasr_cli.checkpoints.vocabularies import read_ctc_vocabulary, read_tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPLIT = {"type": "Split", "pattern": {"Regex": QWEN_SPLIT}, "behavior": "Isolated", "invert": False}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
OTHER = {"Sequence": {"id": "B", "type_id": 1}}
TEMPLATE = {"type": "TemplateProcessing", "single": [TEXT], "pair": [TEXT, OTHER], "special_tokens": {}}


def sequence(members: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", members: list(parts)}


def edited(path: Path, **parts: Any) -> Path:
    """Write the demo model's tokenizer with other parts."""
    content = json.loads((demo.MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | parts), encoding="utf-8")
    return path


def assert_refused(path: Path, code: str, *values: object) -> None:
    with refused(code, *values) as caught:
        read_tokenizer(path, 2048)
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"normalizer": None},
        {"normalizer": sequence("normalizers", {"type": "NFKC"}, {"type": "Lowercase"})},
        {"pre_tokenizer": BYTE_LEVEL},
        {"pre_tokenizer": sequence("pretokenizers", SPLIT, BYTE_LEVEL)},
        {"pre_tokenizer": sequence("pretokenizers", SPLIT | {"pattern": {"Regex": r"\p{L}+|."}}, BYTE_LEVEL)},
        {"post_processor": BYTE_LEVEL},
        {"post_processor": sequence("processors", BYTE_LEVEL, TEMPLATE)},
        {"decoder": sequence("decoders", BYTE_LEVEL)},
    ],
)
def test_parts_that_are_known(tmp_path: Path, parts: dict[str, Any]) -> None:
    """Qwen's own file, Transformers' save_pretrained and byte-level BPE of other families contain them."""
    path = edited(tmp_path / "tokenizer.json", **parts)
    assert read_tokenizer(path, 2048).encode("hello").ids == Tokenizer.from_file(str(path)).encode("hello").ids


REPLACE = {"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 20}
REFUSED: dict[str, dict[str, dict[str, Any]]] = {}
REFUSED["model-unsupported"] = {
    "Replace": {"normalizer": sequence("normalizers", *[REPLACE] * 7)},
    "Prepend": {"normalizer": {"type": "Prepend", "prepend": "x" * 10_000_000}},
    "Precompiled": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}},
    "FixedLength": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "RobertaProcessing": {
        "post_processor": {"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2], "trim_offsets": True,
                           "add_prefix_space": True},
    },
    "Strip": {"decoder": {"type": "Strip", "content": "a", "start": 10**9, "stop": 10**9}},
    "WordPiece": {"model": {"type": "WordPiece", "vocab": {"a": 0}}},
    "Unigram": {"model": {"type": "Unigram", "unk_id": 0, "vocab": []}},
    r"\x1b[31m\n": {"normalizer": {"type": "\x1b[31m\n"}},
    "30 parts": {"pre_tokenizer": sequence("pretokenizers", *[BYTE_LEVEL] * 26)},
}  # fmt: skip


REFUSED["model-damaged"] = {
    "no model": {"model": None},
    "a pattern that is none": {"pre_tokenizer": SPLIT | {"pattern": {"Regex": "("}}},
    "a merge of nothing": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["zz", "q"]]}},
    "a list of parts": {"pre_tokenizer": [BYTE_LEVEL]},
    "a type that is a list": {"decoder": {"type": []}},
    "a second text": {"post_processor": TEMPLATE | {"single": [TEXT, OTHER]}},
    "a token that is none": {
        "post_processor": TEMPLATE | {"single": [{"SpecialToken": {"id": "x", "type_id": 0}}]}
    },
    "no tokens": {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []},
}


SPECIAL = {"special_tokens": {"x": {"id": "x", "ids": [4_000_000_000], "tokens": ["x"]}}}
REFUSED["tokenizer-mismatch"] = {  # such a row would be read from arbitrary memory
    "an id as large as the embeddings": {"model": {"type": "BPE", "vocab": {"a": 2048, "b": 1}, "merges": []}},
    "a large id": {
        "post_processor": TEMPLATE | {"single": [{"SpecialToken": {"id": "x", "type_id": 0}}, TEXT]} | SPECIAL
    },
}


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, cases in REFUSED.items() for name in cases])
def test_parts_that_are_refused(tmp_path: Path, code: str, name: str) -> None:
    """Some could expand a line of text to gigabytes, which makes the library abort or panic."""
    values = {"model-unsupported": name, "model-damaged": "", "tokenizer-mismatch": "2048"}
    assert_refused(edited(tmp_path / "tokenizer.json", **REFUSED[code][name]), code, values[code])


def test_truncation_and_padding_are_ignored(tmp_path: Path) -> None:
    """A prompt is encoded unchanged."""
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "x"}  # fmt: skip
    tokenizer = read_tokenizer(edited(tmp_path / "a", truncation=truncation, padding=padding), 2048)
    assert (
        tokenizer.encode("a b c d").ids
        == read_tokenizer(demo.MODEL / "tokenizer.json", 2048).encode("a b c d").ids
    )


@pytest.mark.parametrize("content", [b"x y z\n", b"!!!\n", b"\xff", b"IQ== x\n", b"IQ== 0 1\n"])
def test_damaged_ctc_vocabularies(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "multilingual.tiktoken"
    path.write_bytes(content)
    with refused("model-damaged", path):
        read_ctc_vocabulary(path)

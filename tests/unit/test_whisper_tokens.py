"""Whisper's vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.errors import refused

from funasr_cli.families.whisper import tokens


@pytest.mark.parametrize(("size", "end"), [(51864, 50256), (51865, 50257), (51866, 50257)])
def test_special_tokens(size: int, end: int) -> None:
    words, special = tokens.bundled(size)
    assert (special["endoftext"], special["startoftranscript"]) == (end, end + 1)
    assert special["30.00"] == size - 1
    assert special["notimestamps"] == special["0.00"] - 1
    assert ("yue" in special) == (size == 51866)
    vocabulary = tokens.WhisperVocabulary(words, special)
    assert vocabulary.decode(vocabulary.encode(" the 房 naïve")) == " the 房 naïve"
    assert len(vocabulary.encode(" the")) == 1
    assert len(vocabulary.never) == (90 if size == 51864 else 88)
    assert {special["nospeech"], special["startofprev"]} <= {*vocabulary.never}
    assert not {special["en"], special["notimestamps"], *vocabulary.encode(",")} & {*vocabulary.never}


def test_tokens_of_base_are_those_of_the_release() -> None:
    special = tokens.bundled(51865)[1]
    known = {
        "en": 50259,
        "su": 50357,
        "translate": 50358,
        "transcribe": 50359,
        "startofprev": 50361,
        "nospeech": 50362,
    }
    assert {name: special[name] for name in known} == known


def test_an_old_tokenizer(tmp_path: Path) -> None:
    """It lacks time tokens, and has another name for one token."""
    words, special = tokens.bundled(51865)
    added = [
        {"id": number, "content": f"<|{'nocaptions' if name == 'nospeech' else name}|>"}
        for name, number in special.items()
        if "." not in name
    ]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": words}, "added_tokens": added}), encoding="utf-8")
    found, found_special = tokens.of_tokenizer(path)
    assert found == words
    assert {name: found_special[name] for name in special} == special


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": {"vocab": {"a": "b"}}, "added_tokens": []}', "x"])
def test_a_damaged_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with refused("model-damaged") if content not in ("[]",) else refused("model-config"):
        tokens.of_tokenizer(tmp_path / "tokenizer.json")

"""The pieces of a SentencePiece vocabulary: from its model or from lists, and what is refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from support.errors import refused
from support.sense_voice import BPE_FILE, CHARACTERS, TOKENS_FILE, piece_texts, sentencepiece_model

from funasr_cli.checkpoints.pieces import (
    PIECES_FILE,
    converted_vocabulary,
    read_pieces,
    read_sentencepiece,
    read_tokens,
    to_text,
    vocabulary_file,
)
from funasr_cli.vocabulary import PieceVocabulary

TEXTS = piece_texts()
MODEL = sentencepiece_model(TEXTS)
LIBRARY = sentencepiece.SentencePieceProcessor(model_proto=MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and a list with other pieces, so that the result shows which was read."""
    (tmp_path / BPE_FILE).write_bytes(MODEL)
    (tmp_path / TOKENS_FILE).write_text(json.dumps(["a", "b"]), encoding="utf-8")
    return tmp_path


def pieces_in(folder: Path) -> list[str]:
    return read_pieces(vocabulary_file(folder))


def state(folder: Path, name: object) -> None:
    content = {"file_path_metas": {"tokenizer_conf": {"bpemodel": name}}}
    (folder / "configuration.json").write_text(json.dumps(content), encoding="utf-8")


def test_pieces_of_a_model(folder: Path) -> None:
    assert read_sentencepiece(folder / BPE_FILE) == TEXTS
    assert pieces_in(folder) == TEXTS


def test_the_stated_model_takes_precedence(folder: Path) -> None:
    (folder / "other.model").write_bytes(sentencepiece_model(TEXTS[:-1]))
    state(folder, "other.model")
    assert pieces_in(folder) == TEXTS[:-1]


def test_without_the_library_the_list_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert pieces_in(folder) == ["a", "b"]


def test_without_a_model_the_list_is_read(folder: Path) -> None:
    (folder / BPE_FILE).unlink()
    assert pieces_in(folder) == ["a", "b"]


def test_without_the_stated_model_the_list_is_read(folder: Path) -> None:
    state(folder, "other.bpe.model")
    assert vocabulary_file(folder).name == TOKENS_FILE
    assert pieces_in(folder) == ["a", "b"]
    (folder / TOKENS_FILE).unlink()
    with refused("model-missing", "other.bpe.model", TOKENS_FILE):
        pieces_in(folder)


def test_without_library_and_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / TOKENS_FILE).unlink()
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused("package-missing", "sentencepiece"):
        pieces_in(folder)


def test_neither_model_nor_list(tmp_path: Path) -> None:
    with refused("model-missing", TOKENS_FILE):
        pieces_in(tmp_path)


def test_a_model_outside_of_the_folder(folder: Path) -> None:
    state(folder, f"../{BPE_FILE}")
    with refused("model-path"):
        pieces_in(folder)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-40], lambda b: b"\xff" * 100, lambda b: b"{}"], ids=["cut", "noise", "json"]
)
def test_a_damaged_model(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    (folder / BPE_FILE).write_bytes(damage(MODEL))
    with refused("model-damaged", BPE_FILE):
        read_sentencepiece(folder / BPE_FILE)


@pytest.mark.parametrize("content", ["", "{}", '["a", 1]', '["\\ud800"]', "[" * 100_000, '["a"'])
def test_a_damaged_list(tmp_path: Path, content: str) -> None:
    path = tmp_path / TOKENS_FILE
    path.write_text(content, encoding="utf-8")
    with refused("model-damaged", TOKENS_FILE):
        read_tokens(path)


def test_converted_pieces_equal_the_original_ones(tmp_path: Path) -> None:
    """It does not matter whether they are already in the folder."""
    text, path = to_text(TEXTS), tmp_path / PIECES_FILE
    path.write_text(text, encoding="utf-8")
    for files, texts in (({PIECES_FILE: path}, {}), ({}, {PIECES_FILE: text})):
        vocabulary = converted_vocabulary(files, texts, len(TEXTS), ("zh", "ko"))
        assert [vocabulary.decode([index]) for index in range(len(TEXTS))] == [
            PieceVocabulary(TEXTS).decode([index]) for index in range(len(TEXTS))
        ]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"pieces": TEXTS[:-1]}, "tokenizer-mismatch"),
        ({"pieces": [text.replace("<|ko|>", "<ko>") for text in TEXTS]}, "tokenizer-mismatch"),
        ({"pieces": {}}, "model-damaged"),
        ({}, "model-damaged"),
        ([], "model-config"),
    ],
)
def test_other_converted_pieces(tmp_path: Path, content: object, code: str) -> None:
    path = tmp_path / PIECES_FILE
    path.write_text(json.dumps(content), encoding="utf-8")
    with refused(code):
        converted_vocabulary({PIECES_FILE: path}, {}, len(TEXTS), ("zh", "ko"))


WORDS = st.lists(
    st.text(CHARACTERS, min_size=1, max_size=8) | st.sampled_from(["hello", "world", "theing"]), max_size=4
)


@given(WORDS)
def test_text_is_split_as_the_library_splits_it(words: list[str]) -> None:
    text = " ".join(words)
    assert PieceVocabulary(TEXTS).encode(text) == LIBRARY.EncodeAsIds(text)


@given(st.lists(st.integers(0, len(TEXTS) - 1), max_size=12))
def test_text_is_spelled_as_the_library_spells_it(token_ids: list[int]) -> None:
    """Exceptions are tags, and white space at the beginning."""
    no_tags = [token_id for token_id in token_ids if token_id and not TEXTS[token_id].startswith("<|")]
    assert PieceVocabulary(TEXTS).decode(token_ids).lstrip() == LIBRARY.DecodeIds(no_tags).lstrip()

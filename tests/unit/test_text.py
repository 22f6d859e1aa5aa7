"""Final text, and text while it is being written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from funasr_cli.decoding.text import UNFINISHED, CTCVocabulary, TextStream, clean_text, settled_text, thinking

FRAGMENTS = st.sampled_from(
    ["<think>", "</think>", "<thi", "nk>", "<", "/sil", "/s", "il", "/", " ", "  ", "\n", "\t", "\u3000", "a",
     "你", "😀", "\ufffd", "e\u0301", "<|im_end|>"]
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS | st.text(max_size=3), max_size=12).map("".join)
BYTES = st.lists(TEXTS.map(str.encode) | st.binary(max_size=4), max_size=8).map(b"".join)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", ""),
        ("  a \n\t b  ", "a b"),
        ("a/silb", "a b"),
        ("/sil/sil", ""),
        ("a\u3000b\u00a0c", "a b c"),
        ("<think>x</think>a", "a"),
        ("a<think>x\ny</think>b", "ab"),
        ("a<think>never closed", "a"),
        ("<think></think>\n\na", "a"),
        ("<think>a<think>b</think>c", "c"),
        ("a</think>b", "a</think>b"),
        ("/s<think>x</think>il", ""),
        ("a\ufffdb", "a\ufffdb"),
    ],
)
def test_clean_text(raw: str, text: str) -> None:
    assert clean_text(raw) == text


@pytest.mark.parametrize(
    ("raw", "blocks"),
    [("a", ""), ("<think> x </think>a<think>y", "x\ny"), ("<think>\n\n</think>\n\na", ""), ("</think>a", "")],
)
def test_thinking(raw: str, blocks: str) -> None:
    assert thinking(raw) == blocks


@given(TEXTS)
def test_clean_text_has_no_runs_of_space_and_no_marks(raw: str) -> None:
    text = clean_text(raw)
    assert text == " ".join(text.split())
    assert "/sil" not in text


@given(TEXTS, TEXTS)
def test_settled_text_never_changes(raw: str, more: str) -> None:
    assert clean_text(raw + more).startswith(settled_text(raw))


@given(BYTES, st.data())
def test_pieces_join_to_the_final_text(content: bytes, data: st.DataObject) -> None:
    """Whatever the bytes, and wherever the tokens cut them."""
    chunks = []
    while content:
        size = data.draw(st.integers(1, min(4, len(content))))
        chunks.append(content[:size])
        content = content[size:]
    stream = TextStream(lambda ids: b"".join(chunks[index] for index in ids).decode(errors="replace"))
    pieces = [stream.push(index) for index in range(len(chunks))]
    final = clean_text(stream.raw)
    for count in range(len(pieces)):
        assert final.startswith("".join(pieces[: count + 1]))
    assert "".join(pieces) + stream.finish() == final


@pytest.mark.parametrize("text", ["你好，世界", "😀a😀", "é", "x /sil 你"])
def test_no_half_characters(text: str) -> None:
    """A byte at a time, every piece is whole characters."""
    content = text.encode()
    stream = TextStream(lambda ids: bytes(content[index] for index in ids).decode(errors="replace"))
    pieces = [stream.push(index) for index in range(len(content))]
    assert not any(UNFINISHED in piece for piece in pieces)
    assert "".join(pieces) + stream.finish() == clean_text(text)


def test_characters_come_as_soon_as_they_are_complete() -> None:
    content = "a你b".encode()
    stream = TextStream(lambda ids: bytes(content[index] for index in ids).decode(errors="replace"))
    assert [stream.push(index) for index in range(len(content))] == ["a", "", "", "你", "b"]
    assert stream.finish() == ""


def test_bytes_that_never_become_a_character_come_at_the_end() -> None:
    stream = TextStream(lambda ids: b"a\xe4\xbd"[: len(ids)].decode(errors="replace"))
    assert [stream.push(0), stream.push(0), stream.push(0), stream.finish()] == ["a", "", "", UNFINISHED]


@given(st.lists(st.integers(0, 10_000), max_size=40))
def test_pieces_join_for_a_real_tokenizer(small_model: Path, numbers: list[int]) -> None:
    """Byte-level tokens in any order, special tokens among them."""
    tokenizer = load_tokenizer(small_model)
    ids = [number % tokenizer.get_vocab_size() for number in numbers]
    stream = TextStream(lambda token_ids: tokenizer.decode(token_ids, skip_special_tokens=True))
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) + stream.finish() == clean_text(tokenizer.decode(ids, skip_special_tokens=True))


TOKENIZERS: dict[Path, Tokenizer] = {}


def load_tokenizer(folder: Path) -> Tokenizer:
    if folder not in TOKENIZERS:
        TOKENIZERS[folder] = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return TOKENIZERS[folder]


def test_ctc_vocabulary_joins_bytes_and_leaves_out_what_is_not_text() -> None:
    vocabulary = CTCVocabulary("5L0= 0\noA== 1\n\nYQ== 7\n")
    assert vocabulary.decode([0, 1, 7, 99]) == "你a"
    assert vocabulary.decode([0]) == "\ufffd"
    assert vocabulary.decode([]) == ""


@pytest.mark.parametrize("ranks", ["YQ==", "YQ== x", "YQ== 1 2", "Y 1"])
def test_ctc_vocabulary_refuses_damage(ranks: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds, all of them ValueError
        CTCVocabulary(ranks)

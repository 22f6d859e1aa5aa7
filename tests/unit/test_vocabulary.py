"""The CTC branch's vocabulary: text to labels and back, and which label a character comes from."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_cli.vocabulary import CTCVocabulary


@pytest.fixture(scope="module")
def vocabulary() -> CTCVocabulary:
    """The bytes but `z`, and some pieces of characters and several characters."""
    tokens = [bytes([byte]) for byte in range(256) if byte != ord("z")]
    tokens += ["我们".encode(), "我".encode()[:2], b"the", b" me"]
    return CTCVocabulary("\n".join(f"{base64.b64encode(t).decode()} {rank}" for rank, t in enumerate(tokens)))


@given(st.lists(st.integers(0, 262), max_size=8))
def test_each_character_comes_from_labels(vocabulary: CTCVocabulary, token_ids: list[int]) -> None:
    text, sources = vocabulary.spell(token_ids)
    assert text == vocabulary.decode(token_ids)
    assert len(sources) == len(text)
    assert all(0 <= first <= last < len(token_ids) for first, last in sources)
    assert sources == sorted(sources)


def test_characters_of_several_labels_and_several_of_one(vocabulary: CTCVocabulary) -> None:
    first, rest = "我".encode()[:2], "我".encode()[2:]
    token_ids = [
        rank for piece in (b"a", "我们".encode(), first, rest) for rank in vocabulary_ids(vocabulary, piece)
    ]
    assert vocabulary.spell(token_ids) == ("a我们我", [(0, 0), (1, 1), (1, 1), (2, 3)])


def vocabulary_ids(vocabulary: CTCVocabulary, piece: bytes) -> list[int]:
    """The id of a piece that the vocabulary has."""
    return [rank for rank in range(262) if vocabulary._bytes.get(rank) == piece]


def test_a_byte_without_a_label_cannot_be_spelled(vocabulary: CTCVocabulary) -> None:
    assert vocabulary.can_spell("the 我们")
    assert not vocabulary.can_spell("zoo")


def test_ctc_vocabulary_joins_bytes_and_leaves_out_what_is_not_text() -> None:
    vocabulary = CTCVocabulary("5L0= 0\noA== 1\n\nYQ== 7\n")
    assert vocabulary.decode([0, 1, 7, 99]) == "你a"
    assert vocabulary.decode([0]) == "\ufffd"
    assert vocabulary.decode([]) == ""


@pytest.mark.parametrize("ranks", ["YQ==", "YQ== x", "YQ== 1 2", "Y 1"])
def test_ctc_vocabulary_refuses_damage(ranks: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds, all of them ValueError
        CTCVocabulary(ranks)

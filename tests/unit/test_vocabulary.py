"""The CTC branch's vocabulary: text to labels and back, and the label of each character."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_cli.vocabulary import CTCVocabulary, PieceVocabulary


@pytest.fixture(scope="module")
def vocabulary() -> CTCVocabulary:
    """A vocabulary of all bytes except `z`, and pieces of characters and of several characters."""
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
    """Return the ids of a piece in the vocabulary."""
    return [rank for rank in range(262) if vocabulary._bytes.get(rank) == piece]


def test_a_byte_without_a_label_cannot_be_spelled(vocabulary: CTCVocabulary) -> None:
    assert vocabulary.can_spell("the 我们")
    assert not vocabulary.can_spell("zoo")


def test_ctc_vocabulary_joins_bytes_and_drops_invalid_text() -> None:
    vocabulary = CTCVocabulary("5L0= 0\noA== 1\n\nYQ== 7\n")
    assert vocabulary.decode([0, 1, 7, 99]) == "你a"
    assert vocabulary.decode([0]) == "\ufffd"
    assert vocabulary.decode([]) == ""


@pytest.mark.parametrize("ranks", ["YQ==", "YQ== x", "YQ== 1 2", "Y 1"])
def test_ctc_vocabulary_refuses_damage(ranks: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several subclasses
        CTCVocabulary(ranks)


PIECES = [
    "<unk>", "<s>", "</s>", "<|zh|>", "<|a|>b", "▁", *"ehlo你好", "<0xE6>", "<0x88>", "<0x91>", "▁h", "el", "lo",
    "ello", "▁hello", "你好", "lo",
]  # fmt: skip


@pytest.fixture(scope="module")
def of_pieces() -> PieceVocabulary:
    return PieceVocabulary(PIECES)


def piece_ids(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


def test_pieces_spell_text_and_tags_do_not(of_pieces: PieceVocabulary) -> None:
    ids = [0, 1, 2, *piece_ids("<|zh|>", "▁hello", "▁", "你好", "<|zh|>", "<|a|>b"), 99]
    assert of_pieces.decode(ids) == " hello 你好<|a|>b"
    assert of_pieces.tags == {"zh": 3}


def test_pieces_that_are_bytes_of_a_character(of_pieces: PieceVocabulary) -> None:
    ids = piece_ids("你", "<0xE6>", "<0x88>", "<0x91>", "<0xE6>")
    assert of_pieces.spell(ids) == ("你我\ufffd", [(0, 0), (1, 3), (4, 4)])


@given(st.lists(st.integers(0, len(PIECES)), max_size=8))
def test_each_character_comes_from_pieces(of_pieces: PieceVocabulary, token_ids: list[int]) -> None:
    text, sources = of_pieces.spell(token_ids)
    assert text == of_pieces.decode(token_ids)
    assert len(sources) == len(text)
    assert sources == sorted(sources)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (" hello", ["▁hello"]),
        ("hello", ["h", "ello"]),
        ("你好hel", ["你好", "h", "el"]),
        ("lolo", ["lo", "lo"]),
        ("  h", ["▁", "▁h"]),
        ("", []),
    ],
)
def test_the_pair_that_was_learned_first_is_merged_first(
    of_pieces: PieceVocabulary, text: str, pieces: list[str]
) -> None:
    assert of_pieces.encode(text) == piece_ids(*pieces)
    assert of_pieces.decode(of_pieces.encode(text)) == text


def test_characters_without_a_piece_cannot_be_spelled(of_pieces: PieceVocabulary) -> None:
    assert of_pieces.can_spell(" hello 你好")
    assert not of_pieces.can_spell("hellO")
    assert not of_pieces.can_spell("我")  # although the model has its bytes
    assert not of_pieces.can_spell("<|zh|>")

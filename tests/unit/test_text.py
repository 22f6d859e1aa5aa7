"""Final text, and text while it is being written."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_cli.decoding.text import UNFINISHED, TextStream, clean_text, thinking

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


def byte_stream(chunks: list[bytes]) -> TextStream:
    """A stream whose n-th token is the n-th of these chunks."""
    return TextStream(lambda ids: b"".join(chunks[index] for index in ids).decode(errors="replace"))


def settled_by_step(stream: TextStream, token_ids: list[int]) -> list[str]:
    """What is settled after each of the tokens."""
    steps = []
    for token_id in token_ids:
        assert stream.push(token_id) is None
        steps.append(stream.settled)
    return steps


def assert_grows_to_the_final_text(steps: list[str], raw: str) -> None:
    """Nothing that was settled is ever taken back, and all of it is the beginning of the final text."""
    for earlier, later in pairwise(["", *steps, clean_text(raw)]):
        assert later.startswith(earlier)


@given(BYTES, st.data())
def test_settled_text_grows_to_the_final_text(content: bytes, data: st.DataObject) -> None:
    """Whatever the bytes, and wherever the tokens cut them."""
    chunks = []
    while content:
        size = data.draw(st.integers(1, min(4, len(content))))
        chunks.append(content[:size])
        content = content[size:]
    stream = byte_stream(chunks)
    steps = settled_by_step(stream, list(range(len(chunks))))
    assert stream.raw == b"".join(chunks).decode(errors="replace")
    assert stream.token_ids == list(range(len(chunks)))
    assert_grows_to_the_final_text(steps, stream.raw)


def test_characters_come_as_soon_as_they_are_complete() -> None:
    chunks = [bytes([byte]) for byte in "a你b".encode()]
    assert settled_by_step(byte_stream(chunks), list(range(5))) == ["a", "a", "a", "a你", "a你b"]


def test_marks_are_held_back_until_they_are_none() -> None:
    """What may yet become `<think>` or `/sil` is not shown, and comes as soon as it cannot."""
    chunks = [b"a <t", b"h", b"e /s", b"i", b"de"]
    assert settled_by_step(byte_stream(chunks), list(range(5))) == ["a", "a", "a <the", "a <the", "a <the /side"]


def test_bytes_that_never_become_a_character_are_no_settled_text() -> None:
    """They stand in the final text alone, as the replacement character."""
    stream = byte_stream([b"a", b"\xe4", b"\xbd"])
    assert settled_by_step(stream, [0, 1, 2]) == ["a", "a", "a"]
    assert clean_text(stream.raw) == f"a{UNFINISHED}"

"""The difference between the decoder's and the CTC branch's text, ignoring intended differences in writing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_cli.decoding.agreement import Comparison, compare

WORDS = [
    "hello", "the", "train", "don't", "Straße", "3", "20", "pm", "你", "好", "三点", "あ", "한국", "ไทย"
]  # fmt: skip
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
anything = texts | st.text(max_size=40)
RULES = settings(max_examples=300, deadline=None)


@RULES
@given(anything, anything)
def test_it_is_a_symmetric_share(one: str, other: str) -> None:
    assert 0 <= compare(one, other).disagreement <= 1
    assert compare(one, other) == compare(other, one)
    assert (compare(one, one).disagreement, compare(one, one).different) == (0, 0)


@RULES
@given(texts, texts, st.sampled_from([", ", " ... ", "! ", " — ", "。", "  \n", "_"]))
def test_case_punctuation_and_white_space_are_ignored(one: str, other: str, between: str) -> None:
    written = between + one.upper().replace(" ", between) + "?"
    assert compare(written, other) == compare(one, other)


@pytest.mark.parametrize(
    ("text", "ctc_text", "expected"),
    [
        ("", "", 0.0), ("...", "", 0.0), ("hello", "", 1.0), ("", "你", 1.0),
        ("Thanks for watching!", "the sea", 1.0), ("See you at eight.", "see you at ate", 2 / 8),
        ("你好吗？", "你好", 1 / 5), ("안녕하세요 여러분", "안녕 하세요 여러분", 0.0), ("ＡＢＣ １", "abc 1", 0.0),
        ("I don\u2019t know", "i don't know", 0.0), ("It's a dog", "it's the dog", 2 / 6),
    ],
)  # fmt: skip
def test_shares(text: str, ctc_text: str, expected: float) -> None:
    assert compare(text, ctc_text).disagreement == pytest.approx(expected)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("3:20 pm", "three twenty p m"), ("Dinner is at 3:20 pm today.", "dinner is at three twenty p m today"),
        ("3点20", "三点二十"), ("在2026年8月5号", "在二零二六年八月五号"),
        ("It has 1,517 pages.", "it has one thousand five hundred and seventeen pages"),
        ("9:00", "nine o'clock"), ("30%", "百分之三十"), ("Monday, August 4th", "monday august fourth"),
        ("call 5550199", "call five five five zero one nine nine"),
    ],
)  # fmt: skip
def test_numbers_are_not_compared(written: str, spoken: str) -> None:
    assert compare(written, spoken).different == 0
    assert not compare(written, spoken).doubtful


@pytest.mark.parametrize(
    ("text", "ctc_text", "expected"),
    [
        ("5", "the cat sat on the mat again", Comparison(0, 3)),  # a digit replaces at most four words
        ("书店是1984年建的。", "evening", Comparison(0, 5)),  # a word next to a number may be part of it: "pm"
        ("15", "16", Comparison(1, 2)),  # both are in digits
        ("2202", "", Comparison(0, 4)),  # the other text has nothing in its place
    ],
)
def test_words_that_cannot_be_numbers_are_compared(text: str, ctc_text: str, expected: Comparison) -> None:
    assert compare(text, ctc_text) == expected


@pytest.mark.parametrize(
    ("text", "ctc_text", "doubtful"),
    [
        ("Yes.", "yet", False),  # one word, recognised as another one
        ("Yes.", "", False),
        ("好的", "", False),
        ("Thanks for watching.", "", True),
        ("", "turn on the light", True),
        ("谢谢观看", "", True),
        ("Turn on the light", "turn of a light", False),  # half of it is common
        ("Turn on the light", "burn of a light", True),
        ("", "", False),
    ],
)
def test_doubtful_texts(text: str, ctc_text: str, doubtful: bool) -> None:
    assert compare(text, ctc_text).doubtful is doubtful


def test_a_better_text_has_more_words_in_common() -> None:
    first = compare("My room is number 181.", "the three six")
    numbers = compare("3", "three") + compare("58", "eight six")
    heard = compare("The cat", "the cat") + compare("is number 3", "the three")
    assert (first, numbers, heard) == (Comparison(0, 3), Comparison(0, 0), Comparison(2, 1))
    assert not numbers.better_than(first)
    assert heard.better_than(first)
    assert not first.better_than(heard)
    assert not first.better_than(first)
    assert not Comparison(3, 20).better_than(Comparison(2, 1))

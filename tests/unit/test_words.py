"""Word times: they spell the text, in order, within the segment, and are estimated where the CTC text differs."""

import base64
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.words import FIRST_REACH_S, REACH_S, time_words
from funasr_cli.models.ctc import CTCHead
from funasr_cli.transcript import Word
from funasr_cli.vocabulary import CTCVocabulary

FRAME_S = 0.06
MIDDLE_S = 0.0125  # of the first frame
PIECES = [
    "the", " the", " meeting", " is", " at", " three", " twenty", " pm", " Paris", " a", " A",
    "三", "点", "二", "十", "我们",
]  # fmt: skip
TOKENS = [bytes([byte]) for byte in range(256) if byte != ord("z")] + [piece.encode() for piece in PIECES]
VOCABULARY = CTCVocabulary("\n".join(f"{base64.b64encode(t).decode()} {rank}" for rank, t in enumerate(TOKENS)))
BLANK = len(TOKENS)
LABELS = BLANK + 1
SURE = 12.0  # logit of a frame's label


def label(piece: str) -> int:
    return TOKENS.index(piece.encode())


def read(logits: np.ndarray) -> CTCReading:
    """Return the reading of (frames, labels) logits."""
    head = CTCHead(LABELS, LABELS)
    head.ctc_lo.weight, head.ctc_lo.bias = mx.eye(LABELS), mx.zeros(LABELS)
    return CTCReading(head, mx.array(logits.astype(np.float32)), VOCABULARY, BLANK, FRAME_S)


def reading_of(frames: int, **said: str) -> CTCReading:
    """Return a reading of blanks, except `f3=" the"` in frame 3."""
    ids = np.full(frames, BLANK)
    for frame, piece in said.items():
        ids[int(frame[1:])] = label(piece)
    logits = np.zeros((frames, LABELS))
    logits[np.arange(frames), ids] = SURE
    return read(logits)


def time(text: str, reading: CTCReading, start_s: float = 0.0) -> tuple[Word, ...]:
    return time_words(text, reading, start_s, start_s + len(reading.frame_ids) * FRAME_S)


def middle_s(frame: float) -> float:
    return MIDDLE_S + FRAME_S * frame


def test_borders_depend_on_length_and_reach() -> None:
    reading = reading_of(40, f5="the", f9=" meeting", f10=" meeting", f30=" three")
    the, meeting, three = time("The meeting, three.", reading, start_s=100.0)
    assert [word.text for word in (the, meeting, three)] == ["The", "meeting,", "three."]
    assert the.start_s == pytest.approx(100 + middle_s(5) - FIRST_REACH_S)
    assert the.end_s == meeting.start_s == pytest.approx(100 + middle_s(5 + 4 * 3 / 10))
    assert meeting.end_s == pytest.approx(100 + middle_s(10) + REACH_S)
    assert three.start_s == pytest.approx(100 + middle_s(30) - REACH_S)
    assert three.end_s == pytest.approx(100 + middle_s(30) + REACH_S)
    assert all(0.99 < word.score <= 1 and not word.estimated for word in (the, meeting, three))


def test_numbers_as_digits_take_the_time_of_the_spoken_words() -> None:
    reading = reading_of(30, f4="the", f8=" meeting", f11=" at", f14=" three", f18=" twenty", f22=" pm")
    words = time("The meeting at 3:20 pm.", reading)
    assert [word.text for word in words] == ["The", "meeting", "at", "3:20", "pm."]
    assert [word.estimated for word in words] == [False, False, False, True, False]
    assert words[3].score is None
    assert (words[3].start_s, words[3].end_s) == pytest.approx((middle_s(11 + 3 * 2 / 7), middle_s(21)))


def test_mandarin_digits_share_the_time_of_the_spoken_words() -> None:
    reading = reading_of(20, f4="三", f7="点", f10="二", f13="十")
    words = time("3点20。", reading)
    assert [(word.text, word.estimated) for word in words] == [("3", True), ("点", False), ("20。", True)]
    assert (words[2].start_s, words[2].end_s) == pytest.approx((middle_s(8.5), middle_s(13) + REACH_S))


def test_a_word_that_differs_is_aligned_by_its_spelling() -> None:
    """It is aligned in lower case: "a" is unlikely, but most likely in frame 8, where the CTC text has "is"."""
    logits = np.zeros((16, LABELS))
    logits[:, BLANK] = SURE
    for frame, piece in ((4, "the"), (8, " is"), (12, " meeting")):
        logits[frame, label(piece)], logits[frame, BLANK] = SURE, 0
    logits[8, label(" a")] = SURE - 3
    the, other, meeting = time("The A meeting", read(logits))
    assert not other.estimated
    assert 0.0 < other.score < 0.05
    assert (other.start_s, other.end_s) == pytest.approx((middle_s(7), middle_s(8.5)))
    assert min(the.score, meeting.score) > 0.99


def test_the_case_is_kept_if_the_ctc_branch_has_it() -> None:
    logits = np.zeros((12, LABELS))
    logits[:, BLANK] = SURE
    logits[3, label("the")], logits[7, label(" Paris")] = 2 * SURE, 2 * SURE
    logits[10, label(" A")], logits[10, label(" a")] = SURE - 1, SURE
    assert [word.score > 0.1 for word in time("the Paris A", read(logits))] == [True, True, True]


def test_a_word_that_cannot_be_spelled_takes_the_time_between_its_neighbours() -> None:
    reading = reading_of(30, f4="the", f20=" meeting")
    the, zoo, meeting = time("the zoo meeting", reading)
    assert (zoo.estimated, zoo.score) == (True, None)
    assert (the.end_s, zoo.start_s, zoo.end_s) == pytest.approx((middle_s(4.5), middle_s(4.5), middle_s(19.5)))
    assert not meeting.estimated


def test_an_earlier_text_is_not_aligned() -> None:
    """This holds although the CTC text repeats it, and lacks "pm"."""
    reading = reading_of(30, f10="the", f20=" meeting")
    words = time_words("the pm the meeting", reading, 0.0, 1.8, "the pm")
    assert [(word.text, word.estimated) for word in words] == [
        ("the", True), ("pm", True), ("the", False), ("meeting", False),
    ]  # fmt: skip
    assert (words[0].start_s, words[1].end_s) == pytest.approx((0.0, middle_s(9.5)))


def test_characters_of_one_label_share_it() -> None:
    words = time("三我们点", reading_of(20, f4="三", f8="我们", f12="点"))
    assert [word.text for word in words] == ["三", "我", "们", "点"]
    assert not any(word.estimated for word in words)
    assert [word.start_s for word in words] == pytest.approx(
        [middle_s(4) - FIRST_REACH_S, *map(middle_s, (4 + 4 / 3, 8, 12 - 4 / 3))]
    )


@pytest.mark.parametrize("text", ["", "...", "the meeting is at three twenty pm"])
def test_nothing_to_align_has_no_words(text: str) -> None:
    """There are no words, more than four frames can hold, or a frame that is not finite."""
    assert time(text, reading_of(4, f1="the")) == ()
    for value in (np.nan, np.inf):
        logits = np.zeros((12, LABELS))
        logits[4, label("the")], logits[8] = SURE, value
        assert time("the", read(logits)) == ()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*PIECES, " 3:20", ", ", "。", "“我", " zoo", " -", " THE", "\n"]), max_size=10),
    st.lists(st.sampled_from([BLANK, BLANK, *map(label, PIECES)]), min_size=1, max_size=40),
    st.floats(0, 20),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1e5),
)
def test_words_spell_the_text_in_order_within_the_segment(
    pieces: list[str], frame_ids: list[int], sure: float, seed: int, start_s: float
) -> None:
    text = " ".join("".join(pieces).split())
    logits = np.random.default_rng(seed).normal(size=(len(frame_ids), LABELS))
    logits[np.arange(len(frame_ids)), frame_ids] += sure
    words = time(text, read(logits), start_s)
    if not words:
        return
    end_s = start_s + len(frame_ids) * FRAME_S
    times_s = [start_s, *(time_s for word in words for time_s in (word.start_s, word.end_s)), end_s]
    assert all(before <= after for before, after in pairwise(times_s))
    rest = text
    for word in words:
        assert rest.startswith(word.text)
        rest = rest.removeprefix(word.text).lstrip(" ")
        assert word.estimated == (word.score is None)
        assert word.score is None or 0 <= word.score <= 1
    assert not rest


def test_recognised_words_missing_from_the_text_take_no_time() -> None:
    reading = reading_of(40, f4="the", f14=" is", f24=" meeting")
    the, meeting = time("the meeting", reading)
    assert the.end_s == pytest.approx(middle_s(4) + REACH_S)
    assert meeting.start_s == pytest.approx(middle_s(24) - REACH_S)

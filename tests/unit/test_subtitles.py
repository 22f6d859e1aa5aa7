"""Subtitle cues: where texts are split, line breaks, and display times."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.errors import refused
from support.transcripts import folded, segment, texts, transcript, transcripts, worded

from funasr_cli.characters import clusters, columns, one_line
from funasr_cli.linebreaks import Words
from funasr_cli.subtitles import Cue, Piece, SubtitleLayout, cues_of_pieces, make_cues
from funasr_cli.transcript import TimedText, Transcript, Word

layouts = st.builds(
    SubtitleLayout,
    max_line_width=st.integers(2, 60),
    max_line_count=st.integers(1, 4),
    min_duration_s=st.sampled_from([0.0, 0.8, 3.0]),
    max_columns_per_s=st.sampled_from([5.0, 20.0, 1000.0]),
)


@given(transcripts() | worded(), layouts)
def test_no_line_is_too_wide_and_no_cue_has_too_many(original: Transcript, layout: SubtitleLayout) -> None:
    for cue in make_cues(original, layout):
        assert 1 <= len(cue.lines) <= layout.max_line_count
        for line in cue.lines:
            assert columns(line) <= layout.max_line_width
            assert line == one_line(line) != ""


@given(transcripts() | worded(), layouts)
def test_cues_contain_exactly_the_text(original: Transcript, layout: SubtitleLayout) -> None:
    """A line break replaces a space, or is within a text without spaces."""
    lines = [line for cue in make_cues(original, layout) for line in cue.lines]
    texts = [folded(part.text) for part in original.segments]
    whole = " ".join(text for text in texts if sum(columns(word) for word in text.split()))
    assert re.fullmatch(" ?".join(map(re.escape, lines)), whole)


@given(transcripts() | worded(), layouts)
def test_cues_follow_each_other_within_the_recording(original: Transcript, layout: SubtitleLayout) -> None:
    """They do not overlap. A cue is only too short for its text if the next one follows immediately."""
    cues = make_cues(original, layout)
    start_ms = math.ceil(original.start_s * 1000)
    limit = max(math.floor((original.start_s + original.duration_s) * 1000), start_ms + len(cues))
    nexts = [*(cue.start_ms for cue in cues), limit][1:] if cues else []
    for cue, next_ms in zip(cues, nexts, strict=True):
        assert start_ms <= cue.start_ms < cue.end_ms <= next_ms <= limit
        wanted_ms = 1000 * max(layout.min_duration_s, sum(map(columns, cue.lines)) / layout.max_columns_per_s)
        assert cue.end_ms - cue.start_ms >= wanted_ms or cue.end_ms == next_ms


@given(transcripts())
def test_a_segment_is_shown_while_it_is_spoken(original: Transcript) -> None:
    """Its first cue starts with it, and its last one ends with it or later, if there is room for all."""
    spoken = [part for part in original.segments if part.end_s - part.start_s > 0.2]
    times = {"start_s": original.start_s, "duration_s": original.duration_s}
    first_ms, end_ms = (
        math.ceil(original.start_s * 1000),
        math.floor((original.start_s + original.duration_s) * 1000),
    )
    cues = iter(make_cues(transcript(*spoken, **times)))
    for part in spoken:
        own = make_cues(transcript(part, **times))
        if not own:
            continue
        shown = [next(cues) for _ in own]
        assert [cue.lines for cue in shown] == [cue.lines for cue in own]
        assert shown[0].start_ms == min(max(first_ms, round(part.start_s * 1000)), end_ms - len(own))
        assert shown[-1].end_ms >= min(round(part.end_s * 1000), end_ms)
    assert list(cues) == []


def shown(text: str, seconds: float = 60.0, **layout: Any) -> list[str]:
    """Return the cues of a segment, with / for line breaks."""
    original = transcript(segment(0.0, seconds, text), duration_s=seconds)
    return ["/".join(cue.lines) for cue in make_cues(original, SubtitleLayout(**layout))]


@pytest.mark.parametrize(
    ("text", "cues"),
    [
        ("", []),
        (" \n", []),
        ("\u200b\ufeff", []),
        ("Yes.", ["Yes."]),
        ("!" * 45, ["!" * 42 + "/!!!"]),
        ("I came. I saw. I won.", ["I came.", "I saw.", "I won."]),
        ("Did he? He did! So what...", ["Did he?", "He did!", "So what..."]),
        ('He said: "Go!" Then he left.', ['He said: "Go!"', "Then he left."]),
        ("It costs 3.50 at shop.com now.", ["It costs 3.50 at shop.com now."]),
        ("Ask Mr. Fox, J. Roe, e.g. now. Then go.", ["Ask Mr. Fox, J. Roe, e.g. now.", "Then go."]),
        ("It is etc. and so on. Fine.", ["It is etc. and so on.", "Fine."]),
        ("你好。今天好吗？“好！”他说。", ["你好。", "今天好吗？", "“好！”", "他说。"]),
        ("你好!今天好吗?好.", ["你好!", "今天好吗?", "好."]),
        ("मैं ठीक हूँ। धन्यवाद।", ["मैं ठीक हूँ।", "धन्यवाद।"]),
        ("كيف حالك؟ بخير.", ["كيف حالك؟", "بخير."]),
    ],
)
def test_a_cue_ends_where_a_sentence_does(text: str, cues: list[str]) -> None:
    assert shown(text) == cues


def test_long_sentences_are_split_evenly_and_at_commas() -> None:
    text = (
        "When in the course of human events it becomes necessary for one people to dissolve the political bands "
        "which have connected them with another, a decent respect requires that they should declare the causes."
    )
    assert shown(text) == [
        "When in the course of human events/it becomes necessary for one people",
        "to dissolve the political bands which/have connected them with another,",
        "a decent respect requires that/they should declare the causes.",
    ]
    three_lines = ["x" * 30, "y" * 30, "z" * 20]  # although they are narrower than two full lines
    assert shown(" ".join(three_lines)) == [three_lines[0], "/".join(three_lines[1:])]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("aaa bbb ccc", 11, "aaa bbb ccc"), ("aaa bbb ccc", 10, "aaa bbb/ccc"),
        ("aaaa bbb, ccc ddd eee", 20, "aaaa bbb,/ccc ddd eee"),
        ("one two three four five six", 15, "one two three/four five six"), ("well-known", 8, "well-/known"),
        ("run it with -v or --help", 14, "run it with/-v or --help"), ("either/or", 8, "either//or"),
        ("你好世界你好世界", 8, "你好世界/你好世界"), ("今天，我们出发吧", 10, "今天，/我们出发吧"),
        ("一二三，四五六", 6, "一二/三，/四五六"), ("一二三（四五六", 8, "一二三/（四五六"),
        ("一二三“四五”六", 8, "一二三/“四五”六"), ("一二三ー四", 6, "一二/三ー四"),
        ("用Python写代码", 9, "用Python/写代码"), ("100%的人", 6, "100%/的人"),
        ("한국어 문장 하나", 8, "한국어/문장/하나"), ("아 한국어문장", 10, "아/한국어문장"),
        ("use -verbose", 10, "use/-verbose"), ("🎉🎉🎉🎉", 4, "🎉🎉/🎉🎉"), ("abcdefghij", 4, "abcd/efgh/ij"),
        ("a abcdefghij", 4, "a/abcd/efgh/ij"),
        ("👩\u200d👩\u200d👧👩\u200d👩\u200d👧", 3, "👩\u200d👩\u200d👧/👩\u200d👩\u200d👧"),
        ("e\u0301e\u0301e\u0301e\u0301", 2, "e\u0301e\u0301/e\u0301e\u0301"),
    ],
)  # fmt: skip
def test_where_lines_end(text: str, width: int, lines: str) -> None:
    words = Words(text, width)
    assert "/".join(words.lines(0, len(words.words))) == lines


KINSOKU = st.text(st.sampled_from("一二三ちョー、。，！「」“”（）ab "), max_size=24).map(str.strip)


@given(KINSOKU, st.integers(6, 12))
def test_punctuation_stays_with_what_it_belongs_to(text: str, width: int) -> None:
    """No line starts with closing or ends with opening punctuation, unless a word is longer than a line."""
    words = Words(" ".join(text.split()), width)
    lines = words.lines(0, len(words.words)) if words.words else []
    assert "".join("".join(lines).split()) == "".join(text.split())
    if not any(word.cut for word in words.words) and " " not in text:
        assert not any(line[0] in "、。，！」”）ョー" for line in lines[1:])
        assert not any(line[-1] in "「“（" for line in lines[:-1])


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0), ("abc", 3), ("é", 1), ("e\u0301", 1), ("你好", 4), ("ｶﾅ", 2), ("カナ", 4), ("，。", 4),
        ("한국", 4), ("\u1112\u1161\u11ab", 2), ("ＡＢ", 4), ("👍", 2), ("👍🏽", 2), ("🏽", 2),
        ("👩\u200d👩\u200d👧", 2), ("🏳\ufe0f\u200d🌈", 2), ("🇩🇪", 2), ("🇩🇪🇫🇷", 4), ("❤", 1), ("❤\ufe0f", 2),
        ("\u200bשל\u200fום", 4),
        ("ไทย", 3), ("“…”—", 4),
    ],
)  # fmt: skip
def test_columns(text: str, width: int) -> None:
    """Widths are those of terminals."""
    assert columns(text) == width


def test_clusters_are_whole_characters() -> None:
    text = "ae\u0301👩\u200d👩\u200d👧👍🏽🇩🇪🇫🇷字1\ufe0f\u20e3"
    assert clusters(text) == [
        "a", "e\u0301", "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪", "🇫🇷", "字", "1\ufe0f\u20e3",
    ]  # fmt: skip


@given(texts)
@example("\ufe0f\u200d🎉")
def test_clusters_join_to_the_text(text: str) -> None:
    assert "".join(clusters(text)) == text
    line = one_line(text)
    assert columns(line) == sum(map(columns, clusters(line)))


@given(texts)
def test_one_line(text: str) -> None:
    line = one_line(text)
    assert line == folded(text)
    assert line == one_line(line) == line.encode().decode()
    assert len(line.splitlines()) == bool(line)


def times(cues: list[Cue]) -> list[tuple[int, int, str, bool]]:
    return [(cue.start_ms, cue.end_ms, cue.text, cue.estimated) for cue in cues]


def test_a_segments_time_is_distributed_by_width() -> None:
    original = transcript(segment(1.0, 5.0, "abcd efghi. 你好你好你。"), segment(7.0, 9.0, "ab."), duration_s=10.0)
    assert times(make_cues(original)) == [
        (1000, 2818, "abcd efghi.", True),
        (2818, 5000, "你好你好你。", True),
        (7000, 9000, "ab.", False),
    ]


@pytest.mark.parametrize("spaced", ["a b! 你好", " a b!\n 你好 ", "a\tb!\u2028你好"])
def test_spaces_take_no_time(spaced: str) -> None:
    assert times(make_cues(transcript(segment(0.0, 7.0, spaced), duration_s=7.0))) == [
        (0, 3000, "a b!", True),
        (3000, 7000, "你好", True),
    ]


def test_short_sentences_share_a_cue() -> None:
    """Those shown for less than the minimum time share one; from two seconds on, each has its own."""
    assert shown("Oh. I see. Fine, then.", 2.0) == ["Oh. I see.", "Fine, then."]
    assert shown("Oh. I see. Fine, then.", 10.0) == ["Oh.", "I see.", "Fine, then."]
    assert shown("Oh. I see. Fine, then.", 2.0, min_duration_s=0.0) == ["Oh.", "I see.", "Fine, then."]
    assert shown("A rather long sentence. Oh.", 2.0) == ["A rather long sentence. Oh."]
    assert shown("Oh! A rather long sentence.", 2.0) == ["Oh! A rather long sentence."]
    assert shown("A long sentence. Oh.", 2.0, max_line_width=10, max_line_count=2) == ["A long/sentence.", "Oh."]


def test_cues_follow_a_models_parts_of_a_segment() -> None:
    """This applies without word times. As a single part, the three words would share a cue."""
    part = replace(
        segment(0.0, 9.0, "one two. three"), pieces=(TimedText("one", 1.0, 2.0), TimedText("two. three", 4.0, 8.0))
    )
    cues = make_cues(transcript(part, duration_s=9.0))
    assert times(cues) == [(1000, 2000, "one", False), (4000, 8000, "two. three", False)]
    timed = replace(
        part, words=(Word("one", 1.5, 2.5, 0.9), Word("two.", 2.5, 3.0, 0.9), Word("three", 3.0, 5.0, 0.9))
    )
    assert times(make_cues(transcript(timed, duration_s=9.0))) == [(1500, 5000, "one two. three", False)]


def test_segments_never_share_a_cue() -> None:
    original = transcript(segment(0.0, 0.1, "Oh."), segment(0.1, 0.2, "I see."), duration_s=9.0)
    assert times(make_cues(original)) == [(0, 100, "Oh.", False), (100, 900, "I see.", False)]


@pytest.mark.parametrize(
    ("end_s", "next_s", "shown_ms"), [(1.2, 9.0, 800), (1.2, 1.5, 500), (1.2, 1.2, 200), (2.5, 9.0, 1500)]
)
def test_a_short_cue_stays_as_long_as_there_is_room(end_s: float, next_s: float, shown_ms: int) -> None:
    original = transcript(segment(1.0, end_s, "Hi."), segment(next_s, 10.0, "Ho."), duration_s=10.0)
    first = make_cues(original)[0]
    assert (first.start_ms, first.end_ms - first.start_ms, first.estimated) == (1000, shown_ms, False)


def test_a_cue_stays_until_it_can_be_read_or_the_recording_ends() -> None:
    """Reading takes a second per 20 columns. Chinese characters are two columns wide."""
    assert times(make_cues(transcript(segment(0.0, 1.0, "a" * 40), duration_s=9.0)))[0][1] == 2000
    assert times(make_cues(transcript(segment(0.0, 1.0, "字" * 21), duration_s=9.0)))[0][1] == 2100
    assert times(make_cues(transcript(segment(0.0, 1.0, "a" * 40), duration_s=1.4996)))[0][1] == 1499


@pytest.mark.parametrize(
    ("bounds", "duration_s", "expected"),
    [
        ([(3599.9996, 3601.0004)], 3602.0, [(3600000, 3601000)]),
        ([(0.0004, 0.0004), (0.0004, 0.0004)], 5.0, [(0, 1), (1, 801)]),
        ([(1.0, 2.0000001), (2.0, 3.0)], 3.0, [(1000, 2000), (2000, 3000)]),
        ([(1.0, 2.0), (2.0, 2.0), (2.0, 2.0)], 2.0, [(1000, 1998), (1998, 1999), (1999, 2000)]),
        ([(0.0, 0.001), (0.001, 0.0015)], 0.0015, [(0, 1), (1, 2)]),
        ([(-0.1, 1.0)], 0.9, [(0, 900)]),
        ([(5.0, 6.0)], 2.0, [(1999, 2000)]),
    ],
)
def test_times_are_whole_milliseconds_in_order(
    bounds: list[tuple[float, float]], duration_s: float, expected: list[tuple[int, int]]
) -> None:
    """This holds for any floats. In the fifth case, the recording has fewer milliseconds than cues."""
    cues = make_cues(transcript(*(segment(*ends, "Hi.") for ends in bounds), duration_s=duration_s))
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == expected


def test_times_within_a_piece_are_estimated() -> None:
    layout = SubtitleLayout(max_line_width=4, max_line_count=1, min_duration_s=0)
    assert times(cues_of_pieces([[Piece("abcdefgh", 0.0, 4.0), Piece(" ij", 4.0, 5.0)]], 9.0, layout)) == [
        (0, 2000, "abcd", True),
        (2000, 4000, "efgh", True),
        (4000, 5000, "ij", False),
    ]


def test_pieces_may_end_within_a_character() -> None:
    """The heart is one column wide, and two as an emoji: more than the sum of its pieces."""
    assert times(cues_of_pieces([[Piece("❤", 0.0, 1.0), Piece("\ufe0f", 1.0, 2.0)]], 9.0)) == [
        (0, 2000, "❤\ufe0f", False)
    ]


@given(st.lists(texts, max_size=8), layouts)
def test_any_pieces_spell_their_text(texts: list[str], layout: SubtitleLayout) -> None:
    """A text may be split into pieces anywhere, even within a character: the output does not depend on it."""
    pieces = [Piece(text, i * 2.0, i * 2.0 + 1.5) for i, text in enumerate(texts)]
    layout = SubtitleLayout(layout.max_line_width, layout.max_line_count, min_duration_s=0)
    whole = cues_of_pieces([[Piece("".join(texts), 0.0, 16.0)]], 20.0, layout)
    cues = cues_of_pieces([pieces], 20.0, layout)
    assert [cue.lines for cue in cues] == [cue.lines for cue in whole]
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(cues))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_line_width", 1), ("max_line_count", 0), ("min_duration_s", -0.1), ("min_duration_s", math.nan),
        ("max_columns_per_s", 0.5), ("max_columns_per_s", math.inf),
    ],
)  # fmt: skip
def test_invalid_layouts(field: str, value: float) -> None:
    with refused("option-value", value):
        SubtitleLayout(**{field: value})

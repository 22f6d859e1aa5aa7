"""Subtitles with word times: start and end of cues, and marked words."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from support.transcripts import folded, segment, spoken, transcript, worded

from funasr_cli.subtitles import Cue, SubtitleLayout, make_cues, pieces_of, sentences_of
from funasr_cli.transcript import Segment, Transcript, Word

MARKING = SubtitleLayout(highlight_words=True)

GREETING = spoken(
    1.0, 7.0, "Good evening. How are you?", (1.2, 1.5), (1.5, 2.46), (4.02, 4.2), (4.2, 4.5), (4.5, 5.58)
)


def times(cues: list[Cue]) -> list[tuple[int, int, str, bool]]:
    return [(cue.start_ms, cue.end_ms, cue.text, cue.estimated) for cue in cues]


def shown(original: Segment, layout: SubtitleLayout | None = None, *, duration_s: float = 9.0) -> list[Cue]:
    return make_cues(transcript(original, duration_s=duration_s), layout or SubtitleLayout())


@given(worded())
def test_pieces_are_the_words_and_spell_the_text(original: Transcript) -> None:
    for part in original.segments:
        pieces = pieces_of(part)
        assert "".join(piece.text for piece in pieces) == part.text
        if part.words:
            assert [piece.text.strip() for piece in pieces] == [word.text for word in part.words]
            assert [(piece.start_s, piece.end_s, piece.estimated) for piece in pieces] == [
                (word.start_s, word.end_s, word.estimated) for word in part.words
            ]


def test_words_are_found_in_order() -> None:
    original = spoken(0.0, 4.0, " a an  a ", (0.0, 1.0), (1.0, 2.0), (2.0, 3.0))
    assert [piece.text for piece in pieces_of(original)] == [" a", " an", "  a "]


def test_cues_and_sentences_begin_and_end_with_their_words() -> None:
    """The segment itself begins before the first word and ends after the last one."""
    assert times(shown(GREETING)) == [(1200, 2460, "Good evening.", False), (4020, 5580, "How are you?", False)]
    sentences = [(one.text, one.start_s, one.end_s, one.estimated) for one in sentences_of(GREETING)]
    assert sentences == [("Good evening.", 1.2, 2.46, False), ("How are you?", 4.02, 5.58, False)]


def test_characters_without_spaces_have_separate_times() -> None:
    text, words = "你好。早上好！", ("你", "好。", "早", "上", "好！")
    original = dataclasses.replace(
        segment(0.0, 6.0, text),
        words=tuple(Word(word, 0.6 + index, 1.2 + index, 0.9) for index, word in enumerate(words)),
    )
    assert times(shown(original)) == [(600, 2200, "你好。", False), (2600, 5200, "早上好！", False)]


@pytest.mark.parametrize(
    ("guessed", "estimated"), [("Good", [True, False]), ("are", [False, False]), ("you?", [False, True])]
)
def test_a_cue_is_estimated_if_its_first_or_last_word_is(guessed: str, estimated: list[bool]) -> None:
    ends = [(word.start_s, word.end_s) for word in GREETING.words]
    original = spoken(1.0, 7.0, GREETING.text, *ends, guessed=guessed)
    assert [cue.estimated for cue in shown(original)] == estimated
    assert [sentence.estimated for sentence in sentences_of(original)] == estimated


def test_a_long_sentence_is_cut_between_words() -> None:
    text = "one two three four five six"
    original = spoken(0.0, 9.0, text, *((index * 1.5, index * 1.5 + 1.2) for index in range(6)))
    layout = SubtitleLayout(max_line_width=14, max_line_count=1)
    assert times(shown(original, layout)) == [
        (0, 4200, "one two three", False),
        (4500, 8700, "four five six", False),
    ]


def test_a_cue_ends_with_its_last_word_unless_it_takes_longer_to_read() -> None:
    ends = [(0.06, 0.3), (2.0, 2.1), (2.1, 2.2), (2.2, 2.3), (2.3, 2.4), (2.4, 2.5), (8.0, 8.9)]
    original = spoken(0.0, 9.0, "Yes. Certainly not, I should say. No.", *ends)
    assert times(shown(original)) == [
        (60, 860, "Yes.", False),
        (2000, 3400, "Certainly not, I should say.", False),
        (8000, 8900, "No.", False),
    ]


@pytest.mark.parametrize(
    ("pause_s", "cues"), [(0.1, ["Oh. I see."]), (0.7, ["Oh. I see."]), (0.9, ["Oh.", "I see."])]
)
def test_short_sentences_share_a_cue_unless_the_pause_lets_them_be_read(pause_s: float, cues: list[str]) -> None:
    original = spoken(0.0, 9.0, "Oh. I see.", (0.0, 0.3), (0.3 + pause_s, 0.5 + pause_s), (0.5 + pause_s, 2.5))
    assert [cue.text for cue in shown(original)] == cues


def test_segments_with_and_without_words() -> None:
    original = transcript(segment(0.0, 1.0, "Hi. You!"), GREETING, duration_s=9.0)
    assert original.times == "word"
    assert times(make_cues(original)) == [(0, 1000, "Hi. You!", False), *times(shown(GREETING))]
    assert original.without_words().times == "segment"
    assert times(make_cues(original.without_words()))[1:] == [
        (1000, 4273, "Good evening.", True),
        (4273, 7000, "How are you?", True),
    ]


# --- marked words ---


def marked(cues: list[Cue]) -> list[tuple[int, int, str]]:
    """Return the cues with brackets around the marked word."""
    return [
        (cue.start_ms, cue.end_ms, cue.text if cue.marked is None else bracketed(cue.text, *cue.marked))
        for cue in cues
    ]


def bracketed(text: str, first: int, last: int) -> str:
    return f"{text[:first]}[{text[first:last]}]{text[last:]}"


def test_each_word_is_marked_while_it_is_spoken() -> None:
    """Between words, and while the cue remains visible longer, nothing is marked."""
    original = spoken(0.0, 6.0, "One, two. Three!", (0.3, 0.6), (0.9, 1.8), (3.0, 3.3))
    assert marked(shown(original, MARKING)) == [
        (300, 600, "[One,] two."), (600, 900, "One, two."), (900, 1800, "One, [two.]"), (3000, 3300, "[Three!]"),
        (3300, 3800, "Three!"),
    ]  # fmt: skip


def test_a_word_on_two_lines_or_two_cues_is_marked_on_both() -> None:
    original = spoken(0.0, 6.0, "abcdefghij. Kl.", (0.0, 3.3), (4.0, 5.0))
    two_lines = SubtitleLayout(max_line_width=6, min_duration_s=0, highlight_words=True)
    assert marked(shown(original, two_lines)) == [(0, 3300, "[abcdef\nghij.]"), (4000, 5000, "[Kl.]")]
    two_cues = SubtitleLayout(max_line_width=6, max_line_count=1, min_duration_s=0, highlight_words=True)
    assert marked(shown(original, two_cues)) == [
        (0, 1800, "[abcdef]"),
        (1800, 3300, "[ghij.]"),
        (4000, 5000, "[Kl.]"),
    ]


def test_a_word_without_length_is_never_marked() -> None:
    original = spoken(0.0, 6.0, "a b c", (1.0, 2.0), (2.0, 2.0), (2.0, 3.0))
    assert marked(shown(original, MARKING)) == [(1000, 2000, "[a] b c"), (2000, 3000, "a b [c]")]


def test_without_words_nothing_is_marked() -> None:
    original = segment(0.0, 6.0, "One. Two.")
    assert shown(original, MARKING) == shown(original)


@given(worded())
def test_marking_changes_neither_texts_nor_times(original: Transcript) -> None:
    """Cues with the same text follow each other without a gap, from the start of the plain cue to its end."""
    parts = make_cues(original, MARKING)
    count = 0
    for cue in make_cues(original):
        own = [part for part in parts if cue.start_ms <= part.start_ms < cue.end_ms]
        assert {(part.lines, part.estimated) for part in own} == {(cue.lines, cue.estimated)}
        bounds = [cue.start_ms, *(part.end_ms for part in own)]
        assert [part.start_ms for part in own] == bounds[:-1]
        assert bounds[-1] == cue.end_ms
        assert bounds == sorted(set(bounds))
        count += len(own)
    assert len(parts) == count


@given(worded())
def test_marks_enclose_words(original: Transcript) -> None:
    """The mark encloses a whole word, or the part of it on this cue."""
    words = [folded(word.text).replace(" ", "") for part in original.segments for word in part.words]
    for cue in make_cues(original, MARKING):
        if cue.marked:
            first, last = cue.marked
            letters = "".join(cue.text[first:last].split())
            assert letters
            assert not cue.text[first].isspace()
            assert not cue.text[last - 1].isspace()
            assert any(letters in word for word in words)

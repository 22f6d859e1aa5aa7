"""Translations in every format: second lines, a column, subtitles in one language or in both."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.transcripts import folded, segment, spoken, transcript, transcripts, worded

from funasr_cli.characters import columns
from funasr_cli.options import Timestamps
from funasr_cli.subtitles import SubtitleLayout, make_cues
from funasr_cli.transcript import Segment, TimedText, Transcript, Translation
from funasr_cli.writers import SUBTITLES, WRITERS, Style

BOTH = Style(bilingual=True)


def translated(part: Segment, text: str, **more: Any) -> Segment:
    return dataclasses.replace(part, translation=Translation(text, "en", **more))


SAID = transcript(
    translated(spoken(0.0, 3.0, "Hola. ¿Qué tal?", (0.2, 0.9), (1.0, 1.5), (1.5, 2.5)), "Hello. How are you?"),
    translated(segment(4.0, 5.0, "Sí, sí."), "Yes,", stop_reason="loop"),
    translated(segment(6.0, 7.0, "Adiós."), "", stop_reason="empty"),
    duration_s=9.0,
)


def test_lines() -> None:
    """One that is not complete says so, even if nothing was written."""
    assert WRITERS["txt"](SAID) == (
        "Hola. ¿Qué tal?\n[en] Hello. How are you?\nSí, sí.\n[en, incomplete] Yes,\nAdiós.\n[en, incomplete] ...\n"
    )
    assert WRITERS["md"](SAID).splitlines()[2:9] == [
        "- **0:00** Hola. ¿Qué tal?", "  - **en** Hello. How are you?", "- **0:04** Sí, sí.",
        "  - **en, incomplete** Yes,", "- **0:06** Adiós.", "  - **en, incomplete** ...", "",
    ]  # fmt: skip
    assert "0:02 without a complete translation." in WRITERS["md"](SAID)


def test_a_column() -> None:
    """It is in the first row of a segment, and only there if any segment is translated."""
    assert WRITERS["tsv"](SAID, Style(Timestamps.WORD)).splitlines() == [
        "start\tend\ttext\ttranslation", "200\t900\tHola.\tHello. How are you?", "1000\t1500\t¿Qué\t",
        "1500\t2500\ttal?\t", "4000\t5000\tSí, sí.\tYes,", "6000\t7000\tAdiós.\t",
    ]  # fmt: skip
    assert WRITERS["tsv"](SAID.without_translations()).startswith("start\tend\ttext\n")


def test_subtitles_in_both_languages() -> None:
    for format in SUBTITLES:
        lines = WRITERS[format](SAID, BOTH).splitlines()
        shown = [line for line in lines if line and "-->" not in line and not line.isdigit()]
        assert [line for line in shown if not line.startswith(("WEBVTT", "NOTE"))] == [
            "Hola. ¿Qué tal?", "Hello. How are you?", "Sí, sí.", "Yes,", "Adiós.",
        ]  # fmt: skip


def test_a_translation_is_spread_by_the_length_of_the_text() -> None:
    """Between sentences where they are near."""
    said = translated(
        segment(0.0, 8.0, "今天天气很好。我们去公园吧，然后在那里吃饭，好不好？请告诉我你的想法。"),
        "The weather is nice today. Let us go to the park, and eat there, shall we? "
        "Please tell me what you think.",
    )
    assert [(cue.text, " ".join(cue.below)) for cue in make_cues(transcript(said, duration_s=9.0))] == [
        ("今天天气很好。", "The weather is nice today."),
        ("我们去公园吧，然后在那里吃饭，好不好？", "Let us go to the park, and eat there, shall we?"),
        ("请告诉我你的想法。", "Please tell me what you think."),
    ]
    brief = dataclasses.replace(said, translation=Translation("Yes.", "en"))
    assert [cue.below for cue in make_cues(transcript(brief, duration_s=9.0))] == [("Yes.",), (), ()]


def test_text_without_width() -> None:
    """A cue of characters that take no column has a translation as well."""
    said = translated(segment(0.0, 8.0, "\u200f hello"), "One. \u200b \u200b")
    cues = make_cues(transcript(said, duration_s=9.0), SubtitleLayout(max_line_width=2, max_line_count=1))
    assert [cue.text for cue in cues] == ["\u200f", "he", "ll", "o"]
    assert "".join("".join(cue.below) for cue in cues).replace("\u200b", "") == "One."


def test_subtitles_of_the_translation_alone() -> None:
    """Where there is none, they say so, and never show the spoken text. An empty segment has no cue."""
    more = (segment(7.0, 8.0, "¿Sí?"), segment(8.0, 9.0, ""), translated(segment(8.0, 9.0, "Uh."), ""))
    said = dataclasses.replace(SAID, segments=(*SAID.segments, *more))
    cues = make_cues(said.translated)
    assert [cue.text for cue in cues] == ["Hello.", "How are you?", "Yes,", "...", "..."]
    assert [cue.start_ms for cue in cues if cue.text != "How are you?"] == [0, 4000, 6000, 7000]
    assert all(cue.end_ms - cue.start_ms >= 800 for cue in cues)
    missing = said.translated.segments[3]
    assert (missing.complete, missing.language, missing.words) == (False, None, ())
    assert dataclasses.replace(said, segments=more[1:]).translated.complete


@pytest.mark.parametrize("times", [((0, 4), (5, 5), (5, 5)), ((0, 0), (0, 4), (4, 5)), ((0, 4), (4, 4), (4, 5))])
def test_pieces_that_take_no_time(times: tuple[tuple[float, float], ...]) -> None:
    """They share the time of their neighbour: no cue is shown for a millisecond."""
    texts = ("One is here.", "Two.", "Three.")
    pieces = tuple(TimedText(text, *span) for text, span in zip(texts, times, strict=True))
    said = translated(segment(0.0, 5.0, "a"), " ".join(texts), pieces=pieces)
    after = translated(segment(5.0, 8.0, "b"), "Four.")
    cues = make_cues(transcript(said, after, duration_s=9.0).translated)
    assert " ".join(cue.text.replace("\n", " ") for cue in cues) == "One is here. Two. Three. Four."
    assert all(cue.end_ms - cue.start_ms >= 500 for cue in cues)


def test_escapes_below() -> None:
    said = transcript(translated(segment(0.0, 1.0, "a"), "<b> --> &"), duration_s=2.0)
    assert WRITERS["srt"](said, BOTH).endswith("\na\n<b> -> &\n")
    assert WRITERS["vtt"](said, BOTH).endswith("\na\n&lt;b&gt; --&gt; &amp;\n")


@given(transcripts() | worded())
def test_subtitles_of_the_text_do_not_depend_on_translations(original: Transcript) -> None:
    for format in SUBTITLES:
        assert WRITERS[format](original) == WRITERS[format](original.without_translations())


@given(transcripts() | worded(), st.integers(2, 60), st.booleans())
def test_both_languages_are_whole(original: Transcript, width: int, marked: bool) -> None:
    """The text and the times of the cues are those without translations, and these are below them, in order."""
    layout = SubtitleLayout(max_line_width=width, highlight_words=marked)
    both, plain = make_cues(original, layout), make_cues(original.without_translations(), layout)
    assert [dataclasses.replace(cue, below=()) for cue in both] == plain
    assert all(columns(line) <= width for cue in both for line in cue.below)
    if not marked:
        lines = [line for cue in both for line in cue.below]
        shown = [
            folded(part.translation.text)
            for part in original.segments
            if part.translation and make_cues(transcript(part, duration_s=200.0), layout)
            if folded(part.translation.text) != folded(part.text)
        ]
        visible = [text for text in shown if sum(map(columns, text.split()))]
        assert re.fullmatch(" ?".join(map(re.escape, lines)), " ".join(visible))

"""Formats with the times of words, of segments or without any, and words that are marked in subtitles."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from hypothesis import given
from markdown_it import MarkdownIt
from support.subtitle_files import read_srt, read_vtt, read_with_webvtt
from support.transcripts import folded, segment, spoken, transcript, transcripts, worded

from funasr_cli.errors import UsageError
from funasr_cli.options import Timestamps
from funasr_cli.subtitles import SubtitleLayout, make_cues
from funasr_cli.transcript import Transcript
from funasr_cli.writers import (
    DEFAULT_TIMES,
    OF_TIMES,
    WRITERS,
    Style,
    as_markdown,
    as_srt,
    as_text,
    as_tsv,
    as_vtt,
)

FORMATS_PAGE = Path(__file__).parents[2] / "docs/formats.md"

SAID = transcript(
    spoken(1.0, 3.0, "One 2.", (1.26, 1.5), (1.5, 2.46), guessed="2."), segment(3599.9, 3670.0, "Three."),
    duration_s=3700.0,
)  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_takes_times_or_refuses_them(name: str) -> None:
    """Whose times are shown makes a difference; without a word about it, those of `DEFAULT_TIMES` are."""
    written = {}
    for times in Timestamps:
        if times is Timestamps.NONE and name in OF_TIMES:
            with pytest.raises(UsageError) as caught:
                WRITERS[name](SAID, Style(times))
            assert (caught.value.code, name in caught.value.message) == ("options-conflict", True)
        else:
            written[times] = WRITERS[name](SAID, Style(times))
    assert len(set(written.values())) == len(written)
    assert WRITERS[name](SAID) == written[DEFAULT_TIMES[name]]
    unworded = SAID.without_words()
    assert written[Timestamps.SEGMENT] == WRITERS[name](unworded, Style(Timestamps.SEGMENT))


def test_text_with_times_as_it_stands() -> None:
    """Where words have none, that of the segment."""
    assert as_text(SAID) == as_text(SAID, Timestamps.NONE) == "One 2.\nThree.\n"
    assert as_text(SAID, Timestamps.SEGMENT) == "[0:01.00-0:03.00] One 2.\n[59:59.90-1:01:10.00] Three.\n"
    assert as_text(SAID, Timestamps.WORD) == (
        "[0:01.26-0:01.50] One\n[0:01.50-0:02.46] 2.\n[59:59.90-1:01:10.00] Three.\n"
    )


@given(transcripts() | worded())
def test_text_with_times_can_be_read(said: Transcript) -> None:
    """As docs/formats.md says, to a hundredth of a second."""
    pattern = re.search(r"`(\^\\\[.+)`", FORMATS_PAGE.read_text(encoding="utf-8"))
    assert pattern
    for times in (Timestamps.WORD, Timestamps.SEGMENT):
        parts = [
            one for part in said.segments for one in (part.words if times is Timestamps.WORD else ()) or [part]
        ]
        found = [re.search(pattern[1], line) for line in as_text(said, times).splitlines()]
        read = [(seconds(match[1]), seconds(match[2]), match[3]) for match in found if match]
        expected = [
            (round(100 * one.start_s) / 100, round(100 * one.end_s) / 100, folded(one.text)) for one in parts
        ]
        assert len(found) == len(read)
        assert read == [row for row in expected if row[2]]


def seconds(stamp: str) -> float:
    whole = 0
    *larger, rest = stamp.split(":")
    for part in larger:
        whole = 60 * whole + int(part)
    return round(60 * whole + float(rest), 2)


def test_tsv_of_words() -> None:
    """A row for each, and one for a segment whose words have no times."""
    assert as_tsv(SAID, Timestamps.WORD) == (
        "start\tend\ttext\n1260\t1500\tOne\n1500\t2460\t2.\n3599900\t3670000\tThree.\n"
    )
    assert as_tsv(SAID) == "start\tend\ttext\n1000\t3000\tOne 2.\n3599900\t3670000\tThree.\n"


def test_vtt_says_where_times_of_words_are_estimated() -> None:
    note = "NOTE Some times are estimated: of words that were heard otherwise, such as numbers in digits.\n\n"
    assert as_vtt(SAID).startswith(f"WEBVTT\n\n{note}00:00:01.260 --> ")
    measured = transcript(spoken(0.0, 4.0, "One. Two.", (0.3, 1.5), (1.8, 3.0)), duration_s=4.0)
    assert as_vtt(measured) == (
        "WEBVTT\n\n00:00:00.300 --> 00:00:01.500\nOne.\n\n00:00:01.800 --> 00:00:03.000\nTwo.\n"
    )


def test_markdown_with_times() -> None:
    account = "\n1:01:40 long: 1:12 transcribed, 0:00 repaired, 0:00 failed, 1:00:28 silence.\n"
    assert as_markdown(SAID, Timestamps.NONE) == f"# a.wav\n\n- One 2.\n- Three.\n{account}"
    assert as_markdown(SAID, Timestamps.SEGMENT) == as_markdown(SAID)
    assert as_markdown(SAID, Timestamps.WORD) == (
        "# a.wav\n\n- **0:01** One 2.\n  - **0:01.26** One\n  - **0:01.50** 2\\.\n- **59:59** Three.\n" + account
    )


@given(worded())
def test_markdown_of_words(said: Transcript) -> None:
    """No word breaks the list."""
    page = MarkdownIt("commonmark").render(as_markdown(said, Timestamps.WORD).split("\n\n")[1] + "\n")
    words = [folded(word.text) for part in said.segments for word in part.words if folded(part.text)]
    found = re.findall("<li><strong>(?:\\d+:)?\\d+:\\d\\d\\.\\d\\d</strong> (.*)</li>\n", page)
    assert list(map(html.unescape, found)) == list(filter(None, words))


# --- words that are marked in subtitles ---

MARKING = SubtitleLayout(highlight_words=True)


def test_marked_words_as_they_stand() -> None:
    said = transcript(spoken(0.0, 4.0, "R&B --> <i>", (0.3, 0.6), (0.9, 1.2), (1.2, 1.8)), duration_s=4.0)
    assert as_srt(said, MARKING) == (
        "1\n00:00:00,300 --> 00:00:00,600\n<u>R&B</u> -> <i>\n\n"
        "2\n00:00:00,600 --> 00:00:00,900\nR&B -> <i>\n\n"
        "3\n00:00:00,900 --> 00:00:01,200\nR&B <u>-></u> <i>\n\n"
        "4\n00:00:01,200 --> 00:00:01,800\nR&B -> <u><i></u>\n"
    )
    assert as_vtt(said, MARKING) == (
        "WEBVTT\n\n00:00:00.300 --> 00:00:00.600\n<u>R&amp;B</u> --&gt; &lt;i&gt;\n\n"
        "00:00:00.600 --> 00:00:00.900\nR&amp;B --&gt; &lt;i&gt;\n\n"
        "00:00:00.900 --> 00:00:01.200\nR&amp;B <u>--&gt;</u> &lt;i&gt;\n\n"
        "00:00:01.200 --> 00:00:01.800\nR&amp;B --&gt; <u>&lt;i&gt;</u>\n"
    )


@given(worded())
def test_marked_words(said: Transcript) -> None:
    """Without its marks, a file is that of the cues; every mark is closed, and stands for one."""
    cues = make_cues(said, MARKING)
    tag = re.compile("<u>(.*?)</u>", re.DOTALL)
    vtt = as_vtt(said, MARKING)
    assert (
        len(tag.findall(vtt))
        == vtt.count("<u>")
        == vtt.count("</u>")
        == sum(cue.marked is not None for cue in cues)
    )
    assert read_vtt(tag.sub(r"\1", vtt))[1] == [(cue.start_ms, cue.end_ms, cue.text) for cue in cues]
    shown = [(start, end, text) for start, end, text in read_with_webvtt(vtt, "vtt")]
    assert [tag.sub(r"\1", text) for _, _, text in shown] == [cue.text for cue in cues]
    found = [match[1] if (match := tag.search(text)) else None for _, _, text in shown]
    assert found == [cue.text[slice(*cue.marked)] if cue.marked else None for cue in cues]
    srt = read_srt(as_srt(said, MARKING))
    assert [(start, end) for start, end, _ in srt] == [(cue.start_ms, cue.end_ms) for cue in cues]

"""Every format can hold any text: it is written as UTF-8 and read back by common readers or by a strict parser."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from markdown_it import MarkdownIt
from support.errors import refused
from support.subtitle_files import Shown, read_srt, read_vtt, read_with_pysubs2, read_with_webvtt
from support.transcripts import TIMINGS, folded, segment, spoken, transcript, transcripts, worded

from funasr_cli.formats import as_dict
from funasr_cli.options import Timestamps
from funasr_cli.subtitles import SubtitleLayout, make_cues
from funasr_cli.transcript import TimedText, Transcript, Translation
from funasr_cli.writers import (
    DEFAULT_TIMES,
    TIMED_FORMATS,
    WRITERS,
    Style,
    as_markdown,
    as_srt,
    as_text,
    as_tsv,
    as_vtt,
)

FORMATS_PAGE = Path(__file__).parents[2] / "docs/formats.md"


def test_every_format_has_a_name_and_takes_a_layout() -> None:
    original = transcript(segment(0.0, 3.0, "one two three four"), duration_s=3.0)
    narrow = Style(subtitles=SubtitleLayout(max_line_width=9))
    assert list(WRITERS) == list(DEFAULT_TIMES) == ["txt", "srt", "vtt", "tsv", "json", "jsonl", "md"]
    differing = [name for name, write in WRITERS.items() if write(original, narrow) != write(original)]
    assert differing == ["srt", "vtt"]


@given(transcripts() | worded())
def test_every_format_can_be_written_and_read(original: Transcript) -> None:
    """Files are UTF-8, and lines end with line feeds."""
    for name, write in WRITERS.items():
        content = write(original)
        assert content.encode("utf-8").decode("utf-8") == content, name
        assert "\r" not in content, name
        assert "\x00" not in content, name
        assert content == "" or content.endswith("\n"), name


@given(transcripts())
def test_text_is_a_line_for_each_segment(original: Transcript) -> None:
    """A translation has a line of its own after its segment's, unless it is the same."""
    lines = []
    for part in original.segments:
        lines.append(folded(part.text))
        if part.translation and folded(part.translation.text) not in ("", folded(part.text)):
            lines.append(f"[{part.translation.language}] {folded(part.translation.text)}")
    assert as_text(original).splitlines() == [line for line in lines if line]


def test_a_translation_that_repeats_the_text_is_not_shown() -> None:
    """English speech is its own translation into English. JSON has both."""
    spanish, english = (
        dataclasses.replace(segment(0.0, 1.0, text), translation=Translation("Hello.", "en"))
        for text in ("Hola.", "Hello.")
    )
    heard = transcript(spanish, english, duration_s=2.0)
    assert as_text(heard) == "Hola.\n[en] Hello.\nHello.\n"
    assert [part["translation"]["text"] for part in as_dict(heard)["segments"]] == ["Hello.", "Hello."]


def documented_unescape(field: str) -> str:
    """Undo the escapes of a TSV field as docs/formats.md describes."""
    (code,) = re.findall(r"```python\n(.+?)```", FORMATS_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assignment, expression = [line.strip() for line in code.strip().splitlines()]
    assert all(line in str(as_tsv.__doc__) for line in (assignment, expression))
    names: dict[str, Any] = {"re": re, "field": field}
    exec(assignment, names)
    return str(eval(expression, names))


@given(transcripts())
def test_tsv_comes_back_exactly(original: Transcript) -> None:
    content = as_tsv(original)
    assert len(content.splitlines()) == content.count("\n") == len(original.segments) + 1
    head, *rows = csv.reader(io.StringIO(content), delimiter="\t", quoting=csv.QUOTE_NONE)
    others = [[part.translation.text if part.translation else ""] for part in original.segments]
    if not any(part.translation for part in original.segments):
        others = [[] for _ in others]
    assert head == ["start", "end", "text", *["translation"] * any(others)]
    assert [[int(start), int(end), *map(documented_unescape, texts)] for start, end, *texts in rows] == [
        [round(part.start_s * 1000), round(part.end_s * 1000), part.text, *other]
        for part, other in zip(original.segments, others, strict=True)
    ]


def test_tsv_example() -> None:
    original = transcript(
        segment(0.0004, 1.0, 'say "a\tb\\n"\n'), segment(1.0, 3599.9996, "c\u2028\x1b\udcff 你"), duration_s=3600.0
    )
    assert as_tsv(original) == (
        'start\tend\ttext\n0\t1000\tsay "a\\tb\\\\n"\\n\n1000\t3600000\tc\\u2028\\u001b\\udcff 你\n'
    )


def expected_cues(original: Transcript, layout: SubtitleLayout | None = None) -> list[Shown]:
    cues = make_cues(original, layout) if layout else make_cues(original)
    return [(cue.start_ms, cue.end_ms, "\n".join((cue.text, *cue.below))) for cue in cues]


def without_arrows(shown: list[Shown]) -> list[Shown]:
    """Apply the only replacement in SRT."""
    return [(start, end, re.sub("--+>", "->", text)) for start, end, text in shown]


@given(transcripts())
def test_srt(original: Transcript) -> None:
    content, expected = as_srt(original), without_arrows(expected_cues(original))
    assert read_srt(content) == expected
    if expected:
        assert read_with_webvtt(content, "srt") == expected


@given(transcripts())
def test_vtt(original: Transcript) -> None:
    content, expected = as_vtt(original), expected_cues(original)
    notes, shown = read_vtt(content)
    assert shown == expected
    assert len(notes) == any(cue.estimated for cue in make_cues(original))
    assert read_with_webvtt(content, "vtt") == expected


ODD = transcript(
    segment(0.5, 2.0, "a --> b <i>c</i> & &amp; {\\an8}"),
    segment(3599.9996, 3601.0, "1\n\n2. Two."),
    duration_s=3602.0,
)


def test_srt_example() -> None:
    assert as_srt(ODD) == (
        "1\n00:00:00,500 --> 00:00:02,050\na -> b <i>c</i> & &amp; {\\an8}\n\n"
        "2\n01:00:00,000 --> 01:00:01,000\n1 2. Two.\n"
    )
    assert as_srt(transcript(duration_s=1.0)) == ""


def test_vtt_example() -> None:
    assert as_vtt(ODD) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.050\na --&gt; b &lt;i&gt;c&lt;/i&gt; &amp; &amp;amp; {\\an8}\n\n"
        "01:00:00.000 --> 01:00:01.000\n1 2. Two.\n"
    )
    assert as_vtt(transcript(duration_s=1.0)) == "WEBVTT\n"


def test_other_readers() -> None:
    """A less strict library reads the same text if it contains nothing special."""
    original = transcript(segment(0.0, 9.0, "One, two; 你好。" * 5), duration_s=9.0)
    for name, write in (("srt", as_srt), ("vtt", as_vtt)):
        assert read_with_pysubs2(write(original), name) == expected_cues(original)


def rendered(markdown: str) -> tuple[str, list[str], str, list[str]]:
    """Return heading, items, paragraph and further items of a page. Anything else is an error."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    blocks = r"<h1>(.*?)</h1>\n(?:<ul>\n(.*?)</ul>\n)?<p>(.*?)</p>\n(?:<ul>\n(.*?)</ul>\n)?"
    match = re.fullmatch(blocks, page, re.DOTALL)
    assert match, page
    heading, items, account, problems = (part or "" for part in match.groups())
    tags = re.findall("<(.*?)>", heading + account + problems.replace("<li>", "").replace("</li>", ""))
    assert not tags, tags
    return (
        html.unescape(heading),
        [html.unescape(item) for item in re.findall("<li>(.*)</li>\n", items)],
        account,
        [html.unescape(item) for item in re.findall("<li>(.*)</li>\n", problems)],
    )


@given(transcripts())
def test_markdown(original: Transcript) -> None:
    """The rendered text equals the original, and never becomes a tag, link or emphasis."""
    original = original.without_translations()
    heading, items, account, problems = rendered(as_markdown(original))
    assert heading == folded(Path(original.source).name)
    texts = [text for part in original.segments if (text := folded(part.text))]
    assert [re.sub(r"^<strong>(\d+:)?\d+:\d\d</strong> ", "", item) for item in items] == texts
    assert re.fullmatch(
        r"[\d:]+ long: [\d:]+ transcribed, [\d:]+ repaired, [\d:]+ failed, [\d:]+ silence\.", account
    )
    assert problems == list(filter(None, map(folded, (*original.warnings, original.fault or ""))))


def test_markdown_example() -> None:
    original = Transcript(
        "talks/a_[1].wav", 3700.4, "nano", None,
        (segment(0.9, 2.0, "你好 *you*!"), segment(3, 4, ""), segment(3599.9996, 3700.0, "# 1. <b>", "budget")),
        TIMINGS, fault="broke off", warnings=("3600.0-3700.0 s: cut short", "1. - a", "--- b"),
    )  # fmt: skip
    assert as_markdown(original) == (
        "# a\\_\\[1\\].wav\n\n"
        "- **0:00** 你好 \\*you\\*!\n"
        "- **59:59** \\# 1. \\<b\\>\n\n"
        "1:01:40 long: 0:02 transcribed, 0:00 repaired, 1:40 failed, 59:58 silence.\n\n"
        "- 3600.0-3700.0 s: cut short\n"
        "- 1\\. - a\n"
        "- \\--- b\n"
        "- broke off\n"
    )
    doubtful = dataclasses.replace(segment(0, 2, "a"), doubtful=True)
    assert "0:03 long: 0:02 transcribed, 0:00 repaired, 0:00 failed, 0:01 silence; 0:02 of it doubtful.\n" in (
        as_markdown(transcript(doubtful, duration_s=3.0))
    )
    assert as_markdown(transcript(duration_s=3.0)) == (
        "# a.wav\n\n0:03 long: 0:00 transcribed, 0:00 repaired, 0:00 failed, 0:03 silence.\n"
    )


# --- times of words, of segments, or none ---

SAID = transcript(
    spoken(1.0, 3.0, "One 2.", (1.26, 1.5), (1.5, 2.46), guessed="2."), segment(3599.9, 3670.0, "Three."),
    duration_s=3700.0,
)  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_takes_times_or_refuses_them(name: str) -> None:
    """The option changes the output; without it, the format's `DEFAULT_TIMES` apply."""
    written = {}
    for times in Timestamps:
        if times is Timestamps.NONE and name in TIMED_FORMATS:
            with refused("options-conflict", name):
                WRITERS[name](SAID, Style(times))
        else:
            written[times] = WRITERS[name](SAID, Style(times))
    assert len(set(written.values())) == len(written)
    assert WRITERS[name](SAID) == written[DEFAULT_TIMES[name]]
    unworded = SAID.without_words()
    assert written[Timestamps.SEGMENT] == WRITERS[name](unworded, Style(Timestamps.SEGMENT))


def test_text_with_times_example() -> None:
    """Segments without word times get the segment's."""
    assert as_text(SAID) == as_text(SAID, Timestamps.NONE) == "One 2.\nThree.\n"
    assert as_text(SAID, Timestamps.SEGMENT) == "[0:01.00-0:03.00] One 2.\n[59:59.90-1:01:10.00] Three.\n"
    assert as_text(SAID, Timestamps.WORD) == (
        "[0:01.26-0:01.50] One\n[0:01.50-0:02.46] 2.\n[59:59.90-1:01:10.00] Three.\n"
    )


@given(transcripts() | worded())
def test_text_with_times_can_be_read(original: Transcript) -> None:
    """They can be parsed as docs/formats.md describes, to a hundredth of a second."""
    pattern = re.search(r"`(\^\\\[.+)`", FORMATS_PAGE.read_text(encoding="utf-8"))
    assert pattern
    plain = [dataclasses.replace(part, translation=None) for part in original.segments]
    original = dataclasses.replace(original, segments=tuple(plain))
    for times in (Timestamps.WORD, Timestamps.SEGMENT):
        parts = [
            one for part in original.segments for one in (part.words if times is Timestamps.WORD else ()) or [part]
        ]
        found = [re.search(pattern[1], line) for line in as_text(original, times).splitlines()]
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


def test_timed_parts_replace_the_segment() -> None:
    """This applies if times are shown and there are no word times."""
    parts = TimedText("one", 1.0, 2.0), TimedText("two.", 4.0, 8.0)
    original = transcript(dataclasses.replace(segment(0.0, 9.0, "one two."), pieces=parts), duration_s=9.0)
    assert as_text(original) == "one two.\n"
    assert as_text(original, Timestamps.SEGMENT) == "[0:01.00-0:02.00] one\n[0:04.00-0:08.00] two.\n"
    assert as_tsv(original) == "start\tend\ttext\n1000\t2000\tone\n4000\t8000\ttwo.\n"


def test_tsv_of_words() -> None:
    """There is a row for each word, and one for a segment whose words have no times."""
    assert as_tsv(SAID, Timestamps.WORD) == (
        "start\tend\ttext\n1260\t1500\tOne\n1500\t2460\t2.\n3599900\t3670000\tThree.\n"
    )
    assert as_tsv(SAID) == "start\tend\ttext\n1000\t3000\tOne 2.\n3599900\t3670000\tThree.\n"


def test_vtt_marks_estimated_word_times() -> None:
    note = "NOTE Some word times are estimated, for example those of numbers written in digits.\n\n"
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


@pytest.mark.slow
@given(worded())
def test_markdown_of_words(original: Transcript) -> None:
    """No word breaks the list."""
    page = MarkdownIt("commonmark").render(as_markdown(original, Timestamps.WORD).split("\n\n")[1] + "\n")
    words = [folded(word.text) for part in original.segments for word in part.words if folded(part.text)]
    found = re.findall("<li><strong>(?:\\d+:)?\\d+:\\d\\d\\.\\d\\d</strong> (.*)</li>\n", page)
    assert list(map(html.unescape, found)) == list(filter(None, words))


# --- words marked in subtitles ---

MARKING = SubtitleLayout(highlight_words=True)


def test_marked_words_example() -> None:
    original = transcript(spoken(0.0, 4.0, "R&B --> <i>", (0.3, 0.6), (0.9, 1.2), (1.2, 1.8)), duration_s=4.0)
    assert as_srt(original, MARKING) == (
        "1\n00:00:00,300 --> 00:00:00,600\n<u>R&B</u> -> <i>\n\n"
        "2\n00:00:00,600 --> 00:00:00,900\nR&B -> <i>\n\n"
        "3\n00:00:00,900 --> 00:00:01,200\nR&B <u>-></u> <i>\n\n"
        "4\n00:00:01,200 --> 00:00:01,800\nR&B -> <u><i></u>\n"
    )
    assert as_vtt(original, MARKING) == (
        "WEBVTT\n\n00:00:00.300 --> 00:00:00.600\n<u>R&amp;B</u> --&gt; &lt;i&gt;\n\n"
        "00:00:00.600 --> 00:00:00.900\nR&amp;B --&gt; &lt;i&gt;\n\n"
        "00:00:00.900 --> 00:00:01.200\nR&amp;B <u>--&gt;</u> &lt;i&gt;\n\n"
        "00:00:01.200 --> 00:00:01.800\nR&amp;B --&gt; <u>&lt;i&gt;</u>\n"
    )


@given(worded())
def test_marked_words(original: Transcript) -> None:
    """Without its marks, a file has the same cues; every mark is closed and encloses one word."""
    cues = make_cues(original, MARKING)
    tag = re.compile("<u>(.*?)</u>", re.DOTALL)
    vtt = as_vtt(original, MARKING)
    count = sum(cue.marked is not None for cue in cues)
    assert (len(tag.findall(vtt)), vtt.count("<u>"), vtt.count("</u>")) == (count, count, count)
    assert read_vtt(tag.sub(r"\1", vtt))[1] == expected_cues(original, MARKING)
    shown = read_with_webvtt(vtt, "vtt")
    expected = [text for *_, text in expected_cues(original, MARKING)]
    assert [tag.sub(r"\1", text) for _, _, text in shown] == expected
    found = [match[1] if (match := tag.search(text)) else None for _, _, text in shown]
    assert found == [cue.text[slice(*cue.marked)] if cue.marked else None for cue in cues]
    srt = read_srt(as_srt(original, MARKING))
    assert [(start, end) for start, end, _ in srt] == [(cue.start_ms, cue.end_ms) for cue in cues]

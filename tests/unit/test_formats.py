"""Every format survives every text: written as UTF-8, and read back by its users' readers or a strict parser."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from markdown_it import MarkdownIt
from support.subtitle_files import Shown, read_srt, read_vtt, read_with_pysubs2, read_with_webvtt
from support.transcripts import TIMINGS, folded, segment, transcript, transcripts, worded

from funasr_cli.subtitles import SubtitleLayout, make_cues
from funasr_cli.transcript import Transcript
from funasr_cli.writers import (
    DEFAULT_TIMES,
    WRITERS,
    Style,
    as_markdown,
    as_srt,
    as_text,
    as_tsv,
    as_vtt,
    write_new,
)

FORMATS_PAGE = Path(__file__).parents[2] / "docs/formats.md"


def test_every_format_has_a_name_and_takes_a_layout() -> None:
    said = transcript(segment(0.0, 3.0, "one two three four"), duration_s=3.0)
    narrow = Style(subtitles=SubtitleLayout(max_line_width=9))
    assert list(WRITERS) == list(DEFAULT_TIMES) == ["txt", "srt", "vtt", "tsv", "json", "jsonl", "md"]
    differing = [name for name, write in WRITERS.items() if write(said, narrow) != write(said)]
    assert differing == ["srt", "vtt"]


@given(transcripts() | worded())
def test_every_format_can_be_written_and_read(said: Transcript) -> None:
    """In UTF-8, on lines that end with line feeds."""
    for name, write in WRITERS.items():
        content = write(said)
        assert content.encode("utf-8").decode("utf-8") == content, name
        assert "\r" not in content, name
        assert "\x00" not in content, name
        assert content == "" or content.endswith("\n"), name


def test_writing_text_imports_nothing_heavy() -> None:
    script = "import sys, funasr_cli.writers; print({'rich', 'numpy', 'mlx', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_files_read_back_as_they_were_written(tmp_path: Path) -> None:
    said = transcript(
        segment(0.0, 3.0, "a\u2028b\r\nc\x85 \udcff <i> --> \U0001f389"), duration_s=3.0, source="\udcff.wav"
    )
    for name, write in WRITERS.items():
        path = tmp_path / f"a.{name}"
        write_new(path, write(said))
        assert path.read_text(encoding="utf-8") == write(said)


@given(transcripts())
def test_text_is_a_line_for_each_segment(said: Transcript) -> None:
    texts = [folded(part.text) for part in said.segments]
    assert as_text(said).splitlines() == [text for text in texts if text]


def documented_unescape(field: str) -> str:
    """What docs/formats.md says to do with a field of a TSV file."""
    (code,) = re.findall(r"```python\n(.+?)```", FORMATS_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assignment, expression = [line.strip() for line in code.strip().splitlines()]
    assert all(line in str(as_tsv.__doc__) for line in (assignment, expression))
    names: dict[str, Any] = {"re": re, "field": field}
    exec(assignment, names)
    return str(eval(expression, names))


@given(transcripts())
def test_tsv_comes_back_exactly(said: Transcript) -> None:
    content = as_tsv(said)
    assert len(content.splitlines()) == content.count("\n") == len(said.segments) + 1
    head, *rows = csv.reader(io.StringIO(content), delimiter="\t", quoting=csv.QUOTE_NONE)
    assert head == ["start", "end", "text"]
    assert [[int(start), int(end), documented_unescape(text)] for start, end, text in rows] == [
        [round(part.start_s * 1000), round(part.end_s * 1000), part.text] for part in said.segments
    ]


def test_tsv_as_it_stands() -> None:
    said = transcript(
        segment(0.0004, 1.0, 'say "a\tb\\n"\n'), segment(1.0, 3599.9996, "c\u2028\x1b\udcff 你"), duration_s=3600.0
    )
    assert as_tsv(said) == (
        'start\tend\ttext\n0\t1000\tsay "a\\tb\\\\n"\\n\n1000\t3600000\tc\\u2028\\u001b\\udcff 你\n'
    )


def expected_cues(said: Transcript, layout: SubtitleLayout | None = None) -> list[Shown]:
    cues = make_cues(said, layout) if layout else make_cues(said)
    return [(cue.start_ms, cue.end_ms, cue.text) for cue in cues]


def without_arrows(shown: list[Shown]) -> list[Shown]:
    """SRT's only replacement."""
    return [(start, end, re.sub("--+>", "->", text)) for start, end, text in shown]


@given(transcripts())
def test_srt(said: Transcript) -> None:
    content, expected = as_srt(said), without_arrows(expected_cues(said))
    assert read_srt(content) == expected
    if expected:
        assert read_with_webvtt(content, "srt") == expected


@given(transcripts())
def test_vtt(said: Transcript) -> None:
    content, expected = as_vtt(said), expected_cues(said)
    notes, shown = read_vtt(content)
    assert shown == expected
    assert len(notes) == any(cue.estimated for cue in make_cues(said))
    assert read_with_webvtt(content, "vtt") == expected


ODD = transcript(
    segment(0.5, 2.0, "a --> b <i>c</i> & &amp; {\\an8}"),
    segment(3599.9996, 3601.0, "1\n\n2. Two."),
    duration_s=3602.0,
)


def test_srt_as_it_stands() -> None:
    assert as_srt(ODD) == (
        "1\n00:00:00,500 --> 00:00:02,050\na -> b <i>c</i> & &amp; {\\an8}\n\n"
        "2\n01:00:00,000 --> 01:00:01,000\n1 2. Two.\n"
    )
    assert as_srt(transcript(duration_s=1.0)) == ""


def test_vtt_as_it_stands() -> None:
    assert as_vtt(ODD) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.050\na --&gt; b &lt;i&gt;c&lt;/i&gt; &amp; &amp;amp; {\\an8}\n\n"
        "01:00:00.000 --> 01:00:01.000\n1 2. Two.\n"
    )
    assert as_vtt(transcript(duration_s=1.0)) == "WEBVTT\n"


def test_other_readers() -> None:
    """A library that does not go by the strict rules reads the same of a text without anything special in it."""
    said = transcript(segment(0.0, 9.0, "One, two; 你好。" * 5), duration_s=9.0)
    for name, write in (("srt", as_srt), ("vtt", as_vtt)):
        assert read_with_pysubs2(write(said), name) == expected_cues(said)


def rendered(markdown: str) -> tuple[str, list[str], str, list[str]]:
    """Heading, items, paragraph and further items of a page; anything else is an error."""
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
def test_markdown(said: Transcript) -> None:
    """Rendered, it says what was meant, and no text becomes a tag, link or emphasis."""
    heading, items, account, problems = rendered(as_markdown(said))
    assert heading == folded(Path(said.source).name)
    texts = [text for part in said.segments if (text := folded(part.text))]
    assert [re.sub(r"^<strong>(\d+:)?\d+:\d\d</strong> ", "", item) for item in items] == texts
    assert re.fullmatch(
        r"[\d:]+ long: [\d:]+ transcribed, [\d:]+ repaired, [\d:]+ failed, [\d:]+ silence\.", account
    )
    assert problems == list(filter(None, map(folded, (*said.warnings, said.fault or ""))))


def test_markdown_as_it_stands() -> None:
    said = Transcript(
        "talks/a_[1].wav", 3700.4, "nano", None,
        (segment(0.9, 2.0, "你好 *you*!"), segment(3, 4, ""), segment(3599.9996, 3700.0, "# 1. <b>", "budget")),
        TIMINGS, fault="broke off", warnings=("3600.0-3700.0 s: cut short", "1. - a", "--- b"),
    )  # fmt: skip
    assert as_markdown(said) == (
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

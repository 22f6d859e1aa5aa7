"""Subtitle readers: strict ones written by hand, and third-party libraries."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator

import pysubs2
import webvtt

Shown = tuple[int, int, str]  # start and end in milliseconds, text

STAMP = r"(\d\d+):([0-5]\d):([0-5]\d)[{}](\d\d\d)"


def milliseconds(hours: str, minutes: str, seconds: str, thousandths: str) -> int:
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(thousandths)


def read_blocks(blocks: list[list[str]], point: str) -> Iterator[Shown]:
    """Yield the cues of blocks of lines, strictly: a time line, then the text, which contains no arrow."""
    stamp = STAMP.format(point)
    for times, *lines in blocks:
        match = re.fullmatch(f"{stamp} --> {stamp}", times)
        assert match, times
        assert lines
        assert not any("-->" in line for line in lines)
        yield milliseconds(*match.groups()[:4]), milliseconds(*match.groups()[4:]), "\n".join(lines)


def blocks_of(content: str) -> list[list[str]]:
    return [block.strip("\n").split("\n") for block in re.split("\n\n+", content) if block.strip("\n")]


def read_srt(content: str) -> list[Shown]:
    """Read SRT strictly: cues are numbered from 1, with a blank line between cues and nowhere else."""
    blocks = blocks_of(content)
    assert [block[0] for block in blocks] == [str(number) for number in range(1, len(blocks) + 1)]
    assert content.count("\n\n") == max(0, len(blocks) - 1)
    return list(read_blocks([block[1:] for block in blocks], ","))


def read_vtt(content: str) -> tuple[list[str], list[Shown]]:
    """Read notes and cues of WebVTT strictly: no tags, and only the escapes that the format requires."""
    head, *blocks = blocks_of(content)
    assert head == ["WEBVTT"]
    assert content.count("\n\n") == len(blocks)
    notes = [line for block in blocks for line in block[:1] if line.startswith("NOTE")]
    shown = list(read_blocks([block for block in blocks if not block[0].startswith("NOTE")], "."))
    for _, _, text in shown:
        assert not re.search("[<>]|&(?!(amp|lt|gt);)", text)
    return notes, [(start, end, html.unescape(text)) for start, end, text in shown]


def plain(text: str, name: str) -> str:
    return html.unescape(text) if name == "vtt" else text


def read_with_pysubs2(content: str, name: str) -> list[Shown]:
    events = pysubs2.SSAFile.from_string(content, format_=name, keep_html_tags=True)
    texts = [event.text.replace("\\N", "\n") for event in events]
    return [(event.start, event.end, plain(text, name)) for event, text in zip(events, texts, strict=True)]


def read_with_webvtt(content: str, name: str) -> list[Shown]:
    captions = webvtt.WebVTT.from_buffer(io.StringIO(content), format=name)
    return [
        (one.start_time.in_milliseconds(), one.end_time.in_milliseconds(), plain(one.raw_text, name))
        for one in captions
    ]

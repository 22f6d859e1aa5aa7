"""Transcripts in the formats that there are: pure functions, and every result can be encoded as UTF-8.

What each format does with characters that mean something to it: docs/formats.md.
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from funasr_cli.characters import one_line
from funasr_cli.subtitles import DEFAULT_LAYOUT, SubtitleLayout, make_cues, sentences_of
from funasr_cli.transcript import Segment, Transcript

ARROW = re.compile("-{2,}>")  # what separates the times of a cue
JSON_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # line ends to some, and what UTF-8 cannot hold
TSV_UNSAFE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TSV_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
VTT_NOTE = "NOTE Times within a segment are estimated from the length of its text."
MARKDOWN_LIST = re.compile(r"^(\d*)([-+.)])(?=[ -]|$)")  # or a line across the page
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>&#|~$])")


def clock(seconds: float) -> str:
    """A time for people: minutes and seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def as_lines(segments: Iterable[Segment], prefix: str = "") -> str:
    """The bare text, a line for each segment that has some."""
    texts = (one_line(segment.text) for segment in segments)
    return "".join(f"{prefix}{text}\n" for text in texts if text)


def as_text(transcript: Transcript) -> str:
    """The bare text, a line for each segment that has some."""
    return as_lines(transcript.segments)


def as_dict(transcript: Transcript) -> dict[str, Any]:
    """Everything known, as JSON data; described field by field in docs/transcript.schema.json."""
    data = dataclasses.asdict(transcript)
    for segment, row in zip(transcript.segments, data["segments"], strict=True):
        row["state"] = segment.state
        row["sentences"] = list(map(dataclasses.asdict, sentences_of(segment)))
    ledger = dataclasses.asdict(transcript.ledger)
    return {
        "text": transcript.text,
        "complete": transcript.complete,
        "times": "segment",  # nothing finer is measured
        "ledger": ledger,
        **data,
    }


def as_json(transcript: Transcript) -> str:
    """Everything known, indented."""
    return _dumps(transcript, indent=2)


def as_json_line(transcript: Transcript) -> str:
    """Everything known, on one line: JSON Lines with a line for each recording, so that files can be joined."""
    return _dumps(transcript, indent=None)


def as_tsv(transcript: Transcript) -> str:
    r"""A row for each segment: start and end in milliseconds, and the text; the columns are those of Whisper.

    A backslash, tab, line feed and carriage return are written ``\\``, ``\t``, ``\n`` and ``\r``, other control
    characters, line ends and lone surrogates ``\u`` and four hexadecimal digits. Quotation marks mean nothing. The
    text comes back with::

        short = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
        re.sub(r"\\(u....|.)", lambda m: short.get(m[1]) or chr(int(m[1][1:], 16)), field)
    """
    rows = [
        f"{round(segment.start_s * 1000)}\t{round(segment.end_s * 1000)}\t{_tsv_field(segment.text)}\n"
        for segment in transcript.segments
    ]
    return "start\tend\ttext\n" + "".join(rows)


def as_srt(transcript: Transcript, layout: SubtitleLayout = DEFAULT_LAYOUT) -> str:
    """SubRip. It knows no escaping: the text stands there as it is, but for ``-->``, which becomes ``->``."""
    return "\n".join(
        f"{number}\n{_stamp(cue.start_ms, ',')} --> {_stamp(cue.end_ms, ',')}\n{ARROW.sub('->', cue.text)}\n"
        for number, cue in enumerate(make_cues(transcript, layout), 1)
    )


def as_vtt(transcript: Transcript, layout: SubtitleLayout = DEFAULT_LAYOUT) -> str:
    """WebVTT. A note says so where times are estimated."""
    cues = make_cues(transcript, layout)
    blocks = [
        f"{_stamp(cue.start_ms, '.')} --> {_stamp(cue.end_ms, '.')}\n{cue.text.translate(VTT_ESCAPES)}\n"
        for cue in cues
    ]
    notes = [f"{VTT_NOTE}\n"] if any(cue.estimated for cue in cues) else []
    return "\n".join(["WEBVTT\n", *notes, *blocks])


def as_markdown(transcript: Transcript) -> str:
    """For people: the file's name, a list of the segments that have text, and what became of the recording."""
    texts = [(clock(int(segment.start_s)), _markdown_text(segment.text)) for segment in transcript.segments]
    shares = dataclasses.asdict(transcript.ledger)
    doubtful_s = shares.pop("doubtful_s")
    parts = ", ".join(f"{clock(seconds)} {name.removesuffix('_s')}" for name, seconds in shares.items())
    doubts = f"; {clock(doubtful_s)} of it doubtful" if doubtful_s else ""
    account = f"{clock(transcript.duration_s)} long: {parts}{doubts}.\n"
    problems = map(_markdown_text, (*transcript.warnings, transcript.fault or ""))
    heading = f"# {_markdown_text(PurePath(transcript.source).name)}\n"
    items = "".join(f"- **{start}** {text}\n" for start, text in texts if text)
    missing = "".join(f"- {problem}\n" for problem in problems if problem)
    return "\n".join(filter(None, [heading, items, account, missing]))


def _dumps(transcript: Transcript, indent: int | None) -> str:
    written = json.dumps(as_dict(transcript), ensure_ascii=False, indent=indent)
    return JSON_UNSAFE.sub(_as_hexadecimal, written) + "\n"


def _tsv_field(text: str) -> str:
    return TSV_UNSAFE.sub(lambda found: TSV_SHORT.get(found[0]) or _as_hexadecimal(found), text)


def _as_hexadecimal(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _stamp(time_ms: int, point: str) -> str:
    """A time in a subtitle file: hours, minutes, seconds, milliseconds."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{milliseconds:03}"


def _markdown_text(text: str) -> str:
    return MARKDOWN_LIST.sub(r"\1\\\2", MARKDOWN_SPECIAL.sub(r"\\\1", one_line(text)))

"""Transcripts as text in each output format. All functions are pure, and every result can be encoded as UTF-8.

docs/formats.md describes how each format escapes special characters.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Any

from funasr_cli.characters import one_line
from funasr_cli.options import Timestamps
from funasr_cli.subtitles import DEFAULT_LAYOUT, Cue, Piece, SubtitleLayout, make_cues, pieces_of, sentences_of
from funasr_cli.transcript import MISSING, Segment, Transcript

ARROW = re.compile("-{2,}>")  # separates the times of a cue
# Characters that some programs treat as line ends, control characters, and surrogates, which UTF-8 cannot encode.
JSON_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TSV_UNSAFE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TSV_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
VTT_NOTES = {  # by the precision of the measured times
    "segment": "NOTE Times within a segment are estimated from the length of its text.",
    "word": "NOTE Some word times are estimated, for example those of numbers written in digits.",
}
MARKDOWN_LIST = re.compile(r"^(\d*)([-+.)])(?=[ -]|$)")  # a list item or a horizontal rule
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>&#|~$])")


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours if it has any."""
    return precise_clock(round(seconds))[:-3]


def precise_clock(seconds: float) -> str:
    """Return a time to a hundredth of a second, the precision of the measured times."""
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    rest = f"{hundredths // 100:02}.{hundredths % 100:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest}" if minutes >= 60 else f"{minutes}:{rest}"


def parts_of(segment: Segment, times: Timestamps) -> Iterator[tuple[str, Piece]]:
    """Yield each piece of a segment that gets its own line, with the prefix that shows its times and speaker."""
    speaker = f"{one_line(segment.speaker)}: " if segment.speaker else ""
    if times is Timestamps.NONE:
        yield speaker, Piece(segment.text, segment.start_s, segment.end_s)
        return
    for piece in pieces_of(segment, words=times is Timestamps.WORD):
        yield f"[{precise_clock(piece.start_s)}-{precise_clock(piece.end_s)}] {speaker}", piece


def translated(segment: Segment) -> Iterator[tuple[str, Piece]]:
    """Yield the translation of a segment, with its language as the prefix, unless it repeats the text.

    The prefix of an incomplete translation, of which nothing may have been written, says so.
    """
    own = segment.translation
    if own and not own.complete:
        yield f"[{own.language}, incomplete] ", Piece(own.text or MISSING, segment.start_s, segment.end_s)
    elif own and one_line(own.text) != one_line(segment.text):
        yield f"[{own.language}] ", Piece(own.text, segment.start_s, segment.end_s)


def as_lines(segments: Iterable[Segment], prefix: str = "", times: Timestamps = Timestamps.NONE) -> str:
    """Return one line for each segment with text, or for each word; times come first if they are shown.

    A translation is on a separate line, after those of its segment.
    """
    parts = (part for segment in segments for part in (*parts_of(segment, times), *translated(segment)))
    return "".join(f"{prefix}{head}{text}\n" for head, piece in parts if (text := one_line(piece.text)))


def as_text(transcript: Transcript, times: Timestamps = Timestamps.NONE) -> str:
    """Return the transcript as lines of text; see `as_lines`."""
    return as_lines(transcript.segments, times=times)


def as_dict(transcript: Transcript, times: Timestamps = Timestamps.WORD) -> dict[str, Any]:
    """Return the whole transcript as JSON data; docs/transcript.schema.json describes every field.

    Segments keep their times even with `Timestamps.NONE`, since these show which audio was transcribed.
    """
    if times is not Timestamps.WORD:
        transcript = transcript.without_words()
    data = dataclasses.asdict(transcript)
    for segment, row in zip(transcript.segments, data["segments"], strict=True):
        row["state"] = segment.state
        if times is Timestamps.NONE:
            row["pieces"] = []
            if row["translation"]:
                row["translation"]["pieces"] = []
        sentences = sentences_of(segment) if times is not Timestamps.NONE else []
        row["sentences"] = list(map(dataclasses.asdict, sentences))
    data["timings"]["passes"] = transcript.timings.passes
    derived = {"text": transcript.text, "complete": transcript.complete, "times": transcript.times}
    return {**derived, "ledger": dataclasses.asdict(transcript.ledger), **data}


def as_json(transcript: Transcript, times: Timestamps = Timestamps.WORD, indent: int | None = 2) -> str:
    """Return the whole transcript as indented JSON. An indent of None puts it on one line."""
    written = json.dumps(_rounded(as_dict(transcript, times)), ensure_ascii=False, indent=indent)
    return JSON_UNSAFE.sub(_as_hexadecimal, written) + "\n"


def as_json_line(transcript: Transcript, times: Timestamps = Timestamps.WORD) -> str:
    """Return the whole transcript as one line of JSON (JSON Lines), so that files can be concatenated."""
    return as_json(transcript, times, indent=None)


def as_tsv(transcript: Transcript, times: Timestamps = Timestamps.SEGMENT) -> str:
    r"""Return a row for each segment or word, as Whisper writes them: start and end in milliseconds, and the text.

    Backslash, tab, line feed and carriage return are escaped as ``\\``, ``\t``, ``\n`` and ``\r``. Other control
    characters, line separators and lone surrogates become ``\u`` and four hexadecimal digits. Quotation marks have
    no special meaning. If speakers were told apart, they are a column before the text. If there are translations,
    they are a last column, in the first row of each segment. To decode a field::

        short = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
        re.sub(r"\\(u....|.)", lambda m: short.get(m[1]) or chr(int(m[1][1:], 16)), field)
    """
    has_speakers = transcript.speakers_by is not None
    has_translations = any(segment.translation for segment in transcript.segments)
    columns = ["start", "end", *["speaker"] * has_speakers, "text", *["translation"] * has_translations]
    rows = "\t".join(columns) + "\n"
    for segment in (transcript if times is Timestamps.WORD else transcript.without_words()).segments:
        translation = segment.translation.text if segment.translation else ""
        for part in segment.words or segment.pieces or [segment]:
            texts = [*[segment.speaker or ""] * has_speakers, part.text, *[translation] * has_translations]
            translation = ""
            fields = [
                TSV_UNSAFE.sub(lambda found: TSV_SHORT.get(found[0]) or _as_hexadecimal(found), x) for x in texts
            ]
            rows += "\t".join([str(round(part.start_s * 1000)), str(round(part.end_s * 1000)), *fields]) + "\n"
    return rows


def as_srt(transcript: Transcript, layout: SubtitleLayout = DEFAULT_LAYOUT) -> str:
    """Return SubRip subtitles. SubRip has no escaping: only ``-->`` is replaced, with ``->``."""
    cues = make_cues(transcript, layout)
    blocks = _cue_blocks(cues, ",", lambda text: ARROW.sub("->", text), "[{}] ")
    return "\n".join(f"{number}\n{block}" for number, block in enumerate(blocks, 1))


def as_vtt(transcript: Transcript, layout: SubtitleLayout = DEFAULT_LAYOUT) -> str:
    """Return WebVTT subtitles, with a note if any times are estimated."""
    cues = make_cues(transcript, layout)
    notes = [f"{VTT_NOTES[transcript.times]}\n"] if any(cue.estimated for cue in cues) else []
    return "\n".join(
        ["WEBVTT\n", *notes, *_cue_blocks(cues, ".", lambda text: text.translate(VTT_ESCAPES), "<v {}>")]
    )


def as_markdown(transcript: Transcript, times: Timestamps = Timestamps.SEGMENT) -> str:
    """Return Markdown: the file's name, the segments with text, and a summary of what was transcribed.

    With `Timestamps.WORD`, the words of each segment are listed below it.
    """
    shares = dataclasses.asdict(transcript.ledger)
    doubtful_s, untranslated_s = shares.pop("doubtful_s"), shares.pop("untranslated_s")
    parts = ", ".join(f"{clock(seconds)} {name.removesuffix('_s')}" for name, seconds in shares.items())
    notes = {"of it doubtful": doubtful_s, "without a complete translation": untranslated_s}
    others = "".join(f"; {clock(seconds)} {what}" for what, seconds in notes.items() if seconds)
    account = f"{clock(transcript.duration_s)} long: {parts}{others}.\n"
    problems = map(_markdown_text, (*transcript.warnings, transcript.fault or ""))
    heading = f"# {_markdown_text(PurePath(transcript.source).name)}\n"
    items = "".join(item for segment in transcript.segments for item in _markdown_items(segment, times))
    missing = "".join(f"- {problem}\n" for problem in problems if problem)
    return "\n".join(filter(None, [heading, items, account, missing]))


def _markdown_items(segment: Segment, times: Timestamps) -> Iterator[str]:
    if not (text := _markdown_text(segment.text)):
        return
    text = f"**{_markdown_text(segment.speaker)}:** {text}" if segment.speaker else text
    yield f"- {text}\n" if times is Timestamps.NONE else f"- **{clock(int(segment.start_s))}** {text}\n"
    for head, piece in translated(segment):
        if other := _markdown_text(piece.text):
            yield f"  - **{head.strip(' []')}** {other}\n"
    for word in segment.words if times is Timestamps.WORD else ():
        if text := _markdown_text(word.text):
            yield f"  - **{precise_clock(word.start_s)}** {text}\n"


def _cue_blocks(cues: Iterable[Cue], point: str, safe: Callable[[str], str], speaker: str) -> Iterator[str]:
    """Yield the times, the speaker and the text of each cue.

    The spoken word is underlined with ``<u>``, valid in both formats.
    """
    for cue in cues:
        first, last = cue.marked or (0, 0)
        marked = f"<u>{safe(cue.text[first:last])}</u>" if cue.marked else ""
        who = speaker.format(safe(one_line(cue.speaker))) if cue.speaker else ""
        text = f"{who}{safe(cue.text[:first])}{marked}{safe(cue.text[last:])}"
        below = "".join(f"{safe(line)}\n" for line in cue.below)
        yield f"{_stamp(cue.start_ms, point)} --> {_stamp(cue.end_ms, point)}\n{text}\n{below}"


def _rounded(data: Any) -> Any:
    """Return the data with all floats rounded to six decimals, which is microseconds for times."""
    if isinstance(data, dict):
        return {name: _rounded(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_rounded(value) for value in data]
    return round(data, 6) if isinstance(data, float) else data


def _as_hexadecimal(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _stamp(time_ms: int, point: str) -> str:
    """Return a subtitle timestamp: hours, minutes, seconds and milliseconds."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{milliseconds:03}"


def _markdown_text(text: str) -> str:
    return MARKDOWN_LIST.sub(r"\1\\\2", MARKDOWN_SPECIAL.sub(r"\\\1", one_line(text)))

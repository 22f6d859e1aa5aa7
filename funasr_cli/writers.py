"""Transcripts as files: the formats by name, and files that are never overwritten."""

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from funasr_cli.errors import OutputError, UsageError
from funasr_cli.formats import (
    as_dict,
    as_json,
    as_json_line,
    as_lines,
    as_markdown,
    as_srt,
    as_text,
    as_tsv,
    as_vtt,
)
from funasr_cli.options import Timestamps
from funasr_cli.subtitles import DEFAULT_LAYOUT, SubtitleLayout
from funasr_cli.transcript import Transcript

__all__ = [
    "WRITERS", "Style", "Writer", "as_dict", "as_json", "as_json_line", "as_lines", "as_markdown", "as_srt",
    "as_text", "as_tsv", "as_vtt", "exists_already", "parse_formats", "refuse_timeless", "write_new",
    "write_whole",
]  # fmt: skip


@dataclass(frozen=True)
class Style:
    """What transcripts look like in files.

    Attributes:
        times: those that are shown; None leaves it to each format: `DEFAULT_TIMES`. Where words have none, those
            of segments take their place.
        subtitles: how subtitles look.
    """

    times: Timestamps | None = None
    subtitles: SubtitleLayout = DEFAULT_LAYOUT


DEFAULT_STYLE = Style()
DEFAULT_TIMES = {
    "txt": Timestamps.NONE,
    "srt": Timestamps.WORD,
    "vtt": Timestamps.WORD,
    "tsv": Timestamps.SEGMENT,
    "json": Timestamps.WORD,
    "jsonl": Timestamps.WORD,
    "md": Timestamps.SEGMENT,
}
OF_TIMES = ("srt", "vtt", "tsv")  # formats that are nothing without them


class Writer(Protocol):
    """What a format does with a transcript."""

    def __call__(self, transcript: Transcript, style: Style = DEFAULT_STYLE, /) -> str:
        """The content of a file, which can be encoded as UTF-8.

        Raises:
            UsageError: the style leaves times out, without which the format is nothing.
        """


def refuse_timeless(format: str, times: Timestamps | None) -> None:
    """Refuse a format without the times that it consists of.

    Raises:
        UsageError: naming what there is.
    """
    if times is Timestamps.NONE and format in OF_TIMES:
        raise UsageError(f"timestamps {times} with {format}", "it consists of times; choose word or segment")


def _subtitles(format: str, write: Callable[[Transcript, SubtitleLayout], str]) -> Writer:
    def written(transcript: Transcript, style: Style = DEFAULT_STYLE, /) -> str:
        refuse_timeless(format, style.times)
        shown = transcript.without_words() if style.times is Timestamps.SEGMENT else transcript
        return write(shown, style.subtitles)

    return written


def _text(format: str, write: Callable[[Transcript, Timestamps], str]) -> Writer:
    def written(transcript: Transcript, style: Style = DEFAULT_STYLE, /) -> str:
        refuse_timeless(format, style.times)
        return write(transcript, style.times or DEFAULT_TIMES[format])

    return written


WRITERS: dict[str, Writer] = {  # by the ending of the file's name
    "txt": _text("txt", as_text),
    "srt": _subtitles("srt", as_srt),
    "vtt": _subtitles("vtt", as_vtt),
    "tsv": _text("tsv", as_tsv),
    "json": _text("json", as_json),
    "jsonl": _text("jsonl", as_json_line),
    "md": _text("md", as_markdown),
}


DEFAULT_FORMAT = "txt"
ALL_FORMATS = "all"


def parse_formats(texts: Iterable[str]) -> tuple[str, ...]:
    """Names of formats, of which each text may hold several with commas, or `ALL_FORMATS`; each name once.

    Raises:
        UsageError: there is no such format, or none is named.
    """
    names = [name.strip().lower() for text in texts for name in text.split(",")]
    for name in names:
        if name not in (*WRITERS, ALL_FORMATS):
            raise UsageError(f"unknown format {name!r}", f"choose from {', '.join(WRITERS)}, or {ALL_FORMATS}")
    return tuple(WRITERS) if ALL_FORMATS in names else tuple(dict.fromkeys(names))


def exists_already(path: Path) -> OutputError:
    """What to say about a result that is there."""
    return OutputError(
        f"{path}: exists already", "add --resume to skip it, --force to replace it, or choose another --output-dir"
    )


def write_new(path: Path, content: str, *, replace: bool = False) -> None:
    """Write a result.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    try:
        write_whole(path, content.encode(), replace=replace)
    except FileExistsError as error:
        raise exists_already(path) from error


def write_whole(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file, whole or not at all; one that exists stays as it is, unless it is to be replaced.

    Raises:
        FileExistsError: it exists.
        OutputError: it cannot be written.
    """
    try:
        handle, partial = tempfile.mkstemp(prefix=".funasr-", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(content)
            os.chmod(partial, 0o666 & ~_umask())
            if replace:
                os.replace(partial, path)
            else:
                _publish(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _publish(partial: str, path: Path) -> None:
    """Give a complete file its name; unlike a mere rename, this never overwrites."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here (exFAT, some network shares)
        path.open("xb").close()
        os.replace(partial, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

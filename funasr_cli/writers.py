"""Write transcripts to files: output formats by name, and atomic writes."""

import errno
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from funasr_cli.errors import OutputError, UsageError
from funasr_cli.formats import as_json, as_json_line, as_markdown, as_srt, as_text, as_tsv, as_vtt
from funasr_cli.options import Tags, Timestamps
from funasr_cli.paths import NO_ROOM, nearest_existing
from funasr_cli.subtitles import DEFAULT_LAYOUT, SubtitleLayout
from funasr_cli.tags import decorated
from funasr_cli.transcript import Transcript

DATA_LOST = (*NO_ROOM, errno.EIO)  # errors of fsync which mean that data did not reach the disk
PARTIAL = ".funasr-"  # prefix of the names of incomplete files
LEFTOVER = f"{PARTIAL}leftover"  # a temporary file that cannot be removed gets this name, so at most one remains
PROBE_BYTES = 1 << 16  # size of the transcript of an hour


@dataclass(frozen=True)
class Style:
    """How transcripts are written. Segment times are used where a transcript has no word times."""

    times: Timestamps | None = None  # None uses each format's `DEFAULT_TIMES`
    subtitles: SubtitleLayout = DEFAULT_LAYOUT
    tags: Tags = Tags.NONE
    bilingual: bool = False  # subtitles have translations below the text


DEFAULT_STYLE = Style()
DEFAULT_FORMAT = "txt"
ALL_FORMATS = "all"
# Writers, and the times that they show by default.
_FORMATS: dict[str, tuple[Callable[[Transcript, Any], str], Timestamps]] = {
    "txt": (as_text, Timestamps.NONE),
    "srt": (as_srt, Timestamps.WORD),
    "vtt": (as_vtt, Timestamps.WORD),
    "tsv": (as_tsv, Timestamps.SEGMENT),
    "json": (as_json, Timestamps.WORD),
    "jsonl": (as_json_line, Timestamps.WORD),
    "md": (as_markdown, Timestamps.SEGMENT),
}
DEFAULT_TIMES = {name: times for name, (_, times) in _FORMATS.items()}
SUBTITLES = ("srt", "vtt")
DATA = ("json", "jsonl")  # formats with a separate field for tags, whose text is left unchanged
TIMED_FORMATS = (*SUBTITLES, "tsv")  # formats that require times


def refuse_timeless(format: str, times: Timestamps | None) -> None:
    """Raise a UsageError if a format that requires times is to be written without them."""
    if times is Timestamps.NONE and format in TIMED_FORMATS:
        hint = "this format requires times: choose word or segment"
        raise UsageError(f"cannot combine --timestamps {times} with {format}", hint, code="options-conflict")


def _writer(format: str) -> Callable[..., str]:
    write, times = _FORMATS[format]

    def written(transcript: Transcript, style: Style = DEFAULT_STYLE, /) -> str:
        refuse_timeless(format, style.times)
        if format not in DATA:
            segments = (decorated(segment, style.tags) for segment in transcript.segments)
            transcript = replace(transcript, segments=tuple(segments))
        if format not in SUBTITLES:
            return write(transcript, style.times or times)
        shown = transcript.without_words() if style.times is Timestamps.SEGMENT else transcript
        return write(shown if style.bilingual else shown.without_translations(), style.subtitles)

    return written


# By file name extension: a function that turns a transcript and a `Style` into text that UTF-8 can encode.
WRITERS = {name: _writer(name) for name in _FORMATS}


def parse_formats(texts: Iterable[str]) -> tuple[str, ...]:
    """Parse lists of formats separated by commas, or `ALL_FORMATS`; raise a UsageError for unknown names."""
    names = [name.strip().lower() for text in texts for name in text.split(",")]
    for name in names:
        if name not in (*WRITERS, ALL_FORMATS):
            hint = f"choose from {', '.join(WRITERS)}, or {ALL_FORMATS}"
            raise UsageError(f"unknown format {name!r}", hint, code="option-value")
    return tuple(WRITERS) if ALL_FORMATS in names else tuple(dict.fromkeys(names))


def already_exists(path: Path) -> OutputError:
    """Return the error for a result that already exists and must not be replaced."""
    hint = "add --resume to skip it, --force to replace it, or choose another --output-dir"
    return OutputError(f"{path}: already exists", hint, code="output-exists")


def write_new(path: Path, content: str, *, replace: bool = False) -> None:
    """Write a result; raise an OutputError if it exists or cannot be written."""
    try:
        write_whole(path, content.encode(), replace=replace)
    except FileExistsError as error:
        raise already_exists(path) from error


def write_whole(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file atomically. An existing file is left unchanged unless ``replace`` is true.

    The file's mode follows the umask. This works on network shares with limited file systems: chmod is never
    called, and unsupported fsync and hard links are skipped.

    Raises:
        FileExistsError: the file exists.
        OutputError: the file cannot be written.
    """
    partial = path.parent / f"{PARTIAL}{secrets.token_hex(8)}"
    try:
        try:
            with open(partial, "xb") as file:
                file.write(content)
                file.flush()
                _sync(file.fileno())
            if replace:
                os.replace(partial, path)
            else:
                _publish(partial, path)
        finally:
            _remove(partial)
    except FileExistsError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def refuse_unwritable(folder: Path, hint: str) -> None:
    """Fail early if results cannot be written into a folder. The folder need not exist yet.

    A probe file is written and removed in the same way as results, since only trying shows what a file system
    allows.

    Raises:
        OutputError: the folder is not writable, or the disk is full.
    """
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(folder)  # fails if the name is too long or a parent folder cannot be searched
    except OSError as error:
        problem = f"{folder}: cannot be created ({_reason(error)})"
        raise OutputError(problem, hint, code="output-unwritable") from error
    there = nearest_existing(folder)
    if not there.is_dir():
        raise OutputError(f"{folder}: cannot be created ({there} is not a folder)", hint, code="output-unwritable")
    probe = there / f"{PARTIAL}{secrets.token_hex(8)}"
    try:
        write_whole(probe, bytes(PROBE_BYTES))
        write_whole(probe, b"", replace=True)
    except OutputError as error:
        why = "" if isinstance(error.__cause__, FileNotFoundError) else f" ({_reason(error.__cause__)})"
        raise OutputError(f"{there}: the folder is not writable{why}", hint, code=error.code) from error
    finally:
        _remove(probe)


def refuse_name(path: Path) -> None:
    """Create a file's folder and fail early, with an OutputError, if the file's name cannot be used there."""
    # A probe with a similar name tests the characters. A run killed at this point leaves no empty result.
    probe = path.with_name(PARTIAL + path.name[len(PARTIAL) :])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.lstat(path)  # fails if the name is too long
        with suppress(FileExistsError):
            probe.touch(exist_ok=False)
            _remove(probe)
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path | str, error: OSError) -> OutputError:
    """Return the error for a file that the system refuses to write."""
    message = f"{path}: cannot be written ({_reason(error)})"
    return OutputError(message, code="disk-full" if error.errno in NO_ROOM else "output-unwritable")


def _reason(error: BaseException | None) -> str:
    return str(getattr(error, "strerror", None) or error)


def _remove(path: Path) -> None:
    """Remove a file if it exists. If the file system forbids removal, rename it to `LEFTOVER`."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        with suppress(OSError):
            os.replace(path, path.with_name(LEFTOVER))


def _sync(descriptor: int) -> None:
    """Flush a file to the disk if the file system supports it; raise if data is lost."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in DATA_LOST:
            raise


def _publish(partial: Path, path: Path) -> None:
    """Give a complete file its final name. Unlike a rename, this never overwrites an existing file."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # hard links are not supported (exFAT, some network shares)
        path.open("xb").close()
        try:
            os.replace(partial, path)
        except OSError:
            path.unlink()
            raise

"""Transcripts as files: the formats by name, and files that are written whole or not at all."""

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

LOST = (*NO_ROOM, errno.EIO)  # what says that the content itself is not on the disk
PARTIAL = ".funasr-"  # how names of files begin that are not whole
LEFTOVER = f"{PARTIAL}leftover"  # what cannot be removed takes this name, so that there is one at most
PROBE_BYTES = 1 << 16  # as much as the text of an hour


@dataclass(frozen=True)
class Style:
    """What transcripts look like in files; where words have no times, those of segments take their place."""

    times: Timestamps | None = None  # None leaves it to each format: `DEFAULT_TIMES`
    subtitles: SubtitleLayout = DEFAULT_LAYOUT
    tags: Tags = Tags.NONE


DEFAULT_STYLE = Style()
DEFAULT_FORMAT = "txt"
ALL_FORMATS = "all"
_FORMATS: dict[str, tuple[Callable[[Transcript, Any], str], Timestamps]] = {  # with the times shown by default
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
DATA = ("json", "jsonl")  # formats that have tags in a field of their own, and the text as it was said
OF_TIMES = (*SUBTITLES, "tsv")  # formats that are nothing without them


def refuse_timeless(format: str, times: Timestamps | None) -> None:
    """Raise a UsageError for a format without the times that it consists of."""
    if times is Timestamps.NONE and format in OF_TIMES:
        hint = "it consists of times; choose word or segment"
        raise UsageError(f"timestamps {times} with {format}", hint, code="options-conflict")


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
        return write(shown, style.subtitles)

    return written


# By the ending of the file's name: a transcript, and its `Style`, as text that can be encoded as UTF-8.
WRITERS = {name: _writer(name) for name in _FORMATS}


def parse_formats(texts: Iterable[str]) -> tuple[str, ...]:
    """Read names of formats, each text several with commas, or `ALL_FORMATS`; raise a UsageError for others."""
    names = [name.strip().lower() for text in texts for name in text.split(",")]
    for name in names:
        if name not in (*WRITERS, ALL_FORMATS):
            hint = f"choose from {', '.join(WRITERS)}, or {ALL_FORMATS}"
            raise UsageError(f"unknown format {name!r}", hint, code="option-value")
    return tuple(WRITERS) if ALL_FORMATS in names else tuple(dict.fromkeys(names))


def exists_already(path: Path) -> OutputError:
    """Make the error of a result that exists and is not to be replaced."""
    hint = "add --resume to skip it, --force to replace it, or choose another --output-dir"
    return OutputError(f"{path}: exists already", hint, code="output-exists")


def write_new(path: Path, content: str, *, replace: bool = False) -> None:
    """Write a result; raise an OutputError if it exists or cannot be written."""
    try:
        write_whole(path, content.encode(), replace=replace)
    except FileExistsError as error:
        raise exists_already(path) from error


def write_whole(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file, whole or not at all; one that exists stays as it is, unless it is to be replaced.

    The kernel gives the file its mode, by the umask. Nothing else is asked of the file system that network
    shares refuse: chmod is not called, and fsync and hard links are done without where there are none.

    Raises:
        FileExistsError: it exists.
        OutputError: it cannot be written.
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
    """Say before any work that nothing can be put into a folder, which need not be there yet.

    A file is written there as results are, and removed: what a file system allows shows in no other way.

    Raises:
        OutputError: it cannot, or there is no room.
    """
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(folder)  # tells of a name that is too long, or lies where nobody may look
    except OSError as error:
        problem = f"{folder}: cannot be made ({_reason(error)})"
        raise OutputError(problem, hint, code="output-unwritable") from error
    there = nearest_existing(folder)
    if not there.is_dir():
        raise OutputError(f"{folder}: cannot be made ({there} is not a folder)", hint, code="output-unwritable")
    probe = there / f"{PARTIAL}{secrets.token_hex(8)}"
    try:
        write_whole(probe, bytes(PROBE_BYTES))
        write_whole(probe, b"", replace=True)
    except OutputError as error:
        why = "" if isinstance(error.__cause__, FileNotFoundError) else f" ({_reason(error.__cause__)})"
        raise OutputError(f"{there}: nothing can be written there{why}", hint, code=error.code) from error
    finally:
        _remove(probe)


def refuse_name(path: Path) -> None:
    """Make a file's folder, and raise an OutputError, before any work, if the name cannot be used in it."""
    # Characters are tried under another name: a run that is killed right then leaves no empty result.
    probe = path.with_name(PARTIAL + path.name[len(PARTIAL) :])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.lstat(path)  # tells of a name that is too long
        with suppress(FileExistsError):
            probe.touch(exist_ok=False)
            _remove(probe)
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path | str, error: OSError) -> OutputError:
    """Make the error of a file that the system refuses to write."""
    message = f"{path}: cannot be written ({_reason(error)})"
    return OutputError(message, code="disk-full" if error.errno in NO_ROOM else "output-unwritable")


def _reason(error: BaseException | None) -> str:
    return str(getattr(error, "strerror", None) or error)


def _remove(path: Path) -> None:
    """Remove a file, if it is there; where files may only be added, give it the name of what is left over."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        with suppress(OSError):
            os.replace(path, path.with_name(LEFTOVER))


def _sync(descriptor: int) -> None:
    """Bring a file to the disk, where that can be asked for; what is lost on the way counts."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in LOST:
            raise


def _publish(partial: Path, path: Path) -> None:
    """Give a complete file its name; unlike a mere rename, this never overwrites."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here (exFAT, some network shares)
        path.open("xb").close()
        try:
            os.replace(partial, path)
        except OSError:
            path.unlink()
            raise

"""Find the inputs that the command line names, without opening a recording.

A file that a folder or a pattern yields is left out if it was also named directly, or was found before. A file
that the user names twice is transcribed twice.
"""

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import takewhile
from pathlib import Path

from funasr_cli.audio.pcm import PCMFormat
from funasr_cli.audio.tape import STDIN
from funasr_cli.errors import AudioError, FunASRError, UsageError
from funasr_cli.paths import shown

# Endings of recordings in folders. "ts" is missing, because it is TypeScript more often than MPEG.
AUDIO_ENDINGS = (
    "3ga aac ac3 aif aifc aiff amr ape au awb caf flac m4a m4b mka mp1 mp2 mp3 mpga oga ogg opus rf64 snd tta w64 "
    "wav wave weba wma wv"
)
VIDEO_ENDINGS = "3g2 3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv"
ENDINGS = frozenset(f".{ending}" for ending in f"{AUDIO_ENDINGS} {VIDEO_ENDINGS}".split())

CLOCK_TIME = re.compile(
    r"(?:[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]|[0-9]{1,5}:[0-5][0-9]|[0-9]{1,7})(?:[.,][0-9]{1,9})?"
)
ADDRESS = re.compile("[a-z][a-z0-9+.-]*://", re.IGNORECASE)
TIME_HINT = "write seconds (90, 130.5), minutes and seconds (1:30), or hours, minutes and seconds (1:02:03)"
CLIP_HINT = "write FROM-TO, either of which may be missing: 1:30-2:10, 90-130.5, 1:02:03-, -30"

Clip = tuple[float, float | None]  # start and end in seconds; None: to the end of the recording


@dataclass(frozen=True)
class Input:
    """A recording to transcribe.

    `stem` is the path of its result in the output folder, without an ending. A file from a folder or a pattern
    keeps its place in that folder, as in "monday/call"; one of its channels is "monday/call.ch1".
    """

    path: Path  # a file, which may be missing, or `STDIN`
    label: str  # its name in messages and results
    stem: str
    clip: Clip | None = None  # the part to transcribe; None: all of it
    channel: int | None = None  # the channel to transcribe, from 1; None mixes all channels
    speaker: str | None = None  # who speaks in that channel
    pcm: PCMFormat | None = None  # how its samples are stored, if they have no header
    problem: FunASRError | None = None  # an error that is already known
    kept: object = field(default=None, repr=False, compare=False)  # an object that must live as long as the input


def find_inputs(
    typed: Iterable[str | Path], *, recursive: bool = False, clip: Clip | None = None, pcm: PCMFormat | None = None
) -> list[Input]:
    """Return files, including missing ones, recordings in folders, matches of patterns, and "-" for stdin.

    Args:
        typed: names from the command line.
        recursive: include subfolders, also for ``**`` in a pattern.
        clip: the part of every input to transcribe.
        pcm: how samples are stored in inputs without a known ending.

    Raises:
        UsageError: a name is empty, a folder has no recordings, a pattern matches nothing, stdin is named twice or
            is a terminal, or no input holds samples for `pcm` to describe.
    """
    groups = [_look_up(os.fspath(name), recursive) for name in typed]
    inputs = _without_repetitions(groups)
    if [input.path for input in inputs].count(STDIN) > 1:
        raise UsageError("standard input is named more than once", "it can be read only once", code="input-once")
    if pcm:
        inputs = [input if input.path.suffix.lower() in ENDINGS else replace(input, pcm=pcm) for input in inputs]
        if not any(input.pcm for input in inputs):
            hint = "name a file of raw samples, or - for standard input"
            raise UsageError("--pcm: all inputs are files of a known type", hint, code="options-conflict")
    return [replace(input, clip=clip) for input in inputs]


def has_folders(typed: str) -> bool:
    """Return whether a name is a folder or a pattern."""
    return os.path.isdir(typed) or (glob.has_magic(typed) and not os.path.lexists(typed))


def folders_below(typed: Iterable[str]) -> set[str]:
    """Return the subfolders with recordings, which only `recursive` includes."""
    below = (path for name in typed if os.path.isdir(name) for path in glob.iglob(f"{glob.escape(name)}/*/*"))
    return {os.path.dirname(path) for path in below if Path(path).suffix.lower() in ENDINGS}


def parse_time(text: str) -> float:
    """Return the seconds of "90", "130.5", "1:30" or "1:02:03,250"; raise a `UsageError` for anything else."""
    if not CLOCK_TIME.fullmatch(text.strip()):
        raise UsageError(f"{text!r} is not a time", TIME_HINT, code="option-value")
    seconds = 0.0
    for part in text.strip().replace(",", ".").split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def parse_clip(text: str) -> Clip:
    """Return start and end of "1:30-2:10", "90-130.5", "1:02:03-" or "-30"; raise a `UsageError` otherwise."""
    start, dash, end = (part.strip() for part in text.partition("-"))
    if not dash or not (start or end):
        raise UsageError(f"{text!r} is not a time range", CLIP_HINT, code="option-value")
    start_s, end_s = parse_time(start or "0"), parse_time(end) if end else None
    if end_s is not None and end_s <= start_s:
        raise UsageError(f"{text!r} ends before it begins", CLIP_HINT, code="option-value")
    return start_s, end_s


def _look_up(name: str, recursive: bool) -> tuple[list[Input], bool]:
    """Return the inputs that a name stands for, and whether it names a single file."""
    if not name:
        raise UsageError(
            "the name of an input is empty", "perhaps a shell variable is not set", code="option-value"
        )
    if name == "-":
        if sys.stdin is None or os.isatty(0):  # None: it was closed when the program started
            hint = "- is standard input, as in: ffmpeg ... -f wav - | funasr transcribe -"
            raise UsageError("nothing is piped to standard input", hint, code="stdin-terminal")
        return [Input(STDIN, "-", "stdin")], True
    if ADDRESS.match(name) and not os.path.lexists(name):
        problem = AudioError(
            f"{name}: web addresses are not supported", "download the file first", code="audio-address"
        )
        return [Input(Path(name), name, Path(name).stem, problem=problem)], True
    if has_folders(name):
        return _found_by(name, recursive), False
    return [Input(Path(name), shown(Path(name)), Path(name).stem)], True


def _found_by(name: str, recursive: bool) -> list[Input]:
    """Return the recordings in a folder, or a pattern's matches: any files, and the recordings in folders."""
    is_folder, problems, files = os.path.isdir(name), list[Input](), list[Path]()
    for match in map(Path, [name] if is_folder else _expanded(name, recursive, problems)):
        if os.path.isdir(match):
            files += _recordings(match, recursive, problems)
        elif _is_plain(match):
            files.append(match)
    if not files and not problems and is_folder:
        deeper = "" if recursive else "; --recursive includes subfolders"
        hint = f"recordings have endings such as wav, mp3, m4a or mp4{deeper}"
        raise UsageError(f"{shown(name)}: no recordings in this folder", hint, code="inputs-missing")
    if not files and not problems:
        hint = "** needs --recursive" if "**" in name and not recursive else ""
        raise UsageError(f"{shown(name)}: nothing matches", hint, code="inputs-missing")
    parts = list(takewhile(lambda part: is_folder or not glob.has_magic(part), name.split("/")))
    base = Path("/".join(parts) or ("/" if name.startswith("/") else "."))
    return [_found(path, base) for path in sorted(files, key=_natural)] + problems


def _expanded(pattern: str, recursive: bool, problems: list[Input]) -> Iterator[str]:
    """Yield the paths that match; ``**`` is expanded here, since glob may follow links endlessly."""
    parts = pattern.split("/")
    if not recursive or "**" not in parts:
        yield from glob.iglob(pattern)
        return
    stars = parts.index("**")
    tail = "/".join(parts[stars + 1 :])
    for top in glob.iglob("/".join(parts[:stars]) or ("/" if pattern.startswith("/") else ".")):
        for folder, _ in _walk(top, True, problems):
            yield from _expanded(f"{glob.escape(folder)}/{tail}", True, problems) if tail else [folder]


def _recordings(folder: Path, recursive: bool, problems: list[Input]) -> list[Path]:
    """Return files with known endings, including broken links, which are reported later."""
    files = (Path(within, name) for within, names in _walk(folder, recursive, problems) for name in names)
    return [path for path in files if path.suffix.lower() in ENDINGS and _is_plain(path)]


def _is_plain(path: Path) -> bool:
    """Return whether a path is neither a pipe nor a device, which might never end."""
    return os.path.isfile(path) or not os.path.exists(path)


def _walk(top: str | Path, recursive: bool, problems: list[Input]) -> Iterator[tuple[str, list[str]]]:
    """Yield folders and the names of their files, without hidden ones. Follow links, but visit no folder twice."""

    def report(error: OSError) -> None:
        label = shown(error.filename)
        problem = AudioError(f"{label}: cannot be read ({error.strerror})", code="audio-unreadable")
        problems.append(Input(Path(error.filename), label, Path(error.filename).stem, problem=problem))

    visited = {os.path.realpath(top)}
    for folder, folders, files in os.walk(top, onerror=report, followlinks=True):
        yield folder, [name for name in files if not name.startswith(".")]
        names = sorted(name for name in folders if recursive and not name.startswith("."))
        folders.clear()
        for name in names:
            if (real := os.path.realpath(os.path.join(folder, name))) not in visited:
                visited.add(real)
                folders.append(name)


def _found(path: Path, base: Path) -> Input:
    within = path.relative_to(base) if path.is_relative_to(base) else Path(path.name)
    if ".." in within.parts:  # from a pattern; it could lead out of the output folder
        within = Path(path.name)
    return Input(path, shown(path), str(within.with_suffix("")))


def _natural(path: Path) -> list[tuple[list[str | int], str]]:
    """Return a sort key that puts a2 before a10."""

    def pieces(part: str) -> list[str | int]:  # text and numbers, alternating
        split = re.split("([0-9]+)", part)
        return [int(piece) if index % 2 else piece.casefold() for index, piece in enumerate(split)]

    return [(pieces(part), part) for part in path.parts]


def _without_repetitions(groups: list[tuple[list[Input], bool]]) -> list[Input]:
    real = cache(os.path.realpath)

    def identity(input: Input) -> tuple[str, str]:
        """Return a key that is the same for all paths of a file; links count as separate files."""
        return real(input.path.parent), input.path.name

    known = {identity(input) for inputs, is_typed in groups if is_typed for input in inputs}
    kept: list[Input] = []
    for inputs, is_typed in groups:
        for input in inputs:
            if is_typed or identity(input) not in known:
                kept.append(input)
                known.add(identity(input))
    return kept

"""What was typed on the command line -> the inputs it stands for. Opens no recording, holds no samples.

A recording that is there twice is transcribed once, unless it was typed twice itself: what a folder or a pattern
brings is left out where the same file was typed, or came before.
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

# Files in a folder that are taken for recordings. "ts" is missing: it is TypeScript more often than MPEG.
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
TIME_HINT = "write seconds (90, 130.5), minutes and seconds (1:30) or hours too (1:02:03)"
CLIP_HINT = "write from-to, either of which may be missing: 1:30-2:10, 90-130.5, 1:02:03-, -30"

Clip = tuple[float, float | None]  # from, to: seconds; None is the end


@dataclass(frozen=True)
class Input:
    """Something to transcribe, by name.

    `stem` is where its result goes below the output folder, without an ending: what a folder or a pattern brings
    keeps its place in that folder, as in "monday/call"; a channel of it is "monday/call.ch1".
    """

    path: Path  # a file, which may be missing, or `STDIN`
    label: str  # what to call it in messages and results
    stem: str
    clip: Clip | None = None  # the part of it that is wanted; None is all of it
    channel: int | None = None  # the one that is wanted, the first being 1; None mixes all
    pcm: PCMFormat | None = None  # how its samples are stored, if they have no header
    problem: FunASRError | None = None  # why it is known already that it cannot be read
    kept: object = field(default=None, repr=False, compare=False)  # what must not go away before it


def find_inputs(
    typed: Iterable[str | Path], *, recursive: bool = False, clip: Clip | None = None, pcm: PCMFormat | None = None
) -> list[Input]:
    """Files as they are, missing ones among them; the recordings in folders; what patterns match; "-" for stdin.

    Args:
        typed: as it stands on the command line.
        recursive: take folders with all folders in them, and let ``**`` in a pattern do so.
        clip: the part of every input that is wanted.
        pcm: how samples are stored in those inputs whose ending does not say what they are.

    Raises:
        UsageError: a name is empty, a folder holds no recording, nothing matches a pattern, stdin is asked for
            twice or is a terminal, or nothing is there for `pcm` to describe.
    """
    groups = [_look_up(os.fspath(name), recursive) for name in typed]
    inputs = _without_repetitions(groups)
    if [input.path for input in inputs].count(STDIN) > 1:
        raise UsageError("standard input is named more than once", "it can be read only once", code="input-once")
    if pcm:
        inputs = [input if input.path.suffix.lower() in ENDINGS else replace(input, pcm=pcm) for input in inputs]
        if not any(input.pcm for input in inputs):
            hint = "name one, or - for standard input"
            raise UsageError("no input holds samples without a header", hint, code="options-conflict")
    return [replace(input, clip=clip) for input in inputs]


def has_folders(typed: str) -> bool:
    """Whether a name stands for a folder, or for what matches it."""
    return os.path.isdir(typed) or (glob.has_magic(typed) and not os.path.lexists(typed))


def folders_below(typed: Iterable[str]) -> set[str]:
    """Folders with recordings in them that lie in those that are named: only `recursive` takes them."""
    below = (path for name in typed if os.path.isdir(name) for path in glob.iglob(f"{glob.escape(name)}/*/*"))
    return {os.path.dirname(path) for path in below if Path(path).suffix.lower() in ENDINGS}


def parse_time(text: str) -> float:
    """Seconds of "90", "130.5", "1:30" or "1:02:03,250"; a `UsageError` for anything else."""
    if not CLOCK_TIME.fullmatch(text.strip()):
        raise UsageError(f"{text!r} is not a time", TIME_HINT, code="option-value")
    seconds = 0.0
    for part in text.strip().replace(",", ".").split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def parse_clip(text: str) -> Clip:
    """From and to, of "1:30-2:10", "90-130.5", "1:02:03-" or "-30"; a `UsageError` for anything else."""
    start, dash, end = (part.strip() for part in text.partition("-"))
    if not dash or not (start or end):
        raise UsageError(f"{text!r} is not a part of a recording", CLIP_HINT, code="option-value")
    start_s, end_s = parse_time(start or "0"), parse_time(end) if end else None
    if end_s is not None and end_s <= start_s:
        raise UsageError(f"{text!r} ends before it begins", CLIP_HINT, code="option-value")
    return start_s, end_s


def _look_up(name: str, recursive: bool) -> tuple[list[Input], bool]:
    """What a name stands for, and whether it is that very file."""
    if not name:
        raise UsageError("an input without a name", "an empty shell variable?", code="option-value")
    if name == "-":
        if sys.stdin is None or os.isatty(0):  # None: it was closed when the program started
            hint = "- is standard input, as in: ffmpeg ... -f wav - | funasr transcribe -"
            raise UsageError("nothing is piped in", hint, code="stdin-terminal")
        return [Input(STDIN, "-", "stdin")], True
    if ADDRESS.match(name) and not os.path.lexists(name):
        problem = AudioError(f"{name}: addresses are not fetched", "download it first", code="audio-address")
        return [Input(Path(name), name, Path(name).stem, problem=problem)], True
    if has_folders(name):
        return _found_by(name, recursive), False
    return [Input(Path(name), shown(Path(name)), Path(name).stem)], True


def _found_by(name: str, recursive: bool) -> list[Input]:
    """Recordings in a folder; what matches a pattern: files whatever their ending, and recordings in folders."""
    is_folder, problems, files = os.path.isdir(name), list[Input](), list[Path]()
    for match in map(Path, [name] if is_folder else _expanded(name, recursive, problems)):
        if os.path.isdir(match):
            files += _recordings(match, recursive, problems)
        elif _is_plain(match):
            files.append(match)
    if not files and not problems and is_folder:
        deeper = "" if recursive else "; --recursive looks deeper"
        hint = f"recordings have endings such as wav, mp3, m4a or mp4{deeper}"
        raise UsageError(f"{shown(name)}: no recording in this folder", hint, code="inputs-missing")
    if not files and not problems:
        hint = "** needs --recursive" if "**" in name and not recursive else ""
        raise UsageError(f"{shown(name)}: nothing matches", hint, code="inputs-missing")
    parts = list(takewhile(lambda part: is_folder or not glob.has_magic(part), name.split("/")))
    base = Path("/".join(parts) or ("/" if name.startswith("/") else "."))
    return [_found(path, base) for path in sorted(files, key=_natural)] + problems


def _expanded(pattern: str, recursive: bool, problems: list[Input]) -> Iterator[str]:
    """Paths; ``**`` is walked here, since glob follows links around in circles."""
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
    """Files with known endings; links that lead nowhere are among them, to be reported."""
    files = (Path(within, name) for within, names in _walk(folder, recursive, problems) for name in names)
    return [path for path in files if path.suffix.lower() in ENDINGS and _is_plain(path)]


def _is_plain(path: Path) -> bool:
    """Whether it is no pipe or device, which could be read for ever."""
    return os.path.isfile(path) or not os.path.exists(path)


def _walk(top: str | Path, recursive: bool, problems: list[Input]) -> Iterator[tuple[str, list[str]]]:
    """Folders with the names of their files, hidden ones left out; links are followed, but no folder twice."""

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
    if ".." in within.parts:  # of a pattern: it could lead out of the output folder
        within = Path(path.name)
    return Input(path, shown(path), str(within.with_suffix("")))


def _natural(path: Path) -> list[tuple[list[str | int], str]]:
    """A key to sort by: a2 before a10."""

    def pieces(part: str) -> list[str | int]:  # text and numbers by turns
        split = re.split("([0-9]+)", part)
        return [int(piece) if index % 2 else piece.casefold() for index, piece in enumerate(split)]

    return [(pieces(part), part) for part in path.parts]


def _without_repetitions(groups: list[tuple[list[Input], bool]]) -> list[Input]:
    real = cache(os.path.realpath)

    def identity(input: Input) -> tuple[str, str]:
        """Equal for all ways to write the path of a file; links to it are files of their own."""
        return real(input.path.parent), input.path.name

    known = {identity(input) for inputs, is_typed in groups if is_typed for input in inputs}
    kept: list[Input] = []
    for inputs, is_typed in groups:
        for input in inputs:
            if is_typed or identity(input) not in known:
                kept.append(input)
                known.add(identity(input))
    return kept

"""Read audio files and pipes piece by piece, at their own rate and channels.

Uncompressed samples are read here, everything else with PyAV (`media.py`).
"""

import codecs
import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from funasr_cli.audio.joins import MP3_SYNC, begins_recording, find_recording, stated_frames, tag_bytes
from funasr_cli.audio.layouts import HEAD_BYTES, Layout, find_layout, walk
from funasr_cli.audio.media import MediaReader
from funasr_cli.audio.pcm import PCMFormat, StoredFormat
from funasr_cli.audio.samples import at_one_rate
from funasr_cli.audio.tape import Spool, Tape
from funasr_cli.errors import AudioError

PIECE_S = 0.1  # at most this much is lost where a file breaks off
PIECE_VALUES = 1 << 20  # most values per piece, in case a damaged header states a huge rate or channel count
SLACK_S = 0.1  # largest error of a stated length
OGG_LIVE = re.compile(rb"OggS.{24}(?:\x01vorbis|OpusHead)", re.DOTALL)  # the first page
LEAST_TEXT = 16  # characters; fewer may be samples by chance
OTHERS = {  # first bytes of files that are not audio -> what to report
    rb"<!doctype|<html|<!--|<head|<body|<title|<meta|<script": "it looks like an HTML page",
    rb"<\?php": "it looks like a PHP script", rb"<\?xml|<svg": "it looks like an XML file",
    rb"[\[{]\s*[\[\]{}\"]": "it looks like a JSON file", rb"#extm3u": "it looks like a playlist",
    rb"version https://git-lfs": "it is a Git LFS pointer (git lfs pull fetches the file itself)",
    rb"%pdf": "it looks like a PDF file", rb"pk\x03\x04": "it looks like a zip archive",
    rb"\x1f\x8b": "it looks like a gzip archive", rb"\x89png|\xff\xd8\xff": "it looks like a picture",
    rb"$": "its first bytes are all zeros or blanks",
}  # fmt: skip


class PCMReader:
    """Reader of uncompressed samples in a file or pipe."""

    def __init__(self, tape: Tape, layout: Layout):
        """Take over a tape; `close` closes it."""
        self._tape, self._begin = tape, 0
        self.end_byte = 0
        self.sample_rate_hz = layout.format.sample_rate_hz
        self.channels = layout.format.channels
        self.lost: list[tuple[int, int]] = []
        self.live = tape.size is None
        self._parts: Iterable[Layout] = walk(tape, layout)
        self.expected_s = layout.size and layout.size / layout.format.frame_bytes / self.sample_rate_hz
        if not self.live:
            self._parts = parts = list(_joined(tape, self._parts))
            self.end_byte = parts[-1].start + (parts[-1].size or 0)
            self.expected_s = sum(part.frames / part.format.sample_rate_hz for part in parts)

    def seek(self, sample: int) -> int:
        """Move to a sample, or to the end of the first recording in the file if that is earlier."""
        if isinstance(self._parts, list):
            first = self._parts[0]
            held = max(0, (self._tape.size or 0) - first.start) // first.format.frame_bytes
            self._begin = min(sample, first.frames, held)
            skipped = self._begin * first.format.frame_bytes
            self._parts[0] = replace(first, start=first.start + skipped, size=(first.size or 0) - skipped)
        return self._begin

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield short pieces, (samples, channels) float32. Raise EOFError if the file breaks off."""
        return at_one_rate(self._stored(), self.sample_rate_hz)

    def _stored(self) -> Iterator[tuple[int, np.ndarray]]:
        position = float(self._begin)
        for part in self._parts:
            if not self.live:
                self._tape.seek(part.start)
            stored, rest, left = part.format, b"", sys.maxsize if part.size is None else part.size
            share = self.sample_rate_hz / stored.sample_rate_hz
            frames = max(1, min(round(PIECE_S * stored.sample_rate_hz), PIECE_VALUES // stored.channels))
            while left and (data := self._tape.read(min(left, frames * stored.frame_bytes))):
                left -= len(data)
                data = rest + data
                whole = len(data) - len(data) % stored.frame_bytes
                rest = data[whole:]
                if whole:
                    start, position = position, position + whole / stored.frame_bytes * share
                    if self._tape.is_bad(self._tape.position - whole, whole):
                        self.lost.append((round(start), round(position)))
                    yield stored.sample_rate_hz, _decoded(data[:whole], stored)
            if part.size is not None and left > SLACK_S * stored.sample_rate_hz * stored.frame_bytes:
                raise EOFError
        if self.live and begins_recording(self._tape, self._tape.position):
            raise EOFError  # a recording in another format follows, which cannot be read from a pipe

    def close(self) -> None:
        """Close the file."""
        self._tape.close()


def _joined(tape: Tape, parts: Iterable[Layout]) -> Iterator[Layout]:
    """Yield the parts of a file with their sizes. Merge adjacent parts."""
    last = None
    for part in parts:
        size = max(0, (tape.size or 0) - part.start) if part.size is None else part.size
        tape.seek(part.start + size)
        if last and last.format == part.format and last.start + (last.size or 0) == part.start:
            last = replace(last, size=(last.size or 0) + size)
            continue
        if last:
            yield last
        last = replace(part, size=size)
    if last:
        yield last


def _decoded(data: bytes, stored: StoredFormat) -> np.ndarray:
    """Turn bytes of whole frames into (samples, channels) float32."""
    samples, _ = soundfile.read(
        io.BytesIO(data), dtype="float32", always_2d=True, format="RAW", subtype=stored.subtype,
        endian=stored.endian, samplerate=stored.sample_rate_hz, channels=stored.channels,
    )  # fmt: skip
    return samples


class JoinedReader:
    """Reader of a file with one or more recordings of any format, at the sample rate of the first."""

    live = False

    def __init__(self, tape: Tape, name: str, layout: Layout | None = None):
        """Take over a tape; `close` closes it. `layout` describes samples without a header."""
        self._tape, self._name = tape, name
        self._first = first = PCMReader(tape, layout) if layout else self._reader(0)
        self.sample_rate_hz, self.channels = first.sample_rate_hz, first.channels
        self.expected_s = first.expected_s  # the others are found only once the first has been read
        self._parts = [(first, 0)]  # each reader with its first sample
        self._position = 0

    def _reader(self, begin: int) -> "PCMReader | MediaReader":
        layout = find_layout(self._tape, begin)
        return PCMReader(self._tape, layout) if layout else MediaReader(self._tape, self._name, begin)

    @property
    def lost(self) -> list[tuple[int, int]]:
        """Damaged parts of all recordings, (start, end) in samples at the first one's rate."""
        return [
            (begin + round(start * share), begin + round(end * share))
            for reader, begin in self._parts
            for share in [self.sample_rate_hz / reader.sample_rate_hz]
            for start, end in reader.lost
        ]

    def seek(self, sample: int) -> int:
        """Move to a sample of the first recording, if it can be found exactly."""
        self._position = self._first.seek(sample)
        return self._position

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield short pieces, (samples, channels) float32.

        Raises:
            EOFError: a recording breaks off, or the next one cannot be read.
            AudioError: the disk could not read some bytes.
        """
        try:
            yield from self._joined()
        except EOFError:
            self._tape.check()
            raise
        self._tape.check()

    def _joined(self) -> Iterator[np.ndarray]:
        begin: int | None = 0
        while begin is not None:
            reader, first = self._parts[-1]
            rate_hz = reader.sample_rate_hz
            try:
                for piece in at_one_rate(((rate_hz, piece) for piece in reader.pieces()), self.sample_rate_hz):
                    self._position += len(piece)
                    yield piece
            except EOFError:
                if reader.expected_s is not None:  # so far, only the first one's length was known
                    self.expected_s = first / self.sample_rate_hz + reader.expected_s
                raise
            begin = find_recording(self._tape, reader.end_byte)
            if begin is not None:
                try:
                    self._parts.append((self._reader(begin), self._position))
                except Exception as error:  # FFmpeg's errors, UnicodeDecodeError and others
                    raise EOFError from error

    def close(self) -> None:
        """Close the file."""
        for reader, _ in self._parts:
            reader.close()
        self._tape.close()


# The interface of all three readers:
# - `sample_rate_hz`, `channels`: as stored;
# - `expected_s`: the length that the header states; None if unknown;
# - `live`: whether the audio may be live, so that it should be processed as soon as it arrives;
# - `lost`: (start, end) in samples of the damaged parts of what `pieces` has yielded so far;
# - `seek`: move to a sample if it can be found exactly; return the sample with which `pieces` will begin;
# - `pieces`: yield short pieces, (samples, channels) float32; raise EOFError if the file breaks off;
# - `close`: close the file; may be called twice.
Reader = PCMReader | MediaReader | JoinedReader


def open_reader(path: Path, name: str, pcm: PCMFormat | None = None) -> Reader:
    """Open a regular file.

    Args:
        path: path of the file.
        name: name for messages.
        pcm: format of its samples, if it has no header.

    Raises:
        AudioError: the file does not exist, is a folder, cannot be read or is not audio.
    """
    with _opened(path, name) as (tape, _):
        return JoinedReader(tape, name, Layout(None, pcm.stored) if pcm else None)


def open_pipe(path: Path, name: str, pcm: PCMFormat | None) -> Reader | Spool:
    """Open a pipe. Return a reader if its format can be read as it arrives, else read all of it into a `Spool`.

    Raises:
        AudioError: the pipe is empty or cannot be read.
    """
    with _opened(path, name, skip_tags=not pcm) as (tape, head):
        layout = Layout(None, pcm.stored) if pcm else None
        if not pcm and head.startswith(b"RIFF"):
            layout = find_layout(tape, tape.position)
        if layout:
            return PCMReader(tape, layout)
        if OGG_LIVE.match(head) or (MP3_SYNC.match(head) and not stated_frames(head)):
            return MediaReader(tape, name)
        with closing(tape):
            return Spool(tape, name)


@contextmanager
def _opened(path: Path, name: str, *, skip_tags: bool = False) -> Iterator[tuple[Tape, bytes]]:
    """Open a tape and yield it with its first bytes. Close it if the body fails, and raise an AudioError."""
    tape, head = Tape(path, name), b""
    try:
        while skip_tags and (size := tag_bytes(tape.peek(HEAD_BYTES))):
            tape.skip(size)
        if not (head := tape.peek(HEAD_BYTES)):
            problem = "no data arrived" if name == "-" else "the file is empty"
            raise AudioError(f"{name}: {problem}", code="audio-empty")
        yield tape, head
    except Exception as error:  # FFmpeg's errors, UnicodeDecodeError and others
        tape.close()
        tape.check()
        if isinstance(error, AudioError) and error.code != "audio-unreadable":
            raise
        raise _not_audio(path, name, head, error) from error


def _is_text(head: bytes) -> bool:
    """Return whether these first bytes are readable text in UTF-8, or in UTF-16 with a byte order mark."""
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return len(text) >= LEAST_TEXT and all(letter.isprintable() or letter.isspace() for letter in text)


def _not_audio(path: Path, name: str, head: bytes, error: Exception) -> AudioError:
    """Return an error that says what the file seems to be, by its first bytes; else one based on `error`."""
    begin = head.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0").lower()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        begin = begin.replace(b"\0", b"")
    kinds = [kind for pattern, kind in OTHERS.items() if re.match(pattern, begin)]
    if not kinds and _is_text(head):
        kinds = ["it looks like text"]
    may_be_raw = not kinds or not begin
    hint = "state their format, for example --pcm s16le --rate 16000"
    if path.suffix.lower() == ".raw" and may_be_raw:
        return AudioError(f"{name}: samples without a header", hint, code="audio-unreadable")
    hint = f"if these are samples without a header, {hint}" if name == "-" and may_be_raw else ""
    if kinds:
        return AudioError(f"{name}: not audio: {kinds[0]}", hint, code="audio-unreadable")
    if isinstance(error, AudioError):
        return error
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free"):
        hint = "the file is incomplete: it was cut off, or its recording was never finished"
        return AudioError(f"{name}: its index (moov) is missing", hint, code="audio-unreadable")
    hint = hint or "it may be incomplete; if other programs play it, convert it to wav or flac, e.g. with ffmpeg"
    return AudioError(f"{name}: unknown audio format, or not audio", hint, code="audio-unreadable")

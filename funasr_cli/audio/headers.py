"""What the bytes of a recording tell and libsndfile keeps to itself: whether all is there; how to read a pipe."""

import io
import os
import re
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from funasr_cli.errors import UsageError
from funasr_cli.inputs import PCMFormat

# Sizes that writers put where they cannot know it, as into a pipe: ffmpeg, sox and espeak, arecord.
PLACEHOLDERS = (range(1), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000))
MOST_CHUNKS = 1000
COPY_BYTES = 1 << 16
OGG_PAGE_BYTES = 65307  # the most that one can take
OGG_SERIAL = slice(14, 18)  # of a page: tells which stream it belongs to
MP3_FRAME_BYTES = 4096  # more than one takes
MP3_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef]")  # version, layer, bit rate
MP3_LENGTH_BYTES = 160  # from the beginning of the frame; those behind "Xing" could look like another frame
MP3_TAG_BYTES = 1 << 16  # so much behind the frames may be tags
MP3_LENGTH = re.compile(rb"Xing|Info|VBRI")
OGG_LIVE = (b"\1vorbis", b"OpusHead")  # what libsndfile reads out of a pipe, at the beginning of its first packet
OGG_PACKET_AT = 28
WAV_EXTENSIBLE = 0xFFFE
WAV_ENCODINGS = {  # type and bits of a sample
    (1, 8): "u8", (1, 16): "s16le", (1, 24): "s24le", (1, 32): "s32le", (3, 32): "f32le", (3, 64): "f64le",
    (6, 8): "alaw", (7, 8): "mulaw",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What is to be known of a file beforehand.

    Attributes:
        claimed_share: how many times as many samples as there are the header claims; 1 if it claims no more.
        is_cut: the file ends in the middle of an Ogg page.
        is_chained: it consists of several Ogg streams, of which libsndfile reads the first.
        unset_size_at: where a WAV file has a zero for the size of its samples, since its writer never came back to
            it; libsndfile takes that for none.
        has_mp3_length: an MP3 file's first frame states how long it is; libsndfile guesses it otherwise.
        mp3_start: where its frames begin, behind tags, or the rest of a frame that was cut.
    """

    claimed_share: float = 1.0
    is_cut: bool = False
    is_chained: bool = False
    unset_size_at: int | None = None
    has_mp3_length: bool = False
    mp3_start: int = 0

    def content(self, path: Path) -> Generator[bytes, None, None]:
        """What libsndfile is to see of the file: no tags in front, and a size that stands for none."""
        with open(path, "rb") as file:
            file.seek(self.mp3_start)
            if self.unset_size_at is not None:
                yield file.read(self.unset_size_at) + b"\xff" * 4
                file.seek(4, os.SEEK_CUR)
            while chunk := file.read(COPY_BYTES):
                yield chunk


@dataclass(frozen=True)
class StreamHeader:
    """How to read what comes out of a pipe as it comes.

    Attributes:
        samples_at: bytes in front of what libsndfile is to see.
        pcm: how the samples are stored that follow; None where libsndfile reads that from the stream.
        sample_bytes: how many there should be; None where that is not stated.
        expected_s: the same in seconds.
        is_ogg: it consists of Ogg pages.
    """

    samples_at: int = 0
    pcm: PCMFormat | None = None
    sample_bytes: int | None = None
    expected_s: float | None = None
    is_ogg: bool = False


def read_header(path: Path) -> Header:
    """Look into a regular file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b".snd"):
            return _header_with_a_size(file, magic)
        return _ogg_header(file) if magic == b"OggS" else _mp3_header(file)


def _header_with_a_size(file: BinaryIO, magic: bytes) -> Header:
    total_bytes, start, sample_bytes = _sizes(file, magic)
    held_bytes = file.seek(0, os.SEEK_END) - start
    if magic == b"RIFF" and _is_placeholder(total_bytes) and not sample_bytes and held_bytes > 0:
        return Header(unset_size_at=start - 4)
    if _is_placeholder(sample_bytes) or held_bytes <= 0:
        return Header()
    return Header(claimed_share=max(1.0, sample_bytes / held_bytes))


def _is_placeholder(size: int) -> bool:
    return any(size in sizes for sizes in PLACEHOLDERS)


def _sizes(file: BinaryIO, magic: bytes) -> tuple[int, int, int]:
    """Of an AU, WAV or AIFF file: bytes of the whole, where the samples begin, bytes of those; 0 if not found."""
    order = ">" if magic in (b"FORM", b"RIFX", b".snd") else "<"
    first, second = struct.unpack(order + "II", file.read(8).ljust(8, b"\0"))
    if magic == b".snd":
        return 0, first, second
    long_size = 0  # of an RF64 file, whose own chunk holds what 32 bits do not
    for key, size, start in _chunks(file, order):
        if key in (b"data", b"SSND"):
            return first, start, long_size if size == 0xFFFF_FFFF and long_size else size
        if key == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], "little")
    return first, 0, 0


def _chunks(file: BinaryIO, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and beginning of each chunk of a WAV or AIFF file."""
    for _ in range(MOST_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            return
        key, size = struct.unpack(order + "4sI", chunk)
        start = file.tell()
        yield key, size, start
        file.seek(start + size + size % 2)


def _ogg_header(file: BinaryIO) -> Header:
    file.seek(0)
    first = file.read(OGG_PAGE_BYTES)
    file.seek(max(0, file.seek(0, os.SEEK_END) - OGG_PAGE_BYTES))
    tail = file.read()
    if ends_within_page(tail):
        return Header(is_cut=True)
    last = _last_page(tail)
    return Header(is_chained=bool(last) and last[OGG_SERIAL] != first[OGG_SERIAL])


def ends_within_page(tail: bytes) -> bool:
    """Whether the last Ogg page, of which no more than `OGG_PAGE_BYTES` can be there, is incomplete."""
    page = _last_page(tail)
    if not page:
        return False  # other things follow the last page
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""  # a byte each: how long it is
    return len(page) <= 26 or len(segments) < page[26] or len(page) < 27 + len(segments) + sum(segments)


def _last_page(tail: bytes) -> bytes:
    return tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""


def _mp3_header(file: BinaryIO) -> Header:
    start = 0
    for _ in range(MOST_CHUNKS):
        file.seek(start)
        tag = file.read(10)
        if not id3_bytes(tag):
            break
        start += id3_bytes(tag)
    frame_bytes = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    first = file.read(MP3_FRAME_BYTES)
    sync, length = MP3_SYNC.search(first), MP3_LENGTH.search(first)
    begin = sync.start() if sync else 0
    stated_bytes = _stated_bytes(first[length.start() :]) if length else 0
    if stated_bytes and frame_bytes > begin + stated_bytes + MP3_TAG_BYTES:
        length = None  # several files in one, as in podcasts with advertisements
        begin = max(begin, first.find(first[begin : begin + 2], begin + MP3_LENGTH_BYTES))  # the second frame
    return Header(mp3_start=start + begin, has_mp3_length=bool(length))


def _stated_bytes(tag: bytes) -> int:
    """Of all frames, by what an MP3 file's first one says; 0 if it does not."""
    name, flags, _, size = struct.unpack(">4sIII", tag[:16].ljust(16, b"\0"))
    return size if name != b"VBRI" and flags & 3 == 3 else 0


def id3_bytes(head: bytes) -> int:
    """Length of the ID3 tag that these bytes begin; 0 if they begin none."""
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    return 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def read_stream_header(head: bytes) -> StreamHeader | None:
    """Of what begins so; None where it must be kept on disk first.

    Out of a pipe, libsndfile refuses FLAC, finds nothing in CAF and loses the end of RF64. WAV of unknown length
    ends for it after 2 or 4 GB, or at once; so WAV is read as the bare samples that it is. MP3 that states its
    length is no broadcast.
    """
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return _wav_header(head)
    if head.startswith(b"OggS") and head[OGG_PACKET_AT:].startswith(OGG_LIVE):
        return StreamHeader(is_ogg=True)
    if MP3_SYNC.match(head) and not MP3_LENGTH.search(head[:MP3_FRAME_BYTES]):
        return StreamHeader()
    return None


def _wav_header(head: bytes) -> StreamHeader | None:
    file = io.BytesIO(head)
    total_bytes, start, sample_bytes = _sizes(file, file.read(4))
    file.seek(12)
    formats = [start for key, _, start in _chunks(file, "<") if key == b"fmt "]
    pcm, frame_bytes = _wav_format(head[formats[0] :]) if formats else (None, 0)
    if not start or pcm is None:
        return None
    if _is_placeholder(sample_bytes) and (sample_bytes or _is_placeholder(total_bytes)):
        return StreamHeader(start, pcm)
    return StreamHeader(start, pcm, sample_bytes, sample_bytes / frame_bytes / pcm.sample_rate_hz)


def _wav_format(chunk: bytes) -> tuple[PCMFormat | None, int]:
    """How samples are stored, None if not plainly; and the bytes of one of each channel."""
    kind, channels, rate_hz, _, frame_bytes, bits = struct.unpack("<HHIIHH", chunk[:16].ljust(16, b"\0"))
    if kind == WAV_EXTENSIBLE:
        kind = int.from_bytes(chunk[24:26], "little")
    encoding = WAV_ENCODINGS.get((kind, bits))
    if encoding is None or frame_bytes * 8 != channels * bits:
        return None, 0
    try:
        return PCMFormat(encoding, rate_hz, channels), frame_bytes
    except UsageError:
        return None, 0

"""What the bytes of an audio file tell and libsndfile keeps to itself: whether all of it is there."""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Sizes that writers put where they cannot know it, as into a pipe: ffmpeg, sox and espeak, arecord.
PLACEHOLDERS = (range(1), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000))
MOST_CHUNKS = 1000
OGG_PAGE_BYTES = 65307  # the most that one can take
MP3_FRAME_BYTES = 4096  # more than one takes
MP3_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef]")  # version, layer, bit rate
MP3_LENGTH = re.compile(rb"Xing|Info|VBRI")


@dataclass(frozen=True)
class Header:
    """How long a file should be.

    Attributes:
        claimed_share: how many times as many samples as there are the header claims; 1 if it claims no more.
        is_cut: the file ends in the middle of an Ogg page.
        mp3_start: where an MP3 file's first frame begins, behind tags, or the rest of a frame that was cut.
        has_mp3_length: that frame states the length; libsndfile guesses it otherwise.
        unset_size_at: where a WAV file has a zero for the size of its samples, since its writer never came back to
            it; libsndfile takes that for none.
    """

    claimed_share: float = 1.0
    is_cut: bool = False
    mp3_start: int = 0
    has_mp3_length: bool = False
    unset_size_at: int | None = None


def read_header(path: Path) -> Header:
    """Look into a regular file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b".snd"):
            return _header_with_a_size(file, magic)
        if magic == b"OggS":
            return Header(is_cut=_ends_in_a_page(file))
        return _mp3_header(file)


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
    for _ in range(MOST_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        key, size = struct.unpack(order + "4sI", chunk)
        start = file.tell()
        if key in (b"data", b"SSND"):
            return first, start, long_size if size == 0xFFFF_FFFF and long_size else size
        if key == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], "little")
        file.seek(start + size + size % 2)
    return first, 0, 0


def _ends_in_a_page(file: BinaryIO) -> bool:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""
    if not page:
        return False  # other things follow the last page
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""  # a byte each: how long it is
    return len(page) <= 26 or len(segments) < page[26] or len(page) < 27 + len(segments) + sum(segments)


def _mp3_header(file: BinaryIO) -> Header:
    start = 0
    for _ in range(MOST_CHUNKS):
        file.seek(start)
        tag = file.read(10)
        if len(tag) < 10 or not tag.startswith(b"ID3"):
            break
        start += 10 + sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    first = file.read(MP3_FRAME_BYTES)
    sync = MP3_SYNC.search(first)
    return Header(mp3_start=start + (sync.start() if sync else 0), has_mp3_length=bool(MP3_LENGTH.search(first)))

"""What the bytes of a recording tell and libsndfile keeps to itself: whether all is there; how to read a pipe."""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from funasr_cli.errors import UsageError
from funasr_cli.inputs import PCMFormat

# Sizes that writers put where they cannot know it, as into a pipe: ffmpeg, sox and espeak, arecord.
PLACEHOLDERS = (range(1), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000))
MOST_CHUNKS = 1000
OGG_PAGE_BYTES = 65307  # the most that one can take
MP3_FRAME_BYTES = 4096  # more than one takes
MP3_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef]")  # version, layer, bit rate
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
    """How long a file should be.

    Attributes:
        claimed_share: how many times as many samples as there are the header claims; 1 if it claims no more.
        is_cut: the file ends in the middle of an Ogg page.
        mp3_start: where an MP3 file's first frame begins, behind tags, or the rest of a frame that was cut.
        has_mp3_length: that frame states the length; libsndfile guesses it otherwise.
        unset_size_at: where a WAV file has a zero for the size of its samples, since its writer never came back to
            it; libsndfile takes that for none.
        states_length: whether it says how long it is; where it does not, libsndfile may see that itself.
    """

    claimed_share: float = 1.0
    is_cut: bool = False
    mp3_start: int = 0
    has_mp3_length: bool = False
    unset_size_at: int | None = None
    states_length: bool = True


@dataclass(frozen=True)
class StreamHeader:
    """How to read what comes out of a pipe as it comes.

    Attributes:
        samples_at: bytes in front of what libsndfile is to see.
        pcm: how the samples are stored that follow; None where libsndfile reads that from the stream.
        sample_bytes: how many there should be; None where that is not stated, or not in bytes.
        expected_s: the same in seconds.
        states_length: whether libsndfile knows then how long it is.
        is_ogg: it consists of Ogg pages.
    """

    samples_at: int = 0
    pcm: PCMFormat | None = None
    sample_bytes: int | None = None
    expected_s: float | None = None
    states_length: bool = False
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
        if magic == b"OggS":
            return Header(is_cut=ends_within_page(file))
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


def ends_within_page(file: BinaryIO) -> bool:
    """Whether the last Ogg page is incomplete."""
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
        if not id3_bytes(tag):
            break
        start += id3_bytes(tag)
    file.seek(start)
    first = file.read(MP3_FRAME_BYTES)
    sync = MP3_SYNC.search(first)
    return Header(mp3_start=start + (sync.start() if sync else 0), has_mp3_length=bool(MP3_LENGTH.search(first)))


def id3_bytes(head: bytes) -> int:
    """Length of the ID3 tag that these bytes begin; 0 if they begin none."""
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    return 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def read_stream_header(head: bytes) -> StreamHeader | None:
    """Of what begins so; None where it must be kept on disk first.

    Out of a pipe, libsndfile refuses FLAC, finds nothing in CAF and loses the end of RF64. WAV of unknown length
    ends for it after 2 or 4 GB, or at once; so WAV is read as the bare samples that it is.
    """
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return _wav_header(head)
    if head.startswith(b"OggS") and head[OGG_PACKET_AT:].startswith(OGG_LIVE):
        return StreamHeader(is_ogg=True)
    if MP3_SYNC.match(head):
        return StreamHeader(states_length=bool(MP3_LENGTH.search(head)))
    return None


def _wav_header(head: bytes) -> StreamHeader | None:
    chunks, position = {}, 12
    while b"data" not in chunks and position + 8 <= len(head):
        key, size = struct.unpack_from("<4sI", head, position)
        chunks[key] = position + 8, size
        position += 8 + size + size % 2
    if b"data" not in chunks or b"fmt " not in chunks:
        return None
    start, sample_bytes = chunks[b"data"]
    (total_bytes,) = struct.unpack_from("<I", head, 4)
    pcm, frame_bytes = _wav_format(head[chunks[b"fmt "][0] :])
    if pcm is None:
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

"""The bytes of one recording as FFmpeg reads them, limited to it, and repaired where FFmpeg would stop."""

import os
import re
from contextlib import suppress
from itertools import pairwise

import numpy as np

from funasr_cli.audio.joins import BEGIN, HEAD_BYTES, begins_recording, find_recording, tag_bytes
from funasr_cli.audio.tape import Tape
from funasr_cli.errors import AudioError

EBML = b"\x1a\x45\xdf\xa3"  # Matroska and webm
BOX = re.compile(rb"[A-Za-z0-9_ \xa9-]{4}")
LARGE_BOXES = (b"mdat", b"moof", b"moov")  # if one of these exceeds the file, the file was cut off
# Where MP4 and WavPack files continue after damage.
NEXT_BOX = re.compile(
    rb"\x00.{3}(?:moof\x00\x00\x00\x10mfhd|moov\x00\x00\x00\x6cmvhd|mfra\x00\x00..tfra|ftyp[ -~]{4})", re.DOTALL
)
NEXT_BLOCK = re.compile(rb"wvpk.{3}\x00[\x02-\x10]\x04", re.DOTALL)
BLOCK_HEAD_BYTES = 32
LARGEST_BLOCK_BYTES = 1 << 19  # half of FFmpeg's limit
LARGEST_FRAGMENT_BYTES = 1 << 24  # largest description of a fragment (moof box)
OGG_PAGE_BYTES = 65307  # largest size of a page
OGG_HEAD_BYTES = 27 + 255
OGG_NO_TIME = (bytes(8), b"\xff" * 8)  # time stamps of header pages and of pages on which no packet ends
OGG_CONTINUED, OGG_LAST = 1, 4  # flags of a page
TS_PACKETS_BYTES = (188, 204)  # 204 with 16 bytes of error correction
UNKNOWN_BYTES = 0xFFFF_0000  # larger sizes are placeholders


class RecordingFile:
    """The bytes of one recording in a file or pipe, as a file object for FFmpeg.

    It has no `name` on purpose: FFmpeg could take a name for a URL, or be misled by its extension.
    """

    def __init__(self, tape: Tape, begin: int):
        self.tape, self.begin = tape, begin
        self._start = tape.position
        self.end: int | None = None
        self.fillers: dict[int, bytes] = {}
        if tape.size is not None:
            self.end, self.fillers = survey(tape, begin)
        self._last_join = -1  # in a pipe: first byte of the last recording so far
        self._read = b""  # in a pipe: the last bytes read

    def seekable(self) -> bool:
        """Return whether it can be read in any order."""
        return self.tape.size is not None

    def read(self, count: int) -> bytes:
        """Read the next bytes that are available. Return none on an error, which the tape keeps.

        PyAV would print an exception.
        """
        first, data = self.tape.position, b""
        with suppress(AudioError):
            data = self.tape.read(count if self.end is None else max(0, min(count, self.end - first)))
        if self.tape.size is None:
            recent = self._read[-HEAD_BYTES:] + data
            begin = self.tape.position - self._start - len(recent)
            for found in BEGIN.finditer(recent):
                self._last_join = begin + found.start() + tag_bytes(found[0])
            self._read = (self._read + data)[-OGG_PAGE_BYTES:]
        for at, filler in self.fillers.items():
            start, end = max(at, first), min(at + len(filler), first + len(data))
            if start < end:
                data = data[: start - first] + filler[start - at : end - at] + data[end - first :]
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position. Return -1 if that fails, for example because of a damaged size.

        PyAV would print an exception.
        """
        base = {os.SEEK_SET: self.begin, os.SEEK_CUR: self.tape.position, os.SEEK_END: self.end or 0}
        try:
            self.tape.seek(base[whence] + offset)
        except (KeyError, OSError, OverflowError, ValueError):
            return -1  # means failure to FFmpeg
        return self.tell()

    def tell(self) -> int:
        """Return the position within the recording."""
        return self.tape.position - self.begin

    def is_cut(self, container: str, end_byte: int) -> bool:
        """Return whether the end of the recording is missing, given the byte at which decoding ended."""
        is_skipped = end_byte < self._last_join < self.tape.position - self._start - HEAD_BYTES  # more than a tag
        is_skipped |= any(at > end_byte for at in self.fillers)
        if is_skipped or (self.end is not None and self.end > (self.tape.size or 0)):
            return True
        if container == "mpegts":
            return not any(self._tail()[-size:][:1] == b"G" for size in TS_PACKETS_BYTES)
        return container == "ogg" and self.ends_within_page(end_byte)

    def ends_within_page(self, end_byte: int | None = None) -> bool:
        """Return whether the last page of an Ogg file is incomplete or damaged, or followed by junk.

        Args:
            end_byte: the byte at which decoding ended; None if the file has not been read yet.
        """
        tail = self._tail()
        if b"OggS" not in tail:  # impossible in a valid file: the tail is as long as the longest page
            is_other = self.tape.size is None or (end_byte and find_recording(self.tape, end_byte) is None)
            return len(tail) == OGG_PAGE_BYTES and bool(is_other)
        page = tail[tail.rfind(b"OggS") :]
        segments: bytes = page[27 : 27 + page[26]] if len(page) > 26 else b""  # a length in each byte
        if len(page) <= 26 or len(segments) < page[26]:
            return True
        extra = len(page) - 27 - len(segments) - sum(segments)  # bytes after the page; negative if it is cut off
        is_undecoded = end_byte is not None and (self.tape.size or 0) - len(page) >= end_byte
        if end_byte is not None and is_undecoded and any(segments) and not page[5] & OGG_CONTINUED:
            return find_recording(self.tape, end_byte) is None
        return extra < 0 or (extra > 0 and not page[5] & OGG_LAST)

    def lacks_first_pages(self, end_byte: int) -> bool:
        """Return whether an Ogg file has sound before `end_byte`, the end of the first page that was decoded."""
        at = self.begin
        while self.tape.size is not None and at < end_byte - 1:
            page = self.tape.at(at, OGG_HEAD_BYTES)
            if not page.startswith(b"OggS") or page[6:14] not in OGG_NO_TIME:
                return True
            at += 27 + page[26] + sum(page[27 : 27 + page[26]])
        return False

    def _tail(self) -> bytes:
        """Return the last bytes; in a pipe, the last bytes read so far."""
        size = self.tape.size
        return self._read if size is None else self.tape.at(max(0, size - OGG_PAGE_BYTES), OGG_PAGE_BYTES)


def survey(tape: Tape, begin: int) -> tuple[int, dict[int, bytes]]:
    """Find the end of a recording, since in some formats FFmpeg reads too far or does not notice a missing end.

    If an MP4, WavPack or AVI file was cut off, the end is after the end of the file. An AMR recording ends where
    the next one begins.

    Returns:
        The end, and fillers: position -> bytes that replace those of the file. They make FFmpeg skip damage
        between boxes of MP4 and blocks of WavPack, where it would otherwise stop.
    """
    head, size = tape.at(begin, 12), tape.size or 0
    is_mp4 = head[4:8] == b"ftyp"
    if is_mp4 or head.startswith(b"wvpk"):
        return _units(tape, begin, is_mp4)
    if head.startswith(b"RIFF") and head[8:] == b"AVI ":
        stated = int.from_bytes(head[4:8], "little")
        return max(size, begin + 8 + stated) if stated < UNKNOWN_BYTES else size, {}
    if head.startswith(EBML):
        end = _element_end(tape, _element_end(tape, begin))
        return end if tape.at(end, 4) == EBML else size, {}
    if head.startswith(b"#!AMR"):
        return find_recording(tape, begin + 1) or size, {}
    return size, {}


def _element_end(tape: Tape, at: int) -> int:
    """Return the end of a Matroska element with a four-byte id, according to its stated size."""
    head = tape.at(at + 4, 8).ljust(8, b"\0")
    size_bytes = 9 - head[0].bit_length()
    return at + 4 + size_bytes + (int.from_bytes(head[:size_bytes]) & ((1 << 7 * size_bytes) - 1))


def _units(tape: Tape, begin: int, is_mp4: bool) -> tuple[int, dict[int, bytes]]:
    at, size = begin, tape.size or 0
    fillers: dict[int, bytes] = {}
    has_fragments = False
    while at < size:
        if count := _box_bytes(tape, at) if is_mp4 else _block_bytes(tape, at):
            has_fragments |= tape.at(at + 4, 4) == b"moof"
            at += count
            if tape.at(at + 4, 4) == b"ftyp" or tag_bytes(tape.at(at, 32)):  # another recording, or a final tag
                break
            continue
        found = next(tape.find(NEXT_BOX if is_mp4 else NEXT_BLOCK, at + BLOCK_HEAD_BYTES, size), None)
        is_other = at > begin and tape.at(at, 4) != b"wvpk" and begins_recording(tape, at)
        if is_other or (found and tape.at(found + 4, 4) == b"ftyp"):
            break
        if found is None and not has_fragments:  # the rest is not sound
            break
        found = found or size
        parts = 1 if is_mp4 else (found - at) // LARGEST_BLOCK_BYTES + 1
        bounds = [at + (found - at) * part // parts for part in range(parts + 1)]
        fillers |= {start: _filler(is_mp4, end - start) for start, end in pairwise(bounds)}
        at = found
    return at, fillers


def _filler(is_mp4: bool, count: int) -> bytes:
    """Return the first bytes of a box or block of this length that FFmpeg skips."""
    if is_mp4:
        return count.to_bytes(4) + b"free" if count < 1 << 32 else b"\0\0\0\1free" + count.to_bytes(8)
    flags = b"\0\x18\0\0"  # both the first and the last block of its group; it has no samples
    return b"wvpk" + (count - 8).to_bytes(4, "little") + b"\x10\x04" + bytes(14) + flags + bytes(4)


def _box_bytes(tape: Tape, at: int) -> int:
    """Return the length of the MP4 box at this byte; 0 if there is none, or if it is a damaged moof box."""
    head, left = tape.at(at, 16), (tape.size or 0) - at
    box_bytes, name = int.from_bytes(head[:4]), head[4:8]
    if box_bytes == 1:
        box_bytes = int.from_bytes(head[8:16])
    elif box_bytes == 0 and name == b"mdat":  # up to the end of the file
        return left
    if box_bytes < 8 or not BOX.fullmatch(name) or (box_bytes > left and name not in LARGE_BOXES):
        return 0
    if name != b"moof" or box_bytes > min(left, LARGEST_FRAGMENT_BYTES):
        return box_bytes
    described, sound = _described_bytes(tape.at(at, box_bytes)), tape.at(at + box_bytes, 8)
    is_too_much = sound[4:] == b"mdat" and described > int.from_bytes(sound[:4]) > 1
    return 0 if described < 0 or is_too_much else box_bytes


def _described_bytes(box: bytes) -> int:
    """Count the bytes of sound that the boxes in this one describe; -1 if one of them is damaged."""
    at, total = 8, 0
    while at < len(box):
        size, name = int.from_bytes(box[at : at + 4]), box[at + 4 : at + 8]
        inner = box[at : at + size]
        if not 8 <= size <= len(box) - at or not BOX.fullmatch(name):
            return -1
        count = _described_bytes(inner) if name == b"traf" else _run_bytes(inner) if name == b"trun" else 0
        if count < 0:
            return -1
        at, total = at + size, total + count
    return total


def _run_bytes(run: bytes) -> int:
    """Add up the packet sizes in a `trun` box; -1 if it is damaged."""
    flags, count = int.from_bytes(run[9:12]), int.from_bytes(run[12:16])
    fields = [flag for flag in (0x100, 0x200, 0x400, 0x800) if flags & flag]  # duration, size, flags, offset
    start = 16 + 4 * (flags & 1) + (flags & 4)
    if len(run) != start + 4 * len(fields) * count:
        return -1
    numbers = np.frombuffer(run, ">u4", offset=start).reshape(count, len(fields))  # (packets, fields)
    sizes = numbers[:, fields.index(0x200)] if 0x200 in fields else np.ones(1)
    return int(sizes.sum(dtype=np.int64)) if sizes.all() else -1


def _block_bytes(tape: Tape, at: int) -> int:
    """Return the length of the WavPack block at this byte; 0 if there is none."""
    head = tape.at(at, HEAD_BYTES)
    size = 8 + int.from_bytes(head[4:8], "little")
    return size if NEXT_BLOCK.match(head) and size >= BLOCK_HEAD_BYTES else 0

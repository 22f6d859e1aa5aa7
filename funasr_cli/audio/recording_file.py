"""The bytes of one recording, as FFmpeg reads them: to its end, and mended where FFmpeg would stop."""

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
LARGE_BOXES = (b"mdat", b"moof", b"moov")  # by which a file that is cut is known
# Where MP4 files and WavPack go on behind damage.
NEXT_BOX = re.compile(
    rb"\x00.{3}(?:moof\x00\x00\x00\x10mfhd|moov\x00\x00\x00\x6cmvhd|mfra\x00\x00..tfra|ftyp[ -~]{4})", re.DOTALL
)
NEXT_BLOCK = re.compile(rb"wvpk.{3}\x00[\x02-\x10]\x04", re.DOTALL)
BLOCK_HEAD_BYTES = 32
LARGEST_BLOCK_BYTES = 1 << 19  # FFmpeg takes twice as much
LARGEST_FRAGMENT_BYTES = 1 << 24  # of what describes one
OGG_PAGE_BYTES = 65307  # the most that one can take
OGG_HEAD_BYTES = 27 + 255
OGG_NO_TIME = (bytes(8), b"\xff" * 8)  # on pages of headers, and on those where no packet ends
OGG_CONTINUED, OGG_LAST = 1, 4  # flags of a page
TS_PACKETS_BYTES = (188, 204)  # the latter with 16 bytes to mend errors
UNKNOWN_BYTES = 0xFFFF_0000  # sizes above it are made up


class RecordingFile:
    """The bytes of one recording in a file or pipe, as FFmpeg reads them.

    It has no name, which could be taken for an address, or whose ending would mislead.
    """

    def __init__(self, tape: Tape, begin: int):
        self.tape, self.begin = tape, begin
        self._start = tape.position
        self.end: int | None = None
        self.fillers: dict[int, bytes] = {}
        if tape.size is not None:
            self.end, self.fillers = survey(tape, begin)
        self._last_join = -1  # in a pipe: the first byte of the last recording so far
        self._read = b""  # of a pipe: the last bytes

    def seekable(self) -> bool:
        """Whether it can be read in any order."""
        return self.tape.size is not None

    def read(self, count: int) -> bytes:
        """Read the next bytes as they come; none where that fails: PyAV would print it, and the tape keeps it."""
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
        """Go on elsewhere; PyAV would print an error, such as of a damaged size that leads nowhere."""
        base = {os.SEEK_SET: self.begin, os.SEEK_CUR: self.tape.position, os.SEEK_END: self.end or 0}
        try:
            self.tape.seek(base[whence] + offset)
        except (KeyError, OSError, OverflowError, ValueError):
            return -1  # to FFmpeg, a failure
        return self.tell()

    def tell(self) -> int:
        """Position within the recording."""
        return self.tape.position - self.begin

    def is_cut(self, container: str, end_byte: int) -> bool:
        """Whether its end is missing, where what could be decoded ends at this byte of the file."""
        is_passed_over = end_byte < self._last_join < self.tape.position - self._start - HEAD_BYTES  # no tag alone
        is_passed_over |= any(at > end_byte for at in self.fillers)
        if is_passed_over or (self.end is not None and self.end > (self.tape.size or 0)):
            return True
        if container == "mpegts":
            return not any(self._tail()[-size:][:1] == b"G" for size in TS_PACKETS_BYTES)
        return container == "ogg" and self.ends_within_page(end_byte)

    def ends_within_page(self, end_byte: int | None = None) -> bool:
        """Whether the last page of an Ogg file is incomplete or damaged, or junk follows where another should.

        Args:
            end_byte: where what could be decoded ends, once all has been read.
        """
        tail = self._tail()
        if b"OggS" not in tail:  # though every part of this length has one
            is_other = self.tape.size is None or (end_byte and find_recording(self.tape, end_byte) is None)
            return len(tail) == OGG_PAGE_BYTES and bool(is_other)
        page = tail[tail.rfind(b"OggS") :]
        segments: bytes = page[27 : 27 + page[26]] if len(page) > 26 else b""  # a byte each: how long it is
        if len(page) <= 26 or len(segments) < page[26]:
            return True
        behind = len(page) - 27 - len(segments) - sum(segments)
        is_undecoded = end_byte is not None and (self.tape.size or 0) - len(page) >= end_byte
        if end_byte is not None and is_undecoded and any(segments) and not page[5] & OGG_CONTINUED:
            return find_recording(self.tape, end_byte) is None
        return behind < 0 or (behind > 0 and not page[5] & OGG_LAST)

    def lacks_first_pages(self, end_byte: int) -> bool:
        """Whether there was sound in an Ogg file in front of the page that is decoded first, and ends there."""
        at = self.begin
        while self.tape.size is not None and at < end_byte - 1:
            page = self.tape.at(at, OGG_HEAD_BYTES)
            if not page.startswith(b"OggS") or page[6:14] not in OGG_NO_TIME:
                return True
            at += 27 + page[26] + sum(page[27 : 27 + page[26]])
        return False

    def _tail(self) -> bytes:
        """The last bytes; in a pipe, of those that have been read."""
        size = self.tape.size
        return self._read if size is None else self.tape.at(max(0, size - OGG_PAGE_BYTES), OGG_PAGE_BYTES)


def survey(tape: Tape, begin: int) -> tuple[int, dict[int, bytes]]:
    """Find the end of a recording in a file, where FFmpeg would read on behind it, or would not miss the rest.

    It is behind the end of the file where that is cut: as MP4, WavPack and AVI state; AMR just begins anew.

    Returns:
        The end; and what makes FFmpeg step over damage between boxes of MP4 and blocks of WavPack, where it would
        stop: bytes to be put at these positions.
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
    """Find the end of an element of Matroska whose number has four bytes, as its size says."""
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
            if tape.at(at + 4, 4) == b"ftyp" or tag_bytes(tape.at(at, 32)):  # another recording, or behind all
                break
            continue
        found = next(tape.find(NEXT_BOX if is_mp4 else NEXT_BLOCK, at + BLOCK_HEAD_BYTES, size), None)
        is_other = at > begin and tape.at(at, 4) != b"wvpk" and begins_recording(tape, at)
        if is_other or (found and tape.at(found + 4, 4) == b"ftyp"):
            break
        if found is None and not has_fragments:  # what follows is no sound
            break
        found = found or size
        parts = 1 if is_mp4 else (found - at) // LARGEST_BLOCK_BYTES + 1
        bounds = [at + (found - at) * part // parts for part in range(parts + 1)]
        fillers |= {start: _filler(is_mp4, end - start) for start, end in pairwise(bounds)}
        at = found
    return at, fillers


def _filler(is_mp4: bool, count: int) -> bytes:
    """What begins a box or block of this length that FFmpeg skips."""
    if is_mp4:
        return count.to_bytes(4) + b"free" if count < 1 << 32 else b"\0\0\0\1free" + count.to_bytes(8)
    flags = b"\0\x18\0\0"  # the first and last of those that belong together; no samples
    return b"wvpk" + (count - 8).to_bytes(4, "little") + b"\x10\x04" + bytes(14) + flags + bytes(4)


def _box_bytes(tape: Tape, at: int) -> int:
    """Length of a box of MP4; 0 where none is, or one of fragments that is damaged."""
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
    """Count the bytes of sound that the boxes in this one describe; less than none where one is damaged."""
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
    """Add up the sizes of packets in a `trun` box; less than none where it is damaged."""
    flags, count = int.from_bytes(run[9:12]), int.from_bytes(run[12:16])
    fields = [flag for flag in (0x100, 0x200, 0x400, 0x800) if flags & flag]  # duration, size, flags, offset
    start = 16 + 4 * (flags & 1) + (flags & 4)
    if len(run) != start + 4 * len(fields) * count:
        return -1
    numbers = np.frombuffer(run, ">u4", offset=start).reshape(count, len(fields))  # (packets, fields)
    sizes = numbers[:, fields.index(0x200)] if 0x200 in fields else np.ones(1)
    return int(sizes.sum(dtype=np.int64)) if sizes.all() else -1


def _block_bytes(tape: Tape, at: int) -> int:
    """Length of a block of WavPack; 0 where none is."""
    head = tape.at(at, HEAD_BYTES)
    size = 8 + int.from_bytes(head[4:8], "little")
    return size if NEXT_BLOCK.match(head) and size >= BLOCK_HEAD_BYTES else 0

"""What the bytes of a file tell of its recordings that FFmpeg does not: where each begins and ends.

There are several after `cat a.m4a b.m4a > both.m4a`, and the last one may be cut.
"""

import os
import re

from funasr_cli.audio.tape import Tape

MP3_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef]")  # version, layer, bit rate
# How recordings begin. Each has eight bytes or so that nothing has by chance.
BEGIN = re.compile(
    rb"\x00\x00[\x00\x01].ftyp[ -~]{4}|FLV\x01[\x01\x04\x05]\x00\x00\x00\x09|OggS\x00\x02|fLaC[\x00\x80]\x00\x00."
    rb"|RIFF.{4}(?:WAVE|AVI )|RIFX.{4}WAVE|(?:RF64|BW64).{4}WAVEds64|riff\x2e\x91\xcf\x11|caff\x00\x01\x00.desc"
    rb"|FORM.{4}AIF[FC]|TTA1[\x01\x02]\x00|wvpk.{4}[\x02-\x10]\x04|MAC .\x0f\x00\x00|Creative Voice File\x1a"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\x1a\x45\xdf\xa3.{0,12}\x42|#!AMR(?:-WB)?\n|\.snd\x00\x00.{6}\x00\x00\x00"
    rb"|ID3[\x02-\x04]\x00.[\x00-\x7f]{4}|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef].{10,40}(?:Xing|Info|VBRI)",
    re.DOTALL,
)
BOX = re.compile(rb"ftyp|moov|mdat|free|skip|wide|styp|sidx|moof|mfra|uuid|emsg|prft|pnot|meta|udta")
MP3_LENGTH = re.compile(rb"(?:Xing|Info)(....)(....)|VBRI.{10}(....)", re.DOTALL)  # flags, frames; frames
MP3_HEAD_BYTES = 4096
OGG_PAGE_BYTES = 65307  # the most that one can take
OGG_HEAD_BYTES = 27 + 255
OGG_NO_TIME = (bytes(8), b"\xff" * 8)  # on pages of headers, and on those where no packet ends
OGG_CONTINUED, OGG_LAST = 1, 4  # flags of a page
TS_PACKETS_BYTES = (188, 204)  # the latter with 16 bytes to mend errors
UNKNOWN_BYTES = 0xFFFF_0000  # sizes above it are made up
HEAD_BYTES = 64  # enough for the longest of them
PIECE_BYTES = 1 << 20
FARTHEST_BYTES = 1 << 26  # tables of contents, pictures and tags in front of it are smaller


def tag_bytes(head: bytes) -> int:
    """Length of the tag (ID3, APE) that begins with these bytes; 0 if none does."""
    if head.startswith(b"ID3") and len(head) >= 10:
        return 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    if head.startswith(b"APETAGEX") and len(head) >= 32:
        return int.from_bytes(head[12:16], "little") + 32 * bool(head[23] & 0x20)
    return 128 if head.startswith(b"TAG") else 0


def stated_frames(head: bytes) -> re.Match[bytes] | None:
    """Find the number of frames that an MP3 file's first one states, as groups 2 or 3; None if it does not."""
    return MP3_LENGTH.search(head[:MP3_HEAD_BYTES])


def begins_recording(tape: Tape, at: int) -> bool:
    """Whether these bytes are the first of a recording; a tag alone is none."""
    head = tape.at(at, HEAD_BYTES)
    if not BEGIN.match(head):
        return False
    if not head.startswith(b"ID3"):
        return True
    if tape.size is None:
        return False
    sound = tape.at(at + tag_bytes(head), HEAD_BYTES)
    return bool(MP3_SYNC.match(sound)) or sound.startswith((b"fLaC", b"\xff\xf1", b"\xff\xf9"))


def find_recording(tape: Tape, begin: int) -> int | None:
    """First byte of the next recording in a file, which begins there or a little later."""
    for start in range(begin, min(tape.size or 0, begin + FARTHEST_BYTES), PIECE_BYTES):
        for found in BEGIN.finditer(tape.at(start, PIECE_BYTES + HEAD_BYTES)):
            if begins_recording(tape, start + found.start()):
                return start + found.start()
    return None


def stated_end(tape: Tape, begin: int) -> int:
    """Find the end of a recording in a file where FFmpeg would read on behind it, or would not miss the rest.

    It is behind the end of the file where that is cut: as MP4 and AVI state; AMR just begins anew.
    """
    head, size = tape.at(begin, 12), tape.size or 0
    if head[4:8] == b"ftyp":
        return _boxes_end(tape, begin)
    if head.startswith(b"RIFF") and head[8:] == b"AVI ":
        stated = int.from_bytes(head[4:8], "little")
        return max(size, begin + 8 + stated) if stated < UNKNOWN_BYTES else size
    if head.startswith(b"#!AMR"):
        return find_recording(tape, begin + 1) or size
    return size


def _boxes_end(tape: Tape, begin: int) -> int:
    """Find the end of an MP4 file by the sizes of its boxes; FFmpeg would mix in the next one's fragments."""
    at, size = begin, tape.size or 0
    while len(head := tape.at(at, 16)) >= 8 and BOX.fullmatch(head[4:8]) and (at == begin or head[4:8] != b"ftyp"):
        box_bytes = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
        if box_bytes < 8:  # up to the end of the file, or no box
            return size
        at += box_bytes
    return at if at > size or tape.at(at + 4, 4) == b"ftyp" else size


class RecordingFile:
    """The bytes of one recording in a file or pipe, as FFmpeg reads them.

    It has no name, which could be taken for an address, or whose ending would mislead.
    """

    def __init__(self, tape: Tape, begin: int):
        self.tape, self.begin = tape, begin
        self._start = tape.position
        self._end = None if tape.size is None else stated_end(tape, begin)
        self._last_join = -1  # in a pipe: the first byte of the last recording so far
        self._read = b""  # of a pipe: the last bytes

    def seekable(self) -> bool:
        """Whether it can be read in any order."""
        return self.tape.size is not None

    def read(self, count: int) -> bytes:
        """Read the next bytes as they come."""
        data = self.tape.read(count if self._end is None else max(0, min(count, self._end - self.tape.position)))
        if self.tape.size is None:
            recent = self._read[-HEAD_BYTES:] + data
            for found in BEGIN.finditer(recent):
                if not found[0].startswith(b"ID3"):
                    self._last_join = self.tape.position - self._start - len(recent) + found.start()
            self._read = (self._read + data)[-OGG_PAGE_BYTES:]
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go on elsewhere; PyAV would print an error, such as of a damaged size that leads nowhere."""
        base = {os.SEEK_SET: self.begin, os.SEEK_CUR: self.tape.position, os.SEEK_END: self._end or 0}
        try:
            self.tape.seek(base[whence] + offset)
        except (KeyError, OSError, ValueError):
            return -1  # to FFmpeg, a failure
        return self.tell()

    def tell(self) -> int:
        """Position within the recording."""
        return self.tape.position - self.begin

    def is_cut(self, container: str, end_byte: int) -> bool:
        """Whether its end is missing, where what could be decoded ends at this byte of the file."""
        if self._last_join > end_byte or (self._end is not None and self._end > (self.tape.size or 0)):
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
        if b"OggS" not in tail:
            return False
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

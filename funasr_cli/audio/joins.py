"""Where another recording begins behind the first one of a file, as after `cat a.m4a b.m4a > both.m4a`."""

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
    """Where a recording in a file ends that FFmpeg would read on behind it, or not miss the end of.

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
    """By the sizes of its boxes; FFmpeg would mix up the fragments of the next recording."""
    at, size = begin, tape.size or 0
    while len(head := tape.at(at, 16)) >= 8 and BOX.fullmatch(head[4:8]) and (at == begin or head[4:8] != b"ftyp"):
        box_bytes = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
        if box_bytes < 8:  # up to the end of the file, or no box
            return size
        at += box_bytes
    return at if at > size or tape.at(at + 4, 4) == b"ftyp" else size

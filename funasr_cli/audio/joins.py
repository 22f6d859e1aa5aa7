"""Recognise the first bytes of recordings and tags.

A file may hold several recordings, for example after ``cat a.m4a b.m4a > both.m4a``.
"""

import re

from funasr_cli.audio.tape import Tape

MP3_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef]")  # version, layer, bit rate
# First bytes of recordings. Each pattern has about eight fixed bytes, so that it does not match by chance.
BEGIN = re.compile(
    rb"\x00\x00[\x00\x01].ftyp[ -~]{4}|FLV\x01[\x01\x04\x05]\x00\x00\x00\x09|OggS\x00\x02"
    rb"|fLaC[\x00\x80]\x00\x00\x22"
    rb"|RIFF.{4}(?:WAVE|AVI )|RIFX.{4}WAVE|(?:RF64|BW64).{4}WAVEds64|riff\x2e\x91\xcf\x11|caff\x00\x01\x00.desc"
    rb"|FORM.{4}AIF[FC]|TTA1[\x01\x02]\x00|wvpk.{4}[\x02-\x10]\x04|MAC .\x0f\x00\x00|Creative Voice File\x1a"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\x1a\x45\xdf\xa3.{0,12}\x42|#!AMR(?:-WB)?\n|\.snd\x00\x00.{6}\x00\x00\x00"
    rb"|ID3[\x02-\x04]\x00.[\x00-\x7f]{4}|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef].{10,40}(?:Xing|Info|VBRI)",
    re.DOTALL,
)
BEGIN_OR_ADTS = re.compile(BEGIN.pattern + rb"|\xff[\xf0\xf1\xf8\xf9]", re.DOTALL)
ADTS_FRAMES = 4  # this many in a row are not a coincidence
MP3_LENGTH = re.compile(rb"(?:Xing|Info)(....)(....)|VBRI.{10}(....)", re.DOTALL)  # flags, frames; frames
MP3_HEAD_BYTES = 4096
HEAD_BYTES = 64  # enough for the longest pattern
FARTHEST_BYTES = 1 << 26  # indexes, pictures and tags before the next recording are smaller


def tag_bytes(head: bytes) -> int:
    """Return the length of the tag (ID3 or APE) that begins with these bytes; 0 if there is none."""
    if head.startswith(b"ID3") and len(head) >= 10:
        return 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    if head.startswith(b"APETAGEX") and len(head) >= 32:
        return int.from_bytes(head[12:16], "little") + 32 * bool(head[23] & 0x20)
    return 128 if head.startswith(b"TAG") else 0


def stated_frames(head: bytes) -> re.Match[bytes] | None:
    """Match the frame count that an MP3 file's first frame states, in group 2 or 3; None if it states none."""
    return MP3_LENGTH.search(head[:MP3_HEAD_BYTES])


def begins_recording(tape: Tape, at: int) -> bool:
    """Return whether a recording begins at this byte. A tag without sound after it is not a recording."""
    head = tape.at(at, HEAD_BYTES)
    if not head.startswith(b"ID3"):
        return bool(BEGIN.match(head)) or _begins_adts(tape, at)
    if not BEGIN.match(head):
        return False
    at += tag_bytes(head)
    sound = tape.at(at, HEAD_BYTES)
    return bool(MP3_SYNC.match(sound)) or sound.startswith(b"fLaC") or _begins_adts(tape, at)


def _begins_adts(tape: Tape, at: int) -> bool:
    """Return whether `ADTS_FRAMES` frames of AAC (ADTS) in a row begin at this byte."""
    for _ in range(ADTS_FRAMES):
        head = tape.at(at, 7)
        if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
            return False
        at += max(7, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5)
    return True


def find_recording(tape: Tape, begin: int) -> int | None:
    """Return the first byte of the next recording in a file, at most `FARTHEST_BYTES` after `begin`."""
    starts = tape.find(BEGIN_OR_ADTS, begin, begin + FARTHEST_BYTES)
    return next((at for at in starts if begins_recording(tape, at)), None)

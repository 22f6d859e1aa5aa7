"""Find the samples in WAV, AIFF, AU and related files, even if the header states a wrong size or none.

libsndfile stops where the header says that the samples end. That may be too early: recorders and programs that
write into a pipe must state a size before they know it, and a 32-bit field cannot hold more than 4 GB. The bytes
after the stated end decide. They are another chunk, another recording, or more samples.
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import soundfile

from funasr_cli.audio.joins import begins_recording, tag_bytes
from funasr_cli.audio.pcm import SAMPLE_BYTES, StoredFormat
from funasr_cli.audio.tape import Tape

# Sizes that programs write when they do not know the size, as in a pipe: ffmpeg, sox and espeak, arecord, CAF's
# -1; and 64-bit sizes that no file can have.
PLACEHOLDERS = (
    range(-1, 0), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000), range(1 << 60, 1 << 64)
)  # fmt: skip
WRAP_BYTES = 1 << 32  # 32-bit sizes wrap around here
MOST_CHUNKS = 1000
HEAD_BYTES = 4096  # bytes of a pipe to search for the samples
LARGEST_HEAD_BYTES = 1 << 24  # bytes of a file to search for the samples
LOWEST_RATE_HZ = 1000  # a header that states a lower sample rate is damaged
LEFTOVER_S = 0.1  # shorter remainders after the samples are neither read nor reported
CHUNK_NAME = re.compile(rb"(?!\d\d[a-z]{2})[A-Za-z0-9_ ()]{4}")  # excludes packets, such as 00wb in AVI
GUID_TAIL = bytes.fromhex("F3ACD3118CD100C04F8EDB8A")  # ends the name of every W64 chunk


@dataclass(frozen=True)
class Family:
    """The chunk structure of files that begin with `magic`."""

    magic: bytes
    size: str  # `struct` format of a chunk's size
    first: int = 12  # position of the first chunk
    samples: bytes | None = b"data"  # name of the chunk that holds the samples; None if there are no chunks
    before: int = 0  # bytes of that chunk before the samples
    name_bytes: int = 4  # length of a chunk's name
    align: int = 2  # chunks begin at multiples of this
    order: str = "LITTLE"  # byte order of samples where libsndfile reports the format's usual one

    @property
    def head_bytes(self) -> int:
        """Length of a chunk's name and size fields."""
        return self.name_bytes + struct.calcsize(self.size)

    def chunk(self, head: bytes) -> tuple[bytes, int] | None:
        """Return the name and size of the chunk that begins with these bytes; None if there is none."""
        name = head[:4]
        if len(head) < self.head_bytes or not CHUNK_NAME.fullmatch(name):
            return None
        if self.name_bytes == 16 and head[4:16] not in (GUID_TAIL, b""):
            return None
        (size,) = struct.unpack_from(self.size, head, self.name_bytes)
        return name, size - (self.head_bytes if self.name_bytes == 16 else 0)

    def padding(self, size: int) -> int:
        """Return the number of bytes between a chunk of this size and the next one."""
        return -size % self.align


FAMILIES = (
    Family(b"RIFF", "<I"), Family(b"RIFX", ">I", order="BIG"), Family(b"RF64", "<I"), Family(b"BW64", "<I"),
    Family(b"FORM", ">I", samples=b"SSND", before=8, order="BIG"),
    Family(b"caff", ">q", first=8, before=4, align=1, order="BIG"),
    Family(b"riff", "<q", first=40, name_bytes=16, align=8),
    Family(b".snd", ">I", samples=None, order="BIG"), Family(b"dns.", "<I", samples=None),
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A contiguous run of samples in a file."""

    family: Family | None
    format: StoredFormat
    start: int = 0  # first byte
    size: int | None = None  # bytes of samples that the header states; None if it states none

    @property
    def frames(self) -> int:
        """Number of samples per channel; 0 if the header does not state it."""
        return (self.size or 0) // self.format.frame_bytes


def find_layout(tape: Tape, begin: int = 0) -> Layout | None:
    """Find the samples of the recording at `begin`; None if it is compressed or its family is unknown."""
    family = _family(tape, begin)
    found = _find_samples(tape, family, begin) if family else None
    if family is None or found is None:
        return None
    start, size = found
    head = tape.at(begin, start - begin + HEAD_BYTES)
    if re.search(rb"fmt .{4}[\x50\x55]\0", head[: start - begin], re.DOTALL):
        return None  # MP3 within WAV, about which libmpg123 would print messages
    # libsndfile gets the head alone, so the head must look like a complete file.
    if family.size[1] == "q":  # CAF, which libsndfile requires to be complete, and W64, where it seeks to the end
        size_at = start - begin - family.before - 8
        head = head[:size_at] + struct.pack(family.size, len(head) - size_at - 8) + head[size_at + 8 :]
    elif family.magic in (b"RF64", b"BW64"):  # these have 64-bit sizes in an extra chunk, unlike RIFF
        head = b"RIFF" + head[4:]
    stored = _described(io.BytesIO(head), family)
    if not stored and tape.size is not None and not begin:  # the description may follow the samples
        stored = _described(tape.descriptor(), family)
    is_usual = stored and stored.subtype in SAMPLE_BYTES and stored.sample_rate_hz >= LOWEST_RATE_HZ
    return Layout(family, stored, start, size) if stored and is_usual else None


def _family(tape: Tape, begin: int) -> Family | None:
    magic = tape.at(begin, 4)
    return next((family for family in FAMILIES if family.magic == magic), None)


def _described(source: io.BytesIO | int, family: Family) -> StoredFormat | None:
    """Return how the samples are stored, by libsndfile; None if it cannot read the header. Close the source."""
    try:
        with soundfile.SoundFile(source, closefd=True) as file:
            endian = family.order if file.endian == "FILE" else file.endian
            return StoredFormat(file.subtype, endian, file.samplerate, file.channels)
    except (OSError, RuntimeError, TypeError):
        return None


def _find_samples(tape: Tape, family: Family, begin: int) -> tuple[int, int | None] | None:
    """Return the first byte of the samples and their stated size, which may be None; None if there are none."""
    head = tape.at(begin, 24).ljust(24, b"\0")
    if family.samples is None:
        start, size = struct.unpack_from(family.size[0] + "II", head, 4)
        return begin + start, None if _is_placeholder(size) else size
    total, long_size = struct.unpack_from(family.size, head, family.name_bytes)[0], 0
    at, last = begin + family.first, begin + (HEAD_BYTES if tape.size is None else LARGEST_HEAD_BYTES)
    while at < last and (chunk := family.chunk(head := tape.at(at, family.head_bytes + 16))):
        name, size = chunk
        at += family.head_bytes
        if name == family.samples:
            size = long_size if size == 0xFFFF_FFFF and long_size else size
            is_unset = _is_placeholder(size) or (size == 0 and (total == 0 or _is_placeholder(total)))
            return at + family.before, None if is_unset else max(0, size - family.before)
        if name == b"ds64":
            long_size = int.from_bytes(head[family.head_bytes :][8:16], "little")
        at += max(0, size) + family.padding(size)
    return None


def _chunk_bytes(tape: Tape, family: Family | None, at: int) -> int:
    """Return the length of the chunk or tag at this byte, including padding; 0 if there is none."""
    if (size := tag_bytes(tape.at(at, 32))) or not (family and family.samples):
        return size
    chunk = family.chunk(tape.at(at, family.head_bytes))
    left = LARGEST_HEAD_BYTES if tape.size is None else tape.size - at
    return family.head_bytes + chunk[1] + family.padding(chunk[1]) if chunk and 0 <= chunk[1] <= left else 0


def unread_sound(tape: Tape, begin: int, at: int) -> tuple[int, int]:
    """Find the sound that is left in a compressed recording that begins at `begin` and was read up to `at`.

    Returns:
        The number of bytes of sound after `at`, and the first byte after them and the chunks and tags that follow.
    """
    family, left = _family(tape, begin), 0
    if family and (found := _find_samples(tape, family, begin)) and found[1] is not None:
        end = found[0] + found[1]
        left, at = max(0, min(end, tape.size or 0) - at), max(at, end + family.padding(found[1]))
    for _ in range(MOST_CHUNKS):
        step = 0 if begins_recording(tape, at) else _chunk_bytes(tape, family, at)
        if not step:
            break
        at += step
    return left, at


def _is_placeholder(size: int) -> bool:
    return any(size in sizes for sizes in PLACEHOLDERS)


def walk(tape: Tape, layout: Layout | None) -> Iterator[Layout]:
    """Yield every run of samples in a file or pipe.

    The caller must move the tape to the end of each run before it requests the next one.
    """
    while layout:
        tape.skip(layout.start - tape.position)
        size = None if layout.size is None else layout.size - layout.size % layout.format.frame_bytes
        yield replace(layout, size=size)
        layout = None if size is None else _following(tape, layout)


def _following(tape: Tape, layout: Layout) -> Layout | None:
    """Find more samples after the stated end of a run, skipping chunks; None if there are none.

    The tape may be up to a frame before the stated end.
    """
    family, stored = layout.family, layout.format
    if family is None or layout.size is None:
        return None
    begin = tape.position
    at = layout.start + layout.size + family.padding(layout.size)
    if found := find_layout(tape, layout.start + layout.size):  # some programs omit the padding
        return found
    for _ in range(MOST_CHUNKS):
        left = LARGEST_HEAD_BYTES if tape.size is None else tape.size - at
        if found := find_layout(tape, at):
            return found
        if begins_recording(tape, at) or begins_recording(tape, begin):
            return None
        if not (size := _chunk_bytes(tape, family, at)):
            break
        begin = at = at + size
        tape.skip(at - tape.position)
    enough = min(round(LEFTOVER_S * stored.sample_rate_hz) * stored.frame_bytes, LARGEST_HEAD_BYTES)
    if left < enough or len(tape.at(begin, enough)) < enough:
        return None
    is_wrapped = tape.size is not None and left >= WRAP_BYTES
    return replace(layout, start=begin, size=WRAP_BYTES + at - begin if is_wrapped else None)

"""Where samples lie in WAV, AIFF, AU and their kin, whose headers may state too little, too much or nothing.

libsndfile stops where a header says that the samples end. Recorders and programs that write into a pipe state a
size before they know it, and 32 bits do not hold more than 4 GB. What follows the stated end tells: another chunk,
another recording, or more sound.
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import soundfile

from funasr_cli.audio.pcm import SAMPLE_BYTES, StoredFormat
from funasr_cli.audio.tape import Tape

# Sizes that writers put where they cannot know it, as into a pipe: ffmpeg, sox and espeak, arecord, CAF's -1.
PLACEHOLDERS = (range(-1, 0), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000))
WRAP_BYTES = 1 << 32  # sizes of 32 bits begin anew
MOST_CHUNKS = 1000
HEAD_BYTES = 4096  # that describe the samples in a pipe
LARGEST_HEAD_BYTES = 1 << 24  # of a file
LEFTOVER_S = 0.1  # less than this behind the samples is neither sound nor missed
CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ ()]{4}")
GUID_TAIL = bytes.fromhex("F3ACD3118CD100C04F8EDB8A")  # of every chunk's name in W64


@dataclass(frozen=True)
class Family:
    """How files that begin with `magic` are made of chunks.

    Attributes:
        size: of a chunk, as `struct` reads it.
        first: where the first chunk begins.
        samples: name of the chunk that holds the samples; None where there are no chunks.
        before: bytes of that chunk in front of the samples.
        name_bytes: of a chunk's name.
        align: chunks begin at multiples of this.
        order: of the bytes of a sample, where libsndfile calls it usual.
    """

    magic: bytes
    size: str
    first: int = 12
    samples: bytes | None = b"data"
    before: int = 0
    name_bytes: int = 4
    align: int = 2
    order: str = "LITTLE"

    @property
    def head_bytes(self) -> int:
        """Bytes of a chunk's name and size."""
        return self.name_bytes + struct.calcsize(self.size)

    def chunk(self, head: bytes) -> tuple[bytes, int] | None:
        """Name and size of the chunk that begins with these bytes; None if none does."""
        name = head[:4]
        if len(head) < self.head_bytes or not CHUNK_NAME.fullmatch(name):
            return None
        if self.name_bytes == 16 and head[4:16] not in (GUID_TAIL, b""):
            return None
        (size,) = struct.unpack_from(self.size, head, self.name_bytes)
        return name, size - (self.head_bytes if self.name_bytes == 16 else 0)

    def padding(self, size: int) -> int:
        """Bytes between a chunk of this size and the next one."""
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
    """Samples that follow each other in a file.

    Attributes:
        start: bytes in front of them.
        size: bytes of them, as the header states it; None where it does not.
    """

    family: Family | None
    format: StoredFormat
    start: int = 0
    size: int | None = None


def find_layout(tape: Tape) -> Layout | None:
    """Of what begins where the tape stands; None if it is of no known family, or compressed."""
    magic = tape.peek(12)
    family = next((family for family in FAMILIES if magic.startswith(family.magic)), None)
    found = _find_samples(tape, family) if family else None
    if family is None or found is None:
        return None
    start, size = found
    head = tape.peek(start + HEAD_BYTES)
    if family.magic == b"caff":  # of which libsndfile wants all to be there
        size_at = start - family.before - 8
        head = head[:size_at] + struct.pack(">q", len(head) - size_at - 8) + head[size_at + 8 :]
    stored = _described(io.BytesIO(head), family)
    if not stored and tape.size is not None and tape.position == 0:  # what describes them may follow them
        stored = _described(tape.descriptor(), family)
    return Layout(family, stored, start, size) if stored and stored.subtype in SAMPLE_BYTES else None


def _described(source: io.BytesIO | int, family: Family) -> StoredFormat | None:
    """How samples are stored, by their header; a descriptor is closed."""
    try:
        with soundfile.SoundFile(source, closefd=True) as file:
            endian = family.order if file.endian == "FILE" else file.endian
            return StoredFormat(file.subtype, endian, file.samplerate, file.channels)
    except (OSError, RuntimeError, TypeError):
        return None


def _find_samples(tape: Tape, family: Family) -> tuple[int, int | None] | None:
    """Where the samples begin, and their bytes."""
    if family.samples is None:
        start, size = struct.unpack(family.size[0] + "II", tape.peek(12)[4:].ljust(8, b"\0"))
        return start, None if _is_placeholder(size) else size
    total = struct.unpack_from(family.size, tape.peek(24).ljust(24, b"\0"), family.name_bytes)[0]
    at, long_size = family.first, 0
    for _ in range(MOST_CHUNKS):
        head = tape.at(tape.position + at, family.head_bytes + 16)
        chunk = family.chunk(head)
        if chunk is None:
            return None
        name, size = chunk
        at += family.head_bytes
        if name == family.samples:
            if size == 0xFFFF_FFFF and long_size:
                size = long_size
            unset = size == 0 and (total == 0 or _is_placeholder(total))
            return at + family.before, None if unset or _is_placeholder(size) else max(0, size - family.before)
        if name == b"ds64":
            long_size = int.from_bytes(head[family.head_bytes :][8:16], "little")
        if size < 0:
            return None
        at += size + family.padding(size)
        if at > (LARGEST_HEAD_BYTES if tape.size is not None else HEAD_BYTES):
            return None
    return None


def _is_placeholder(size: int) -> bool:
    return any(size in sizes for sizes in PLACEHOLDERS)


def walk(tape: Tape, layout: Layout) -> Iterator[Layout]:
    """Everything in a file or pipe that is sound, piece by piece; the first begins where the tape stands.

    The tape is to be moved to the end of each piece before the next one is asked for.
    """
    while True:
        tape.skip(layout.start)
        frame_bytes = layout.format.frame_bytes
        size = None if layout.size is None else layout.size - layout.size % frame_bytes
        yield replace(layout, start=0, size=size)
        rest = (layout.size or 0) - (size or 0)
        following = _behind(tape, layout, rest) if layout.size is not None else None
        if following is None:
            return
        layout = following


def _behind(tape: Tape, layout: Layout, rest: int) -> Layout | None:
    """What sound follows the samples whose last `rest` bytes are no whole frame; chunks are left out."""
    family, stored = layout.family, layout.format
    rest += family.padding(layout.size or 0) if family else 0
    for _ in range(MOST_CHUNKS):
        head = tape.peek(rest + 64)[rest:]
        left = None if tape.size is None else tape.size - tape.position - rest
        chunk = family.chunk(head) if family and family.samples else None
        if any(head.startswith(other.magic) for other in FAMILIES):
            tape.skip(rest)
            return find_layout(tape)
        if family and chunk and 0 <= chunk[1] <= (LARGEST_HEAD_BYTES if left is None else left):
            tape.skip(rest + family.head_bytes + chunk[1] + family.padding(chunk[1]))
            rest = 0
            continue
        enough = min(round(LEFTOVER_S * stored.sample_rate_hz) * stored.frame_bytes, LARGEST_HEAD_BYTES)
        if (left is not None and left < enough) or len(tape.peek(enough)) < enough:
            return None
        return replace(layout, start=0, size=WRAP_BYTES + rest if left and left > WRAP_BYTES else None)
    return None

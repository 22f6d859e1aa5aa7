"""Recordings read from a pipe."""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from support.media import write_media

from funasr_cli.audio.decode import open_recording
from funasr_cli.audio.pcm import PCMFormat
from funasr_cli.errors import AudioError

RATE_HZ = 16000
DURATION_S = 12
FORMATS = {  # name -> how soundfile or PyAV writes it; whether it is streamed
    "a.wav": ({}, True), "b.wav": ({"subtype": "FLOAT"}, True), "c.wav": ({"subtype": "PCM_24"}, True),
    "d.wav": ({"subtype": "ULAW"}, True), "e.wav": ({"format": "WAVEX"}, True),
    "f.wav": ({"subtype": "PCM_U8"}, True), "g.wav": ({"subtype": "ALAW"}, True), "a.ogg": ({}, True),
    "b.ogg": ({"subtype": "OPUS"}, True), "a.mp3": ({}, False), "b.mp3": ("broadcast", True),
    "h.wav": ({"subtype": "MS_ADPCM"}, False),
    "i.wav": ({"format": "RF64"}, False), "a.flac": ({}, False), "a.aiff": ({}, False), "a.au": ({}, False),
    "a.caf": ({}, False), "a.w64": ({}, False), "a.m4a": ("aac", False), "a.mp4": ("aac", False),
    "a.mkv": ("aac", False), "a.webm": ("libopus", False), "a.aac": ("aac", False),
}  # fmt: skip
LISTED = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.3.100\0\0"


def in_bits(content: bytes, size: int = 50_001) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def write(path: Path, how: object, samples: np.ndarray) -> Path:
    if how == "broadcast":
        path.write_bytes(mp3_of_unknown_length(samples))
        return path
    if isinstance(how, str):
        return write_media(path, how, samples, 48000 if how == "libopus" else RATE_HZ)
    soundfile.write(path, samples, RATE_HZ, **how)
    return path


def mp3_of_unknown_length(samples: np.ndarray) -> bytes:
    """Return a variable-bit-rate MP3 without a header that states its length."""
    stored = io.BytesIO()
    soundfile.write(stored, samples, RATE_HZ, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    data = stored.getvalue()
    assert b"Xing" in data[:100]
    return data[data.index(data[:2], 2) :]  # from the second frame on


def wav_header(size: int, channels: int = 1, rate_hz: int = RATE_HZ, extra: bytes = b"") -> bytes:
    """Return a header for 16-bit samples with the given size field, however wrong."""
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate_hz, 2 * channels * rate_hz, 2 * channels, 16)
    return b"RIFF" + struct.pack("<I", size) + b"WAVE" + format + extra + b"data" + struct.pack("<I", size)


@dataclass
class Read:
    """The result of reading a pipe."""

    samples: np.ndarray
    expected_s: float | None = None
    blocks: int = 0  # number of blocks
    error: AudioError | None = None

    @property
    def message(self) -> str:
        return self.error.message if self.error else ""


def through_a_pipe(content: bytes, pcm: PCMFormat | None = None) -> Read:
    """Read a pipe that another thread writes to."""
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), open(writing, "wb", buffering=0) as pipe:
            for chunk in in_bits(content):
                pipe.write(chunk)

    feeder = threading.Thread(target=feed)
    feeder.start()
    blocks, read = [np.zeros(0, np.float32)], Read(np.zeros(0, np.float32))
    try:
        recording = open_recording(f"/dev/fd/{reading}", RATE_HZ, name="-", pcm=pcm)
        read.expected_s = recording.expected_s
        blocks.extend(recording.blocks())
    except AudioError as error:
        read.error = error
    os.close(reading)
    feeder.join()
    read.samples, read.blocks = np.concatenate(blocks), len(blocks) - 1
    return read


@contextmanager
def named_pipe(path: Path, content: bytes) -> Iterator[Path]:
    """Create a named pipe, and write the content to it in small pieces."""
    os.mkfifo(path)

    def feed() -> None:
        with suppress(BrokenPipeError), open(path, "wb", buffering=0) as pipe:  # the reader may close it early
            for chunk in in_bits(content):
                pipe.write(chunk)

    feeder = threading.Thread(target=feed)
    feeder.start()
    yield path
    feeder.join()

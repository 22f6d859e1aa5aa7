"""Pipes: handed on as they come where that can be done, else kept on disk until they are read."""

import io
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile

from funasr_cli.audio.headers import (
    OGG_PAGE_BYTES,
    Header,
    StreamHeader,
    ends_within_page,
    id3_bytes,
    read_stream_header,
)
from funasr_cli.audio.readers import SoundFileReader
from funasr_cli.errors import AudioError
from funasr_cli.inputs import STDIN, PCMFormat

HEAD_BYTES = 4096  # enough to tell what it is
COPY_BYTES = 1 << 16


class Stream:
    """Bytes that come once, out of a path or standard input."""

    def __init__(self, path: Path):
        self._descriptor = os.dup(0) if path == STDIN else os.open(path, os.O_RDONLY)
        os.set_blocking(self._descriptor, True)
        self._held = b""

    def head(self) -> bytes:
        """The next `HEAD_BYTES`, which will come again; fewer at the end."""
        while len(self._held) < HEAD_BYTES and (more := os.read(self._descriptor, HEAD_BYTES)):
            self._held += more
        return self._held

    def skip(self, count: int) -> None:
        """Leave out so many bytes."""
        while len(self._held) < count and (more := os.read(self._descriptor, COPY_BYTES)):
            count -= len(self._held)
            self._held = more
        self._held = self._held[count:]

    def __iter__(self) -> Iterator[bytes]:
        """What is left, as it comes."""
        held, self._held = self._held, b""
        if held:
            yield held
        while more := os.read(self._descriptor, COPY_BYTES):
            yield more

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


class Spool:
    """What came out of a pipe, in a file that is deleted with this object, or at the end of the process."""

    def __init__(self, stream: Stream, name: str):
        """Read all of it.

        Raises:
            AudioError: it cannot be kept: the disk is full, for example.
        """
        folder = tempfile.gettempdir()
        try:
            descriptor, path = tempfile.mkstemp(prefix="funasr-")
            self.path = Path(path)
            weakref.finalize(self, self.path.unlink, missing_ok=True)
            with open(descriptor, "wb") as file:
                for chunk in stream:
                    file.write(chunk)
        except OSError as error:
            raise AudioError(
                f"{name}: cannot be kept in {folder} until it is read ({error})", "TMPDIR names another folder"
            ) from error


class LiveReader(SoundFileReader):
    """A pipe that libsndfile reads as it comes."""

    live = True

    def __init__(self, stream: Stream, header: StreamHeader):
        """Takes the stream, and closes it."""
        stream.skip(header.samples_at)
        self._feed = _Feed(stream, header.sample_bytes)
        self._feed.start()
        super().__init__(self._feed.reading, Header(states_length=header.states_length), header.pcm)
        self.expected_s = self.expected_s or header.expected_s
        self._is_ogg = header.is_ogg

    def pieces(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32, short ones; EOFError where the stream breaks off."""
        yield from super().pieces()
        self._feed.join()
        if self._feed.failed or (self._is_ogg and ends_within_page(io.BytesIO(self._feed.tail))):
            raise EOFError


class _Feed(threading.Thread):
    """Copies a stream, as far as it is wanted, into a pipe that belongs to libsndfile."""

    def __init__(self, stream: Stream, limit_bytes: int | None):
        super().__init__(daemon=True)
        self.reading, self._writing = os.pipe()
        self.tail = b""  # the last bytes of the stream
        self.failed = False
        self._stream = stream
        self._left = limit_bytes

    def run(self) -> None:
        """Copy until the stream ends, or nobody wants more."""
        try:
            for chunk in self._stream:
                self._write(chunk if self._left is None else chunk[: self._left])
                if self._left == 0:
                    break
        except BrokenPipeError:
            pass
        except OSError:
            self.failed = True
        finally:
            os.close(self._writing)
            self._stream.close()

    def _write(self, chunk: bytes) -> None:
        self.tail = (self.tail + chunk)[-OGG_PAGE_BYTES:]
        if self._left is not None:
            self._left -= len(chunk)
        while chunk:
            chunk = chunk[os.write(self._writing, chunk) :]


def open_pipe(path: Path, name: str, pcm: PCMFormat | None) -> LiveReader | Spool:
    """Read what comes out of a pipe as it comes, if that can be done; else all of it.

    Raises:
        AudioError: nothing comes, or nothing that can be read.
    """
    try:
        stream = Stream(path)
        header = _header(stream, name, pcm)
        if header:
            return LiveReader(stream, header)
        with closing(stream):
            return Spool(stream, name)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(". ")
        raise AudioError(f"{name}: not audio that can be read here ({reason})") from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error})") from error


def spooled(path: Path, name: str) -> Spool:
    """All of what comes out of a pipe.

    Raises:
        AudioError: it cannot be read or kept.
    """
    try:
        with closing(Stream(path)) as stream:
            return Spool(stream, name)
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error})") from error


def _header(stream: Stream, name: str, pcm: PCMFormat | None) -> StreamHeader | None:
    if pcm:
        return StreamHeader(pcm=pcm)
    try:
        while tag_bytes := id3_bytes(stream.head()):
            stream.skip(tag_bytes)
        if not stream.head():
            raise AudioError(f"{name}: the file is empty")
        return read_stream_header(stream.head())
    except BaseException:
        stream.close()
        raise

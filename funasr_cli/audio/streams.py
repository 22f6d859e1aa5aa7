"""Pipes: handed on as they come where that can be done, else kept on disk until they are read."""

import io
import os
import sys
import tempfile
import weakref
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import soundfile

from funasr_cli.audio.headers import COPY_BYTES, StreamHeader, id3_bytes, read_stream_header
from funasr_cli.audio.libsndfile import FedReader
from funasr_cli.errors import AudioError
from funasr_cli.inputs import STDIN, PCMFormat

HEAD_BYTES = 4096  # enough to tell what it is


class Stream:
    """Bytes that come once, out of a path or standard input. They fail with AudioError."""

    def __init__(self, path: Path, name: str):
        self._name = name
        self._held = b""
        try:
            self._file = io.FileIO(os.dup(0) if path == STDIN else path)
            os.set_blocking(self._file.fileno(), True)
        except OSError as error:
            raise AudioError(f"{name}: cannot be read ({error})") from error

    def head(self) -> bytes:
        """The next `HEAD_BYTES` or more, which will come again; fewer at the end."""
        while len(self._held) < HEAD_BYTES and (more := self._read()):
            self._held += more
        return self._held

    def skip(self, count: int) -> None:
        """Leave out so many bytes."""
        while len(self._held) < count and (more := self._read()):
            count -= len(self._held)
            self._held = more
        self._held = self._held[count:]

    def chunks(self, limit_bytes: int | None = None) -> Generator[bytes, None, None]:
        """What is left, or so much of it, as it comes. Closes the stream."""
        left = sys.maxsize if limit_bytes is None else limit_bytes
        try:
            while left > 0 and (chunk := self._held or self._read()):
                self._held = b""
                yield chunk[:left]
                left -= len(chunk)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it; may be called twice."""
        self._file.close()

    def _read(self) -> bytes:
        try:
            return self._file.read(COPY_BYTES)
        except OSError as error:
            raise AudioError(f"{self._name}: cannot be read ({error})") from error


class Spool:
    """What came out of a pipe, in a file that is deleted with this object, or at the end of the process."""

    def __init__(self, stream: Stream, name: str):
        """Read all of it.

        Raises:
            AudioError: it cannot be read, or kept: the disk is full, for example.
        """
        try:
            descriptor, path = tempfile.mkstemp(prefix="funasr-")
        except OSError as error:
            raise _not_kept(name, error) from error
        self.path = Path(path)
        delete = weakref.finalize(self, self.path.unlink, missing_ok=True)
        try:
            with open(descriptor, "wb") as file:
                file.writelines(stream.chunks())
        except OSError as error:
            delete()  # the error may outlive it, and the disk may be full
            raise _not_kept(name, error) from error


def _not_kept(name: str, error: OSError) -> AudioError:
    return AudioError(f"{name}: cannot be kept on disk until it is read ({error})", "TMPDIR names another folder")


def open_pipe(path: Path, name: str, pcm: PCMFormat | None) -> FedReader | Spool:
    """Read what comes out of a pipe as it comes, if that can be done; else all of it.

    Raises:
        AudioError: nothing comes, or nothing that can be read.
    """
    stream = Stream(path, name)
    try:
        header = StreamHeader(pcm=pcm) if pcm else _header(stream, name)
        if header is None:
            return Spool(stream, name)
        stream.skip(header.samples_at)
    except BaseException:
        stream.close()
        raise
    chunks = stream.chunks(header.sample_bytes)
    try:
        return FedReader(chunks, pcm=header.pcm, expected_s=header.expected_s, is_ogg=header.is_ogg, live=True)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(". ")
        raise AudioError(f"{name}: not audio that can be read here ({reason})") from error


def spooled(path: Path, name: str) -> Spool:
    """All of what comes out of a pipe.

    Raises:
        AudioError: it cannot be read or kept.
    """
    with closing(Stream(path, name)) as stream:
        return Spool(stream, name)


def _header(stream: Stream, name: str) -> StreamHeader | None:
    while tag_bytes := id3_bytes(stream.head()):
        stream.skip(tag_bytes)
    if not stream.head():
        raise AudioError(f"{name}: the file is empty")
    return read_stream_header(stream.head())

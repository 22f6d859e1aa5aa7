"""Bytes of files and pipes: one after the other, with a look at the next ones."""

import errno
import io
import os
import re
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from funasr_cli.errors import AudioError

STDIN = Path("/dev/stdin")  # what "-" stands for
COPY_BYTES = 1 << 16
PIECE_BYTES = 1 << 20  # of a search
LONGEST_PATTERN_BYTES = 64
LAST_POSITION = 1 << 62  # larger ones are no numbers to the system
SECTOR_BYTES = 4096
MOST_BAD_SECTORS = 100  # each may take seconds


def can_reopen(path: Path) -> bool:
    """Whether opening the path anew leads to the beginning of a file. On macOS, that of /dev/stdin does not."""
    return os.path.isfile(path) and path.resolve().parent != Path("/dev/fd")


def is_pipe(path: Path) -> bool:
    """Whether something is there whose bytes come only once."""
    return os.path.exists(path) and not os.path.isdir(path) and not can_reopen(path)


class Tape:
    """Bytes that are read one after the other.

    Attributes:
        size: of a regular file; None where they come once, in an unknown number.
        position: bytes in front of those that come next.
        bad_sectors: numbers of those that the disk could not read, with zeros in their place.
        fault: the last one, if something could not be read.
    """

    def __init__(self, path: Path, name: str):
        """Open it.

        Raises:
            AudioError: it is missing, a folder or cannot be opened.
        """
        self.position = 0
        self.size: int | None = None
        self._path, self._name = path, name
        self._held = b""
        self.fault: AudioError | None = None
        self.bad_sectors: set[int] = set()
        try:
            self._file = io.FileIO(os.dup(0) if path == STDIN and not can_reopen(path) else path)
            if can_reopen(path):
                self.size = os.fstat(self._file.fileno()).st_size
            else:
                os.set_blocking(self._file.fileno(), True)
        except FileNotFoundError as error:
            raise AudioError(f"{name}: no such file", code="audio-missing") from error
        except IsADirectoryError as error:
            hint = "name the files in it, for example with a shell pattern"
            raise AudioError(f"{name}: is a folder", hint, code="audio-folder") from error
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def descriptor(self) -> int:
        """Open the same file anew, at its beginning; the caller closes the descriptor."""
        return os.open(self._path, os.O_RDONLY)

    def peek(self, count: int) -> bytes:
        """Look at the next bytes, which will come again; fewer at the end."""
        if self.size is not None:
            return self.at(self.position, count)
        while len(self._held) < count and (more := self._read(max(COPY_BYTES, count - len(self._held)))):
            self._held += more
        return self._held[:count]

    def at(self, position: int, count: int) -> bytes:
        """Look at bytes elsewhere; in a pipe, not in front of those that come next."""
        if self.size is None:
            return self.peek(position - self.position + count)[position - self.position :]
        if position > LAST_POSITION:  # as a damaged size may say
            return b""
        data = self._pread(position, count)
        while 0 < len(data) < count and (more := self._pread(position + len(data), count - len(data))):
            data += more
        return data

    def find(self, pattern: re.Pattern[bytes], begin: int, end: int) -> Iterator[int]:
        """Yield where a pattern of up to LONGEST_PATTERN_BYTES occurs in a regular file."""
        for start in range(begin, min(self.size or 0, end), PIECE_BYTES):
            for found in pattern.finditer(self.at(start, PIECE_BYTES + LONGEST_PATTERN_BYTES)):
                yield start + found.start()

    def read(self, count: int) -> bytes:
        """Take the next bytes as they come, at least one; none at the end."""
        if self.size is None:
            data = self._held[:count] or self._read(count)
            self._held = self._held[count:]
        else:
            data = self._pread(self.position, count)
        self.position += len(data)
        return data

    def skip(self, count: int) -> None:
        """Leave out this number of bytes."""
        if self.size is not None:
            self.seek(self.position + count)
        while self.size is None and count > 0 and (data := self.read(min(count, COPY_BYTES))):
            count -= len(data)

    def seek(self, position: int) -> None:
        """Go on there, in a regular file."""
        self.position = self._file.seek(position)

    def close(self) -> None:
        """Let go of it; may be called twice."""
        self._file.close()

    def is_bad(self, position: int, count: int) -> bool:
        """Whether some of these bytes could not be read."""
        last = (position + count - 1) // SECTOR_BYTES
        return not self.bad_sectors.isdisjoint(range(position // SECTOR_BYTES, last + 1))

    def check(self) -> None:
        """Say so if something could not be read.

        Raises:
            AudioError: the last fault.
        """
        if self.fault:
            raise self.fault

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            self.fault = self._unreadable(error)
            raise self.fault from error

    def _pread(self, position: int, count: int) -> bytes:
        """Read fewer bytes if one behind them is in a bad sector; zeros in the place of that."""
        try:
            return os.pread(self._file.fileno(), count, position)
        except OSError as error:
            middle = position + count // 2
            end = max(middle - middle % SECTOR_BYTES, position - position % SECTOR_BYTES + SECTOR_BYTES)
            if error.errno == errno.EIO and end < position + count:
                return self._pread(position, end - position)
            self.bad_sectors.add(position // SECTOR_BYTES)
            self.fault = self._unreadable(error)
            if error.errno != errno.EIO or len(self.bad_sectors) > MOST_BAD_SECTORS:
                raise self.fault from error
            return bytes(max(0, min(count, (self.size or 0) - position)))

    def _unreadable(self, error: Exception) -> AudioError:
        reason = getattr(error, "strerror", None) or error
        return AudioError(f"{self._name}: cannot be read ({reason})", code="audio-unreadable")


class Spool:
    """What came out of a pipe, in a file that is deleted with this object, or at the end of the process."""

    def __init__(self, tape: Tape, name: str):
        """Read all of it.

        Raises:
            AudioError: it cannot be read, or kept: the disk is full, for example.
        """
        try:
            descriptor, path = tempfile.mkstemp(prefix="funasr-")
            self.path = Path(path)
            delete = weakref.finalize(self, self.path.unlink, missing_ok=True)
            with open(descriptor, "wb") as file:
                file.writelines(iter(lambda: tape.read(COPY_BYTES), b""))
        except OSError as error:
            if "path" in vars(self):
                delete()  # the error may outlive it, and the disk may be full
            reason, hint = f"cannot be kept on disk until it is read ({error})", "TMPDIR names another folder"
            raise AudioError(f"{name}: {reason}", hint, code="disk-full") from error

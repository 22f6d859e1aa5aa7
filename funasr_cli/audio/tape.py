"""Sequential reading of bytes from files and pipes, with look-ahead."""

import errno
import io
import os
import re
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from funasr_cli.errors import AudioError

STDIN = Path("/dev/stdin")  # the path for "-"
COPY_BYTES = 1 << 16
PIECE_BYTES = 1 << 20  # read at a time while searching
LONGEST_PATTERN_BYTES = 64
LAST_POSITION = 1 << 62  # the system rejects larger ones
SECTOR_BYTES = 4096
MOST_BAD_SECTORS = 100  # reading each of them may take seconds


def can_reopen(path: Path) -> bool:
    """Return whether opening the path again starts at the beginning. On macOS, /dev/stdin does not."""
    return os.path.isfile(path) and path.resolve().parent != Path("/dev/fd")


def is_pipe(path: Path) -> bool:
    """Return whether the path exists and can be read only once."""
    return os.path.exists(path) and not os.path.isdir(path) and not can_reopen(path)


class Tape:
    """A file or pipe that is read from front to back.

    Attributes:
        size: size of a regular file; None for a pipe, which can be read only once.
        position: position of the next byte.
        bad_sectors: indexes of the sectors that the disk could not read. Their bytes are replaced with zeros.
        fault: the last read error, if there was one.
    """

    def __init__(self, path: Path, name: str):
        """Open a path.

        Raises:
            AudioError: the path does not exist, is a folder or cannot be opened.
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
            hint = "pass the files in it, for example with a shell pattern"
            raise AudioError(f"{name}: is a folder", hint, code="audio-folder") from error
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def descriptor(self) -> int:
        """Open the same file again at its beginning. The caller must close the descriptor."""
        return os.open(self._path, os.O_RDONLY)

    def peek(self, count: int) -> bytes:
        """Return the next bytes without consuming them; fewer at the end."""
        if self.size is not None:
            return self.at(self.position, count)
        while len(self._held) < count and (more := self._read(max(COPY_BYTES, count - len(self._held)))):
            self._held += more
        return self._held[:count]

    def at(self, position: int, count: int) -> bytes:
        """Return bytes at a position without moving; in a pipe, not before the current position."""
        if self.size is None:
            return self.peek(position - self.position + count)[position - self.position :]
        if position > LAST_POSITION:  # from a damaged size
            return b""
        data = self._pread(position, count)
        while 0 < len(data) < count and (more := self._pread(position + len(data), count - len(data))):
            data += more
        return data

    def find(self, pattern: re.Pattern[bytes], begin: int, end: int) -> Iterator[int]:
        """Yield the positions of a pattern of up to LONGEST_PATTERN_BYTES in a regular file."""
        for start in range(begin, min(self.size or 0, end), PIECE_BYTES):
            for found in pattern.finditer(self.at(start, PIECE_BYTES + LONGEST_PATTERN_BYTES)):
                yield start + found.start()

    def read(self, count: int) -> bytes:
        """Read the next bytes that are available, at most `count`; none only at the end."""
        if self.size is None:
            data = self._held[:count] or self._read(count)
            self._held = self._held[count:]
        else:
            data = self._pread(self.position, count)
        self.position += len(data)
        return data

    def skip(self, count: int) -> None:
        """Skip this number of bytes."""
        if self.size is not None:
            self.seek(self.position + count)
        while self.size is None and count > 0 and (data := self.read(min(count, COPY_BYTES))):
            count -= len(data)

    def seek(self, position: int) -> None:
        """Move to a position in a regular file."""
        self.position = self._file.seek(position)

    def close(self) -> None:
        """Close the file or pipe. Calling it twice is allowed."""
        self._file.close()

    def is_bad(self, position: int, count: int) -> bool:
        """Return whether any of these bytes could not be read."""
        last = (position + count - 1) // SECTOR_BYTES
        return not self.bad_sectors.isdisjoint(range(position // SECTOR_BYTES, last + 1))

    def check(self) -> None:
        """Raise the last fault, if there was one.

        Raises:
            AudioError: something could not be read.
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
        """Read at a position, up to the next bad sector. Return zeros for a bad sector itself."""
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
    """The contents of a pipe in a temporary file, which is deleted with this object or when the process ends."""

    def __init__(self, tape: Tape, name: str):
        """Copy the whole pipe.

        Raises:
            AudioError: the pipe cannot be read, or the copy cannot be written, for example to a full disk.
        """
        try:
            descriptor, path = tempfile.mkstemp(prefix="funasr-")
            self.path = Path(path)
            delete = weakref.finalize(self, self.path.unlink, missing_ok=True)
            with open(descriptor, "wb") as file:
                file.writelines(iter(lambda: tape.read(COPY_BYTES), b""))
        except OSError as error:
            if "path" in vars(self):
                delete()  # now, since the disk may be full and the error may keep this object alive
            reason, hint = f"cannot be copied to a temporary file ({error})", "set TMPDIR to another folder"
            raise AudioError(f"{name}: {reason}", hint, code="disk-full") from error

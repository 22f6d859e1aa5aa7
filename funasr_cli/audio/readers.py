"""Audio files piece by piece, as they are stored, with whichever library can read them."""

import contextlib
import os
import queue
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile

from funasr_cli.audio.headers import Header, read_header
from funasr_cli.audio.libsndfile import FedReader, SoundFileReader
from funasr_cli.errors import AudioError
from funasr_cli.inputs import PCMFormat

QUEUE_BUFFERS = 64  # of 8 KB, between ffmpeg and us
CUT_SHORT = (b"partial file", b"ended prematurely")  # what ffmpeg says, and ends as if all were well


class Reader(Protocol):
    """A file that is open."""

    @property
    def sample_rate_hz(self) -> int:
        """As stored."""

    @property
    def channels(self) -> int:
        """As stored."""

    @property
    def expected_s(self) -> float | None:
        """Length that the header claims."""

    @property
    def live(self) -> bool:
        """Whether it may be going on right now: what comes is to be handed on."""

    def seek(self, sample: int) -> int:
        """Begin with this sample, if that one can be found exactly; with which sample `pieces` begins now."""

    def pieces(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32, short ones; EOFError where the file breaks off."""

    def close(self) -> None:
        """Let go of the file; may be called twice."""


def open_reader(path: Path, name: str, pcm: PCMFormat | None = None) -> Reader:
    """Open a file that `can_reopen`.

    Args:
        path: where it is.
        name: what to call it in messages.
        pcm: how its samples are stored, if it has no header.

    Raises:
        AudioError: it is missing, a folder, unreadable or no audio.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{name}: is a folder", "name the files in it, for example with a shell pattern")
        header = Header() if pcm else read_header(path)
        if header.is_chained:
            return _open_with_others(path, name, "several streams in one Ogg file")
        return _open_with_libsndfile(path, header, pcm)
    except soundfile.LibsndfileError as error:
        if not status.st_size:
            raise AudioError(f"{name}: {'nothing came' if is_pipe(path) else 'the file is empty'}") from error
        return _open_with_others(path, name, reason=error.error_string.rstrip(". "))
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file") from error
    except TypeError as error:  # soundfile goes by the ending .raw, whatever is in the file
        hint = "--pcm says how they are stored, as in: --pcm s16le --rate 16000"
        raise AudioError(f"{name}: samples without a header", hint) from error
    except (OSError, RuntimeError, ValueError) as error:  # such as a name that is too long
        raise AudioError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def can_reopen(path: Path) -> bool:
    """Whether opening the path anew leads to the beginning of a file. On macOS, that of /dev/stdin does not."""
    return os.path.isfile(path) and path.resolve().parent != Path("/dev/fd")


def is_pipe(path: Path) -> bool:
    """Whether something is there whose bytes come only once."""
    return os.path.exists(path) and not os.path.isdir(path) and not can_reopen(path)


def _open_with_libsndfile(path: Path, header: Header, pcm: PCMFormat | None) -> Reader:
    reader = SoundFileReader(path, header, pcm)
    is_guess = reader.is_mp3 and not header.has_mp3_length
    if not is_guess and header.unset_size_at is None:
        return reader
    reader.close()  # it would go by a wrong length
    return FedReader(header.content(path))


def _open_with_others(path: Path, name: str, reason: str) -> Reader:
    """What libsndfile cannot read, for this reason: with PyAV if it is installed, else with audioread."""
    try:
        import av  # noqa: F401
    except ImportError:
        return _open_with_audioread(path, name, reason)
    from funasr_cli.audio.media import open_media

    return open_media(path, name, reason)


def _open_with_audioread(path: Path, name: str, reason: str) -> Reader:
    try:
        return AudioreadReader(path)
    except Exception as error:  # audioread's back ends raise what they like
        raise AudioError(
            f"{name}: not audio that can be read here ({reason})",
            "m4a, mp4, webm and more need PyAV (pip install av) or ffmpeg on the PATH",
        ) from error


class AudioreadReader:
    """What libsndfile cannot read, such as m4a: with Core Audio or ffmpeg."""

    live = False

    def __init__(self, path: Path):
        import audioread  # most files do without

        # Its reader of WAV and AIFF knows nothing that libsndfile does not, and leaves files open.
        backends = [backend for backend in audioread.available_backends() if backend.__name__ != "RawAudioFile"]
        # A real path cannot be taken for a URL, and is the same file in another process.
        self._file: Any = audioread.audio_open(os.path.realpath(path), backends)
        self.sample_rate_hz = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.expected_s: float | None = float(self._file.duration) or None
        self._is_ffmpeg = hasattr(self._file, "proc")
        if self._is_ffmpeg:  # which would fill the memory if it is faster than us
            self._file.stdout_reader.queue.maxsize = QUEUE_BUFFERS
        if not self.sample_rate_hz or not self.channels:
            self.close()
            raise ValueError("sample rate or channels are not stated")

    def seek(self, sample: int) -> int:
        """Stay at the beginning."""
        return 0

    def pieces(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32, short ones; EOFError where the file breaks off."""
        channels, rest = self.channels, b""
        try:
            for buffer in self._file:  # bytes of int16, interleaved, cut anywhere
                held = rest + bytes(buffer)
                rest = held[len(held) - len(held) % (2 * channels) :]
                piece = np.frombuffer(held, "<i2", (len(held) - len(rest)) // 2).reshape(-1, channels)
                yield piece.astype(np.float32) / 2**15  # (samples, channels)
        except Exception as error:
            raise EOFError from error
        if self._is_ffmpeg and self._was_cut():
            raise EOFError

    def _was_cut(self) -> bool:
        self._file.stderr_reader.join()
        said = b"".join(self._file.stderr_reader.queue.queue)
        return self._file.proc.wait() != 0 or any(phrase in said for phrase in CUT_SHORT)

    def close(self) -> None:
        """Let go of the file, or end ffmpeg; its buffers are emptied, or audioread would wait forever."""
        if self._is_ffmpeg:
            self._file.proc.kill()
            while self._file.stdout_reader.is_alive():
                with contextlib.suppress(queue.Empty):
                    self._file.stdout_reader.queue.get(timeout=0.01)
        self._file.close()

"""Audio files piece by piece, as they are stored, with whichever library can read them."""

import contextlib
import os
import queue
import shutil
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile

from funasr_cli.audio.headers import Header, read_header
from funasr_cli.errors import AudioError
from funasr_cli.inputs import PCM_ENCODINGS, PCMFormat

PIECE_S = 0.1  # what gets lost at most where a file breaks off
SLACK_S = 0.1  # by how much a header may be wrong
UNKNOWN_FRAMES = 2**60  # as many are as good as none: the header does not say
QUEUE_BUFFERS = 64  # of 8 KB, between ffmpeg and us
# Where libsndfile finds every sample. In compressed files it mostly does, too, but goes by what may be damaged.
EXACT_FORMATS = ("AIFF", "AU", "CAF", "FLAC", "RAW", "RF64", "W64", "WAV", "WAVEX")
EXACT_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
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
        return SoundFileReader(path, Header() if pcm else read_header(path), pcm)
    except soundfile.LibsndfileError as error:
        if not status.st_size:
            raise AudioError(f"{name}: the file is empty") from error
        return _open_with_others(path, name, reason=error.error_string.rstrip(". "))
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file") from error
    except TypeError as error:  # soundfile goes by the ending .raw, whatever is in the file
        raise AudioError(f"{name}: samples without a header", "convert it to wav or flac") from error
    except (OSError, RuntimeError, ValueError) as error:  # such as a name that is too long
        raise AudioError(f"{name}: cannot be read ({error})") from error


def can_reopen(path: Path) -> bool:
    """Whether opening the path anew leads to the beginning of a file. On macOS, that of /dev/stdin does not."""
    return os.path.isfile(path) and path.resolve().parent != Path("/dev/fd")


def is_pipe(path: Path) -> bool:
    """Whether something is there whose bytes come only once."""
    return os.path.exists(path) and not os.path.isdir(path) and not can_reopen(path)


class SoundFileReader:
    """WAV, FLAC, Ogg, MP3 and whatever else libsndfile knows."""

    live = False

    def __init__(self, file: Path | int, header: Header, pcm: PCMFormat | None = None):
        """Open a file, or what a descriptor leads to."""
        self._open = partial(_sound_file, file, pcm)
        self._file = self._open()
        self._begin = 0  # the first sample of `pieces`
        self._can_seek = False
        self._is_cut = header.is_cut
        self.sample_rate_hz: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.expected_s: float | None = None
        if self._is_cut or not header.states_length or self._file.frames >= UNKNOWN_FRAMES:
            return
        is_guess = self._file.subtype.startswith("MPEG_") and not header.has_mp3_length
        if isinstance(file, Path) and (is_guess or header.unset_size_at is not None):
            self._file.close()  # libsndfile would stop there, but not in a pipe
            self._file = _ForwardFile(_through_a_pipe(file, header))
        else:
            self.expected_s = self._file.frames * header.claimed_share / self.sample_rate_hz
            is_exact = self._file.format in EXACT_FORMATS and self._file.subtype.startswith(EXACT_SUBTYPES)
            self._can_seek = is_exact and isinstance(file, Path)

    def seek(self, sample: int) -> int:
        """Begin with this sample, if that one can be found exactly; with which sample `pieces` begins now."""
        if self._can_seek:
            try:
                self._begin = self._file.seek(min(sample, self._file.frames))
            except RuntimeError:  # FLAC that is damaged there, and cannot be read at all after that
                self._file.close()
                self._file = self._open()
        return self._begin

    def pieces(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32, short ones; EOFError where the file breaks off."""
        size, samples = max(1, round(PIECE_S * self.sample_rate_hz)), self._begin
        while True:
            try:
                piece = self._file.read(size, dtype="float32", always_2d=True)  # (samples, channels)
            except (OSError, RuntimeError) as error:
                raise EOFError from error
            if len(piece):
                yield piece
            samples += len(piece)
            if len(piece) < size:
                break
        if self._is_cut or (self.expected_s or 0) - samples / self.sample_rate_hz > SLACK_S:
            raise EOFError

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _ForwardFile(soundfile.SoundFile):
    """Read from the beginning to the end.

    soundfile seeks after every read where it can: there MP3 becomes a little wrong, and errors are cleared.
    """

    def seekable(self) -> bool:
        return False


def _sound_file(file: Path | int, pcm: PCMFormat | None) -> _ForwardFile:
    source = file if isinstance(file, int) else os.fsencode(file)
    if pcm is None:
        return _ForwardFile(source)
    subtype, endian = PCM_ENCODINGS[pcm.encoding]
    return _ForwardFile(
        source,
        samplerate=pcm.sample_rate_hz,
        channels=pcm.channels,
        subtype=subtype,
        endian=endian,
        format="RAW",
    )


def _through_a_pipe(path: Path, header: Header) -> int:
    """Where the file comes out of a pipe, without an unset size, and what libsndfile cannot skip there."""
    reading, writing = os.pipe()

    def feed() -> None:
        with contextlib.suppress(OSError), open(writing, "wb") as pipe, open(path, "rb") as file:
            file.seek(header.mp3_start)
            if header.unset_size_at is not None:
                pipe.write(file.read(header.unset_size_at) + b"\xff" * 4)
                file.seek(4, os.SEEK_CUR)
            shutil.copyfileobj(file, pipe)

    threading.Thread(target=feed, daemon=True).start()  # ends when the other end is closed
    return reading


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
            "m4a, mp4, webm and more need PyAV (pip install 'funasr-cli[media]') or ffmpeg on the PATH",
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

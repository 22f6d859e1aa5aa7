"""What libsndfile reads: files, and bytes that are fed to it through a pipe."""

import io
import os
import threading
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from funasr_cli.audio.headers import OGG_PAGE_BYTES, Header, ends_within_page
from funasr_cli.errors import AudioError
from funasr_cli.inputs import PCM_ENCODINGS, PCMFormat

PIECE_S = 0.1  # what gets lost at most where a file breaks off
PIECE_VALUES = 1 << 20  # no more at once, whatever sample rate and channels a damaged header states
SLACK_S = 0.1  # by how much a header may be wrong
UNKNOWN_FRAMES = 2**60  # as many are as good as none: the header does not say
# Where libsndfile finds every sample. In compressed files it mostly does, too, but goes by what may be damaged.
EXACT_FORMATS = ("AIFF", "AU", "CAF", "FLAC", "RAW", "RF64", "W64", "WAV", "WAVEX")
EXACT_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


class SoundFileReader:
    """WAV, FLAC, Ogg, MP3 and whatever else libsndfile knows, from a file."""

    live = False

    def __init__(self, path: Path, header: Header, pcm: PCMFormat | None = None):
        self._open = partial(_sound_file, os.fsencode(path), pcm)
        self._file = self._open()
        self._begin = 0  # the first sample of `pieces`
        self._can_seek = False
        self._is_cut = header.is_cut
        self.sample_rate_hz: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.is_mp3: bool = self._file.subtype.startswith("MPEG_")
        self.expected_s: float | None = None
        if not header.is_cut and self._file.frames < UNKNOWN_FRAMES:
            self.expected_s = self._file.frames * header.claimed_share / self.sample_rate_hz
            is_exact = self._file.format in EXACT_FORMATS
            self._can_seek = is_exact and self._file.subtype.startswith(EXACT_SUBTYPES)

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
        samples = self._begin
        for piece in _pieces(self._file):
            yield piece
            samples += len(piece)
        if self._is_cut or (self.expected_s or 0) - samples / self.sample_rate_hz > SLACK_S:
            raise EOFError

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class FedReader:
    """What libsndfile is to read from the beginning to the end: as it comes, or without what would mislead it."""

    def __init__(
        self,
        chunks: Generator[bytes, None, None],
        *,
        pcm: PCMFormat | None = None,
        expected_s: float | None = None,
        is_ogg: bool = False,
        live: bool = False,
    ):
        """Takes the chunks, and closes them."""
        reading, writing = os.pipe()
        self._pipe = io.FileIO(reading)
        self._feed = _Feed(chunks, writing)
        try:
            self._file = _sound_file(reading, pcm)
        except BaseException:
            self._pipe.close()
            raise
        self._is_ogg = is_ogg
        self.sample_rate_hz: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.expected_s = expected_s
        self.live = live

    def seek(self, sample: int) -> int:
        """Stay at the beginning."""
        return 0

    def pieces(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32, short ones; EOFError where the bytes break off, or cannot be understood."""
        samples = 0
        for piece in _pieces(self._file):
            yield piece
            samples += len(piece)
        is_rest = bool(self._pipe.read(1))
        is_cut = self._feed.failed or (self._is_ogg and ends_within_page(self._feed.tail))
        if is_rest or is_cut or (self.expected_s or 0) - samples / self.sample_rate_hz > SLACK_S:
            raise EOFError

    def close(self) -> None:
        """Stop feeding it."""
        self._file.close()
        self._pipe.close()


class _Feed(threading.Thread):
    """Writes bytes into a pipe for libsndfile, until they end or the pipe is closed."""

    def __init__(self, chunks: Generator[bytes, None, None], writing: int):
        super().__init__(daemon=True)
        self.tail = b""  # the last bytes so far
        self.failed = False
        self._chunks = chunks
        self._writing = writing
        self.start()

    def run(self) -> None:
        """Write all of it."""
        try:
            for chunk in self._chunks:
                self.tail = (self.tail + chunk)[-OGG_PAGE_BYTES:]
                while chunk:
                    chunk = chunk[os.write(self._writing, chunk) :]
        except (OSError, AudioError):
            self.failed = True
        finally:
            self._chunks.close()
            os.close(self._writing)


class _ForwardFile(soundfile.SoundFile):
    """Read from the beginning to the end.

    soundfile seeks after every read where it can: there MP3 becomes a little wrong, and errors are cleared.
    """

    def seekable(self) -> bool:
        return False


def _sound_file(file: bytes | int, pcm: PCMFormat | None) -> _ForwardFile:
    """A path, or a descriptor, which stays open."""
    if pcm is None:
        return _ForwardFile(file, closefd=False)
    subtype, endian = PCM_ENCODINGS[pcm.encoding]
    return _ForwardFile(
        file,
        samplerate=pcm.sample_rate_hz,
        channels=pcm.channels,
        subtype=subtype,
        endian=endian,
        format="RAW",
        closefd=False,
    )


def _pieces(file: _ForwardFile) -> Iterator[np.ndarray]:
    """(samples, channels) float32, short ones; EOFError where libsndfile gives up."""
    size = max(1, min(round(PIECE_S * file.samplerate), PIECE_VALUES // file.channels))
    while True:
        try:
            piece = file.read(size, dtype="float32", always_2d=True)  # (samples, channels)
        except (OSError, RuntimeError) as error:
            raise EOFError from error
        if len(piece):
            yield piece
        if len(piece) < size:
            return

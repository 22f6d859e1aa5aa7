"""What libsndfile cannot read, with PyAV: the sound of m4a, mp4, webm, mkv and whatever else FFmpeg knows."""

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, groupby
from pathlib import Path

import av
import numpy as np

from funasr_cli.audio.samples import as_float32, resampled
from funasr_cli.errors import AudioError

DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}  # "p" behind it: planar
GAP_S = 0.1  # a time stamp so much later than what was heard so far means silence
LONGEST_GAP_S = 3600.0  # more is an error in the time stamps
FILLER_S = 1.0
SLACK_S = 0.5  # by how much a stated length may be wrong: a few frames, of 128 ms each at 8 kHz
# Containers whose length is stated for all streams together. FFmpeg makes up the others' from sizes and bit rates.
WITH_LENGTH = ("matroska,webm", "flv", "asf", "wv")
TIMED = ("mov,", "matroska", "flv", "asf", "mpegts", "mpeg")  # elsewhere FFmpeg only counts packets
SKIPPED_BYTES = 1000  # between two packets of a Matroska file there are some dozens at most, or damage
# FFmpeg also sees sound in texts, and follows playlists to other files and into the network.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,matroska,mov,mpeg,mpegts,mxf,ogg,rm,tta,w64,wav,wv"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}


def open_media(path: Path, name: str, reason: str) -> "MediaReader":
    """Open a file; `reason` is why libsndfile could not read it.

    Raises:
        AudioError: there is no sound in it, or it cannot be read.
    """
    try:
        return MediaReader(path, name)
    except AudioError:
        raise
    except Exception as error:  # such as UnicodeDecodeError, ours, and those of FFmpeg
        raise AudioError(
            f"{name}: not audio that can be read here ({reason})",
            "it may be incomplete; if it plays elsewhere, convert it to wav or flac, for example with ffmpeg",
        ) from error


class MediaReader:
    """The first audio stream of a file, with FFmpeg's libraries."""

    live = False

    def __init__(self, path: Path, name: str):
        self._name = name
        with ExitStack() as opened:
            file = opened.enter_context(_File(os.fspath(path)))  # not by name: FFmpeg takes some for addresses
            self._container = opened.enter_context(av.open(file, metadata_errors="replace", options=OPTIONS))
            if not self._container.streams.audio:
                raise AudioError(f"{name}: there is no sound in it")
            self._stream = self._container.streams.audio[0]
            self._begin_s = (self._container.start_time or 0) / av.time_base
            self._is_matroska = self._container.format.name.startswith("matroska")
            self._frames = self._decoded()
            self._first = next(self._frames, None)  # more reliable than what the container says about it
            if self._first is None:
                raise ValueError("nothing can be decoded")  # FFmpeg may have gone by the name's ending
            self.sample_rate_hz = self._first.sample_rate
            self.channels = self._first.layout.nb_channels
            self.expected_s = self._stated_s()
            self._opened = opened.pop_all()

    def seek(self, sample: int) -> int:
        """Stay at the beginning."""
        return 0

    def pieces(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32, short ones; EOFError where the file breaks off."""
        samples = 0
        for (rate_hz, channels), run in groupby(self._timed(), lambda piece: (piece[0], piece[1].shape[1])):
            columns = (piece if channels > 1 else piece[:, 0] for _, piece in run)
            for piece in resampled(columns, rate_hz, self.sample_rate_hz, channels):
                yield piece.reshape(-1, channels)
                samples += len(piece)
        if (self.expected_s or 0) - samples / self.sample_rate_hz > SLACK_S:
            raise EOFError

    def close(self) -> None:
        """Let go of the file."""
        self._opened.close()

    def _timed(self) -> Iterator[tuple[int, np.ndarray]]:
        """Sample rate and (samples, channels); where time stamps leave a gap, it is silent."""
        clock_s = 0.0
        try:
            for frame in chain([self._first], self._frames):
                samples, rate_hz = self._samples(frame), frame.sample_rate
                late_s = self._start_s(frame, clock_s) - clock_s
                if late_s > GAP_S:
                    clock_s += late_s
                    if late_s <= LONGEST_GAP_S:
                        yield from _silence(late_s, rate_hz, samples.shape[1])
                yield rate_hz, samples
                clock_s += len(samples) / rate_hz
        except (av.FFmpegError, OSError) as error:
            raise EOFError from error

    def _decoded(self) -> Iterator[av.AudioFrame]:
        """All frames; what cannot be decoded before the first one was cut off in front."""
        begun, fault = False, None
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if begun:
                    raise
                fault = error
                continue
            begun = begun or bool(frames)
            yield from frames
        if fault and not begun:
            raise fault

    def _packets(self) -> Iterator[av.Packet]:
        """Those of the stream; EOFError where Matroska is damaged, behind which FFmpeg goes on without a word."""
        if not self._is_matroska:
            yield from self._container.demux(self._stream)
            return
        begin = end = None
        for packet in self._container.demux():
            if packet.pos is not None:
                if end is not None and packet.pos - end > SKIPPED_BYTES:
                    raise EOFError
                end = (end if packet.pos == begin else packet.pos) + packet.size  # several may share a block
                begin = packet.pos
            if packet.stream.index == self._stream.index:
                yield packet

    def _start_s(self, frame: av.AudioFrame, default_s: float) -> float:
        """When it is heard, counted from the beginning of the file's pictures or sound, whichever is first."""
        if frame.pts is None or not self._container.format.name.startswith(TIMED):
            return default_s
        return float(frame.pts * frame.time_base) - self._begin_s

    def _samples(self, frame: av.AudioFrame) -> np.ndarray:
        """(samples, channels) float32."""
        channels, kind = frame.layout.nb_channels, frame.format.name.removesuffix("p")
        rows = channels if frame.format.is_planar else 1
        count = frame.samples * channels // rows
        planes = [np.frombuffer(plane, DTYPES[kind], count) for plane in list(frame.planes)[:rows]]
        samples = np.stack(planes, axis=1) if rows > 1 else planes[0].reshape(-1, channels)
        return as_float32(samples, self._name)

    def _stated_s(self) -> float | None:
        """Length of the stream, where the file states it."""
        container, stream = self._container, self._stream
        if "mp4" in container.format.name:
            return float(stream.duration * stream.time_base) if stream.duration else None
        if end_s := _seconds(stream.metadata.get("DURATION", "")):  # of Matroska
            return end_s - self._begin_s
        is_estimate = self._is_matroska and stream.duration is not None
        if container.format.name not in WITH_LENGTH or is_estimate or container.streams.video:
            return None  # a film may be longer than what is heard in it
        return container.duration / av.time_base if container.duration else None


class _File(io.FileIO):
    """PyAV prints the error of a seek that fails, as it does wherever a damaged size leads nowhere."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:
            return -1  # to FFmpeg, a failure


def _silence(duration_s: float, rate_hz: int, channels: int) -> Iterator[tuple[int, np.ndarray]]:
    left, size = round(duration_s * rate_hz), round(FILLER_S * rate_hz)
    while left > 0:
        yield rate_hz, np.zeros((min(left, size), channels), np.float32)
        left -= size


def _seconds(text: str) -> float | None:
    """Of "00:01:02.500000000"; None where it is something else."""
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds

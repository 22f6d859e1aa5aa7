"""Read recordings of any length block by block, mixed to mono, at the sample rate that a model needs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Protocol

import numpy as np

from funasr_cli.audio.pcm import PCMFormat
from funasr_cli.audio.readers import Reader, open_pipe, open_reader
from funasr_cli.audio.samples import Findings, Mixer, joined, resampled
from funasr_cli.audio.tape import Spool, is_pipe
from funasr_cli.errors import AudioError
from funasr_cli.paths import shown

BLOCK_S = 10.0
LIVE_BLOCK_S = 0.5  # for a pipe, which may be a live recording


class Source(Protocol):
    """An input to transcribe, such as a file (`Recording`) or an array in memory (`Audio`)."""

    @property
    def name(self) -> str:
        """Name for messages and results."""

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the blocks."""

    @property
    def expected_s(self) -> float | None:
        """Length that the header states; None if unknown."""

    @property
    def start_s(self) -> float:
        """Start of the input within its recording; 0 unless it is a clip."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks, (samples,) mono float32, of at most about BLOCK_S and never empty.

        Raises:
            AudioError: the input breaks off, has no samples, or most of them are not numbers. Blocks that were
                already yielded remain valid.
        """

    @property
    def findings(self) -> Findings:
        """Damage and level found in the blocks read so far."""


@dataclass
class Recording:
    """A file that is read block by block. It is open only while `blocks` runs, except for live pipes.

    Attributes:
        name: name for messages and results.
        sample_rate_hz: sample rate of the blocks.
        expected_s: length of all blocks according to the file's header; None if unknown.
        findings: damage and level found in the latest run of `blocks`.
        speaker: the only one who speaks in it, if that is known.
    """

    name: str
    sample_rate_hz: int
    expected_s: float | None
    _open: Callable[[], Reader] = field(repr=False, compare=False)
    findings: Findings = field(default_factory=Findings, repr=False, compare=False)
    _clip: tuple[float, float | None] = (0.0, None)
    _channel: int | None = None
    speaker: str | None = None

    @property
    def start_s(self) -> float:
        """Position of the first sample of `blocks` in the file."""
        return self._clip[0]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks, (samples,) mono float32, about BLOCK_S each and never empty. Each call starts again.

        The blocks of a live pipe are LIVE_BLOCK_S long, and it can be read only once.

        Raises:
            AudioError: the file breaks off, has no samples, no longer exists, or most samples are not numbers.
                Blocks that were already yielded remain valid.
        """
        self.findings = findings = Findings()
        faults: list[AudioError] = []
        is_empty = True
        with closing(self._open()) as reader:
            mixer = Mixer(self.name, findings)
            pieces = self._pieces(reader, mixer, faults)
            at_rate = resampled(pieces, reader.sample_rate_hz, self.sample_rate_hz)
            block_s = LIVE_BLOCK_S if reader.live else BLOCK_S
            for block in joined(at_rate, round(block_s * self.sample_rate_hz)):
                is_empty = False
                findings.measure_level(block, self.sample_rate_hz)
                yield block
            (start_s, end_s), rate_hz = self._clip, reader.sample_rate_hz
            start, _ = self._wanted(rate_hz)
            lost = sorted(reader.lost + [(start + first, start + last) for first, last in mixer.lost])
            spans_s = [(max(start_s, first / rate_hz), min(end_s or inf, last / rate_hz)) for first, last in lost]
            findings.lost = [(first_s, last_s) for first_s, last_s in spans_s if first_s < last_s]
        if faults:
            raise faults[0]
        if is_empty:
            raise AudioError(f"{self.name}: contains no samples", code="audio-empty")
        mixer.finish()

    def _wanted(self, rate_hz: int) -> tuple[int, int]:
        """Return the (start, end) of the requested part in samples at the file's own rate."""
        start_s, end_s = self._clip
        return round(start_s * rate_hz), sys.maxsize if end_s is None else round(end_s * rate_hz)

    def _pieces(self, reader: Reader, mixer: Mixer, faults: list[AudioError]) -> Iterator[np.ndarray]:
        """Yield the requested part in pieces, (samples,) float32 at the file's own rate.

        If reading fails, end and append the error to `faults`, so that later stages still process every piece.
        """
        rate_hz, channel = reader.sample_rate_hz, self._channel
        start, end = self._wanted(rate_hz)
        position = reader.seek(start)
        try:
            for piece in reader.pieces():  # (samples, channels)
                wanted = piece[max(0, start - position) : end - position]
                if len(wanted) and channel and channel > piece.shape[1]:  # the channel count has changed
                    raise AudioError(f"{self.name}: only part of it has channel {channel}", code="audio-channel")
                if len(wanted):
                    yield mixer(wanted[:, channel - 1] if channel else wanted)
                position += len(piece)
                if position >= end:
                    return
        except EOFError:
            done_s, expected_s = position / rate_hz, reader.expected_s or 0
            if expected_s > done_s:  # it may exceed what the header states
                self.expected_s = _within(self._clip, expected_s)
            done = f"{done_s:.1f} of {expected_s:.1f} s" if expected_s > done_s else f"{done_s:.1f} s"
            hint = "the file is damaged or incomplete"
            faults.append(AudioError(f"{self.name}: broke off after {done}", hint, code="audio-cut-short"))
        except AudioError as error:
            faults.append(error)
        else:
            if 0 < position <= start:
                reason = f"ends at {position / rate_hz:.1f} s, before the requested start at {self.start_s:.1f} s"
                faults.append(AudioError(f"{self.name}: {reason}", code="clip-behind-end"))


def open_recording(
    path: str | Path,
    sample_rate_hz: int,
    *,
    name: str | None = None,
    clip: tuple[float, float | None] | None = None,
    channel: int | None = None,
    pcm: PCMFormat | None = None,
    speaker: str | None = None,
) -> Recording:
    """Open a file or pipe. Its channels are mixed evenly, and it is resampled with soxr HQ.

    Args:
        path: path of the file or pipe.
        sample_rate_hz: sample rate of the result.
        name: name for messages and results; None takes the path.
        clip: (start, end) of the requested part in seconds. A start after the end of the file raises an error only
            when the file is read.
        channel: the only channel to use, counted from 1; None mixes all channels.
        pcm: format of its samples, if it has no header.
        speaker: the only one who speaks in it, for the transcript; None if that is not known.

    Raises:
        AudioError: the path does not exist, is a folder, cannot be read, is not audio, or has no such channel.
    """
    path = Path(path)
    name = shown(path) if name is None else name
    reader, reopen = _opened(path, name, pcm)
    if reopen:
        reader.close()
    if channel is not None and not 1 <= channel <= reader.channels:
        reader.close()
        raise AudioError(f"{name}: there is no channel {channel}, only {reader.channels}", code="audio-channel")
    clip = clip or (0.0, None)
    expected_s = None if reader.expected_s is None else _within(clip, reader.expected_s)
    take = reopen or _only_once(reader, name)
    return Recording(name, sample_rate_hz, expected_s, take, _clip=clip, _channel=channel, speaker=speaker)


def _within(clip: tuple[float, float | None], duration_s: float) -> float:
    """Return the length of a clip in seconds, given the length of its recording."""
    start_s, end_s = clip
    return max(0.0, min(duration_s, end_s or duration_s) - start_s)


def _opened(path: Path, name: str, pcm: PCMFormat | None) -> tuple[Reader, Callable[[], Reader] | None]:
    """Return a reader, and a function that opens another one; None if the input can be read only once."""
    reopen: Callable[[], Reader] = partial(open_reader, path, name, pcm)
    if is_pipe(path):
        pipe = open_pipe(path, name, pcm)
        if not isinstance(pipe, Spool):
            return pipe, None
        reopen = lambda: open_reader(pipe.path, name, pcm)  # noqa: E731 - it keeps a reference to the spooled file
    return reopen(), reopen


def _only_once(reader: Reader, name: str) -> Callable[[], Reader]:
    """Return a function that returns the reader once and then fails, since a pipe cannot be opened again."""
    readers = [reader]

    def take() -> Reader:
        if not readers:
            reason = "has already been read, and a pipe can be read only once"
            raise AudioError(f"{name}: {reason}", code="audio-read-twice")
        return readers.pop()

    return take

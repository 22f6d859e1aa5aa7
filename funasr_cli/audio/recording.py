"""Recordings of any length: read block by block, mixed to mono, at the sample rate a model wants."""

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
LIVE_BLOCK_S = 0.5  # of what may be spoken right now


class Source(Protocol):
    """Something to transcribe: a file (`Recording`), or samples at hand (`Audio`)."""

    @property
    def name(self) -> str:
        """What to call it in messages and results."""

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of what `blocks` yields."""

    @property
    def expected_s(self) -> float | None:
        """Length that its header claims; None where unknown."""

    @property
    def start_s(self) -> float:
        """Where it begins in what it is a part of."""

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples,) mono float32, about BLOCK_S each, or shorter; never empty.

        Raises:
            AudioError: it breaks off, or holds no samples or hardly a number. Blocks already yielded stay valid.
        """

    @property
    def findings(self) -> Findings:
        """What was noticed in the blocks that were read."""


@dataclass
class Recording:
    """A file that is read block by block. It is open only while `blocks` runs; live pipes alone are open before.

    Attributes:
        name: what to call it in messages and results.
        sample_rate_hz: of what `blocks` yields.
        expected_s: length of that by the file's header; None where unknown.
        findings: what was noticed when it was last read.
    """

    name: str
    sample_rate_hz: int
    expected_s: float | None
    _open: Callable[[], Reader] = field(repr=False, compare=False)
    findings: Findings = field(default_factory=Findings, repr=False, compare=False)
    _clip: tuple[float, float | None] = (0.0, None)
    _channel: int | None = None

    @property
    def start_s(self) -> float:
        """Where the first sample of `blocks` is in the file."""
        return self._clip[0]

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples,) mono float32, about BLOCK_S each, never empty; from the beginning at every call.

        Those of a live pipe are LIVE_BLOCK_S long, and come only once.

        Raises:
            AudioError: the file breaks off, holds no samples or hardly a number, or is gone. Blocks already
                yielded stay valid.
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
                findings.hear(block, self.sample_rate_hz)
                yield block
            (start_s, end_s), rate_hz = self._clip, reader.sample_rate_hz
            start, _ = self._wanted(rate_hz)
            lost = sorted(reader.lost + [(start + first, start + last) for first, last in mixer.lost])
            spans_s = [(max(start_s, first / rate_hz), min(end_s or inf, last / rate_hz)) for first, last in lost]
            findings.lost = [(first_s, last_s) for first_s, last_s in spans_s if first_s < last_s]
        if faults:
            raise faults[0]
        if is_empty:
            raise AudioError(f"{self.name}: no samples in it", code="audio-empty")
        mixer.finish()

    def _wanted(self, rate_hz: int) -> tuple[int, int]:
        """The first sample that is wanted, and the first one behind it, at the file's own rate."""
        start_s, end_s = self._clip
        return round(start_s * rate_hz), sys.maxsize if end_s is None else round(end_s * rate_hz)

    def _pieces(self, reader: Reader, mixer: Mixer, faults: list[AudioError]) -> Iterator[np.ndarray]:
        """(samples,) float32 at the file's own rate, of what is wanted.

        Where the file fails, they end, and `faults` gets the error: so all of them get through what comes after.
        """
        rate_hz, channel = reader.sample_rate_hz, self._channel
        start, end = self._wanted(rate_hz)
        position = reader.seek(start)
        try:
            for piece in reader.pieces():  # (samples, channels)
                wanted = piece[max(0, start - position) : end - position]
                if len(wanted) and channel and channel > piece.shape[1]:  # it had as many when it was opened
                    raise AudioError(f"{self.name}: channel {channel} ends within it", code="audio-channel")
                if len(wanted):
                    yield mixer(wanted[:, channel - 1] if channel else wanted)
                position += len(piece)
                if position >= end:
                    return
        except EOFError:
            done_s, expected_s = position / rate_hz, reader.expected_s or 0
            if expected_s > done_s:  # more than what the header claimed, it may be
                self.expected_s = _within(self._clip, expected_s)
            done = f"{done_s:.1f} of {expected_s:.1f} s" if expected_s > done_s else f"{done_s:.1f} s"
            hint = "the file is damaged or incomplete"
            faults.append(AudioError(f"{self.name}: broke off after {done}", hint, code="audio-cut-short"))
        except AudioError as error:
            faults.append(error)
        else:
            if 0 < position <= start:
                reason = f"ends at {position / rate_hz:.1f} s, before the part from {self.start_s:.1f} s on"
                faults.append(AudioError(f"{self.name}: {reason}", code="clip-behind-end"))


def open_recording(
    path: str | Path,
    sample_rate_hz: int,
    *,
    name: str | None = None,
    clip: tuple[float, float | None] | None = None,
    channel: int | None = None,
    pcm: PCMFormat | None = None,
) -> Recording:
    """A file or pipe to be read with its channels mixed evenly and resampled with soxr HQ.

    Args:
        path: where it is.
        sample_rate_hz: what it is to be resampled to.
        name: what to call it; None takes the path.
        clip: the part that is wanted, in seconds. Whether the file is long enough for it to begin is found out by
            reading.
        channel: the only one that is wanted, the first being 1; None mixes all.
        pcm: how its samples are stored, if it has no header.

    Raises:
        AudioError: it is missing, a folder, unreadable or not audio, or has no such channel.
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
    return Recording(name, sample_rate_hz, expected_s, take, _clip=clip, _channel=channel)


def _within(clip: tuple[float, float | None], duration_s: float) -> float:
    """Seconds of a part of a recording, by the length of the recording."""
    start_s, end_s = clip
    return max(0.0, min(duration_s, end_s or duration_s) - start_s)


def _opened(path: Path, name: str, pcm: PCMFormat | None) -> tuple[Reader, Callable[[], Reader] | None]:
    """A reader, and what opens another one, if there can be another one."""
    reopen: Callable[[], Reader] = partial(open_reader, path, name, pcm)
    if is_pipe(path):
        pipe = open_pipe(path, name, pcm)
        if not isinstance(pipe, Spool):
            return pipe, None
        reopen = lambda: open_reader(pipe.path, name, pcm)  # noqa: E731 - it keeps the file as long as it is there
    return reopen(), reopen


def _only_once(reader: Reader, name: str) -> Callable[[], Reader]:
    """Hand a reader out once: a pipe cannot be opened anew."""
    readers = [reader]

    def take() -> Reader:
        if not readers:
            reason = "has been read already, and is no file that can be read twice"
            raise AudioError(f"{name}: {reason}", code="audio-read-twice")
        return readers.pop()

    return take

"""Recordings of any length: read block by block, mixed to mono, at the sample rate a model wants."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr

from funasr_cli.audio.readers import Reader, can_reopen, open_reader
from funasr_cli.errors import AudioError

BLOCK_S = 10.0


class Source(Protocol):
    """Something to transcribe: a file (`Recording`), or samples at hand (`Audio`)."""

    @property
    def name(self) -> str:
        """What to call it in messages and results."""

    @property
    def sample_rate_hz(self) -> int:
        """Of what `blocks` yields."""

    @property
    def expected_s(self) -> float | None:
        """Length that its header claims; None where unknown."""

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples,) mono float32, about BLOCK_S each, never empty.

        Raises:
            AudioError: it breaks off, holds non-finite samples or none. Blocks already yielded stay valid.
        """


@dataclass(frozen=True)
class Recording:
    """A file that is read block by block. It is open only while `blocks` runs; pipes alone are open before.

    Attributes:
        name: what to call it in messages and results.
        sample_rate_hz: of what `blocks` yields.
        expected_s: length that its header claims; None where unknown.
    """

    name: str
    sample_rate_hz: int
    expected_s: float | None
    _open: Callable[[], Reader] = field(repr=False, compare=False)

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples,) mono float32, about BLOCK_S each, never empty; from the beginning at every call.

        Raises:
            AudioError: the file breaks off, holds non-finite samples or none, or is there no more. Blocks already
                yielded stay valid.
        """
        count = 0
        with closing(self._open()) as reader:
            pieces = _UntilFault(_mono_pieces(reader, self.name))
            at_rate = resampled(pieces, reader.sample_rate_hz, self.sample_rate_hz)
            for block in joined(at_rate, round(BLOCK_S * self.sample_rate_hz)):
                count += 1
                yield block
        if pieces.fault:
            raise pieces.fault
        if not count:
            raise AudioError(f"{self.name}: no samples in it")


def open_recording(path: str | Path, sample_rate_hz: int) -> Recording:
    """A file to be read with its channels mixed evenly and resampled with soxr HQ.

    Raises:
        AudioError: the file is missing, a folder, unreadable or not audio.
    """
    path = Path(path)
    name = os.fsencode(path).decode(errors="replace")  # file names may hold bytes that are no text
    reader = open_reader(path, name)
    if not can_reopen(path):
        return Recording(name, sample_rate_hz, reader.expected_s, _only_once(reader, name))
    reader.close()
    return Recording(name, sample_rate_hz, reader.expected_s, partial(open_reader, path, name))


def mono(samples: np.ndarray, name: str) -> np.ndarray:
    """(samples,) or (samples, channels) float32 -> (samples,), mixed evenly.

    Raises:
        AudioError: they are not all finite.
    """
    with np.errstate(all="ignore"):
        mixed = samples if samples.ndim == 1 else samples.mean(axis=1)  # (samples,)
    if not np.isfinite(mixed).all():
        raise AudioError(f"{name}: holds values that are not numbers")
    return mixed


def resampled(pieces: Iterable[np.ndarray], source_rate_hz: int, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """(samples,) float32 pieces of any length at another rate: joined, what resampling them joined would give."""
    if source_rate_hz == sample_rate_hz:
        yield from pieces
        return
    stream = soxr.ResampleStream(source_rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def joined(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """(samples,) pieces put together until there are `size` samples; fewer at the end, but not none."""
    held: list[np.ndarray] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= size:
            yield np.concatenate(held)
            held = []
    if any(map(len, held)):
        yield np.concatenate(held)


class _UntilFault:
    """Pieces up to where their source fails, so that all of them get through what comes after."""

    def __init__(self, pieces: Iterator[np.ndarray]):
        self._pieces = pieces
        self.fault: AudioError | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            yield from self._pieces
        except AudioError as fault:
            self.fault = fault


def _mono_pieces(reader: Reader, name: str) -> Iterator[np.ndarray]:
    """(samples,) float32 at the file's own rate."""
    samples = 0
    try:
        for piece in reader.pieces():  # (samples, channels)
            yield mono(piece, name)
            samples += len(piece)
    except EOFError as error:
        done_s, expected_s = samples / reader.sample_rate_hz, reader.expected_s or 0
        done = f"{done_s:.1f} of {expected_s:.1f} s" if expected_s > done_s else f"{done_s:.1f} s"
        raise AudioError(f"{name}: broke off after {done}", "the file is damaged or incomplete") from error


def _only_once(reader: Reader, name: str) -> Callable[[], Reader]:
    """For a pipe, which cannot be opened anew."""
    readers = [reader]

    def take() -> Reader:
        if not readers:
            raise AudioError(f"{name}: has been read already, and is no file that can be read twice")
        return readers.pop()

    return take

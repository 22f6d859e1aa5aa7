"""Arithmetic on samples: number types, channels, sample rates, piece lengths. It records damage and level."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import soxr

from funasr_cli.errors import AudioError

CANCELLED_SHARE = 0.05  # channels cancel below this share of the power that mixing uncorrelated channels gives
AUDIBLE_POWER = 1e-8  # -80 dBFS
SILENT_POWER = 1e-15  # rounding noise: less than the smallest step of 24 bits
LARGEST = 1e6  # larger samples are not sound; some files hold floats in the range of int16
MEMORY = 0.5  # factor by which the running powers decay per piece of a tenth of a second
LEVEL_S = 0.4  # the level is measured over windows of this length


@dataclass
class Findings:
    """Damage and level found in a recording while it was read."""

    # (start, end) in seconds of damaged parts, which were replaced with silence; in order
    lost: list[tuple[float, float]] = field(default_factory=list)
    nonfinite: int = 0  # samples that were not numbers, or too large, on every channel; replaced with zeros
    partly_nonfinite: int = 0  # samples that were bad on some channels only; the other channels were mixed
    channel: int | None = None  # the channel, from 1, that was used alone where the channels cancel out
    power: float = 0.0  # mean power of the loudest `LEVEL_S`

    @property
    def level_dbfs(self) -> float | None:
        """Level of the loudest window relative to a full-scale square wave; None if there is no sound."""
        return round(10 * float(np.log10(self.power)), 1) if SILENT_POWER < self.power < np.inf else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings as warnings for the user."""
        texts = [
            f"{start_s:.2f}-{end_s:.2f} s: damaged: any speech there is missing" for start_s, end_s in self.lost
        ]
        if self.nonfinite:
            texts.append(f"{self.nonfinite} samples are not numbers or far too large: replaced with silence")
        if self.partly_nonfinite:
            texts.append(
                f"{self.partly_nonfinite} samples are not numbers or far too large on some channels: "
                "only the other channels were used there"
            )
        if self.channel:
            texts.append(
                f"the channels cancel each other out when mixed: only channel {self.channel} was used there; "
                "--channels split transcribes each channel"
            )
        return tuple(texts)

    def measure_level(self, block: np.ndarray, sample_rate_hz: int) -> None:
        """Measure the level of (samples,), ignoring a constant offset."""
        size = max(1, round(LEVEL_S * sample_rate_hz))
        starts = range(0, len(block), size)
        self.power = max([self.power, *(float(_power(block[start : start + size])) for start in starts)])


def _power(samples: np.ndarray) -> np.ndarray:
    """Return the mean power, ignoring an inaudible constant offset: (samples, ...) -> (...)."""
    return samples.var(axis=0, dtype=np.float64)


def as_float32(samples: np.ndarray, name: str) -> np.ndarray:
    """Convert samples to float32. Scale integers to [-1, 1); centre unsigned ones, as in 8-bit wav files.

    Raises:
        AudioError: the samples are not numbers.
    """
    if np.issubdtype(samples.dtype, np.integer):
        bounds = np.iinfo(samples.dtype)
        half = 2.0 ** (bounds.bits - 1)
        return (samples / half + (-1.0 if bounds.min == 0 else 0.0)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        reason = f"samples of type {samples.dtype} are not supported"
        raise AudioError(f"{name}: {reason}", "pass floats or integers", code="audio-array")
    with np.errstate(over="ignore"):  # values too large for float32 become infinite; `Mixer` handles those
        return samples.astype(np.float32, copy=False)


class Mixer:
    """Mixer of a recording's channels, with equal weights and piece by piece.

    Values that are not numbers are left out of the mix. If no channel has a number, the sample becomes zero.

    If the mix has almost no power although the channels have, for example because one is the inverse of the other,
    a single channel is used. It is the channel that is strongest at first, until another is much stronger.
    The decision is made for each piece from powers averaged over the last few pieces.
    """

    def __init__(self, name: str, findings: Findings):
        self._name, self._findings = name, findings
        self._total = 0  # samples so far
        self._damaged: list[tuple[int, int]] = []  # (start, end) where most samples are bad on every channel
        self._mix_power = 0.0
        self._powers = np.zeros(0)  # (channels,)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Mix (samples,) or (samples, channels) float32 into (samples,)."""
        samples = samples[:, None] if samples.ndim == 1 else samples  # (samples, channels)
        good = np.abs(samples) <= LARGEST  # False for NaN
        counts = good.sum(axis=1)  # (samples,) number of good channels
        if not good.all():
            samples = np.where(good, samples, np.float32(0))
            self._note_damage(counts, samples.shape[1])
        self._total += len(samples)
        if samples.shape[1] == 1:
            return samples[:, 0]
        mixed = samples.sum(axis=1) / np.maximum(counts, 1).astype(np.float32)  # (samples,)
        channel = self._cancelled(samples, mixed)
        return mixed if channel is None else np.ascontiguousarray(samples[:, channel])

    def _note_damage(self, counts: np.ndarray, channels: int) -> None:
        """Record the bad samples of a piece; `counts`, (samples,), is the number of good channels of each."""
        missing = int((counts == 0).sum())
        self._findings.nonfinite += missing
        self._findings.partly_nonfinite += int(((counts > 0) & (counts < channels)).sum())
        if missing * 2 > len(counts):
            start, end = self._total, self._total + len(counts)
            if self._damaged and self._damaged[-1][1] == start:
                start, _ = self._damaged.pop()
            self._damaged.append((start, end))

    def _cancelled(self, samples: np.ndarray, mixed: np.ndarray) -> int | None:
        """Return the channel to use instead of the mix, if the channels cancel each other out."""
        powers = _power(samples)  # (channels,)
        if len(powers) != len(self._powers):
            self._mix_power, self._powers = 0.0, np.zeros(len(powers))
        self._mix_power = MEMORY * self._mix_power + float(_power(mixed))
        self._powers = MEMORY * self._powers + powers
        uncorrelated = self._powers.sum() / len(powers) ** 2  # power of the mix if the channels were uncorrelated
        if self._powers.max() < AUDIBLE_POWER or self._mix_power > CANCELLED_SHARE * uncorrelated:
            return None
        known = (self._findings.channel or 0) - 1
        if not 0 <= known < len(powers) or self._powers[known] < self._powers.max() / 10:
            known = int(self._powers.argmax())
            self._findings.channel = known + 1
        return known

    @property
    def lost(self) -> list[tuple[int, int]]:
        """The (start, end) of the parts without usable samples, if most of the recording has none."""
        return self._damaged if self._findings.nonfinite * 2 > self._total else []

    def finish(self) -> None:
        """Check the whole recording, once all pieces are mixed.

        Raises:
            AudioError: most samples are not numbers on any channel.
        """
        if self.lost:
            raise AudioError(f"{self._name}: most of its samples are not numbers", code="audio-damaged")


def at_one_rate(pieces: Iterable[tuple[int, np.ndarray]], sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Resample pieces, (samples, channels) each with its rate, to one rate. The channel count may change."""
    for (rate_hz, channels), run in groupby(pieces, lambda piece: (piece[0], piece[1].shape[1])):
        columns = (piece if channels > 1 else piece[:, 0] for _, piece in run)
        for piece in resampled(columns, rate_hz, sample_rate_hz, channels):
            yield piece.reshape(-1, channels)


def resampled(
    pieces: Iterable[np.ndarray], source_rate_hz: int, sample_rate_hz: int, channels: int = 1
) -> Iterator[np.ndarray]:
    """Resample float32 pieces of any length, with the same result as resampling all of them joined.

    Pieces are (samples,), or (samples, channels) if there are several channels.
    """
    if source_rate_hz == sample_rate_hz:
        yield from pieces
        return
    stream = soxr.ResampleStream(source_rate_hz, sample_rate_hz, channels, dtype="float32", quality="HQ")
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.zeros((0, channels) if channels > 1 else 0, np.float32), last=True)


def joined(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Join (samples,) pieces into blocks of at least `size` samples; the last block may be shorter, not empty."""
    held: list[np.ndarray] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= size:
            yield np.concatenate(held)
            held = []
    if any(map(len, held)):
        yield np.concatenate(held)

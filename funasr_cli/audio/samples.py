"""Arithmetic on samples: number types, channels, sample rates, lengths of pieces; and what is noticed in them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import soxr

from funasr_cli.errors import AudioError

CANCELLED_SHARE = 0.05  # of the power that a mix of channels that do not agree has
AUDIBLE_POWER = 1e-8  # -80 dBFS
SILENT_POWER = 1e-15  # less than the smallest step of 24 bits: rounding
LARGEST = 1e6  # some files hold floats in the range of int16; what is larger is no sound
MEMORY = 0.5  # of the running powers, from piece to piece of a tenth of a second
LEVEL_S = 0.4


@dataclass
class Findings:
    """What was noticed in a recording while it was read."""

    # from, to, in seconds of the recording: what is damaged, with silence in its place; in order
    lost: list[tuple[float, float]] = field(default_factory=list)
    nonfinite: int = 0  # samples that were not numbers, or absurdly large, on every channel: they became zeros
    partly_nonfinite: int = 0  # those that were so on some channels only: the others make the mix
    # the one that was taken alone where the channels cancel each other out, the first being 1
    channel: int | None = None
    power: float = 0.0  # mean of its loudest `LEVEL_S`

    @property
    def level_dbfs(self) -> float | None:
        """Level of the loudest moment, below a full-scale square wave; None where there is no sound at all."""
        return round(10 * float(np.log10(self.power)), 1) if SILENT_POWER < self.power < np.inf else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say what was noticed in words."""
        damaged = [
            f"{start_s:.2f}-{end_s:.2f} s: damaged: what was said there is missing" for start_s, end_s in self.lost
        ]
        if self.nonfinite:
            damaged.append(f"{self.nonfinite} samples are not numbers or absurdly large: silence in their place")
        if self.partly_nonfinite:
            damaged.append(
                f"{self.partly_nonfinite} samples are not numbers or absurdly large on some channels: "
                "the others were taken there"
            )
        if self.channel:
            damaged.append(
                f"mixed, the channels cancel each other out: channel {self.channel} was taken alone there; "
                "--channels split transcribes each"
            )
        return tuple(damaged)

    def hear(self, block: np.ndarray, sample_rate_hz: int) -> None:
        """Measure how loud (samples,) are, without a constant offset."""
        size = max(1, round(LEVEL_S * sample_rate_hz))
        starts = range(0, len(block), size)
        self.power = max([self.power, *(float(_power(block[start : start + size])) for start in starts)])


def _power(samples: np.ndarray) -> np.ndarray:
    """(samples, ...) -> (...), without a constant offset, which nobody hears."""
    return samples.var(axis=0, dtype=np.float64)


def as_float32(samples: np.ndarray, name: str) -> np.ndarray:
    """Scale integers to [-1, 1); unsigned ones are centred first, as in 8-bit wav files.

    Raises:
        AudioError: they are not numbers.
    """
    if np.issubdtype(samples.dtype, np.integer):
        bounds = np.iinfo(samples.dtype)
        half = 2.0 ** (bounds.bits - 1)
        return (samples / half + (-1.0 if bounds.min == 0 else 0.0)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        reason = f"samples of type {samples.dtype}"
        raise AudioError(f"{name}: {reason}", "pass floats or integers", code="audio-array")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is treated as such
        return samples.astype(np.float32, copy=False)


class Mixer:
    """Makes one channel of a recording's pieces, evenly mixed, without values that are not numbers.

    Where one channel has such values, the mix is that of the others; where all have, it is zero.

    Where the mix has almost no power though the channels have, as of a channel and its copy upside down, one
    channel is taken: the strongest where that first happens, until it is much weaker than another. Each piece is
    decided by the powers of the last moments.
    """

    def __init__(self, name: str, findings: Findings):
        self._name, self._findings = name, findings
        self._total = 0  # samples so far
        self._damaged: list[tuple[int, int]] = []  # stretches of which most are not numbers on any channel
        self._mix_power = 0.0
        self._powers = np.zeros(0)  # (channels,)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) or (samples, channels) float32 -> (samples,)."""
        samples = samples[:, None] if samples.ndim == 1 else samples  # (samples, channels)
        good = np.abs(samples) <= LARGEST  # false for what is not a number
        counts = good.sum(axis=1)  # (samples,), of channels
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
        """Count the samples of a piece that are not numbers: `counts` of the channels, (samples,), are."""
        missing = int((counts == 0).sum())
        self._findings.nonfinite += missing
        self._findings.partly_nonfinite += int(((counts > 0) & (counts < channels)).sum())
        if missing * 2 > len(counts):
            start, end = self._total, self._total + len(counts)
            if self._damaged and self._damaged[-1][1] == start:
                start, _ = self._damaged.pop()
            self._damaged.append((start, end))

    def _cancelled(self, samples: np.ndarray, mixed: np.ndarray) -> int | None:
        """The channel to take instead of the mix."""
        powers = _power(samples)  # (channels,)
        if len(powers) != len(self._powers):
            self._mix_power, self._powers = 0.0, np.zeros(len(powers))
        self._mix_power = MEMORY * self._mix_power + float(_power(mixed))
        self._powers = MEMORY * self._powers + powers
        without_agreement = self._powers.sum() / len(powers) ** 2
        if self._powers.max() < AUDIBLE_POWER or self._mix_power > CANCELLED_SHARE * without_agreement:
            return None
        known = (self._findings.channel or 0) - 1
        if not 0 <= known < len(powers) or self._powers[known] < self._powers.max() / 10:
            known = int(self._powers.argmax())
            self._findings.channel = known + 1
        return known

    @property
    def lost(self) -> list[tuple[int, int]]:
        """From, to: where hardly a sample was a number, if so in most of the recording."""
        return self._damaged if self._findings.nonfinite * 2 > self._total else []

    def finish(self) -> None:
        """Say so if there was hardly a number in it.

        Raises:
            AudioError: most samples were none, on every channel.
        """
        if self.lost:
            raise AudioError(f"{self._name}: most of its samples are not numbers", code="audio-damaged")


def at_one_rate(pieces: Iterable[tuple[int, np.ndarray]], sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Pieces (samples, channels) with the rate of each, at one rate; the number of channels may change, too."""
    for (rate_hz, channels), run in groupby(pieces, lambda piece: (piece[0], piece[1].shape[1])):
        columns = (piece if channels > 1 else piece[:, 0] for _, piece in run)
        for piece in resampled(columns, rate_hz, sample_rate_hz, channels):
            yield piece.reshape(-1, channels)


def resampled(
    pieces: Iterable[np.ndarray], source_rate_hz: int, sample_rate_hz: int, channels: int = 1
) -> Iterator[np.ndarray]:
    """Float32 pieces of any length at another rate: joined, what resampling them joined would give.

    They are (samples,), or (samples, channels) where there are several channels.
    """
    if source_rate_hz == sample_rate_hz:
        yield from pieces
        return
    stream = soxr.ResampleStream(source_rate_hz, sample_rate_hz, channels, dtype="float32", quality="HQ")
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.zeros((0, channels) if channels > 1 else 0, np.float32), last=True)


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

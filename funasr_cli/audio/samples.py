"""Arithmetic on samples: number types, channels, sample rates, lengths of pieces."""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from funasr_cli.errors import AudioError


def as_float32(samples: np.ndarray, name: str) -> np.ndarray:
    """Integers scaled to [-1, 1); unsigned ones are centred first, as in 8-bit wav files.

    Raises:
        AudioError: they are no numbers.
    """
    if np.issubdtype(samples.dtype, np.integer):
        bounds = np.iinfo(samples.dtype)
        half = 2.0 ** (bounds.bits - 1)
        return (samples / half + (-1.0 if bounds.min == 0 else 0.0)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"{name}: samples of type {samples.dtype}", "pass floats or integers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        return samples.astype(np.float32, copy=False)


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


def resampled(
    pieces: Iterable[np.ndarray], source_rate_hz: int, sample_rate_hz: int, channels: int = 1
) -> Iterator[np.ndarray]:
    """Float32 pieces of any length at another rate: joined, what resampling them joined would give.

    Args:
        pieces: (samples,), or (samples, channels) where there are several.
        source_rate_hz: theirs.
        sample_rate_hz: that of the result.
        channels: theirs.
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

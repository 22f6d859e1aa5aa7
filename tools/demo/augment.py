"""Simulate the path from speaker to microphone: rooms, noise, gain. Also SpecAugment on features."""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve, lfilter

from .speak import SAMPLE_RATE_HZ

ROOM_SHARE, BAND_SHARE, NOISE_SHARE = 0.25, 0.08, 0.75
SNR_DB = (3.0, 35.0)
PEAK = (0.05, 0.95)


def distort(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add silence, a room, band limits, noise and gain at random: (samples,) -> (more samples,)."""
    samples, _ = surround(samples, rng)
    if rng.random() < ROOM_SHARE:
        samples = add_room(samples, rng)
    if rng.random() < BAND_SHARE:
        samples = fftconvolve(samples, _telephone_taps(), mode="same").astype(np.float32)
    if rng.random() < NOISE_SHARE:
        samples = add_noise(samples, rng.uniform(*SNR_DB), rng)
    return set_peak(samples, float(np.exp(rng.uniform(*np.log(PEAK)))))


def surround(samples: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Pad with 0.05 to 0.4 s of silence before and 0.1 to 0.4 s after: (more samples, seconds before)."""
    before, after = (int(rng.uniform(low, 0.4) * SAMPLE_RATE_HZ) for low in (0.05, 0.1))
    return np.pad(samples, (before, after)), before / SAMPLE_RATE_HZ


def add_room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation: decaying noise of 0.1 to 0.4 s as impulse response, 3 to 15 dB below the direct sound."""
    seconds = rng.uniform(0.1, 0.4)
    n = int(seconds * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / n)
    response = tail * 10 ** (-rng.uniform(3, 15) / 20) / np.sqrt(np.sum(tail**2))
    response[0] = 1.0
    return fftconvolve(samples, response)[: len(samples)].astype(np.float32)


def add_noise(samples: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Add coloured noise at `snr_db` relative to the power of the speech, not counting the silence around it."""
    noise = rng.standard_normal(len(samples))
    colour = rng.uniform(-0.5, 0.98)  # coefficient of a one-pole filter: from bright through white to brown noise
    noise = lfilter([1.0], [1.0, -colour], noise)
    if rng.random() < 0.4:  # slowly varying level
        cycles = rng.uniform(0.3, 4) * np.arange(len(samples)) / SAMPLE_RATE_HZ
        noise *= 1 + rng.uniform(0.2, 0.9) * np.sin(2 * np.pi * (cycles + rng.random()))
    if rng.random() < 0.2:  # mains hum
        phase = 2 * np.pi * rng.choice((50, 60, 100, 120)) * np.arange(len(samples)) / SAMPLE_RATE_HZ
        noise = noise / noise.std() + rng.uniform(0.3, 1.5) * np.sin(phase)
    level = np.sqrt(speech_power(samples) / max(float(np.mean(noise**2)), 1e-12)) * 10 ** (-snr_db / 20)
    return (samples + level * noise).astype(np.float32)


def speech_power(samples: np.ndarray) -> float:
    """Return the mean power of the 20 ms frames within 30 dB of the loudest."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    power = np.mean(frames**2, axis=1)
    return float(power[power >= power.max() / 1000].mean())


def set_peak(samples: np.ndarray, peak: float) -> np.ndarray:
    """Scale to a largest absolute value of `peak`."""
    return samples * np.float32(peak / max(float(np.abs(samples).max()), 1e-6))


def mask_features(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply SpecAugment and gain to log-mel features (frames, 80). Masked areas get the clip's mean."""
    features = features + np.float32(rng.uniform(-1.5, 1.5))
    mean = features.mean()
    for _ in range(rng.integers(0, 3)):
        width, start = rng.integers(1, 13), rng.integers(0, 74)
        features[:, start : start + width] = mean
    for _ in range(rng.integers(0, 3)):
        width, start = rng.integers(1, 9), rng.integers(0, len(features))
        features[start : start + width] = mean
    return features


def _telephone_taps() -> np.ndarray:
    """Return the taps of a band-pass filter from 300 to 3,400 Hz: (255,)."""
    t = np.arange(-127, 128)
    low, high = 2 * 300 / SAMPLE_RATE_HZ, 2 * 3400 / SAMPLE_RATE_HZ
    return (high * np.sinc(high * t) - low * np.sinc(low * t)) * np.hamming(255)

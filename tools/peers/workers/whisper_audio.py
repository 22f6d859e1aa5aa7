"""Read WAV files for the programs that run Whisper, so that none of them needs ffmpeg."""

from __future__ import annotations

import wave

import numpy as np


def read_wav(path: str) -> np.ndarray:
    """Return the samples (samples,) float32 of a mono file of 16 bits at 16 kHz."""
    with wave.open(path) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return samples.astype(np.float32) / 32768

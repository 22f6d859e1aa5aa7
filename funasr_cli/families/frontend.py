"""Common part of all models with filter bank features: from audio samples to feature rows."""

import numpy as np
import soxr

from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.errors import AudioError
from funasr_cli.families.base import BaseModel
from funasr_cli.families.family import LoadedModel
from funasr_cli.features.fbank import MIN_SAMPLES, Frontend


class FilterBankModel(BaseModel):
    """Base class of speech models with filter bank features: their front end."""

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded)
        self.frontend = Frontend(self.config.frontend)

    def at_model_rate(self, samples: np.ndarray) -> np.ndarray:
        """Resample (samples,) from `sample_rate_hz` to the rate in the model's configuration, such as 8 kHz."""
        rate_hz = self.frontend.config.sample_rate_hz
        return samples if rate_hz == SAMPLE_RATE_HZ else soxr.resample(samples, SAMPLE_RATE_HZ, rate_hz)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Compute features (rows, row width) of (samples,) at `sample_rate_hz`.

        Raises:
            AudioError: the audio is too short for a single row.
        """
        samples = self.at_model_rate(samples)
        if len(samples) < MIN_SAMPLES:
            raise AudioError("too short to be encoded", code="audio-too-short")
        return np.array(self.frontend(samples))

"""What models that hear filter banks have in common: from a recording's samples to their encoder's rows."""

import numpy as np
import soxr

from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.errors import AudioError
from funasr_cli.features.fbank import MIN_SAMPLES, Frontend, FrontendConfig


class FilterBankModel:
    """The front end of a model, for a `SpeechModel` to derive from."""

    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, config: FrontendConfig):
        self.frontend = Frontend(config)

    def at_model_rate(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at `sample_rate_hz` -> the same at the rate that the model states, 8 kHz for telephones."""
        rate_hz = self.frontend.config.sample_rate_hz
        return samples if rate_hz == SAMPLE_RATE_HZ else soxr.resample(samples, SAMPLE_RATE_HZ, rate_hz)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at `sample_rate_hz` -> (rows, row width); an `AudioError` where they make none."""
        samples = self.at_model_rate(samples)
        if len(samples) < MIN_SAMPLES:
            raise AudioError("too short to be encoded", code="audio-too-short")
        return np.array(self.frontend(samples))

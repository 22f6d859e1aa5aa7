"""What all loaded speech models have in common: their description, network and configuration."""

import numpy as np

from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.errors import ModelError
from funasr_cli.families.family import LoadedModel
from funasr_cli.options import DEFAULTS, TranscribeOptions


class BaseModel:
    """Base class of loaded speech models, with the attributes of a `SpeechModel` that loading sets."""

    sample_rate_hz = SAMPLE_RATE_HZ
    window_s: float | None = None

    def __init__(self, loaded: LoadedModel):
        self.name, self.weights_type, self.engine = loaded.name, loaded.weights_type, loaded.engine
        self.parameters, self.native_bytes = loaded.parameters, loaded.native_bytes
        self.network, self.config = loaded.network, loaded.file.config
        self.capabilities = loaded.family.capabilities(self.config)

    def read_ctc(self, samples: np.ndarray, options: TranscribeOptions = DEFAULTS) -> CTCReading:
        """Return the CTC output for (samples,); raise a `ModelError`, unless the model has one."""
        raise ModelError(f"{self.name} has no CTC output", "use another model", code="ctc-missing")

"""The interface of models that describe a voice by a vector, an embedding."""

from typing import Protocol

import numpy as np

from funasr_cli.speech_model import Trace


class SpeakerModel(Protocol):
    """A loaded model. Embeddings of one voice have a higher cosine than those of two."""

    name: str  # name of the checkpoint that it was converted from
    sample_rate_hz: int

    def embed(self, clips: np.ndarray) -> np.ndarray:
        """Return embeddings (clips, width) float32, not normalised, of `clips` (clips, samples) of equal length.

        Raises:
            AudioError: the clips are too short.
        """

    def trace(self) -> Trace:
        """Embed a bundled clip, for comparing two conversions of a model."""

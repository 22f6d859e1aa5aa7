"""CAM++, ready to describe voices; see `SpeakerModel`.

Source: FunASR ``funasr/models/campplus/utils.py`` (``extract_feature``): Kaldi's filter bank of samples in
[-1, 1], not in the range of int16, minus the mean of each bin over the clip.
"""

import numpy as np

from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.compute.backend import mx
from funasr_cli.errors import AudioError
from funasr_cli.families.campplus.config import SAMPLE_RATE_HZ, CAMPPlusConfig
from funasr_cli.families.family import LoadedModel
from funasr_cli.features.fbank import INT16_SCALE, Frontend
from funasr_cli.speech_model import Trace

MOST_CLIPS = 8  # of a batch
SHORTEST_S = 0.035  # two frames after the stride: the deviation of one is not a number


class CAMPPlusModel:
    """The model. Clips of a call are computed in batches."""

    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, loaded: LoadedModel):
        self.name, self.network = loaded.name, loaded.network
        config: CAMPPlusConfig = loaded.file.config
        self._frontend = Frontend(config.frontend)
        self._is_mlx = not loaded.native

    def features(self, clip: np.ndarray) -> mx.array:
        """Compute the features (frames, bins) of a clip (samples,)."""
        bins = self._frontend.filter_bank(clip / INT16_SCALE)  # a power of two, so this is exact
        return bins - bins.mean(axis=0)

    def embed(self, clips: np.ndarray) -> np.ndarray:
        """Return the embeddings (clips, width) of clips (clips, samples)."""
        if clips.shape[1] < SHORTEST_S * SAMPLE_RATE_HZ:
            shortest_ms = SHORTEST_S * 1000
            raise AudioError(f"shorter than {shortest_ms:.0f} ms, too short for a voice", code="audio-too-short")
        found = []
        for first in range(0, len(clips), MOST_CLIPS):
            with mx.stream(mx.cpu):
                features = mx.stack([self.features(clip) for clip in clips[first : first + MOST_CLIPS]])
            found.append(np.array(self.network(features if self._is_mlx else np.array(features))))
        return np.concatenate(found)

    def trace(self) -> Trace:
        """Embed a bundled clip."""
        clip = load_audio(demo.clips()[0].path, SAMPLE_RATE_HZ).samples
        return Trace({}, self.embed(clip[None]), (), "")

"""The network of Whisper. Attribute names are mlx-whisper's keys."""

from collections.abc import Sequence

import numpy as np

from funasr_cli.compute.backend import nn
from funasr_cli.families.batches import Frames, on_windows
from funasr_cli.families.whisper.config import WhisperConfig
from funasr_cli.models.whisper_decoder import WhisperDecoder
from funasr_cli.models.whisper_encoder import WhisperEncoder
from funasr_cli.native.whisper import NativeWhisperDecoder, NativeWhisperEncoder


class Whisper(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.encoder: WhisperEncoder | NativeWhisperEncoder = WhisperEncoder(config.encoder)
        self.decoder: WhisperDecoder | NativeWhisperDecoder = WhisperDecoder(config.decoder)

    def encode(self, features: Sequence[np.ndarray]) -> list[Frames]:
        """Run the encoder over windows: (3,000, mel bins) -> (1,500, width) for each."""
        return on_windows(self.encoder, features)

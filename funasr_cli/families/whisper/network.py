"""The network of Whisper. Attribute names are mlx-whisper's keys."""

from funasr_cli.compute.backend import nn
from funasr_cli.families.whisper.config import WhisperConfig
from funasr_cli.models.whisper_decoder import WhisperDecoder
from funasr_cli.models.whisper_encoder import WhisperEncoder


class Whisper(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.encoder = WhisperEncoder(config.encoder)
        self.decoder = WhisperDecoder(config.decoder)

"""Configuration of CAM++. All releases have the same sizes, which are FunASR's defaults.

Source: FunASR ``funasr/models/campplus/model.py`` (``CAMPPlus``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from funasr_cli.features.fbank import FrontendConfig

SAMPLE_RATE_HZ = 16000


@dataclass(frozen=True)
class CAMPPlusConfig:
    """Configuration of the network."""

    mel_bins: int = 80
    embedding_size: int = 192

    @property
    def frontend(self) -> FrontendConfig:
        """The features, which no file of the releases states."""
        return FrontendConfig(SAMPLE_RATE_HZ, "povey", self.mel_bins, 25, 10, 1, 1)


def misfits(config: CAMPPlusConfig) -> Iterator[str]:
    """Report inconsistent values of a configuration whose numbers are in range."""
    if config.mel_bins % 8:
        yield f"{config.mel_bins} bins cannot be divided by 8"

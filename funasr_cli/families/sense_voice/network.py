"""The network of SenseVoiceSmall: a query embedding table, a SAN-M encoder and a CTC head.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall.inference``). What differs: each row of a
batch has its own queries.
"""

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.families.batches import Frames, on_clips
from funasr_cli.families.sense_voice.config import QUERY_ROWS, SenseVoiceConfig
from funasr_cli.models.ctc import CTCHead
from funasr_cli.models.layers import embedding
from funasr_cli.models.sanm import SANMEncoder
from funasr_cli.native.networks import NativeCTCHead, NativeSANM


class SenseVoice(nn.Module):
    """The whole network. Attribute names are the checkpoint's keys."""

    def __init__(self, config: SenseVoiceConfig):
        super().__init__()
        self.encoder: SANMEncoder | NativeSANM = SANMEncoder(config.encoder)
        self.ctc: CTCHead | NativeCTCHead = CTCHead(config.encoder.width, config.vocab_size)
        self.embed = embedding(QUERY_ROWS, config.encoder.input_dim)
        self.config = config

    def encode(self, features: list[np.ndarray], queries: list[tuple[int, ...]]) -> list[Frames]:
        """Run the encoder over a batch.

        Args:
            features: (rows, row width) for each clip.
            queries: rows of the query table for each clip.

        Returns:
            (`QUERIES` + rows, encoder width) for each clip.
        """
        embedded = np.array(self.embed(mx.array(queries)).astype(mx.float32))  # (batch, QUERIES, row width)
        pairs = zip(embedded, features, strict=True)
        hidden = on_clips(self.encoder, [np.concatenate([query, rows]) for query, rows in pairs])
        mx.eval(hidden)
        return hidden

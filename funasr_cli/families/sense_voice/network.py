"""The network of SenseVoiceSmall: a query embedding table, a SAN-M encoder and a CTC head.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall.inference``). What differs: each row of a
batch has its own queries.
"""

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.decoding.mlx_batch import right_pad
from funasr_cli.families.sense_voice.config import QUERIES, QUERY_ROWS, SenseVoiceConfig
from funasr_cli.models.ctc import CTCHead
from funasr_cli.models.layers import batch_lengths, embedding
from funasr_cli.models.sanm import SANMEncoder


class SenseVoice(nn.Module):
    """The whole network. Attribute names are the checkpoint's keys."""

    def __init__(self, config: SenseVoiceConfig):
        super().__init__()
        self.encoder = SANMEncoder(config.encoder)
        self.ctc = CTCHead(config.encoder.width, config.vocab_size)
        self.embed = embedding(QUERY_ROWS, config.encoder.input_dim)
        self.config = config

    def encode(self, features: list[np.ndarray], queries: list[tuple[int, ...]]) -> list[mx.array]:
        """Run the encoder over a batch, right-padded with zeros.

        Args:
            features: (rows, row width) for each clip.
            queries: rows of the query table for each clip.

        Returns:
            (`QUERIES` + rows, encoder width) for each clip.
        """
        embedded = self.embed(mx.array(queries)).astype(mx.float32)  # (batch, QUERIES, row width)
        pairs = zip(embedded, features, strict=True)
        batch = right_pad([mx.concatenate([query, mx.array(rows)]) for query, rows in pairs])
        lengths = [QUERIES + len(rows) for rows in features]
        hidden = self.encoder(batch, batch_lengths(lengths, batch.shape[1]))  # (batch, frames, encoder width)
        mx.eval(hidden)
        return [row[:length] for row, length in zip(hidden, lengths, strict=True)]

"""The networks of SenseVoiceSmall, composed: a table of queries, a SAN-M encoder and a CTC head.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall.inference``). What differs: each row of a
batch has queries of its own.
"""

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.decoding.batch import bucketed
from funasr_cli.families.sense_voice.config import QUERIES, QUERY_ROWS, SenseVoiceConfig
from funasr_cli.models.ctc import CTCHead
from funasr_cli.models.layers import batch_lengths, embedding
from funasr_cli.models.sanm import SANMEncoder


class SenseVoice(nn.Module):
    """The composed model. Attribute names are the checkpoint's keys."""

    def __init__(self, config: SenseVoiceConfig):
        super().__init__()
        self.encoder = SANMEncoder(config.encoder)
        self.ctc = CTCHead(config.encoder.width, config.vocab_size)
        self.embed = embedding(QUERY_ROWS, config.encoder.input_dim)
        self.config = config

    def encode(self, features: list[np.ndarray], queries: list[tuple[int, ...]]) -> list[mx.array]:
        """Run the encoder over a batch, right-padded with zeros.

        (rows, row width) and the rows of its queries each -> (`QUERIES` + rows, encoder width) each.
        """
        lengths = [QUERIES + len(rows) for rows in features]
        frames = bucketed(max(lengths))
        audio = np.zeros((len(features), frames - QUERIES, features[0].shape[1]), np.float32)
        for row, rows in zip(audio, features, strict=True):
            row[: len(rows)] = rows
        asked = self.embed(mx.array(queries)).astype(mx.float32)  # (batch, QUERIES, row width)
        batch = mx.concatenate([asked, mx.array(audio)], axis=1)  # (batch, frames, row width)
        hidden = self.encoder(batch, batch_lengths(lengths, frames))
        mx.eval(hidden)
        return [row[:length] for row, length in zip(hidden, lengths, strict=True)]

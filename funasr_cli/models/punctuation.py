"""CT-Transformer: the punctuation mark after each token of a text, by a SAN-M encoder without causal mask.

Source: FunASR ``funasr/models/ct_transformer/model.py`` (``CTTransformer.punc_forward``); Chen et al. 2020,
"Controllable Time-Delay Transformer for Real-Time Punctuation Prediction and Disfluency Detection". What differs:
the embedding table is not part of the computation: the caller looks its rows up.
"""

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.layers import embedding, linear
from funasr_cli.models.sanm import PlainSANMEncoder, SANMConfig


class CTTransformer(nn.Module):
    """The network. Attribute names are the checkpoint's keys; ``embed`` only has a place for the table."""

    def __init__(self, config: SANMConfig, entries: int, labels: int):
        super().__init__()
        self.embed = embedding(entries, config.input_dim)
        self.encoder = PlainSANMEncoder(config)
        self.decoder = linear(config.width, labels)

    def __call__(self, embedded: mx.array, lengths: mx.array | None = None) -> mx.array:
        """Compute logits (batch, tokens, labels) of `embedded` (batch, tokens, width) float32.

        `lengths` (batch,) holds the number of tokens in each right-padded row; None if no row is padded.
        """
        return self.decoder(self.encoder(embedded, lengths))

"""The network of Fun-ASR-Nano: SAN-M encoder, adaptor, Qwen3 decoder and, in some checkpoints, a CTC branch.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``FunASRNano``).
"""

from funasr_cli.compute.backend import mx, nn
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig
from funasr_cli.models.adaptor import Adaptor, audio_token_count
from funasr_cli.models.ctc import CTCHead
from funasr_cli.models.layers import batch_lengths
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.models.sanm import SANMEncoder
from funasr_cli.native.decoder import NativeDecoder


class FunASRNano(nn.Module):
    """The whole network. Attribute names are the checkpoint's keys."""

    def __init__(self, config: FunASRNanoConfig):
        super().__init__()
        self.audio_encoder = SANMEncoder(config.encoder)
        self.audio_adaptor = Adaptor(config.adaptor)
        self.llm: Qwen3 | NativeDecoder = Qwen3(config.llm)
        if config.ctc is not None:
            self.ctc_decoder = Adaptor(config.ctc.decoder)
            self.ctc = CTCHead(config.ctc.decoder.output_dim, config.ctc.vocab_size)
        self.config = config

    def audio_embeddings(self, encoded: mx.array, lengths: list[int]) -> list[mx.array]:
        """Compute the embeddings of the audio in the prompt, in the decoder's type.

        `encoded` is (batch, frames, encoder width), and `lengths` has the number of valid frames in each row.

        Returns:
            An (audio tokens, hidden) array for each row.
        """
        adapted = self.audio_adaptor(encoded, batch_lengths(lengths, encoded.shape[1]))
        adapted = adapted.astype(self.llm.dtype)
        counts = [audio_token_count(length, self.config.adaptor) for length in lengths]
        return [adapted[row, :count] for row, count in enumerate(counts)]

    def ctc_hidden(self, encoded: mx.array, lengths: list[int]) -> mx.array:
        """Compute the input of the CTC head, (batch, frames, CTC width), from (batch, frames, encoder width)."""
        return self.ctc_decoder(encoded, batch_lengths(lengths, encoded.shape[1]))

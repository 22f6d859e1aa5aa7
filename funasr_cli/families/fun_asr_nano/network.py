"""The network of Fun-ASR-Nano: SAN-M encoder, adaptor, Qwen3 decoder and, in some checkpoints, a CTC branch.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``FunASRNano``).
"""

from collections.abc import Sequence

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.families.batches import Frames, on_clips
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig
from funasr_cli.models.adaptor import Adaptor, audio_token_count
from funasr_cli.models.ctc import CTCHead
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.models.sanm import SANMEncoder
from funasr_cli.native.networks import NativeAdaptor, NativeCTCHead, NativeSANM
from funasr_cli.native.qwen3 import NativeQwen3


class FunASRNano(nn.Module):
    """The whole network. Attribute names are the checkpoint's keys."""

    def __init__(self, config: FunASRNanoConfig):
        super().__init__()
        self.audio_encoder: SANMEncoder | NativeSANM = SANMEncoder(config.encoder)
        self.audio_adaptor: Adaptor | NativeAdaptor = Adaptor(config.adaptor)
        self.llm: Qwen3 | NativeQwen3 = Qwen3(config.llm)
        if config.ctc is not None:
            self.ctc_decoder: Adaptor | NativeAdaptor = Adaptor(config.ctc.decoder)
            self.ctc: CTCHead | NativeCTCHead = CTCHead(config.ctc.decoder.output_dim, config.ctc.vocab_size)
        self.config = config

    def encode(self, features: Sequence[np.ndarray]) -> list[Frames]:
        """Run the encoder over a batch: (rows, row width) -> (frames, encoder width) for each clip."""
        encoded = on_clips(self.audio_encoder, features)
        mx.eval(encoded)
        return encoded

    def audio_embeddings(self, encoded: Sequence[Frames]) -> list[mx.array]:
        """Compute the embeddings of the audio in the prompt, in the decoder's type.

        (frames, encoder width) -> (audio tokens, hidden) for each clip.
        """
        adapted = on_clips(self.audio_adaptor, encoded, self.config.adaptor.downsample)
        counts = [audio_token_count(len(frames), self.config.adaptor) for frames in encoded]
        return [mx.array(row[:count]).astype(self.llm.dtype) for row, count in zip(adapted, counts, strict=True)]

    def ctc_hidden(self, encoded: Sequence[Frames]) -> list[Frames]:
        """Compute the input of the CTC head: (frames, encoder width) -> (frames, CTC width) for each clip."""
        return on_clips(self.ctc_decoder, encoded)

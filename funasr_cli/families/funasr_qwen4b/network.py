"""The network of FunASR-Qwen4B: SAN-M encoder, post-norm adaptor, Qwen3 decoder.

Source: OminiX-MLX ``funasr-qwen4b-mlx/src/model.rs``; for the queries, FunASR
``funasr/models/sense_voice/model.py``.
"""

from collections.abc import Sequence

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.families.batches import Frames, on_clips
from funasr_cli.families.funasr_qwen4b.config import QUERIES, QUERY_ROWS, FunASRQwen4BConfig
from funasr_cli.models.layers import embedding
from funasr_cli.models.post_norm import PostNormAdaptor
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.models.sanm import SANMEncoder, UnscaledSANMEncoder
from funasr_cli.native.networks import NativePostNormAdaptor, NativeSANM
from funasr_cli.native.qwen3 import NativeQwen3


class FunASRQwen4B(nn.Module):
    """The whole network."""

    def __init__(self, config: FunASRQwen4BConfig):
        super().__init__()
        encoder = SANMEncoder if config.has_queries else UnscaledSANMEncoder
        self.audio_encoder: SANMEncoder | NativeSANM = encoder(config.encoder)
        self.audio_adaptor: PostNormAdaptor | NativePostNormAdaptor = PostNormAdaptor(config.adaptor)
        self.llm: Qwen3 | NativeQwen3 = Qwen3(config.llm)
        if config.has_queries:
            self.embed = embedding(QUERY_ROWS, config.encoder.input_dim)
        self.config = config

    def encode(self, features: Sequence[np.ndarray]) -> list[Frames]:
        """Run the encoder over a batch: (rows, row width) -> (frames, encoder width) for each clip.

        There are as many frames as rows, after one for each of `QUERIES` if the model has these.
        """
        if self.config.has_queries:
            queries = np.array(self.embed(mx.array(QUERIES)).astype(mx.float32))  # (queries, row width)
            features = [np.concatenate([queries, rows]) for rows in features]
        encoded = on_clips(self.audio_encoder, features)
        mx.eval(encoded)
        return encoded

    def audio_embeddings(self, encoded: Sequence[Frames]) -> list[mx.array]:
        """Compute the embeddings of the audio in the prompt, in the decoder's type.

        (frames, encoder width) -> (frames, hidden) for each clip.
        """
        return [mx.array(row).astype(self.llm.dtype) for row in on_clips(self.audio_adaptor, encoded)]

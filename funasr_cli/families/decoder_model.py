"""Common part of models whose decoder is a Qwen3 that reads a prompt of text and audio embeddings."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from funasr_cli.checkpoints.format import TOKENIZER_FILE
from funasr_cli.checkpoints.vocabularies import read_tokenizer
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.families.batches import Frames
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.frontend import FilterBankModel
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import EncodedAudio, Trace


class DecoderModel(FilterBankModel):
    """A loaded model, with a method for each stage; see `SpeechModel`. Rows of a batch are independent.

    Its network has the methods `encode` and `audio_embeddings`, and its decoder as `llm`.
    """

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded)
        self.loaded = loaded
        self.tokenizer = read_tokenizer(loaded.files[TOKENIZER_FILE], self.config.llm.vocab_size)

    @abstractmethod
    def prompts(
        self, encoded: Sequence[Frames], options: TranscribeOptions, first: list[bool] | None = None
    ) -> list[mx.array]:
        """Return the decoder's input, (length, hidden) embeddings for each clip: text, audio, text.

        ``first`` marks the rows that are the first of their recordings; None marks all of them.
        """

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,) at `sample_rate_hz`; raise an `AudioError` if they are too few."""
        encoded = self.encoded([self.features(samples)])
        [frames], [embeddings] = encoded, self.network.audio_embeddings(encoded)
        mx.eval(embeddings := mx.array(embeddings))
        return EncodedAudio(mx.array(frames), embeddings, self.config.frontend.row_duration_s)

    def trace(
        self, samples: np.ndarray, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
    ) -> Trace:
        """Run (samples,) through the model as one segment, up to `options.max_tokens` tokens."""
        features = self.features(samples)
        encoded = self.encoded([features])
        llm, stops = self.network.llm, self.config.stop_token_ids
        [embeddings] = self.network.audio_embeddings(encoded)
        [prompt] = self.prompts(encoded, options)
        decoder = BatchDecoder(llm, make_sampler(options))
        decoder.add([prompt])
        written: list[int] = []
        while len(written) != options.max_tokens and not (written and written[-1] in stops):
            written += [token.token_id for token in decoder.step()]
        forced = forced_ids or written
        columns = mx.concatenate([prompt, self._embedded(forced[:-1])])  # (columns, hidden)
        return Trace(
            stages={
                "features": features,
                "encoder": np.array(encoded[0]),
                "audio_embeddings": np.array(embeddings.astype(mx.float32)),
            },
            logits=np.array(llm.logits_after(columns, len(forced))),  # (steps, vocab)
            token_ids=tuple(written),
            text=self.tokenizer.decode([token_id for token_id in written if token_id not in stops]),
        )

    def encoded(self, features: list[np.ndarray]) -> list[Frames]:
        """Run the encoder over a batch: (rows, row width) -> (frames, encoder width) for each clip."""
        return self.network.encode(features)

    def _embedded(self, ids: Sequence[int]) -> mx.array:
        """Look up (tokens, hidden) embeddings of the decoder."""
        return mx.array(self.network.llm.embed(mx.array(ids, mx.int32)))

    def token_ids(self, text: str) -> list[int]:
        """Encode a text as the decoder's tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def spell(self, token_ids: list[int]) -> str:
        """Decode the decoder's tokens to text, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

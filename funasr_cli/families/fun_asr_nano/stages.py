"""The stages of a loaded model: samples to features, encoder, CTC branch and prompt; tokens to text."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import soxr

from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.batch import bucketed
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.errors import ModelError
from funasr_cli.families.fun_asr_nano.prompt import prompt_token_ids
from funasr_cli.features.fbank import Frontend
from funasr_cli.models.layers import batch_lengths
from funasr_cli.options import TranscribeOptions

NO_CTC_HINT = "Hugging Face's files leave it out: convert the model again with --hub ms"


@dataclass
class Encoded:
    """A batch behind the encoder."""

    hidden: mx.array  # (batch, frames, encoder width)
    lengths: list[int]


class Stages:
    """What a loaded model computes, stage by stage, of batches whose rows do not depend on each other."""

    def __init__(self, model: Any):
        loaded = model.loaded
        self.loaded: Any = SimpleNamespace(
            model=model.network, tokenizer=model.tokenizer, ctc_vocabulary=model.ctc_vocabulary, file=loaded.file,
            folder=loaded.folder, dtype=loaded.dtype, name=loaded.name, weights_type=loaded.weights_type,
        )  # fmt: skip
        self.config = loaded.file.config
        self.frontend = Frontend(self.config.frontend)

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate that recordings must have, whatever the model's own is."""
        return SAMPLE_RATE_HZ

    @property
    def has_ctc(self) -> bool:
        """Whether the model has a CTC branch, without which words have no times."""
        return self.loaded.ctc_vocabulary is not None and self.config.ctc is not None

    def refuse_missing_word_times(self) -> None:
        """Refuse, with a `ModelError`, a model that cannot tell the times of words."""
        if not self.has_ctc:
            message = f"{self.loaded.name}: no word times without a CTC branch"
            raise ModelError(message, NO_CTC_HINT, code="ctc-missing")

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at `sample_rate_hz` -> (rows, row width)."""
        return np.array(self.frontend(self.at_model_rate(samples)))

    def at_model_rate(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at `sample_rate_hz` -> the same at the rate that the model states, 8 kHz for telephones."""
        rate_hz = self.config.frontend.sample_rate_hz
        return samples if rate_hz == SAMPLE_RATE_HZ else soxr.resample(samples, SAMPLE_RATE_HZ, rate_hz)

    def encode(self, features: list[np.ndarray]) -> Encoded:
        """Run the encoder over a right-padded batch of (rows, row width) each."""
        lengths = [len(rows) for rows in features]
        frames = bucketed(max(lengths))
        batch = np.zeros((len(features), frames, features[0].shape[1]), np.float32)
        for row, rows in zip(batch, features, strict=True):
            row[: len(rows)] = rows
        hidden = self.loaded.model.audio_encoder(mx.array(batch), batch_lengths(lengths, frames))
        mx.eval(hidden)
        return Encoded(hidden, lengths)

    def prompts(
        self, encoded: Encoded, options: TranscribeOptions, first: list[bool] | None = None
    ) -> list[mx.array]:
        """Embeddings that the decoder reads: (length, hidden) a row, audio between the two pieces of text.

        ``first`` tells which rows are the first of their recordings; None takes all of them for that.
        """
        model, prompt, tokenizer = self.loaded.model, self.config.prompt, self.loaded.tokenizer
        audio_embeddings = model.audio_embeddings(encoded.hidden, encoded.lengths)
        first = first or [True] * len(audio_embeddings)
        texts = {}  # (tokens, hidden) in front of the audio embeddings and behind them
        for is_first in set(first):
            ids = prompt_token_ids(options, prompt, tokenizer, first=is_first)
            texts[is_first] = [model.llm.embed(mx.array(part)) for part in ids]
        return [
            mx.concatenate([texts[is_first][0], audio, texts[is_first][1]])
            for audio, is_first in zip(audio_embeddings, first, strict=True)
        ]

    def read_ctc(self, encoded: Encoded) -> list[CTCReading]:
        """What the CTC branch makes of each row; a `ModelError` where there is none."""
        vocabulary, ctc, model = self.loaded.ctc_vocabulary, self.config.ctc, self.loaded.model
        if vocabulary is None or ctc is None:
            raise ModelError(f"{self.loaded.name}: has no CTC branch", NO_CTC_HINT, code="ctc-missing")
        hidden = model.ctc_hidden(encoded.hidden, encoded.lengths)  # (batch, frames, CTC width)
        frame_s = self.config.frontend.row_duration_s
        return [
            CTCReading(model.ctc, row[:length], vocabulary, ctc.blank_id, frame_s)
            for row, length in zip(hidden, encoded.lengths, strict=True)
        ]

    def token_ids(self, text: str) -> list[int]:
        """The decoder's tokens of a text."""
        return self.loaded.tokenizer.encode(text, add_special_tokens=False).ids

    def spell(self, token_ids: list[int]) -> str:
        """Text of the decoder's tokens."""
        return self.loaded.tokenizer.decode(token_ids, skip_special_tokens=True)

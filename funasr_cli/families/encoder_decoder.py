"""Common part of encoder-decoders: models whose decoder attends to the encoder's rows by cross-attention."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.cross_attention import token_rows
from funasr_cli.decoding.rules import Exclusion
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.families.base import BaseModel
from funasr_cli.families.windows import ROW_OPTIONS, WindowSession, Witness
from funasr_cli.languages import resolve_language
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.speech_model import EncodedAudio, Trace
from funasr_cli.vocabulary import TimedVocabulary

HEADS_AT_ONCE = 64  # whose attention is kept: 1.3 MB each for a long text; all known sizes have fewer


class EncoderDecoderModel(BaseModel, ABC):
    """A loaded model, with a method for each stage; see `SpeechModel`.

    Its network has the method `encode`, and its decoder as `decoder`, whose `memory` is what a row attends to. Its
    configuration states `encoder.positions`, `decoder.positions` and `alignment_heads`, which follow the speech.
    """

    row_options = ROW_OPTIONS
    row_s: float  # from one row of the encoder to the next
    vocabulary: TimedVocabulary

    @abstractmethod
    def features(self, samples: np.ndarray) -> np.ndarray:
        """Compute features (frames, bins) of (samples,); raise an `AudioError` if they are none or too many."""

    @abstractmethod
    def listen(self, memory: Sequence[Any], options: TranscribeOptions) -> list[Witness]:
        """Return each row's language, as requested or as detected, and its probability of no speech.

        ``memory`` is what each row attends to, as the decoder's `memory` gives it.
        """

    @abstractmethod
    def prompt_ids(
        self, options: TranscribeOptions, language: str, *, first: bool = True, translate: bool = False
    ) -> list[int]:
        """Return the tokens that a text in this language, or its translation into English, begins with.

        Raises:
            UsageError: the text before the recording does not fit.
        """

    @abstractmethod
    def rules(self, options: TranscribeOptions) -> Exclusion:
        """Return the rules on logits."""

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> None:
        """Return None: the prompt consists of tokens. Raise a `UsageError` as `prompt_ids` does."""
        self.prompt_ids(options, self.capabilities.languages[0], first=first)

    def detects(self, options: TranscribeOptions) -> bool:
        """Return whether the model finds the language itself."""
        able = self.capabilities
        return able.language_found and resolve_language(options.language, able.languages) is None

    @property
    def most_tokens(self) -> int:
        """Largest number of tokens of a text: half of the decoder's positions."""
        positions: int = self.config.decoder.positions
        return positions // 2

    def session(self, options: TranscribeOptions) -> WindowSession:
        """Begin a run; raise a `UsageError` for a language or a text before the recording that cannot be used."""
        return WindowSession(self, options)

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over one window of (samples,); return the rows of the clip itself."""
        [encoded] = self.network.encode([self.features(samples)])
        return EncodedAudio(mx.array(encoded[: self.rows_of(samples)]), None, self.row_s)

    def rows_of(self, samples: np.ndarray) -> int:
        """Return how many of the encoder's rows belong to the clip itself, not to its padding."""
        return max(1, round(len(samples) / self.sample_rate_hz / self.row_s))

    def trace(
        self, samples: np.ndarray, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
    ) -> Trace:
        """Run (samples,) through the model as one window, up to `options.max_tokens` tokens."""
        features, decoder, rules = self.features(samples), self.network.decoder, self.rules(options)
        encoded = self.network.encode([features])
        [memory] = decoder.memory(encoded)
        prompt = self.prompt_ids(options, self.listen([memory], options)[0].language)
        batch = BatchDecoder(decoder, make_sampler(options))
        batch.add([decoder.embed(mx.array(prompt))], memory=[memory], rules=[rules])
        written: list[int] = []
        most = min(options.max_tokens or self.most_tokens, self.most_tokens)
        while len(written) < most and self.vocabulary.end not in written:
            written += [token.token_id for token in batch.step()]
        forced = list(forced_ids or written)
        logits = decoder.logits_after([*prompt, *forced[:-1]], memory, len(forced))  # (steps, vocab)
        steps = range(len(forced))
        allowed = rules(mx.array(logits), steps, [forced[:step] for step in steps])
        return Trace(
            stages={"features": features, "encoder": np.array(encoded[0])},
            logits=logits,
            token_ids=tuple(written),
            text=self.vocabulary.decode(written),
            likeliest_ids=tuple(mx.argmax(allowed, axis=-1).tolist()),
        )

    def token_times(self, memory: Any, language: str, text_ids: Sequence[int], rows: int) -> np.ndarray:
        """Find when each token of a text, and its end, begins: (tokens + 1,) seconds.

        Args:
            memory: what the window's rows of the decoder attend to.
            language: ISO code.
            text_ids: the text without special tokens.
            rows: number of rows that belong to the clip.
        """
        prompt, heads = self.prompt_ids(DEFAULTS, language), self.config.alignment_heads
        ids = [*prompt, *text_ids, self.vocabulary.end]
        groups = (heads[start : start + HEADS_AT_ONCE] for start in range(0, len(heads), HEADS_AT_ONCE))
        scores = (self.network.decoder.cross_scores(ids, memory, group)[:, :, :rows] for group in groups)
        return token_rows(scores, len(prompt) - 1) * self.row_s

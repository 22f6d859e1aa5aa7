"""Whisper, ready to transcribe: features, language detection, prompt and rules.

Source: openai-whisper ``whisper/decoding.py`` and ``whisper/transcribe.py``. What differs: windows are independent
of each other, so they share batches. Instead of sampling again at higher temperatures, a text that loops or does
not end is decoded again in halves.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from funasr_cli.decoding.rules import Exclusion, TimeRules
from funasr_cli.decoding.time_tokens import TIME_STEP_S
from funasr_cli.errors import AudioError, UsageError
from funasr_cli.families.encoder_decoder import EncoderDecoderModel
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.whisper import tokens
from funasr_cli.families.windows import Witness
from funasr_cli.features.log_mel import WINDOW_S, LogMel
from funasr_cli.languages import WHISPER_TOKEN_OF, resolve_language
from funasr_cli.options import TranscribeOptions

LATEST_START_S = 1.0  # the first time token is not later than this


class WhisperModel(EncoderDecoderModel):
    """A Whisper model that is ready to transcribe; see `SpeechModel`."""

    best_segment_s = longest_segment_s = float(WINDOW_S)
    window_s: float | None = float(WINDOW_S)
    row_s = 0.02

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded)
        size, languages = self.config.decoder.vocab_size, self.config.languages
        self.vocabulary: tokens.WhisperVocabulary = tokens.read_vocabulary(
            loaded.files, loaded.texts, size, languages
        )
        self._log_mel = LogMel(self.config.encoder.mel_bins)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Compute features (3,000, mel bins) of (samples,); raise an `AudioError` if they are none or too many."""
        if not 0 < len(samples) <= WINDOW_S * self.sample_rate_hz:
            raise AudioError(f"the model takes up to {WINDOW_S} s at a time, not nothing", code="audio-too-short")
        return self._log_mel(samples)

    def listen(self, memory: Sequence[Any], options: TranscribeOptions) -> list[Witness]:
        """Return each row's language and its probability of no speech; see `EncoderDecoderModel`."""
        special, languages = self.vocabulary.special, self.config.languages
        logits = self.network.decoder.first_logits(special[tokens.START], memory)  # (rows, vocab)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        no_speech: list[float] = (weights[:, special[tokens.NO_SPEECH]] / weights.sum(axis=-1)).tolist()
        if not self.detects(options):
            found = [resolve_language(options.language, languages) or languages[0]] * len(memory)
        else:
            columns = [special[WHISPER_TOKEN_OF[code]] for code in languages]
            found = [languages[index] for index in logits[:, columns].argmax(axis=-1).tolist()]
        return [Witness(*pair) for pair in zip(found, no_speech, strict=True)]

    def prompt_ids(
        self, options: TranscribeOptions, language: str, *, first: bool = True, translate: bool = False
    ) -> list[int]:
        """Return the prompt's tokens: hotwords and text before, language, task, and whether times are wanted.

        Text before the recording continues it; only its end is used if it is long.
        """
        special = self.vocabulary.special
        before = self.text_before(options, first=first)
        prompt = [special[tokens.PREVIOUS], *before] if before else []
        prompt.append(special[tokens.START])
        if self.config.multilingual:
            task = tokens.TRANSLATE if translate else tokens.TRANSCRIBE
            prompt += [special[WHISPER_TOKEN_OF[language]], special[task]]
        return prompt if options.segment_times else [*prompt, special[tokens.NO_TIMES]]

    def text_before(self, options: TranscribeOptions, *, first: bool) -> list[int]:
        """Return the tokens of hotwords, then of the text before the recording if this is its `first` segment.

        Raises:
            UsageError: the hotwords alone are too long.
        """
        hotwords, earlier = ", ".join(options.hotwords), (options.prev_text or "").strip() if first else ""
        words = self.vocabulary.encode(f" {hotwords}.") if hotwords else []
        if (room := self.most_tokens - 1 - len(words)) < 0:
            message = f"hotwords: they have {len(words)} tokens; the limit is {self.most_tokens - 1}"
            raise UsageError(message, "remove the least important ones", code="prompt-too-long")
        return words + (self.vocabulary.encode(f" {earlier}")[-room:] if earlier and room else [])

    def rules(self, options: TranscribeOptions) -> Exclusion:
        """Return the rules on logits."""
        vocabulary, size = self.vocabulary, self.config.decoder.vocab_size
        if not options.segment_times:
            return Exclusion(size, vocabulary.never, vocabulary.blank)
        never = (*vocabulary.never, vocabulary.special[tokens.NO_TIMES])
        latest = round(LATEST_START_S / TIME_STEP_S)
        return TimeRules(size, never, vocabulary.blank, vocabulary.end, vocabulary.first_time, latest)

"""Whisper, ready to transcribe: features, encoder, language detection, prompt and tokens.

Source: openai-whisper ``whisper/decoding.py`` and ``whisper/transcribe.py``. What differs: windows are independent
of each other, so they share batches. Instead of sampling again at higher temperatures, a text that loops or does
not end is decoded again in halves.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.cross_attention import token_rows
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.rules import Exclusion, TimeRules
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.decoding.time_tokens import TIME_STEP_S
from funasr_cli.errors import AudioError, ModelError, UsageError
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.whisper import tokens
from funasr_cli.families.whisper.session import ROW_OPTIONS, WhisperSession
from funasr_cli.features.log_mel import WINDOW_S, LogMel
from funasr_cli.languages import WHISPER_TOKEN_OF, resolve_language
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.speech_model import EncodedAudio, Trace

ROW_S = 0.02  # from one row of the encoder to the next
HEADS_AT_ONCE = 64  # whose attention is kept: 1.3 MB each for a long text; all known sizes have fewer
LATEST_START_S = 1.0  # the first time token is not later than this


class Witness(NamedTuple):
    """What the decoder says of a window before it writes: its language, and whether there is speech."""

    language: str  # ISO code
    no_speech: float  # probability


class WhisperModel:
    """A Whisper model that is ready to transcribe; see `SpeechModel`."""

    sample_rate_hz = SAMPLE_RATE_HZ
    best_segment_s = longest_segment_s = float(WINDOW_S)
    window_s: float | None = float(WINDOW_S)
    row_options = ROW_OPTIONS

    def __init__(self, loaded: LoadedModel):
        self.name, self.weights_type, self.engine = loaded.name, loaded.weights_type, loaded.engine
        self.parameters, self.native_bytes = loaded.parameters, loaded.native_bytes
        self.network, self.config = loaded.network, loaded.file.config
        self.capabilities = loaded.family.capabilities(self.config)
        size, languages = self.config.decoder.vocab_size, self.config.languages
        self.vocabulary = tokens.read_vocabulary(loaded.files, loaded.texts, size, languages)
        self._log_mel = LogMel(self.config.encoder.mel_bins)

    def session(self, options: TranscribeOptions) -> WhisperSession:
        """Begin a run; raise a `UsageError` for a language or a text before the recording that cannot be used."""
        return WhisperSession(self, options)

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,) at most 30 s long; return the rows of the clip itself."""
        [encoded] = self.network.encode([self.features(samples)])
        return EncodedAudio(mx.array(encoded[: self.rows_of(samples)]), None, ROW_S)

    def read_ctc(self, samples: np.ndarray, options: TranscribeOptions = DEFAULTS) -> CTCReading:
        """Raise a `ModelError`: the model has no CTC output."""
        raise ModelError(f"{self.name} has no CTC output", "use another model", code="ctc-missing")

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

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> None:
        """Return None: the prompt consists of special tokens, and text before the recording.

        Raises:
            UsageError: the hotwords are too long.
        """
        self.text_before(options, first=first)

    @property
    def most_tokens(self) -> int:
        """Largest number of tokens of a text: half of the decoder's positions."""
        return self.config.decoder.positions // 2

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Compute features (3,000, mel bins) of (samples,); raise an `AudioError` if they are none or too many."""
        if not 0 < len(samples) <= WINDOW_S * SAMPLE_RATE_HZ:
            raise AudioError(f"the model takes up to {WINDOW_S} s at a time, not nothing", code="audio-too-short")
        return self._log_mel(samples)

    @staticmethod
    def rows_of(samples: np.ndarray) -> int:
        """Return how many of the encoder's rows belong to the clip itself, not to its padding."""
        return max(1, round(len(samples) / SAMPLE_RATE_HZ / ROW_S))

    def listen(self, memory: Sequence[Any], options: TranscribeOptions) -> list[Witness]:
        """Return each row's language, as requested or as detected, and its probability of no speech.

        ``memory`` is what each row attends to, as the decoder's `memory` gives it.
        """
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
        self, options: TranscribeOptions, language: str, *, first: bool = True, task: str = tokens.TRANSCRIBE
    ) -> list[int]:
        """Return the prompt's tokens: hotwords and text before, language, task, and whether times are wanted.

        Text before the recording continues it; only its end is used if it is long.
        """
        special = self.vocabulary.special
        before = self.text_before(options, first=first)
        prompt = [special[tokens.PREVIOUS], *before] if before else []
        prompt.append(special[tokens.START])
        if self.config.multilingual:
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

    def detects(self, options: TranscribeOptions) -> bool:
        """Return whether the model finds the language itself."""
        return self.config.multilingual and resolve_language(options.language, self.config.languages) is None

    def rules(self, options: TranscribeOptions) -> Exclusion:
        """Return the rules on logits."""
        vocabulary, size = self.vocabulary, self.config.decoder.vocab_size
        if not options.segment_times:
            return Exclusion(size, vocabulary.never, vocabulary.blank)
        never = (*vocabulary.never, vocabulary.special[tokens.NO_TIMES])
        latest = round(LATEST_START_S / TIME_STEP_S)
        return TimeRules(size, never, vocabulary.blank, vocabulary.end, vocabulary.first_time, latest)

    def token_times(self, memory: Any, language: str, text_ids: Sequence[int], rows: int) -> np.ndarray:
        """Find when each token of a text, and its end, begins: (tokens + 1,) seconds.

        Args:
            memory: what the window's rows of the decoder attend to.
            language: ISO code.
            text_ids: the text without special tokens.
            rows: number of rows that belong to the clip.
        """
        special, decoder = self.vocabulary.special, self.network.decoder
        prompt = self.prompt_ids(DEFAULTS, language)
        ids, heads = [*prompt, *text_ids, special[tokens.END]], self.config.alignment_heads
        groups = (heads[start : start + HEADS_AT_ONCE] for start in range(0, len(heads), HEADS_AT_ONCE))
        scores = (decoder.cross_scores(ids, memory, group)[:, :, :rows] for group in groups)
        return token_rows(scores, len(prompt) - 1) * ROW_S

"""Audio -> segments -> features -> encoder -> prompt -> tokens -> Transcript."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import soxr

from funasr_cli.audio.frontend import Frontend
from funasr_cli.audio.recording import Source
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.backend import mx
from funasr_cli.checkpoints.load import LoadedModel
from funasr_cli.decoding.generate import bucketed
from funasr_cli.decoding.prompt import prompt_token_ids
from funasr_cli.decoding.text import clean_text
from funasr_cli.errors import ModelError
from funasr_cli.models.ctc import best_path
from funasr_cli.models.fun_asr_nano import batch_lengths
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished
from funasr_cli.scheduling.intake import Opener
from funasr_cli.scheduling.scheduler import Scheduler
from funasr_cli.transcript import Transcript

FREED_BUFFERS_BYTES = 1 << 29  # so much of what MLX has freed may be kept for reuse


@dataclass
class Encoded:
    """A batch behind the encoder."""

    hidden: mx.array  # (batch, frames, encoder width)
    lengths: list[int]


class Recognizer:
    """Transcribes recordings with a loaded model; the text of a segment does not depend on what is beside it."""

    def __init__(self, loaded: LoadedModel):
        self.loaded = loaded
        self.config = loaded.file.config
        self.frontend = Frontend(self.config.frontend)

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate that recordings must have, whatever the model's own is."""
        return SAMPLE_RATE_HZ

    def transcribe(self, source: Source, options: TranscribeOptions = DEFAULTS) -> Transcript:
        """Transcribe one recording.

        Raises:
            AudioError: not a single sample of it can be read.
            UsageError: the model does not know the language.
        """
        return self.transcribe_batch([source], options)[0]

    def transcribe_batch(
        self, sources: Iterable[Source], options: TranscribeOptions = DEFAULTS
    ) -> list[Transcript]:
        """Transcribe recordings side by side; the first that fails raises its error."""
        transcripts = {}
        for event in self.run([lambda source=source: source for source in sources], options):  # type: ignore[misc]
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                transcripts[event.source] = event.transcript
        return [transcripts[source] for source in sorted(transcripts)]

    def run(self, openers: Iterable[Opener], options: TranscribeOptions = DEFAULTS) -> Iterator[Event]:
        """Transcribe any number of recordings, of any length, in bounded memory.

        Args:
            openers: each opens a recording when its turn comes; they are called in order, in another thread.
            options: for all of them.

        Yields:
            What happens, as it happens. Every input ends with `Finished` or `Failed`.

        Raises:
            UsageError: the model does not know the language.
        """
        kept_bytes = mx.set_cache_limit(FREED_BUFFERS_BYTES)
        try:
            yield from Scheduler(self, options).run(openers)
        finally:
            mx.set_cache_limit(kept_bytes)
            release_memory()

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

        Args:
            encoded: the audio.
            options: what is asked for.
            first: which rows are the first of their recordings; None takes all of them for that.
        """
        audio_rows = self.loaded.model.audio_rows(encoded.hidden, encoded.lengths)
        first = first or [True] * len(audio_rows)
        texts = {is_first: self._prompt_texts(options, is_first) for is_first in set(first)}
        return [
            mx.concatenate([texts[is_first][0], audio, texts[is_first][1]])
            for audio, is_first in zip(audio_rows, first, strict=True)
        ]

    def _prompt_texts(self, options: TranscribeOptions, first: bool) -> tuple[mx.array, mx.array]:
        """(tokens, hidden) in front of the audio rows and behind them."""
        before, after = prompt_token_ids(options, self.config.prompt, self.loaded.tokenizer, first=first)
        embed = self.loaded.model.llm.embed
        return embed(mx.array(before)), embed(mx.array(after))

    def ctc_texts(self, encoded: Encoded) -> list[str]:
        """Greedy text of the CTC branch, which the model must have."""
        vocabulary, ctc = self.loaded.ctc_vocabulary, self.config.ctc
        if vocabulary is None or ctc is None:
            raise ModelError(f"{self.loaded.folder}: this model has no CTC branch")
        best = self.loaded.model.ctc_log_probs(encoded.hidden, encoded.lengths).argmax(axis=-1).tolist()
        return [
            clean_text(vocabulary.decode(best_path(frame_ids[:length], ctc.blank_id)))
            for frame_ids, length in zip(best, encoded.lengths, strict=True)
        ]

    def spell(self, token_ids: list[int]) -> str:
        """Text of the decoder's tokens."""
        return self.loaded.tokenizer.decode(token_ids, skip_special_tokens=True)


def release_memory() -> None:
    """Give back what MLX keeps for this thread."""
    mx.clear_cache()
    if threading.current_thread() is not threading.main_thread():
        mx.clear_streams()  # or MLX aborts the process when the thread has ended

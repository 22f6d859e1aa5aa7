"""Audio -> features -> encoder -> prompt -> tokens -> Transcript."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from funasr_cli.audio.decode import Audio
from funasr_cli.audio.frontend import MIN_SAMPLES, Frontend
from funasr_cli.backend import mx
from funasr_cli.checkpoints.load import LoadedModel
from funasr_cli.decoding.generate import StopReason, Token, generate, make_sampler
from funasr_cli.decoding.languages import resolve_language
from funasr_cli.decoding.prompt import prompt_token_ids
from funasr_cli.decoding.text import TextStream, clean_text, thinking
from funasr_cli.errors import AudioError, ModelError
from funasr_cli.measure import StageClock
from funasr_cli.models.ctc import best_path
from funasr_cli.models.fun_asr_nano import batch_lengths
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.transcript import Segment, Timings, Transcript

LONGEST_CLIP_S = 600.0  # attention over 10,000 rows takes 1.6 GB; memory grows with the square
LONGEST_TRAINED_S = 30.0  # upstream's own limit for a segment; longer ones lose accuracy fast

OnText = Callable[[int, str], None]  # row of the batch, piece of text that is settled


@dataclass
class Encoded:
    """A batch behind the encoder."""

    hidden: mx.array  # (batch, frames, encoder width)
    lengths: list[int]


@dataclass
class Row:
    """What has been decoded of one clip so far."""

    stream: TextStream
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None

    def add(self, token: Token) -> str:
        """Take in a token; the piece of text that it settles."""
        if token.stop != StopReason.NONFINITE:
            self.logprobs.append(token.logprob)
        piece = self.stream.push(token.token_id) if token.stop in (None, StopReason.BUDGET) else ""
        self.stop_reason = token.stop
        return piece + self.stream.finish() if token.stop else piece


class Recognizer:
    """Transcribes clips with a loaded model, alone or in batches; a clip's text does not depend on the others."""

    def __init__(self, loaded: LoadedModel):
        self.loaded = loaded
        self.config = loaded.file.config
        self.frontend = Frontend(self.config.frontend)

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate that clips must have."""
        return self.config.frontend.sample_rate_hz

    def transcribe(
        self, clip: Audio, options: TranscribeOptions = DEFAULTS, on_text: Callable[[str], None] | None = None
    ) -> Transcript:
        """Transcribe one clip; ``on_text`` is handed the text piece by piece as it is settled."""
        return self.transcribe_batch([clip], options, on_text and (lambda _, piece: on_text(piece)))[0]

    def transcribe_batch(
        self, clips: list[Audio], options: TranscribeOptions = DEFAULTS, on_text: OnText | None = None
    ) -> list[Transcript]:
        """Transcribe clips side by side, each in one piece.

        Args:
            clips: mono, at the model's sample rate.
            options: language, hotwords, sampling.
            on_text: handed each piece of text as it is settled; joined, a row's pieces are its text.

        Returns:
            A transcript for each clip; their timings are those of the whole batch.

        Raises:
            AudioError: a clip has another sample rate, is too short or too long.
            UsageError: the model does not know the language.
        """
        if not clips:
            return []
        try:
            return self._transcribe_batch(clips, options, on_text)
        finally:
            mx.clear_cache()  # each new length leaves buffers of its own sizes behind
            if threading.current_thread() is not threading.main_thread():
                mx.clear_streams()  # or MLX aborts the process when the thread has ended

    def _transcribe_batch(
        self, clips: list[Audio], options: TranscribeOptions, on_text: OnText | None
    ) -> list[Transcript]:
        clock = StageClock()
        encoded = self.encode(self.features(clips, clock), clock)
        ctc_texts = self.ctc_texts(encoded) if options.ctc and self.config.ctc else [None] * len(clips)
        with clock.stage("prefill"):
            prompts = self.prompts(encoded, options)
        rows, first_token_s = self._decode(prompts, options, clock, on_text)
        timings = Timings(
            features_s=clock.seconds["features"],
            encoder_s=clock.seconds["encoder"],
            prefill_s=clock.seconds["prefill"],
            decode_s=clock.seconds["decode"],
            first_token_s=first_token_s,
            total_s=clock.since_start(),
            tokens=sum(len(row.logprobs) for row in rows),
        )
        return [
            self._transcript(clip, row, ctc_text, options, timings)
            for clip, row, ctc_text in zip(clips, rows, ctc_texts, strict=True)
        ]

    def features(self, clips: list[Audio], clock: StageClock) -> list[mx.array]:
        """One (rows, row width) array a clip."""
        for clip in clips:
            if clip.sample_rate_hz != self.sample_rate_hz:
                raise AudioError(f"{clip.name}: {clip.sample_rate_hz} Hz, the model wants {self.sample_rate_hz}")
            if len(clip.samples) < MIN_SAMPLES:
                raise AudioError(f"{clip.name}: too short, {len(clip.samples)} samples")
            if clip.duration_s > LONGEST_CLIP_S:
                raise AudioError(
                    f"{clip.name}: {clip.duration_s / 60:.0f} minutes, more than is decoded in one piece",
                    f"cut it into parts of at most {LONGEST_TRAINED_S:.0f} seconds, in pauses",
                )
        with clock.stage("features"):
            features = [self.frontend(clip.samples) for clip in clips]
            mx.eval(features)
        return features

    def encode(self, features: list[mx.array], clock: StageClock) -> Encoded:
        """Run the encoder over a right-padded batch."""
        with clock.stage("encoder"):
            lengths = [rows.shape[0] for rows in features]
            longest = max(lengths)
            batch = mx.stack([mx.pad(rows, [(0, longest - rows.shape[0]), (0, 0)]) for rows in features])
            hidden = self.loaded.model.audio_encoder(batch, batch_lengths(lengths, longest))
            mx.eval(hidden)
        return Encoded(hidden, lengths)

    def prompts(self, encoded: Encoded, options: TranscribeOptions) -> list[mx.array]:
        """Embeddings that the decoder reads: (length, hidden) a row, audio between the two pieces of text."""
        before, after = prompt_token_ids(options, self.config.prompt, self.loaded.tokenizer)
        llm = self.loaded.model.llm
        head, tail = llm.embed(mx.array(before)), llm.embed(mx.array(after))  # (tokens, hidden)
        audio_rows = self.loaded.model.audio_rows(encoded.hidden, encoded.lengths)
        return [mx.concatenate([head, audio, tail]) for audio in audio_rows]

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

    def _decode(
        self, prompts: list[mx.array], options: TranscribeOptions, clock: StageClock, on_text: OnText | None
    ) -> tuple[list[Row], float]:
        """Rows of text, and when the first token was there."""
        rows = [Row(TextStream(self._spell)) for _ in prompts]
        tokens = generate(
            self.loaded.model.llm, prompts, self.config.stop_token_ids, options.max_tokens, make_sampler(options)
        )
        with clock.stage("prefill"):
            first = next(tokens)
        first_token_s = clock.since_start()
        with clock.stage("decode"):
            for token in itertools.chain([first], tokens):
                piece = rows[token.row].add(token)
                if on_text and piece:
                    on_text(token.row, piece)
        return rows, first_token_s

    def _spell(self, token_ids: list[int]) -> str:
        return self.loaded.tokenizer.decode(token_ids, skip_special_tokens=True)

    def _transcript(
        self, clip: Audio, row: Row, ctc_text: str | None, options: TranscribeOptions, timings: Timings
    ) -> Transcript:
        segment = Segment(
            start_s=0.0,
            end_s=clip.duration_s,
            text=clean_text(row.stream.raw),
            thinking=thinking(row.stream.raw),
            stop_reason=str(row.stop_reason),
            tokens=len(row.logprobs),
            mean_logprob=sum(row.logprobs) / len(row.logprobs) if row.logprobs else None,
            ctc_text=ctc_text,
        )
        return Transcript(
            source=clip.name,
            duration_s=clip.duration_s,
            model=self.loaded.name,
            language=resolve_language(options.language, self.config.prompt.languages),
            segments=(segment,),
            timings=timings,
            warnings=tuple(_warnings(clip, segment)),
        )


def _warnings(clip: Audio, segment: Segment) -> list[str]:
    warnings = []
    if clip.duration_s > LONGEST_TRAINED_S:
        warnings.append(
            f"{clip.duration_s:.0f} s in one piece: beyond {LONGEST_TRAINED_S:.0f} s words get lost or repeated"
        )
    if segment.stop_reason == StopReason.BUDGET:
        warnings.append(f"cut short after {segment.tokens} tokens: the end may be missing")
    if segment.stop_reason == StopReason.NONFINITE:
        warnings.append("the decoder met a value that is not a number: the rest is missing")
    return warnings

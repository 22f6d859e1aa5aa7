"""The interface between the scheduler and the models. Every model family implements it.

A `SpeechModel` describes itself and opens sessions. A `Session` turns requests into hypotheses, many rows at a
time:

1. The scheduler calls `add` with a few `SegmentRequest`s. Each becomes a batch row with a number.
2. It calls `step` until every row has ended. Each call returns `Update`s: text so far, or a final `Hypothesis`.
3. It may add more requests between steps, so rows start and end at different times.

A model that writes token by token advances every row by one or a few tokens per step. A model that reads a whole
segment at once ends all its rows in a single step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.capabilities import Capabilities
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.agreement import Comparison
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.transcript import Segment, Transcript


@dataclass(frozen=True)
class SegmentRequest:
    """A segment of a recording to be transcribed."""

    source: int  # index of the recording
    audio: AudioSegment
    first: bool  # whether it is the first segment with speech in its recording
    retries: int = 0  # how often this audio has been decoded before, as part of a longer segment
    options: TranscribeOptions | None = None  # of its recording; None stands for those of the session


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A model's final result for one request."""

    segment: Segment
    # The text compared with a second reading of the audio, or its times with the audio's length; None without one.
    agreement: Comparison | None = None
    retry_may_help: bool = False  # whether decoding the segment again in two halves may give a better text


@dataclass(frozen=True, eq=False)
class Update:
    """Progress of one row in one step. A step may return several for a row; a hypothesis is the row's last."""

    row: int
    text: str | None = None  # all text so far that can no longer change; None if there is nothing new
    hypothesis: Hypothesis | None = None
    counts: Mapping[str, int] = field(default_factory=dict)  # tokens, decoder_calls, drafted, accepted


class Session(Protocol):
    """A run of a model. It owns KV caches, drafts and what it learns from earlier segments.

    Its options are fixed, except that a request may have its own values of the model's `row_options`.
    """

    rows_at_once: int  # best size of one `add`: enough to use the processor well without delaying running rows
    seconds: dict[str, float]  # time spent per stage of `STAGES`; the session adds to it, the caller empties it

    @property
    def max_rows(self) -> int:
        """Largest useful number of rows: limited by memory, and by where more rows no longer pay off."""

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Start a row for each request and return the row numbers, which no unfinished row shares.

        All requests of one call have the same options.
        """

    def step(self) -> list[Update]:
        """Advance all rows, by a few tokens each or to their end, and return what changed."""

    def drop(self, row: int) -> None:
        """Remove a row. Do nothing if it has ended."""

    def reset(self) -> set[int]:
        """Make the session usable again after `add` or `step` failed. Return the rows that were lost."""


@dataclass(frozen=True)
class Prompt:
    """The text that a language model reads before and after the audio of a segment."""

    before: str
    after: str
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, eq=False)
class EncodedAudio:
    """The encoder's output for one piece of audio.

    Attributes:
        frames: (frames, encoder width), one frame every `frame_duration_s`.
        audio_embeddings: (embeddings, decoder width), the audio's part of a language model's prompt, in the
            decoder's number type; None if the model has no language model. Fun-ASR-Nano has one embedding for
            eight frames. Each attends to all frames, so it does not correspond to a stretch of time.
        frame_duration_s: seconds from one frame to the next.
    """

    frames: mx.array
    audio_embeddings: mx.array | None
    frame_duration_s: float

    @property
    def audio_rows(self) -> mx.array | None:
        """Deprecated name of `audio_embeddings`, kept for one release."""
        return self.audio_embeddings


@dataclass(frozen=True, eq=False)
class Trace:
    """The intermediate results of one clip, stage by stage, for comparing two conversions of a model."""

    stages: Mapping[str, np.ndarray]  # by name, in the order of computation
    logits: np.ndarray  # (steps, vocabulary) for each token that was written or forced
    token_ids: tuple[int, ...]  # the tokens that the model writes when none are forced
    text: str
    blank_id: int | None = None  # the token that stands for no text, which most frames of a CTC model have
    likeliest_ids: tuple[int, ...] | None = None  # of the tokens that are allowed at each step; None: all are


class SpeechModel(Protocol):
    """A loaded model, ready to transcribe."""

    name: str  # name of the checkpoint that it was converted from
    sample_rate_hz: int  # sample rate of its input
    capabilities: Capabilities
    best_segment_s: float  # length of the longest segments in its training data
    longest_segment_s: float  # longest segment that it accepts
    window_s: float | None  # every segment costs as much as one of this length; None if cost grows with length
    row_options: tuple[str, ...]  # fields of `TranscribeOptions` that may differ between the rows of a session
    weights_type: str  # number type of the weights while computing, for logs and tables
    engine: str  # what computes it: "native int8, encoder bfloat16, avx512bf16" or "mlx float32, CPU"
    native_bytes: int  # memory of the weights that MLX does not hold
    parameters: int  # number of parameters of its networks

    def session(self, options: TranscribeOptions) -> Session:
        """Start a run. Raise a `UsageError` for options that cannot work."""

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,) at `sample_rate_hz`. Raise an `AudioError` if there are too few."""

    def read_ctc(self, samples: np.ndarray, options: TranscribeOptions = DEFAULTS) -> CTCReading:
        """Return the CTC output for (samples,). Raise a `ModelError` if the model has none."""

    def trace(
        self, samples: np.ndarray, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
    ) -> Trace:
        """Decode (samples,) as one segment and keep every stage.

        Args:
            samples: at `sample_rate_hz`.
            options: as for `session`.
            forced_ids: tokens whose logits to return; None takes the tokens that the model writes itself.
        """

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> Prompt | None:
        """Return the prompt for the `first` segment of a recording, or for a later one; None if there is none."""


class TranscriptStage:
    """A processing step after the model, such as restoring punctuation. Override either method, or both.

    Segments arrive as the model finishes them. A segment that is later decoded again in parts arrives first as a
    whole, then as its parts.
    """

    def segment(self, request: SegmentRequest, segment: Segment) -> Segment:
        """Return the segment, possibly changed. Its text, words, scores and times must stay consistent."""
        return segment

    def transcript(self, transcript: Transcript) -> Transcript:
        """Return the complete transcript, possibly changed."""
        return transcript

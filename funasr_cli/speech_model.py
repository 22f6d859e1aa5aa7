"""The seam between scheduler and models: what a model states, what a session takes, and what it returns."""

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
    """A segment of a recording on its way to a text."""

    source: int  # index of the recording
    audio: AudioSegment
    first: bool  # it is where the recording's speech begins
    retries: int = 0  # how often what it is a part of has been decoded before


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What a model makes of a request: a finished segment, and what speaks for it."""

    segment: Segment
    agreement: Comparison | None = None  # its text beside a second reading; None where there was none
    retry_may_help: bool = False  # two halves may come out better than the whole


@dataclass(frozen=True, eq=False)
class Update:
    """What a step brought for one row, perhaps one of several; with a hypothesis the row has ended."""

    row: int
    text: str | None = None  # everything so far that cannot change any more; None where nothing is new
    hypothesis: Hypothesis | None = None
    counts: Mapping[str, int] = field(default_factory=dict)  # tokens, decoder_calls, drafted, accepted


class Session(Protocol):
    """One run of a model with one set of options; owns caches, drafts and what was learned from earlier segments.

    Rows that have not ended have different numbers. Time that its stages take is collected in `seconds`.
    """

    rows_at_once: int  # that join together: enough to keep the processor busy, without holding up the others
    seconds: dict[str, float]  # by stage, of `STAGES`, since the caller last emptied it

    @property
    def max_rows(self) -> int:
        """Return how many rows memory holds side by side, at most as many as pay."""

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Let rows join, and return their numbers."""

    def step(self) -> list[Update]:
        """Work on all rows: a few tokens more of each, or everything at once."""

    def drop(self, row: int) -> None:
        """Take a row out, if it has not ended."""

    def reset(self) -> set[int]:
        """Go on after an error in `add` or `step`; return the rows that were lost, to be added again."""


@dataclass(frozen=True)
class Prompt:
    """What a language model is asked about a segment: text around the audio."""

    before: str
    behind: str
    tokens_before: int
    tokens_behind: int


@dataclass(frozen=True, eq=False)
class EncodedAudio:
    """One piece of audio behind the encoder.

    Attributes:
        frames: (frames, encoder width), the encoder's output, one every `frame_duration_s`.
        audio_embeddings: (embeddings, decoder width), what stands for the audio in the prompt of a language model,
            in the decoder's type; None without one. In Fun-ASR-Nano these are an eighth as many, and made at the
            first frames, with attention to all of them: an embedding stands for no stretch of time.
        frame_duration_s: seconds from one frame to the next.
    """

    frames: mx.array
    audio_embeddings: mx.array | None
    frame_duration_s: float

    @property
    def audio_rows(self) -> mx.array | None:
        """The earlier name of `audio_embeddings`, for one release."""
        return self.audio_embeddings


@dataclass(frozen=True, eq=False)
class Trace:
    """One clip's way through a model, stage by stage, for comparing two conversions of it."""

    stages: Mapping[str, np.ndarray]  # by the stage's name, in order
    logits: np.ndarray  # (steps, vocabulary) of each token that was written or forced
    token_ids: tuple[int, ...]  # that the model writes itself
    text: str
    blank_id: int | None = None  # one of them that stands for nothing, as most frames of a CTC model do


class SpeechModel(Protocol):
    """A model that is ready to transcribe."""

    name: str  # of what it was converted from
    sample_rate_hz: int  # of the samples that it takes
    capabilities: Capabilities
    best_segment_s: float  # what it was trained on, at most
    longest_segment_s: float
    window_s: float | None  # every segment costs as much as one of this length; None: it costs by the second
    weights_type: str  # of the weights as computed with, for logs and tables
    parameters: int  # of its networks

    def session(self, options: TranscribeOptions) -> Session:
        """Begin a run; raises a `UsageError` for options that cannot work."""

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,) at `sample_rate_hz`; an `AudioError` where they are too few."""

    def read_ctc(self, samples: np.ndarray, options: TranscribeOptions = DEFAULTS) -> CTCReading:
        """Return what its CTC output hears in (samples,); a `ModelError` where it has none."""

    def trace(
        self, samples: np.ndarray, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
    ) -> Trace:
        """Take (samples,) through the model as one segment; None as `forced_ids` takes what it writes itself."""

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> Prompt | None:
        """Return what is asked about the `first` segment of a recording, or a later one; None: nothing is."""


class TranscriptStage:
    """Something behind the model, such as punctuation; each method may be left as it is.

    Segments come as they are finished, also some that are made again in parts afterwards.
    """

    def segment(self, request: SegmentRequest, segment: Segment) -> Segment:
        """Change a segment that is final; its text, words, scores and times have to stay in step."""
        return segment

    def transcript(self, transcript: Transcript) -> Transcript:
        """Change a transcript that is complete."""
        return transcript

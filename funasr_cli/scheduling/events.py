"""Events that report the progress of a transcription to the code that shows or stores it."""

from dataclasses import dataclass

from funasr_cli.errors import FunASRError
from funasr_cli.transcript import Segment, Transcript


@dataclass(frozen=True)
class Read:
    """How much of an input has been read and searched for speech. Reading runs ahead of decoding."""

    source: int  # index of the input
    start_s: float  # start of the input within its recording; 0 unless it is a clip
    read_s: float  # seconds read so far; 0 when the input has just been opened
    expected_s: float | None  # length of the whole input; None if unknown


@dataclass(frozen=True)
class PartialText:
    """Text of a segment that is being decoded. It is discarded if the segment is decoded again."""

    source: int  # index of the input
    start_s: float
    text: str | None  # all text so far; None when decoding of the segment has ended


@dataclass(frozen=True)
class SegmentFinished:
    """A final segment. The segments of an input arrive in order."""

    source: int
    segment: Segment


@dataclass(frozen=True)
class Finished:
    """The last event of an input that has a transcript."""

    source: int
    transcript: Transcript


@dataclass(frozen=True)
class Failed:
    """The last event of an input that failed and has no transcript."""

    source: int
    error: FunASRError


Event = Read | PartialText | SegmentFinished | Finished | Failed

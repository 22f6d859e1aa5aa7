"""What happens while recordings are transcribed, for whoever shows or stores it."""

from dataclasses import dataclass

from funasr_cli.errors import FunASRError
from funasr_cli.transcript import Segment, Transcript


@dataclass(frozen=True)
class Read:
    """How far an input has been read and searched for speech, which runs ahead of the decoding."""

    source: int  # index of the input
    start_s: float  # where it begins in what it is a part of
    read_s: float  # its length so far; 0 when it has just been opened
    expected_s: float | None  # its whole length; None where that is unknown


@dataclass(frozen=True)
class PartialText:
    """Text of a segment that is being written; it may yet be given up, when the segment is decoded again."""

    source: int  # index of the input
    start_s: float
    text: str | None  # everything so far; None when the segment is not being written any more


@dataclass(frozen=True)
class SegmentFinished:
    """A segment that is final. Those of an input come in order."""

    source: int
    segment: Segment


@dataclass(frozen=True)
class Finished:
    """An input that is done: its last event."""

    source: int
    transcript: Transcript


@dataclass(frozen=True)
class Failed:
    """An input without a transcript: its last event."""

    source: int
    error: FunASRError


Event = Read | PartialText | SegmentFinished | Finished | Failed

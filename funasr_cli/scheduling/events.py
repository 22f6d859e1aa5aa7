"""What happens while recordings are transcribed, for whoever shows or stores it."""

from dataclasses import dataclass

from funasr_cli.errors import FunASRError
from funasr_cli.transcript import Segment, Transcript


@dataclass(frozen=True)
class Draft:
    """Text of a segment that is being written; it may yet be given up, when the segment is decoded again.

    Attributes:
        source: index of the input.
        text: everything so far; None when the segment is not being written any more.
    """

    source: int
    start_s: float
    text: str | None


@dataclass(frozen=True)
class Settled:
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


Event = Draft | Settled | Finished | Failed

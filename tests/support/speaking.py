"""A model with a fixed answer for every segment, for tests of features that depend on a model's capabilities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from funasr_cli.capabilities import Capabilities
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest, Update
from funasr_cli.transcript import Segment

SAID = Segment(
    0.0, 0.0, "Hello there.", "", "eos", 0, 3, -0.1, language="en", tags=("happy", "music", "laughter", "speech")
)


@dataclass
class SpeakingModel:
    """A minimal `SpeechModel`: as much as transcribing needs."""

    name: str = "owner/Speaking"
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(("zh", "en"), tags=True))
    result: Segment = SAID
    sample_rate_hz: int = 16000
    best_segment_s: float = 30.0
    longest_segment_s: float = 40.0
    window_s: float | None = None
    row_options: tuple[str, ...] = ()
    weights_type: str = "float32"
    engine: str = "mlx float32, CPU"
    parameters: int = 0
    native_bytes: int = 0

    def session(self, options: TranscribeOptions) -> SpeakingSession:
        return SpeakingSession(self.result)

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> Any:
        return None


class SpeakingSession:
    """A session that finishes every segment in one step."""

    max_rows = rows_at_once = 8

    def __init__(self, result: Segment):
        self.seconds: dict[str, float] = defaultdict(float)
        self._result = result
        self._rows: dict[int, SegmentRequest] = {}
        self._count = 0

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        numbers = list(range(self._count, self._count + len(requests)))
        self._count += len(requests)
        self._rows |= zip(numbers, requests, strict=True)
        return numbers

    def step(self) -> list[Update]:
        rows, self._rows = self._rows, {}
        return [Update(number, hypothesis=Hypothesis(self._segment(request))) for number, request in rows.items()]

    def drop(self, row: int) -> None:
        del self._rows[row]

    def reset(self) -> set[int]:
        return set()

    def _segment(self, request: SegmentRequest) -> Segment:
        return replace(self._result, start_s=request.audio.start_s, end_s=request.audio.end_s)

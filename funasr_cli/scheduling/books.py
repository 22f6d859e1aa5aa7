"""What is known of each input while it is being worked on: its segments in order, its costs, its warnings."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

from funasr_cli.audio.segments import Stretch
from funasr_cli.scheduling.intake import Ended
from funasr_cli.transcript import Segment, Timings, Transcript


@dataclass
class Book:
    """One input's account, from its opening to its transcript."""

    source: int
    name: str
    started: float
    start_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: int = 0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    first_token: float | None = None
    end: Ended | None = None
    _open: set[int] = field(default_factory=set)  # first samples of stretches that are not final
    _final: dict[int, Segment] = field(default_factory=dict)  # those that wait for an earlier one
    _settled: list[Segment] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether nothing more can come."""
        return self.end is not None and not self._open

    def is_open(self, stretch: Stretch) -> bool:
        """Whether a segment is still to come of this stretch."""
        return stretch.start in self._open

    def expect(self, stretch: Stretch) -> None:
        """A segment will come of this stretch."""
        self._open.add(stretch.start)

    def replace(self, stretch: Stretch, parts: tuple[Stretch, ...]) -> None:
        """Its parts will become segments instead."""
        self._open.remove(stretch.start)
        self._open.update(part.start for part in parts)

    def settle(self, stretch: Stretch, segment: Segment) -> list[Segment]:
        """A segment is final; those that have become so and have no earlier one to wait for."""
        self._open.remove(stretch.start)
        self._final[stretch.start] = segment
        earliest = min(self._open, default=None)
        ready = sorted(start for start in self._final if earliest is None or start < earliest)
        released = [self._final.pop(start) for start in ready]
        self._settled += released
        return released

    def transcript(self, model: str, language: str | None) -> Transcript:
        """The result, once all is done."""
        assert self.end is not None
        now = time.perf_counter()
        stages = ("read", "vad", "features", "encoder", "ctc", "prefill", "decode")
        return Transcript(
            source=self.name,
            start_s=self.start_s,
            duration_s=self.end.read_s + self.end.unread_s,
            model=model,
            language=language,
            segments=tuple(self._settled),
            timings=Timings(
                **{f"{stage}_s": self.seconds[stage] + self.end.seconds.get(stage, 0.0) for stage in stages},
                first_token_s=(self.first_token or now) - self.started,
                total_s=now - self.started,
                tokens=self.tokens,
                passes=self.passes,
                drafted=self.drafted,
                accepted=self.accepted,
            ),
            unread_s=self.end.unread_s,
            fault=self.end.error.message if self.end.error else None,
            warnings=tuple(filter(None, map(_warning, self._settled))),
        )


def _warning(segment: Segment) -> str | None:
    where = f"{segment.start_s:.1f}-{segment.end_s:.1f} s"
    if segment.stop_reason == "budget":
        return f"{where}: cut short after {segment.tokens} tokens: the end may be missing"
    if segment.stop_reason == "loop":
        return f"{where}: the text goes in circles: what follows the first round is missing"
    if segment.stop_reason == "nonfinite":
        return f"{where}: the decoder met a value that is not a number: the rest is missing"
    return None

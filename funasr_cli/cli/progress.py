"""How far a run has come: a line for finding speech, which runs ahead, and one for transcribing."""

import time
from collections import defaultdict
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from funasr_cli.cli.console import shows_progress, stderr
from funasr_cli.formats import clock
from funasr_cli.scheduling.events import Event, Failed, Finished, Read, Settled

if TYPE_CHECKING:
    from rich.console import RenderableType


RELIABLE_S = 5.0  # before that, what has been done says little about what is left


class Tally:
    """How much has been transcribed. Lengths are known only from opening an input on, so inputs count alike."""

    def __init__(self, inputs: int) -> None:
        self._inputs = inputs
        self.closed = 0  # those that are done
        self.audio_s = 0.0  # of all together
        self._lengths_s: dict[int, float] = {}  # as stated, or as they turned out
        self._done_s: dict[int, float] = defaultdict(float)  # of those that are not done

    @property
    def completed(self) -> float:
        """Inputs that are done, with shares of those that are being worked on."""
        shares = (min(1.0, done_s / self._lengths_s.get(source, inf)) for source, done_s in self._done_s.items())
        return self.closed + sum(shares)

    @property
    def left_s(self) -> float | None:
        """Audio that is still to be transcribed, unopened inputs being as long as others; None if nobody knows."""
        if not self._lengths_s or self._done_s.keys() - self._lengths_s.keys():
            return None
        rest = sum(max(0.0, self._lengths_s[source] - done_s) for source, done_s in self._done_s.items())
        unopened = self._inputs - self.closed - len(self._done_s)
        return rest + unopened * sum(self._lengths_s.values()) / len(self._lengths_s)

    def open(self, source: int, expected_s: float | None) -> None:
        """An input is going to be transcribed."""
        self._done_s[source] += 0.0
        if expected_s:
            self._lengths_s[source] = expected_s

    def advance(self, source: int, done_s: float) -> None:
        """An input has been transcribed so far."""
        self.audio_s += done_s - self._done_s[source]
        self._done_s[source] = done_s

    def close(self, source: int) -> None:
        """An input is done."""
        self.closed += 1
        if done_s := self._done_s.pop(source, 0.0):
            self._lengths_s[source] = done_s


class Progress:
    """Both lines.

    Args:
        names: of the inputs.
        task: what is being done to them.
    """

    def __init__(self, names: Sequence[str], task: str):
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._names = names
        self._tally = Tally(len(names))
        self._source = 0  # that is being read
        self._starts_s: dict[int, float] = {}
        self._started = time.perf_counter()
        texts = [TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[facts]")]
        self._bars = Bars(texts[0], BarColumn(), texts[1], console=stderr(), disable=not shows_progress())
        self._reading = self._bars.add_task("finding speech", total=len(names), facts="", visible=False)
        self._writing = self._bars.add_task(task, total=len(names), facts=self._facts())

    def __rich__(self) -> "RenderableType":
        self._bars.update(self._writing, facts=self._facts())  # time goes by without events, too
        return self._bars

    def show(self, event: Event) -> None:
        """Take in what has happened; drafts change nothing."""
        tally = self._tally
        if isinstance(event, Read):  # one input after the other
            tally.open(event.source, event.expected_s)
            self._starts_s[event.source] = event.start_s
            self._source = event.source
            share = min(1.0, event.read_s / event.expected_s) if event.expected_s else 0.0
            self._bars.update(
                self._reading,
                completed=event.source + share,
                description=f"finding speech in {self._names[event.source]}",
                facts=clock(event.start_s + event.read_s),
                visible=event.source + share < len(self._names),
            )
        elif isinstance(event, Settled):
            tally.advance(event.source, event.segment.end_s - self._starts_s[event.source])
        elif isinstance(event, Finished | Failed):
            if isinstance(event, Finished):
                tally.advance(event.source, event.transcript.duration_s)
            tally.close(event.source)
            if event.source == self._source:
                self._bars.update(self._reading, visible=False)
        self._bars.update(self._writing, completed=tally.completed)

    def _facts(self) -> str:
        """Inputs done, audio done, the real-time factor so far, and how long the rest takes at that."""
        tally, taken_s = self._tally, time.perf_counter() - self._started
        facts = [f"{tally.closed}/{len(self._names)} inputs", f"{clock(tally.audio_s)} of audio"]
        if tally.audio_s:
            rtf = taken_s / tally.audio_s
            facts.append(f"RTF {rtf:.3f}")
            if tally.left_s is not None and taken_s >= RELIABLE_S:
                facts.append(f"{clock(rtf * tally.left_s)} left")
        return ", ".join(facts)

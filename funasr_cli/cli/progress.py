"""How far a run has come: a line for finding speech, which runs ahead, and one for transcribing."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from funasr_cli.cli.console import clock, shows_progress, stderr
from funasr_cli.scheduling.events import Event, Failed, Finished, Read, Settled

if TYPE_CHECKING:
    from rich.console import RenderableType


class Tally:
    """How much has been transcribed. Lengths are known only from opening an input on, so inputs count alike."""

    def __init__(self) -> None:
        self.inputs = 0  # those that are done
        self.audio_s = 0.0  # of all together
        self._expected_s: dict[int, float | None] = {}
        self._done_s: dict[int, float] = {}

    @property
    def completed(self) -> float:
        """Inputs that are done, with shares of those that are being worked on."""
        shares = (min(1.0, self._done_s[source] / length_s) for source, length_s in self._lengths())
        return self.inputs + sum(shares)

    def _lengths(self) -> list[tuple[int, float]]:
        return [(source, length_s) for source, length_s in self._expected_s.items() if length_s]

    def open(self, source: int, expected_s: float | None) -> None:
        """An input is going to be transcribed."""
        self._expected_s.setdefault(source, expected_s)
        self._done_s.setdefault(source, 0.0)

    def advance(self, source: int, done_s: float) -> None:
        """An input has been transcribed so far."""
        self.audio_s += done_s - self._done_s[source]
        self._done_s[source] = done_s

    def close(self, source: int) -> None:
        """An input is done."""
        self.inputs += 1
        self._expected_s.pop(source, None)
        self._done_s.pop(source, None)


class Progress:
    """Both lines.

    Args:
        names: of the inputs.
    """

    def __init__(self, names: Sequence[str]):
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._names = names
        self._tally = Tally()
        self._starts_s: dict[int, float] = {}
        self._started = time.perf_counter()
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=stderr(),
            disable=not shows_progress(),
        )
        self._reading = self._bars.add_task("finding speech", total=len(names), facts="", visible=False)
        self._writing = self._bars.add_task("transcribing", total=len(names), facts=self._facts())

    def __rich__(self) -> "RenderableType":
        return self._bars

    def show(self, event: Event) -> None:
        """Take in what has happened; drafts change nothing."""
        if isinstance(event, Read):
            self._read(event)
            return
        if isinstance(event, Settled):
            self._tally.advance(event.source, event.segment.end_s - self._starts_s[event.source])
        elif isinstance(event, Finished):
            self._tally.advance(event.source, event.transcript.duration_s)
            self._tally.close(event.source)
        elif isinstance(event, Failed):
            self._tally.close(event.source)
        self._bars.update(self._writing, completed=self._tally.completed, facts=self._facts())

    def _read(self, event: Read) -> None:
        """One input is read after the other."""
        self._tally.open(event.source, event.expected_s)
        self._starts_s[event.source] = event.start_s
        share = min(1.0, event.read_s / event.expected_s) if event.expected_s else 0.0
        self._bars.update(
            self._reading,
            completed=event.source + share,
            description=f"finding speech in {self._names[event.source]}",
            facts=clock(event.start_s + event.read_s),
            visible=event.source + share < len(self._names),
        )

    def _facts(self) -> str:
        """Inputs done, audio done, and the real-time factor so far."""
        tally, taken_s = self._tally, time.perf_counter() - self._started
        rtf = f", RTF {taken_s / tally.audio_s:.2f}" if tally.audio_s else ""
        return f"{tally.inputs}/{len(self._names)} inputs, {clock(tally.audio_s)} of audio{rtf}"

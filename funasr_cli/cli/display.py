"""What is seen while recordings are transcribed: progress, the segments being written, and results."""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from funasr_cli.characters import one_line
from funasr_cli.cli import console
from funasr_cli.cli.outcome import is_low, no_speech
from funasr_cli.cli.output import Files, Printer
from funasr_cli.errors import OutputError
from funasr_cli.formats import clock
from funasr_cli.inputs import Input
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished
from funasr_cli.transcript import STAGES, Transcript

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

REDRAW_S = 0.02
SPARE_COLUMNS = 5  # for the ^C of a terminal, or two, which would begin a line that nobody takes away


class Progress:
    """How far a run has come: a line for finding speech, which runs ahead, and one for transcribing.

    Lengths are known only from opening an input on, so inputs count alike.
    """

    def __init__(self, names: Sequence[str], task: str):
        from rich import progress as rich

        self._names = names
        self._closed = 0
        self._audio_s = 0.0  # done, of all inputs together
        self._source = 0  # that is being read
        self._opened: dict[int, Read] = {}
        self._done_s: dict[int, float] = defaultdict(float)  # of those that are not closed
        self._started = time.perf_counter()
        texts = [rich.TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[facts]")]
        columns = texts[0], rich.BarColumn(), texts[1], rich.TimeRemainingColumn()
        self._bars = rich.Progress(*columns, console=console.stderr(), disable=not console.shows_progress())
        self._reading = self._bars.add_task("finding speech", total=len(names), facts="", visible=False)
        self._writing = self._bars.add_task(task, total=len(names), facts=self._facts())

    def __rich__(self) -> "RenderableType":
        self._bars.update(self._writing, facts=self._facts())  # time goes by without events, too
        return self._bars

    @property
    def completed(self) -> float:
        """Inputs that are done, with shares of those that are being worked on."""
        lengths_s = ((done_s, self._opened[source].expected_s) for source, done_s in self._done_s.items())
        return self._closed + sum(min(1.0, done_s / length_s) for done_s, length_s in lengths_s if length_s)

    def show(self, event: Event) -> None:
        """Take in what has happened; partial texts change nothing."""
        if isinstance(event, Read):  # one input after the other
            self._opened[event.source] = event
            self._source = event.source
            share = min(1.0, event.read_s / event.expected_s) if event.expected_s else 0.0
            self._bars.update(
                self._reading,
                completed=event.source + share,
                description=f"finding speech in {self._names[event.source]}",
                facts=clock(event.start_s + event.read_s),
                visible=event.source + share < len(self._names),
            )
        elif isinstance(event, SegmentFinished):
            self._advance(event.source, event.segment.end_s - self._opened[event.source].start_s)
        elif isinstance(event, Finished | Failed):
            if isinstance(event, Finished):
                self._advance(event.source, event.transcript.duration_s)
            self._done_s.pop(event.source, None)
            self._closed += 1
            if event.source == self._source:
                self._bars.update(self._reading, visible=False)
        self._bars.update(self._writing, completed=self.completed)

    def _advance(self, source: int, done_s: float) -> None:
        self._audio_s += done_s - self._done_s[source]
        self._done_s[source] = done_s

    def _facts(self) -> str:
        """Tell inputs done, audio done, and the real-time factor so far."""
        facts = f"{self._closed}/{len(self._names)} inputs, {clock(self._audio_s)} of audio"
        rtf = (time.perf_counter() - self._started) / (self._audio_s or 1.0)
        return f"{facts}, RTF {rtf:.3f}" if self._audio_s else facts


class Region:
    """The part of a terminal that is redrawn: progress and, if asked for, texts so far. Empty in a pipe."""

    def __init__(self, names: Sequence[str], *, task: str = "transcribing", partial_texts: bool = False):
        self._names = names
        self._shows_texts = partial_texts
        self._texts: dict[tuple[int, float], str] = {}
        self._progress = Progress(names, task)
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        """Show it, on a terminal."""
        from rich.live import Live

        if console.shows_progress() or (self._shows_texts and console.is_terminal()):
            self._live = Live(
                console=console.stderr(),
                get_renderable=self._render,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
            )
            with console.uninterrupted():
                self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        if self._live:
            with console.uninterrupted():
                self._live.stop()
                self._live = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take it away for a moment: stdout may lead to the same terminal."""
        shown = self._live is not None
        self.__exit__()
        try:
            yield
        finally:
            if shown:
                self.__enter__()

    def show(self, event: Event) -> None:
        """Take in what has happened: progress, or more text of a segment, or less when it is final or given up."""
        if not isinstance(event, PartialText):
            self._progress.show(event)
        elif event.text is None:
            self._texts.pop((event.source, event.start_s), None)
        else:
            self._texts[event.source, event.start_s] = event.text
        now = time.perf_counter()
        if self._live and now - self._drawn > REDRAW_S:
            self._drawn = now
            with console.uninterrupted():  # else Rich would take it away by a height that was never drawn
                self._live.refresh()

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.constrain import Constrain

        room = console.stderr().width - SPARE_COLUMNS
        progress = [Constrain(self._progress, room)] if console.shows_progress() else []
        return Group(*self._rows(), *progress)

    def _rows(self) -> "Iterator[RenderableType]":
        """Make a line for each segment, its end if it does not fit; the earliest if there are too many."""
        from rich.text import Text

        if not self._shows_texts:
            return
        width, height = console.stderr().size
        for source, start_s in sorted(self._texts)[: max(1, height - 3)]:
            head = Text(self._names[source] if len(self._names) > 1 else "", style="dim")
            head.truncate(width // 3, overflow="ellipsis")
            head.append(f"{' ' if head else ''}{clock(start_s)} ")
            text = Text(self._texts[source, start_s].translate(console.CONTROLS))
            room = max(1, width - head.cell_len - SPARE_COLUMNS)
            while text.cell_len > room:
                text = text[max(1, (text.cell_len - room) // 2) :]
            yield head + text


class Display:
    """Shows and stores what happens; its region is to be shown meanwhile, as a context.

    Args:
        inputs: all of them.
        files: where results are written; None prints them.
        printer: prints them otherwise; None leaves that to others.
        stream: show text while it is being written, and print segments as soon as they are final.
        task: what is being done, in a word or two.
        reported: inputs of which nothing more is said.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        files: Files | None = None,
        printer: Printer | None = None,
        *,
        stream: bool = False,
        task: str = "transcribing",
        reported: Collection[int] = (),
    ):
        self._inputs, self._reported, self._stream = inputs, reported, stream
        self._files, self._printer = files, printer
        paths = [Path(input.label) for input in inputs]
        count = Counter(path.name for path in paths)  # those that share a name are told apart by their folders
        names = [path.name if count[path.name] == 1 else "/".join(path.parts[-2:]) for path in paths]
        self.region = Region(list(map(one_line, names)), task=task, partial_texts=stream)

    def show(self, event: Event) -> None:
        """Take in an event; raise an OutputError if a result cannot be written."""
        self.region.show(event)
        if isinstance(event, SegmentFinished) and self._printer and self._stream:
            with self.region.aside():
                self._printer.print_segment(event.source, event.segment)
        elif isinstance(event, Finished | Failed):
            with self.region.aside():
                try:
                    if event.source not in self._reported:
                        self._end(event)
                finally:
                    if self._printer:
                        self._printer.close(event.source)

    def _end(self, event: Finished | Failed) -> None:
        if isinstance(event, Failed):
            console.report(event.error)
            return
        input, transcript = self._inputs[event.source], event.transcript
        for warning in transcript.warnings:
            console.warn(f"{input.label}: {warning}")
        if transcript.fault:  # names the input itself
            console.warn(transcript.fault)
        if len(self._inputs) > 1 and not transcript.segments and is_low(transcript.level_dbfs):
            console.warn(f"{input.label}: {no_speech(transcript.level_dbfs)}")
        console.detail(f"{input.label}: {_costs(transcript)}")
        try:
            if self._files:
                self._files.write(input, transcript)
            elif self._printer and not self._stream:
                self._printer.print_transcript(event.source, transcript)
        except OutputError as error:  # as of a disk that has become full: the work is not to be lost
            if self._files and self._printer and not self._stream:
                with suppress(OutputError):
                    self._printer.print_transcript(event.source, transcript)
                    error.hint = "the result is on standard output instead"
            raise


def _costs(transcript: Transcript) -> str:
    """Tell where the time went."""
    timings = transcript.timings
    seconds = ", ".join(f"{stage} {getattr(timings, f'{stage}_s'):.2f} s" for stage in STAGES)
    count = len(transcript.segments)
    calls = f" in {timings.decoder_calls} decoder calls" if timings.drafted else ""
    return f"{count} segment{'s' * (count != 1)}, {timings.tokens} tokens{calls}; {seconds}"

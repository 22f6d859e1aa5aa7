"""What is seen while recordings are transcribed: progress, the segments being written, and results."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from funasr_cli.characters import one_line
from funasr_cli.cli import console
from funasr_cli.cli.outcome import is_low, no_speech
from funasr_cli.cli.output import Files, Printer
from funasr_cli.cli.progress import Progress
from funasr_cli.errors import OutputError
from funasr_cli.formats import clock
from funasr_cli.inputs import Input
from funasr_cli.scheduling.events import Draft, Event, Failed, Finished, Settled
from funasr_cli.transcript import STAGES, Transcript

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

REDRAW_S = 0.02
SPARE_COLUMNS = 3  # for the ^C of a terminal, which would begin a line that nobody takes away


class Region:
    """The part of a terminal that is redrawn: the segments being written, and progress. Empty in a pipe.

    Args:
        names: of the inputs.
        task: what is being done, in a word or two.
        drafts: show text while it is being written.
    """

    def __init__(self, names: Sequence[str], *, task: str = "transcribing", drafts: bool = False):
        self._names = names
        self._show_drafts = drafts
        self._drafts: dict[tuple[int, float], str] = {}
        self._progress = Progress(names, task)
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        """Show it, on a terminal."""
        from rich.live import Live

        if console.shows_progress() or (self._show_drafts and console.is_terminal()):
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
        if not isinstance(event, Draft):
            self._progress.show(event)
        elif event.text is None:
            self._drafts.pop((event.source, event.start_s), None)
        else:
            self._drafts[event.source, event.start_s] = event.text
        now = time.perf_counter()
        if self._live and now - self._drawn > REDRAW_S:
            self._drawn = now
            self._live.refresh()

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.padding import Padding

        progress = [Padding(self._progress, (0, SPARE_COLUMNS, 0, 0))] if console.shows_progress() else []
        return Group(*self._rows(), *progress)

    def _rows(self) -> "Iterator[RenderableType]":
        """A line for each segment, its end if it does not fit; the earliest if there are too many."""
        from rich.text import Text

        if not self._show_drafts:
            return
        width, height = console.stderr().size
        for source, start_s in sorted(self._drafts)[: max(1, height - 3)]:
            head = Text(self._names[source] if len(self._names) > 1 else "", style="dim")
            head.truncate(width // 3, overflow="ellipsis")
            head.append(f"{' ' if head else ''}{clock(start_s)} ")
            text = Text(self._drafts[source, start_s].translate(console.CONTROLS))
            room = max(1, width - head.cell_len - SPARE_COLUMNS)
            while text.cell_len > room:
                text = text[max(1, (text.cell_len - room) // 2) :]
            yield head + text


class Display:
    """Shows and stores what happens.

    Args:
        inputs: all of them.
        files: where results are written; None prints them.
        printer: prints them otherwise.
        stream: show text while it is being written, and print segments as soon as they are final.

    Attributes:
        region: to be shown meanwhile, as a context.
    """

    def __init__(self, inputs: Sequence[Input], files: Files | None, printer: Printer, *, stream: bool):
        self._inputs = inputs
        self._files = files
        self._stream = stream
        self._printer = printer
        self.region = Region(short_names(inputs), drafts=stream)

    def show(self, event: Event) -> None:
        """Take in an event.

        Raises:
            OutputError: a result cannot be written.
        """
        self.region.show(event)
        if isinstance(event, Settled) and self._stream:
            with self.region.aside():
                self._printer.print_segment(event.source, event.segment)
        elif isinstance(event, Finished | Failed):
            with self.region.aside():
                try:
                    self._end(event)
                finally:
                    self._printer.close(event.source)

    def _end(self, event: Finished | Failed) -> None:
        if isinstance(event, Failed):
            console.report(event.error)
            return
        input, transcript = self._inputs[event.source], event.transcript
        warn(input, transcript)
        if len(self._inputs) > 1 and not transcript.segments and is_low(transcript.level_dbfs):
            console.warn(f"{input.label}: {no_speech(transcript.level_dbfs)}")
        console.detail(f"{input.label}: {_costs(transcript)}")
        if not self._files:
            if not self._stream:
                self._printer.print_transcript(event.source, transcript)
            return
        try:
            self._files.write(input, transcript)
        except OutputError as error:  # as of a disk that has become full: the work is not to be lost
            if not self._stream:
                with suppress(OutputError):
                    self._printer.print_transcript(event.source, transcript)
                    error.hint = "the result is on standard output instead"
            raise


def short_names(inputs: Sequence[Input]) -> list[str]:
    """What inputs are called where there is little room."""
    return [one_line(Path(input.label).name) for input in inputs]


def warn(input: Input, transcript: Transcript) -> None:
    """Say what is missing."""
    for warning in transcript.warnings:
        console.warn(f"{input.label}: {warning}")
    if transcript.fault:  # names the input itself
        console.warn(transcript.fault)


def _costs(transcript: Transcript) -> str:
    """Where the time went."""
    timings = transcript.timings
    seconds = ", ".join(f"{stage} {getattr(timings, f'{stage}_s'):.2f} s" for stage in STAGES)
    count = len(transcript.segments)
    passes = f" in {timings.passes} passes" if timings.drafted else ""
    return f"{count} segment{'s' * (count != 1)}, {timings.tokens} tokens{passes}; {seconds}"

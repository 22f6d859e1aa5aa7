"""What is seen while recordings are transcribed: a progress bar, the segments being written, and results."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from funasr_cli.cli import console
from funasr_cli.cli.output import Folder, Printer
from funasr_cli.scheduling.events import Draft, Event, Failed, Finished, Settled

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

REDRAW_S = 0.02


class Region:
    """The part of a terminal that is redrawn: the segments being written and a progress bar. Empty in a pipe."""

    def __init__(self, inputs: list[Path], *, drafts: bool):
        self._names = [path.name for path in inputs]
        self._show_drafts = drafts
        self._drafts: dict[tuple[int, float], str] = {}
        self._progress = console.progress()
        self._task = self._progress.add_task("transcribing", total=len(inputs))
        self._live: Live | None = None
        self._drawn = 0.0

    def start(self) -> None:
        """Show it, on a terminal."""
        from rich.live import Live

        if console.stderr().is_terminal:
            self._live = Live(
                console=console.stderr(),
                get_renderable=self._render,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
            )
            with console.uninterrupted():
                self._live.start()

    def stop(self) -> None:
        """Take it away."""
        if self._live:
            with console.uninterrupted():
                self._live.stop()
                self._live = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take it away for a moment: stdout may lead to the same terminal."""
        shown = self._live is not None
        self.stop()
        try:
            yield
        finally:
            if shown:
                self.start()

    def draft(self, draft: Draft) -> None:
        """More text, or less: it has been settled or given up."""
        if draft.text is None:
            self._drafts.pop((draft.source, draft.start_s), None)
        else:
            self._drafts[draft.source, draft.start_s] = draft.text
        self.redraw()

    def advance(self) -> None:
        """An input is done."""
        self._progress.advance(self._task)
        self.redraw()

    def describe(self, source: int, done_s: float) -> None:
        """Say how far an input has been transcribed."""
        self._progress.update(self._task, description=f"{self._names[source]} {console.clock(done_s)}")
        self.redraw()

    def redraw(self) -> None:
        """Draw what has changed, if the last time is not just past."""
        now = time.perf_counter()
        if self._live and now - self._drawn > REDRAW_S:
            self._drawn = now
            self._live.refresh()

    def _render(self) -> "RenderableType":
        from rich.console import Group

        return Group(*self._rows(), self._progress)

    def _rows(self) -> "Iterator[RenderableType]":
        """A line for each segment, its end if it does not fit; the earliest if there are too many."""
        from rich.text import Text

        if not self._show_drafts:
            return
        width, height = console.stderr().size
        for source, start_s in sorted(self._drafts)[: max(1, height - 3)]:
            name = f"{self._names[source]} " if len(self._names) > 1 else ""
            head = f"{name}{console.clock(start_s)} "
            text = Text(self._drafts[source, start_s].translate(console.CONTROLS))
            room = max(1, width - len(head) - 1)
            while text.cell_len > room:
                text = text[max(1, (text.cell_len - room) // 2) :]
            yield Text(head, style="dim") + text


class Display:
    """Shows and stores what happens.

    Args:
        inputs: all of them.
        folder: where results are written; None prints them.
        format: what they are printed as.
        stream: show text while it is being written, and print segments as soon as they are final.
    """

    def __init__(self, inputs: list[Path], folder: Folder | None, format: str, *, stream: bool):
        self._inputs = inputs
        self._folder = folder
        self._stream = stream
        self._printer = Printer(inputs, format)
        self._region = Region(inputs, drafts=stream)

    def __enter__(self) -> Self:
        self._region.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._region.stop()

    def show(self, event: Event) -> None:
        """Take in an event.

        Raises:
            OutputError: a result cannot be written.
        """
        if isinstance(event, Draft):
            self._region.draft(event)
            return
        if isinstance(event, Settled):
            self._region.describe(event.source, event.segment.end_s)
            if self._stream:
                with self._region.aside():
                    self._printer.print_segment(event.source, event.segment)
            return
        with self._region.aside():
            try:
                self._end(event)
            finally:
                self._printer.close(event.source)
                self._region.advance()

    def _end(self, event: Finished | Failed) -> None:
        if isinstance(event, Failed):
            console.report(event.error)
            return
        path, transcript = self._inputs[event.source], event.transcript
        for warning in transcript.warnings:
            console.warn(f"{path}: {warning}")
        if transcript.fault:  # names the input itself
            console.warn(transcript.fault)
        if self._folder:
            self._folder.write(path, transcript)
        elif not self._stream:
            self._printer.print_transcript(event.source, transcript)

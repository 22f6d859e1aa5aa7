"""Output during a run: progress bars, the text of unfinished segments, and results."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from funasr_cli.characters import one_line
from funasr_cli.cli import console
from funasr_cli.cli.names import display_name, renamed, short_names
from funasr_cli.cli.outcome import is_low, no_speech, speed
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
SPARE_COLUMNS = 5  # room for one or two ^C that the terminal shows; else they start a line that is never erased
BARS = ((110, 40), (95, 20), (0, 8))  # least width of a terminal, and columns of a progress bar on it
LEAST_FOR_BAR, LEAST_FOR_SPEED = 50, 72  # least widths for a bar, and for the speed and the time left
BAR_OF_ONE = 20  # least columns of the bar for a single input, which leaves more room
OPTIONAL_STAGES = ("ctc", "prefill", "decode")  # stages that some models lack


class Progress:
    """Two progress bars: finding speech, which runs ahead, and transcribing.

    The length of an input is unknown until it is opened, so every input counts the same.
    """

    def __init__(self, names: Sequence[str], task: str):
        from rich import progress as rich

        self._names = names
        self._closed = 0
        self._audio_s = 0.0  # transcribed so far, of all inputs
        self._source = 0  # the input that is being read
        self._opened: dict[int, Read] = {}
        self._done_s: dict[int, float] = defaultdict(float)  # for each input in progress
        self._started = time.perf_counter()
        texts = [rich.TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[facts]")]
        width = console.stderr().width
        room = next(bar for least, bar in BARS if width >= least)
        bar = [rich.BarColumn(room if len(names) > 1 else max(room, BAR_OF_ONE))] if width >= LEAST_FOR_BAR else []
        self._shows_speed = width >= LEAST_FOR_SPEED
        columns = texts[0], *bar, texts[1], *([console.time_left()] if self._shows_speed else [])
        self._bars = rich.Progress(*columns, console=console.stderr(), disable=not console.shows_progress())
        self._reading = self._bars.add_task("finding speech", total=len(names), facts="", visible=False)
        self._writing = self._bars.add_task(task, total=len(names), facts=self._facts())

    def __rich__(self) -> "RenderableType":
        self._bars.update(self._writing, facts=self._facts())  # the speed changes between events
        return self._bars

    @property
    def completed(self) -> float:
        """The number of inputs done, including fractions of those in progress."""
        lengths_s = ((done_s, self._opened[source].expected_s) for source, done_s in self._done_s.items())
        return self._closed + sum(min(1.0, done_s / length_s) for done_s, length_s in lengths_s if length_s)

    def show(self, event: Event) -> None:
        """Update the bars after an event; partial texts change nothing."""
        if isinstance(event, Read):  # inputs are read one after the other
            self._opened[event.source] = event
            self._source = event.source
            share = min(1.0, event.read_s / event.expected_s) if event.expected_s else 0.0
            self._bars.update(
                self._reading,
                completed=event.source + share,
                facts=f"up to {clock(event.start_s + event.read_s)} in {self._names[event.source]}",
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
        """Return how much is done, in words: inputs, audio, and the speed so far."""
        length_s = self._opened[0].expected_s if len(self._names) == 1 and self._opened else None
        facts = f"{clock(self._audio_s)} of {clock(length_s)}" if length_s else f"{clock(self._audio_s)} audio"
        if len(self._names) > 1:
            facts = f"{self._closed}/{len(self._names)} inputs, {facts}"
        taken_s = time.perf_counter() - self._started
        return f"{facts}, {speed(self._audio_s, taken_s)}" if self._audio_s and self._shows_speed else facts


class Region:
    """The part of a terminal that is redrawn: progress and, with --stream, unfinished texts. A pipe has none."""

    def __init__(self, names: Sequence[str], *, task: str = "transcribing", partial_texts: bool = False):
        self._names = names
        self._shows_texts = partial_texts
        self._texts: dict[tuple[int, float], str] = {}
        self._progress = Progress(names, task)
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        """Show the region, on a terminal."""
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
        """Remove the region."""
        if self._live:
            with console.uninterrupted():
                self._live.stop()
                self._live = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Remove the region for the duration of a block, since stdout may be the same terminal."""
        shown = self._live is not None
        self.__exit__()
        try:
            yield
        finally:
            if shown:
                self.__enter__()

    def show(self, event: Event) -> None:
        """Update progress and unfinished texts after an event. A text is removed when it is final or abandoned."""
        if not isinstance(event, PartialText):
            self._progress.show(event)
        elif event.text is None:
            self._texts.pop((event.source, event.start_s), None)
        else:
            self._texts[event.source, event.start_s] = event.text
        now = time.perf_counter()
        if self._live and now - self._drawn > REDRAW_S:
            self._drawn = now
            with console.uninterrupted():  # else Rich would clear more lines than were drawn
                self._live.refresh()

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.constrain import Constrain

        room = console.stderr().width - SPARE_COLUMNS
        progress = [Constrain(self._progress, room)] if console.shows_progress() else []
        return Group(*self._rows(), *progress)

    def _rows(self) -> "Iterator[RenderableType]":
        """Yield lines for unfinished segments, earliest first, as many as fit. A long text shows its end."""
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
    """Display of events, and writer of results. Use its `region` as a context during the run.

    Args:
        inputs: all inputs of the run.
        files: writes results to files; None prints them.
        printer: prints results; None if the caller does.
        stream: show unfinished text, and print each segment as soon as it is final.
        task: the label of the progress bar.
        reported: inputs whose problems have been reported already.
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
        names = map(one_line, short_names([input.label for input in inputs]))
        self.region = Region(list(names), task=task, partial_texts=stream)

    def show(self, event: Event) -> None:
        """Show an event, and write the result if there is one. Raise an OutputError if that fails."""
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
        input = self._inputs[event.source]
        name = display_name(input.label)
        if isinstance(event, Failed):
            event.error.message = renamed(event.error.message, input.label)
            console.report(event.error)
            return
        transcript = event.transcript
        for warning in transcript.warnings:
            console.warn(f"{name}: {warning}")
        if transcript.fault:  # begins with the input's name
            console.warn(renamed(transcript.fault, input.label))
        if len(self._inputs) > 1 and not transcript.segments and is_low(transcript.level_dbfs):
            console.warn(f"{name}: {no_speech(transcript.level_dbfs)}")
        console.detail(f"{name}: {_costs(transcript)}")
        try:
            if self._files:
                self._files.write(input, transcript)
            elif self._printer and not self._stream:
                self._printer.print_transcript(event.source, transcript)
        except OutputError as error:  # the disk is full, for example: print the result, so that it is not lost
            if self._files and self._printer and not self._stream:
                with suppress(OutputError):
                    self._printer.print_transcript(event.source, transcript)
                    error.hint = "the text is printed to standard output instead"
            raise


def _costs(transcript: Transcript) -> str:
    """Return the number of segments and tokens, and the time of each stage, in words."""
    timings, count = transcript.timings, len(transcript.segments)
    tokens = f", {timings.tokens} tokens" if timings.tokens else ""
    if timings.drafted:
        tokens += f" in {timings.decoder_calls} decoder calls"
    times = {stage: getattr(timings, f"{stage}_s") for stage in STAGES}
    # Only a model with a decoder prefills and decodes, and only some have a CTC branch.
    used = {stage: taken_s for stage, taken_s in times.items() if taken_s or stage not in OPTIONAL_STAGES}
    seconds = ", ".join(f"{stage} {taken_s:.2f} s" for stage, taken_s in used.items())
    return f"{count} segment{'s' * (count != 1)}{tokens}; {seconds}"

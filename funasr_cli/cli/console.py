"""Output: results go to stdout, everything else to stderr. No text is interpreted as Rich markup.

`set_volume` chooses how much is printed, for the whole process.
"""

import codecs
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from funasr_cli.errors import FunASRError, OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, ProgressColumn, TaskID

# Control characters, which a text or a file name could use to manipulate a terminal, except line feed and tab.
CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))
TRACEBACK_VARIABLE = "FUNASR_TRACEBACK"

QUIET, NORMAL, VERBOSE = range(3)  # how much is printed in addition to results
_volume = NORMAL


def set_volume(*, quiet: bool, verbose: bool) -> None:
    """Choose how much is printed from now on. Raise a UsageError for both at once."""
    global _volume
    if quiet and verbose:
        raise UsageError("cannot combine --quiet with --verbose", "choose one", code="options-conflict")
    _volume = QUIET if quiet else VERBOSE if verbose else NORMAL


def is_verbose() -> bool:
    """Return whether details should be printed."""
    return _volume == VERBOSE


def is_terminal() -> bool:
    """Return whether stderr is a terminal that can be redrawn, and not a pipe with FORCE_COLOR."""
    return stderr().is_terminal and stderr().file.isatty()


def shows_progress() -> bool:
    """Return whether progress bars and tables should be drawn."""
    return is_terminal() and _volume > QUIET


@cache
def stderr() -> "Console":
    """Return the console for everything except results."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def prepare_streams() -> None:
    """Make standard streams safe to use.

    The next file to be opened would get the number of a closed stream, so closed streams are opened on /dev/null.
    Text must never fail to encode, regardless of the locale.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        is_utf8 = codecs.lookup(stdout.encoding).name == "utf-8"
        # UTF-8 passes the bytes of file names through. Other encodings escape the characters that they lack.
        stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def forget_unwritten() -> None:
    """Drop output that cannot be written, for example to a full disk, so that Python does not retry at exit."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (OSError, ValueError):
        sys.stdout = None


def colours_stdout() -> bool:
    """Return whether results may have colours: on a terminal or with FORCE_COLOR, and never with NO_COLOR."""
    from rich.console import Console

    stdout = Console()
    return stdout.color_system is not None and not stdout.no_color


def stdout_columns() -> int | None:
    """Return the width of stdout's terminal; None if stdout is not a terminal."""
    from rich.console import Console

    return Console().width if sys.stdout is not None and sys.stdout.isatty() else None


def refuse_closed_stdout() -> None:
    """Raise an OutputError if standard output was closed at the start, since results would be lost."""
    if sys.stdout is None:
        raise OutputError("standard output is closed", "redirect it to a file or a pipe", code="stdout-closed")


def result(text: "str | RenderableType", width: int | None = None) -> None:
    """Write a result, or a part of one, to stdout immediately.

    Args:
        text: a string, or anything that Rich can draw.
        width: columns for what Rich draws; None never folds lines.

    Raises:
        OutputError: writing fails, for example on a full disk. Typer handles a closed pipe (``| head``).
    """
    refuse_closed_stdout()
    if not isinstance(text, str):
        from rich.console import Console

        stdout = Console(highlight=False, markup=False, emoji=False, width=width)
        with stdout.capture() as captured:
            stdout.print(text, end="", soft_wrap=width is None)
        text = captured.get()
    elif sys.stdout.isatty():
        text = text.translate(CONTROLS)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        message = f"standard output: cannot be written ({error.strerror or error})"
        raise OutputError(message, code="disk-full") from error


@contextmanager
def busy(text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on a terminal, and yield a function that changes its text."""
    from rich.text import Text

    if not shows_progress():
        yield lambda text: None
        return
    with stderr().status(Text(text)) as status:
        yield lambda text: status.update(Text(text))


def wrapped(text: str, width: int) -> str:
    """Break lines between words, and repeat the indentation of a line. Words that are too long stay whole."""
    from rich.cells import cell_len

    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))]
        first, *words = line.strip(" ").split(" ")
        lines.append(f"{indent}{first}")
        for word in words:
            if cell_len(f"{lines[-1]} {word}") <= width:
                lines[-1] += f" {word}"
            else:
                lines.append(f"{indent}{word}")
    return "\n".join(lines)


def _print(text: str, style: str = "", *, wrap: bool = True) -> None:
    if stderr().is_terminal:
        text = text.translate(CONTROLS)
    if wrap and is_terminal():
        text = wrapped(text, stderr().width)
    with suppress(OSError):  # a message that cannot be printed does not affect the result
        stderr().print(text, style=style)


def note(text: str) -> None:
    """Print a note on progress, unless it is empty or --quiet is set."""
    if text and _volume > QUIET:
        _print(text, "dim")


def detail(text: str) -> None:
    """Print a detail, with --verbose only."""
    if is_verbose():
        _print(text, "dim")


def say(text: str, *, wrap: bool = True) -> None:
    """Print a text, even with --quiet. A text that must stay as it is, such as a prompt, is not wrapped."""
    _print(text, wrap=wrap)


def warn(text: str) -> None:
    """Print a warning, even with --quiet."""
    _print(f"warning: {text}", "yellow")


def report(error: FunASRError) -> None:
    """Print an error and its hint, with the traceback first if FUNASR_TRACEBACK is set."""
    if error.__traceback__ and os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
        vars(error).pop("__notes__", None)  # the hint, which is printed below
        _print("".join(traceback.format_exception(error)).rstrip(), wrap=False)
    name = f"error[{error.code}]" if error.code else "error"
    _print(f"{name}: {error.message}", "red")
    if error.hint:
        _print(f"  {error.hint}")


def time_left() -> "ProgressColumn":
    """Return a progress bar column with the estimated time left."""
    from rich import progress as rich
    from rich.table import Column
    from rich.text import Text

    class TimeLeft(rich.TimeRemainingColumn):
        """The remaining time, with its label."""

        def render(self, task: rich.Task) -> Text:
            if task.time_remaining is None:  # the total or the speed is still unknown
                return Text()
            return super().render(task).append(" left")

    return TimeLeft(compact=True, table_column=Column(no_wrap=True))


def download_progress() -> "Progress":
    """Return a progress bar that counts bytes. It is shown only on a terminal."""
    from rich import progress as rich
    from rich.table import Column
    from rich.text import Text

    class Bytes(rich.DownloadColumn):
        """Bytes done and in total; empty while the total is unknown."""

        def render(self, task: rich.Task) -> Text:
            return Text() if task.total is None else super().render(task)

    columns = (  # by the least width of a terminal
        (0, rich.TextColumn("{task.description}", markup=False)),
        (0, rich.BarColumn()),
        (36, Bytes(table_column=Column(no_wrap=True))),
        (50, time_left()),
    )
    return rich.Progress(
        *(column for least, column in columns if stderr().width >= least),
        console=stderr(),
        transient=True,
        redirect_stdout=False,  # else Rich sends results to stderr while it shows the bar
        disable=not shows_progress(),
    )


@contextmanager
def progress(announcement: str | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar in bytes for each step, and a moving bar for a step of unknown size.

    Without a terminal, print the announcement once, when the download begins.
    """
    from funasr_cli.hubs.find import DOWNLOADING, VERIFYING

    with download_progress() as bar:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=None)
                if announcement and what == DOWNLOADING and not shows_progress():
                    note(announcement)
            if what != VERIFYING:
                bar.update(tasks[what], completed=done, total=total)

        yield on_progress


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C until the end of a block that must not be cut short: it writes a file or redraws a region."""
    waiting: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting:
            signal.raise_signal(signal.SIGINT)

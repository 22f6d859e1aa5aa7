"""Where things are shown: results on stdout, everything else on stderr. Nothing is ever read as Rich markup."""

import codecs
import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from funasr_cli.errors import FunASRError, OutputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# What a model or a file name might hold to play tricks on a terminal; line feeds and tabs are kept.
CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))


@cache
def stderr() -> "Console":
    """The console for everything that is not a result."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def prepare_stdout() -> None:
    """Let every transcript and file name through, whatever the locale: text never ends in an encoding error."""
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        is_utf8 = codecs.lookup(stdout.encoding).name == "utf-8"
        # In UTF-8, file names come out as the bytes they are; elsewhere, what is missing is spelled out.
        stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def result(text: str) -> None:
    """Write a result, or a piece of one, at once.

    Raises:
        OutputError: there is no room for it. A reader that has gone (``| head``) is Typer's to handle.
    """
    if sys.stdout.isatty():
        text = text.translate(CONTROLS)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error})") from error


@contextmanager
def busy(text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on a terminal; yields what changes its text."""
    from rich.text import Text

    with stderr().status(Text(text)) as status:
        yield lambda text: status.update(Text(text))


def note(text: str) -> None:
    """Say what is going on."""
    stderr().print(text, style="dim")


def warn(text: str) -> None:
    """Say what the user should know."""
    stderr().print(f"warning: {text}", style="yellow")


def report(error: FunASRError) -> None:
    """Show an error: what happened, and what to do."""
    stderr().print(f"error: {error.message}", style="red")
    if error.hint:
        stderr().print(f"  {error.hint}")


def progress(*, bytes_done: bool = False) -> "Progress":
    """A progress bar that shows on a terminal only."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn() if bytes_done else MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
        redirect_stdout=False,  # Rich would send results to stderr while the bar shows
        disable=not stderr().is_terminal,
    )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of a block; Rich does not survive it halfway into or out of a live region."""
    waiting: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        signal.raise_signal(signal.SIGINT)


def live_terminal() -> bool:
    """Whether a live region can be shown on stderr while stdout is a terminal, too."""
    return sys.stdout.isatty() and stderr().is_terminal


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"

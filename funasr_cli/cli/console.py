"""Where things are shown: results on stdout, everything else on stderr. Nothing is ever read as Rich markup.

How much is said is a setting of the whole process: `set_volume`.
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
    from rich.progress import Progress

# What a model or a file name might hold to play tricks on a terminal; line feeds and tabs are kept.
CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))
TRACEBACK_VARIABLE = "FUNASR_TRACEBACK"


QUIET, NORMAL, VERBOSE = range(3)  # how much is said besides results: only warnings and errors; the rest, too
_volume = NORMAL


def set_volume(*, quiet: bool, verbose: bool) -> None:
    """Choose how much is said from now on; raise a UsageError for both at once."""
    global _volume
    if quiet and verbose:
        raise UsageError("--quiet with --verbose", "choose one", code="options-conflict")
    _volume = QUIET if quiet else VERBOSE if verbose else NORMAL


def is_verbose() -> bool:
    """Whether details are wanted."""
    return _volume == VERBOSE


def is_terminal() -> bool:
    """Whether stderr is a terminal where things can be redrawn; FORCE_COLOR makes Rich take a pipe for one."""
    return stderr().is_terminal and stderr().file.isatty()


def shows_progress() -> bool:
    """Whether bars and tables are wanted, and can be shown."""
    return is_terminal() and _volume > QUIET


@cache
def stderr() -> "Console":
    """The console for everything that is not a result."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def prepare_streams() -> None:
    """Make the best of what the program was started with.

    A descriptor that is closed would be given to the next file that is opened. And every transcript and file name
    gets through, whatever the locale: text never ends in an encoding error.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        is_utf8 = codecs.lookup(stdout.encoding).name == "utf-8"
        # In UTF-8, file names come out as the bytes they are; elsewhere, what is missing is spelled out.
        stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def forget_unwritten() -> None:
    """Keep Python from trying once more, at its end, to write what a full disk has refused already."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (OSError, ValueError):
        sys.stdout = None


def colours_stdout() -> bool:
    """Whether results may be coloured: on a terminal, or if FORCE_COLOR says so; not if NO_COLOR does."""
    from rich.console import Console

    stdout = Console()
    return stdout.color_system is not None and not stdout.no_color


def refuse_closed_stdout() -> None:
    """Raise an OutputError if standard output was closed when the program started: results would be lost."""
    if sys.stdout is None:
        raise OutputError("standard output: is closed", "let it lead somewhere", code="stdout-closed")


def result(text: "str | RenderableType", width: int | None = None) -> None:
    """Write a result, or a piece of one, at once; what Rich draws is this wide, or never folded.

    Raises:
        OutputError: there is no room for it. A reader that has gone (``| head``) is Typer's to handle.
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
    """Show a spinner on a terminal; yields what changes its text."""
    from rich.text import Text

    if not shows_progress():
        yield lambda text: None
        return
    with stderr().status(Text(text)) as status:
        yield lambda text: status.update(Text(text))


def _print(text: str, style: str = "") -> None:
    with suppress(OSError):  # what is said must not decide what is done
        stderr().print(text.translate(CONTROLS) if stderr().is_terminal else text, style=style)


def note(text: str) -> None:
    """Say what is going on."""
    if _volume > QUIET:
        _print(text, "dim")


def detail(text: str) -> None:
    """Say what only some want to know."""
    if is_verbose():
        _print(text, "dim")


def say(text: str) -> None:
    """Say what an option of its own asked for."""
    _print(text)


def warn(text: str) -> None:
    """Say what the user should know."""
    _print(f"warning: {text}", "yellow")


def report(error: FunASRError) -> None:
    """Show an error: what happened, and what to do; if asked for, also where in the program it came from."""
    if error.__traceback__ and os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
        vars(error).pop("__notes__", None)  # the hint, which follows
        _print("".join(traceback.format_exception(error)).rstrip())
    name = f"error[{error.code}]" if error.code else "error"
    _print(f"{name}: {error.message}", "red")
    if error.hint:
        _print(f"  {error.hint}")


def download_progress() -> "Progress":
    """A bar of bytes that shows on a terminal only."""
    from rich import progress as rich
    from rich.text import Text

    class Bytes(rich.DownloadColumn):
        """Nothing as long as nobody knows how many there are."""

        def render(self, task: rich.Task) -> Text:
            return Text() if task.total is None else super().render(task)

    return rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        Bytes(),
        rich.TimeRemainingColumn(),
        console=stderr(),
        transient=True,
        redirect_stdout=False,  # Rich would send results to stderr while the bar shows
        disable=not shows_progress(),
    )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of a block that would leave something behind: a temporary file, a live region."""
    waiting: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting:
            signal.raise_signal(signal.SIGINT)

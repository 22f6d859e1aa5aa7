"""How transcripts reach the user: printed, written to files, or live while they are being decoded."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from funasr_cli.cli import console
from funasr_cli.errors import OutputError, UsageError
from funasr_cli.transcript import Transcript
from funasr_cli.writers import WRITERS, as_json_line, as_text, output_path, write_new

if TYPE_CHECKING:
    from rich.live import Live


class Display:
    """Prints each transcript when it is finished, behind a progress bar. Others build on it.

    With several inputs, each line of text begins with its input's name, as grep does it.

    Args:
        paths: all inputs.
        output_dir: write files here instead of printing.
        format: a key of `WRITERS`.
    """

    def __init__(self, paths: list[Path], output_dir: Path | None, format: str):
        self._output_dir = output_dir
        self._format = format
        self._path = paths[0]
        self._named = len(paths) > 1
        self._progress = console.progress()
        self._task = self._progress.add_task("transcribing", total=len(paths))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, path: Path) -> None:
        """The next input; refused here if its result would overwrite a file."""
        self._path = path
        self._progress.update(self._task, description=path.name)
        if self._output_dir and os.path.lexists(file := self._file()):
            raise OutputError(f"{file}: exists already", "choose another --output-dir, or remove it first")

    def piece(self, text: str) -> None:
        """More text of the current input."""

    def end(self, transcript: Transcript) -> None:
        """The current input is finished."""
        if self._output_dir:
            write_new(self._file(), WRITERS[self._format](transcript))
            console.note(f"wrote {self._file()}")
        else:
            with self._bar_aside():
                self._print(transcript)
        self._progress.advance(self._task)

    def fail(self) -> None:
        """The current input could not be finished."""
        self._progress.advance(self._task)

    @contextmanager
    def _bar_aside(self) -> Iterator[None]:
        """Take the progress bar away for a moment: stdout may lead to the same terminal."""
        if not self._progress.live.is_started:
            yield
            return
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def _file(self) -> Path:
        return output_path(str(self._path), self._output_dir or Path(), self._format)

    @property
    def _prefix(self) -> str:
        return f"{self._path}: " if self._named else ""

    def _print(self, transcript: Transcript) -> None:
        console.result(as_json_line(transcript) if self._format == "json" else self._prefix + as_text(transcript))


class PieceDisplay(Display):
    """Writes text to stdout as it comes: for pipes. The pieces of a line, joined, are its text."""

    _open = False

    def piece(self, text: str) -> None:
        """Write the piece; the first one opens the line."""
        console.result(text if self._open else self._prefix + text)
        self._open = True

    def end(self, transcript: Transcript) -> None:
        """Close the line."""
        if not self._open:
            console.result(self._prefix)
        self._close()
        super().end(transcript)

    def _print(self, transcript: Transcript) -> None:
        """The pieces were it."""

    def fail(self) -> None:
        """Close the line if one is open."""
        if self._open:
            self._close()
        super().fail()

    def _close(self) -> None:
        console.result("\n")
        self._open = False


class LiveDisplay(Display):
    """Shows text in a live region on stderr as it comes, and prints it on stdout once it is final."""

    _live: "Live | None" = None
    _text = ""

    def begin(self, path: Path) -> None:
        """Open a live region in place of the progress bar."""
        from rich.live import Live

        super().begin(path)
        self._text = ""
        self._live = Live(console=console.stderr(), transient=True, auto_refresh=False, redirect_stdout=False)
        self._live.start()

    def piece(self, text: str) -> None:
        """Show more text."""
        from rich.text import Text

        self._text += text
        if self._live:
            width, height = self._live.console.size
            room = max(1, height - 1) * width // 2  # characters that fit even if each takes two columns
            self._live.update(Text((self._prefix + self._text)[-room:]), refresh=True)

    def end(self, transcript: Transcript) -> None:
        """Take the region away and print what is final."""
        self._stop()
        if self._output_dir:
            console.result(self._prefix + as_text(transcript))
        super().end(transcript)

    def fail(self) -> None:
        """Take the region away."""
        self._stop()
        super().fail()

    def __enter__(self) -> Self:
        return self  # the live region stands where the progress bar would

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None


def make_display(paths: list[Path], output_dir: Path | None, format: str, *, stream: bool) -> Display:
    """Choose the display for the options and for where stdout and stderr lead.

    Raises:
        UsageError: options that contradict each other, or two inputs whose results would share a file.
    """
    if stream and format == "json" and output_dir is None:
        raise UsageError(
            "--stream writes text, --format json data, both to stdout", "add --output-dir for the data"
        )
    if output_dir:
        shared = [
            name
            for name, count in Counter(output_path(str(p), output_dir, format) for p in paths).items()
            if count > 1
        ]
        if shared:
            raise UsageError(
                f"several inputs would be written to {shared[0]}", "transcribe them into separate folders"
            )
    if not stream:
        return Display(paths, output_dir, format)
    return (LiveDisplay if console.live_terminal() else PieceDisplay)(paths, output_dir, format)


def make_folder(path: Path | None) -> None:
    """Make the output folder, once nothing else stands in the way.

    Raises:
        OutputError: it cannot be made.
    """
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error})") from error

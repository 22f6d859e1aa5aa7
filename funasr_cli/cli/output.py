"""Where results go: to stdout in the order of the inputs, or each to a file of its own."""

import os
from collections import Counter, defaultdict
from pathlib import Path

from funasr_cli.cli import console
from funasr_cli.errors import OutputError, UsageError
from funasr_cli.transcript import Segment, Transcript
from funasr_cli.writers import WRITERS, as_json_line, as_lines, exists_already, output_path, write_new

LINES = ("txt", "json", "jsonl")  # formats of which several can follow each other on stdout


class Folder:
    """An output folder with a file for each input.

    Raises:
        UsageError: two inputs would share a file.
    """

    def __init__(self, path: Path, format: str, inputs: list[Path]):
        self._path = path
        self._format = format
        shared = [file for file, count in Counter(map(self.file, inputs)).items() if count > 1]
        if shared:
            raise UsageError(
                f"several inputs would be written to {shared[0]}", "transcribe them into separate folders"
            )

    def file(self, source: Path) -> Path:
        """Where the result for an input goes."""
        return output_path(str(source), self._path, self._format)

    def has(self, source: Path) -> bool:
        """Whether that is there already, be it a broken link."""
        return os.path.lexists(self.file(source))

    def refuse_existing(self, source: Path) -> None:
        """Raise an OutputError before an input is worked on whose result would overwrite something."""
        if self.has(source):
            raise exists_already(self.file(source))

    def make(self) -> None:
        """Make the folder, once nothing else stands in the way."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be made ({error})") from error

    def write(self, source: Path, transcript: Transcript) -> None:
        """Write a result, whole or not at all."""
        write_new(self.file(source), WRITERS[self._format](transcript))
        console.note(f"wrote {self.file(source)}")


class Printer:
    """Prints results in the order of the inputs; what comes too early waits.

    With several inputs each line begins with its input's name, as grep does it.

    Args:
        inputs: all of them.
        format: what a transcript is printed as; `json` is a line each.

    Raises:
        UsageError: several inputs in a format that is a file of its own.
    """

    def __init__(self, inputs: list[Path], format: str):
        if len(inputs) > 1 and format not in LINES:
            raise UsageError(f"{format} of several inputs on stdout", "add --output-dir")
        self._prefixes = [f"{path}: " if len(inputs) > 1 else "" for path in inputs]
        self._format = format
        self._held: dict[int, list[str]] = defaultdict(list)
        self._closed: set[int] = set()
        self._current = 0

    def print_segment(self, source: int, segment: Segment) -> None:
        """Print a line as soon as it is its turn."""
        self._add(source, as_lines([segment], self._prefixes[source]))

    def print_transcript(self, source: int, transcript: Transcript) -> None:
        """Print all of it as soon as it is its turn."""
        if self._format == "txt":
            self._add(source, as_lines(transcript.segments, self._prefixes[source]))
        elif self._format in LINES:
            self._add(source, as_json_line(transcript))
        else:
            self._add(source, WRITERS[self._format](transcript))

    def close(self, source: int) -> None:
        """Nothing more comes of this input."""
        self._closed.add(source)
        while self._current in self._closed:
            self._current += 1
            for text in self._held.pop(self._current, []):
                console.result(text)

    def _add(self, source: int, text: str) -> None:
        if source == self._current:
            console.result(text)
        else:
            self._held[source].append(text)

"""Where results go: to stdout in the order of the inputs, or each to files of its own."""

import os
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from funasr_cli.cli import console
from funasr_cli.decoding.languages import AUTO, language_code
from funasr_cli.errors import OutputError, UsageError
from funasr_cli.inputs import Input
from funasr_cli.paths import refuse_unwritable, shown
from funasr_cli.transcript import Segment, Transcript
from funasr_cli.writers import (
    DEFAULT_STYLE,
    DEFAULT_TIMES,
    WRITERS,
    Style,
    as_lines,
    exists_already,
    refuse_timeless,
    write_new,
)

if TYPE_CHECKING:
    from rich.text import Text

LINES = ("txt", "json", "jsonl")  # formats of which several can follow each other on stdout
DEFAULT_TEMPLATE = "{stem}.{ext}"
TEMPLATE_HINT = "it is made of {stem}, {suffix}, {lang} and {ext}, as in '{stem}.{lang}.{ext}'"


@dataclass(frozen=True)
class OutputPlan:
    """What becomes of results.

    Attributes:
        formats: names of `WRITERS`, one at least.
        folder: where files are written; None prints the only format.
        template: their names below it.
        language: as it was asked for, for the template.
        style: what they look like.
        replace: overwrite what is there.
        resume: leave what is there, and write what is missing.
        tint: colour the words that the decoder was unsure of, where text is printed.
    """

    formats: tuple[str, ...]
    folder: Path | None = None
    template: str = DEFAULT_TEMPLATE
    language: str = AUTO
    style: Style = DEFAULT_STYLE
    replace: bool = False
    resume: bool = False
    tint: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: naming what can.
        """
        if self.folder is None and len(self.formats) > 1:
            raise UsageError(f"{', '.join(self.formats)} together on stdout", "add --output-dir, or choose one")
        if self.replace and self.resume:
            raise UsageError("--force with --resume", "one replaces what is there, the other keeps it")
        for format in self.formats:
            refuse_timeless(format, self.style.times)


class Files:
    """Files for each input, in a folder.

    Raises:
        UsageError: the template cannot be, or two results would share a file, or one would replace an input.
        OutputError: nothing can be written to the folder.
    """

    def __init__(self, folder: Path, plan: OutputPlan, inputs: Sequence[Input]):
        self._folder = folder
        self._plan = plan
        files = [file for input in inputs for file in self.files(input).values()]
        shared = [file for file, count in Counter(files).items() if count > 1]
        if shared:
            raise UsageError(
                f"several results would be written to {shown(shared[0])}",
                "tell them apart with --output-template, as in '{stem}.{suffix}.{ext}', or use separate folders",
            )
        sources = {os.path.realpath(input.path) for input in inputs}
        for file in files:
            if os.path.realpath(file) in sources:
                raise UsageError(f"{shown(file)} is an input", "choose another --output-dir or --output-template")
        refuse_unwritable(folder, "choose another --output-dir")

    def files(self, input: Input) -> dict[str, Path]:
        """Where its results go, by format."""
        return {name: self._folder / self._name(input, name) for name in self._plan.formats}

    def done(self, input: Input) -> bool:
        """Whether all of its results are there already, be they broken links."""
        return all(map(os.path.lexists, self.files(input).values()))

    def refuse_existing(self, input: Input) -> None:
        """Raise an OutputError before an input is worked on whose results would overwrite something."""
        if self._plan.replace or self._plan.resume:
            return
        for file in self.files(input).values():
            if os.path.lexists(file):
                raise exists_already(file)

    def make_folder(self) -> None:
        """Make it, once nothing else stands in the way."""
        _make_folder(self._folder)

    def write(self, input: Input, transcript: Transcript) -> None:
        """Write its results, each whole or not at all."""
        for name, file in self.files(input).items():
            if self._plan.resume and os.path.lexists(file):
                continue
            _make_folder(file.parent)
            content = WRITERS[name](transcript, self._plan.style)
            with console.uninterrupted():
                write_new(file, content, replace=self._plan.replace)
            console.note(f"wrote {shown(file)}")

    def _name(self, input: Input, format: str) -> PurePath:
        """What a folder brought keeps its place in it, below the folders that the template makes."""
        language = language_code(self._plan.language) or AUTO
        place, suffix = PurePath(input.stem), input.path.suffix.removeprefix(".")
        fields = {"stem": place.name, "suffix": suffix, "lang": language, "ext": format}
        template = self._plan.template
        name = PurePath(_filled_in(template, fields))
        if not name.name or name.is_absolute() or ".." in name.parts:
            raise UsageError(f"--output-template {template!r} leads out of the folder", TEMPLATE_HINT)
        above = list(takewhile(lambda part: "{stem}" not in part, PurePath(template).parts[:-1]))
        return PurePath(*name.parts[: len(above)], place.parent, *name.parts[len(above) :])


def _name_as_it_is(input: Input) -> str:
    """With the bytes that are no text, so that whoever reads it can open the file by it."""
    return input.label.replace(shown(input.path), str(input.path), 1)


def _filled_in(template: str, fields: dict[str, str]) -> str:
    try:
        parts = list(string.Formatter().parse(template))
        if any(field is not None and (field not in fields or spec or how) for _, field, spec, how in parts):
            raise ValueError
        return template.format(**fields)
    except ValueError as error:
        raise UsageError(f"--output-template {template!r} cannot be filled in", TEMPLATE_HINT) from error


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{shown(path)}: cannot be made ({error.strerror})"
        raise OutputError(message, "choose another --output-dir") from error


class Printer:
    """Prints results in the order of the inputs; what comes too early waits.

    With several inputs each line begins with its input's name, as grep does it.

    Args:
        inputs: all of them.
        plan: what a transcript is printed as; `json` is a line each.

    Raises:
        UsageError: several inputs in a format that is a file of its own.
    """

    def __init__(self, inputs: Sequence[Input], plan: OutputPlan):
        self._format = plan.formats[0]
        if len(inputs) > 1 and plan.folder is None and self._format not in LINES:
            raise UsageError(f"{self._format} of several inputs on stdout", "add --output-dir")
        self._plan = plan
        self._prefixes = [f"{_name_as_it_is(input)}: " if len(inputs) > 1 else "" for input in inputs]
        self._held: dict[int, list[str | Text]] = defaultdict(list)
        self._closed: set[int] = set()
        self._current = 0

    def print_segment(self, source: int, segment: Segment) -> None:
        """Print a line as soon as it is its turn."""
        self._add(source, self._lines(source, [segment]))

    def print_transcript(self, source: int, transcript: Transcript) -> None:
        """Print all of it as soon as it is its turn."""
        if self._format == "txt":
            self._add(source, self._lines(source, transcript.segments))
        elif self._format in LINES:
            self._add(source, WRITERS["jsonl"](transcript, self._plan.style))
        else:
            self._add(source, WRITERS[self._format](transcript, self._plan.style))

    def close(self, source: int) -> None:
        """Nothing more comes of this input."""
        self._closed.add(source)
        while self._current in self._closed:
            self._current += 1
            for text in self._held.pop(self._current, []):
                console.result(text)

    def _lines(self, source: int, segments: Iterable[Segment]) -> "str | Text":
        prefix, times = self._prefixes[source], self._plan.style.times or DEFAULT_TIMES["txt"]
        if not self._plan.tint:
            return as_lines(segments, prefix, times)
        from funasr_cli.cli.confidence import tinted_lines

        return tinted_lines(segments, prefix, times)

    def _add(self, source: int, text: "str | Text") -> None:
        if source == self._current:
            console.result(text)
        else:
            self._held[source].append(text)

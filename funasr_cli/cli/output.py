"""Write results: to stdout in the order of the inputs, or to files for each input."""

import os
import re
import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import normalize

from funasr_cli import writers
from funasr_cli.characters import UNSPACED_LETTERS, one_line, printable
from funasr_cli.cli import console
from funasr_cli.cli.names import display_name
from funasr_cli.cli.resume import NOTES, Notes
from funasr_cli.errors import OutputError, UsageError
from funasr_cli.formats import as_lines, parts_of, translated
from funasr_cli.inputs import Input
from funasr_cli.languages import AUTO, language_code
from funasr_cli.options import Timestamps
from funasr_cli.paths import shown
from funasr_cli.tags import decorated
from funasr_cli.transcript import Segment, Transcript
from funasr_cli.writers import DEFAULT_STYLE, DEFAULT_TIMES, SUBTITLES, WRITERS, Style

if TYPE_CHECKING:
    from rich.text import Text

MOST_NAMED = 3  # most inputs that a note names
LINE_FORMATS = ("txt", "json", "jsonl")  # formats in which several results can follow each other on stdout
DEFAULT_TEMPLATE = "{stem}.{ext}"
FULL_TEMPLATE = "{stem}.{suffix}.{ext}"
TEMPLATE_HINT = "use {stem}, {suffix}, {lang} and {ext}, for example '{stem}.{lang}.{ext}'"
# Probabilities below which a word is coloured. The probability of a word is that of its least likely token.
DOUBTFUL, DOUBTFUL_STYLE = 0.5, "red underline"
UNSURE, UNSURE_STYLE = 0.8, "yellow"
LEGEND = (
    f"colours: words with a probability below {UNSURE:.0%} are yellow, below {DOUBTFUL:.0%} red and underlined"
)
Result = tuple[Input, Path]  # an input and its file
WORD = re.compile(rf"[{UNSPACED_LETTERS}]|[^\s{UNSPACED_LETTERS}]+|\s+")


class Content(NamedTuple):
    """What a result file contains."""

    format: str
    target: str | None = None  # the language of the translation that it contains; None: the transcript


@dataclass(frozen=True)
class OutputPlan:
    """The formats and places of results."""

    formats: tuple[str, ...]  # names of `WRITERS`, at least one
    folder: Path | None = None  # for files; None prints the only format
    template: str = DEFAULT_TEMPLATE  # for file names in the folder
    language: str = AUTO  # the requested language, for the template
    target: str | None = None  # the language of the translations; None without them
    style: Style = DEFAULT_STYLE
    replace: bool = False  # overwrite existing results
    resume: bool = False  # keep existing results, and write the missing ones
    tint: bool = False  # colour words with a low probability in printed text

    def __post_init__(self) -> None:
        """Raise a UsageError for options that conflict."""
        if self.folder is None and len(self.formats) > 1:
            message = f"{', '.join(self.formats)}: only one format can go to standard output"
            raise UsageError(message, "add --output-dir, or choose one format", code="options-conflict")
        if str(self.folder) == "-":
            message = "--output-dir -: not the name of a folder"
            raise UsageError(message, "leave it out to print results to standard output", code="option-value")
        if self.replace and self.resume:
            hint = "--force replaces existing results, --resume keeps them: choose one"
            raise UsageError("cannot combine --force with --resume", hint, code="options-conflict")
        for format in self.formats:
            writers.refuse_timeless(format, self.style.times)

    @property
    def contents(self) -> tuple[Content, ...]:
        """What the files of an input contain. Translations have subtitle files of their own, unless bilingual."""
        own = [format for format in self.formats if format in SUBTITLES] if self.target else []
        separate = [] if self.style.bilingual else [Content(format, self.target) for format in own]
        return *map(Content, self.formats), *separate

    def refuse_together(self, inputs: Sequence[Input]) -> None:
        """Raise a UsageError for several inputs on stdout in a format that needs a separate file for each."""
        if len(inputs) > 1 and self.folder is None and self.formats[0] not in LINE_FORMATS:
            message = f"{self.formats[0]}: only one input can go to standard output in this format"
            raise UsageError(message, "add --output-dir", code="options-conflict")


class Files:
    """Result files of each input, in a folder. They never replace an input or one of the `others`.

    Raises:
        UsageError: the template is invalid, two results would share a file, or a result would replace an input.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, plan: OutputPlan, inputs: Sequence[Input], others: Iterable[Path] = ()):
        assert plan.folder is not None
        self._folder = plan.folder
        self._plan = plan
        self._notes: Notes | None = None
        self._outdated: set[Path] = set()
        self.incomplete = 0  # inputs that `left` skips although their results are incomplete
        self._refuse_shared_names(inputs, (*others, self._folder / NOTES))
        writers.refuse_unwritable(self._folder, "choose another --output-dir")

    def files(self, input: Input) -> dict[Content, Path]:
        """Return the files of an input, by what they contain."""
        return self._files(input, self._plan.template)

    def _files(self, input: Input, template: str) -> dict[Content, Path]:
        return {each: self._folder / self._name(input, each, template) for each in self._plan.contents}

    def left(self, inputs: Sequence[Input], notes: Notes) -> list[Input]:
        """Return the inputs to transcribe: with `--resume`, those whose results are missing or outdated.

        Print which results are replaced, and why. Results that are written later are added to the same notes.

        Raises:
            OutputError: neither --resume nor --force is set, and all of several inputs have results already.
        """
        self._notes = notes
        if not self._plan.resume:
            if len(inputs) > 1 and not self._plan.replace and all(map(self._exists, inputs)):
                message = f"{shown(self._folder)}: the results of all {len(inputs)} inputs already exist"
                hint = "--resume skips them, --force replaces them; or choose another --output-dir"
                raise OutputError(message, hint, code="output-exists")
            return list(inputs)
        left, again = [], defaultdict(list)
        for input in inputs:
            files = [(each, file) for each, file in self.files(input).items() if os.path.lexists(file)]
            found = {file: notes.outdated(file, each.format, input) for each, file in files}
            outdated = {file: reason for file, reason in found.items() if reason}
            self._outdated |= outdated.keys()
            if outdated or len(files) < len(self._plan.contents):
                left.append(input)
            else:
                self.incomplete += any(map(notes.is_incomplete, found))
            for reason in sorted(set(outdated.values())):
                again[reason].append(display_name(input.label))
        if len(left) < len(inputs):
            incomplete = f"; {self.incomplete} of them incomplete" if self.incomplete else ""
            skipped = f"skipped {len(inputs) - len(left)} of {len(inputs)} inputs"
            console.note(f"{skipped}: their results exist{incomplete}")
        for reason, labels in again.items():
            more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
            console.note(f"replacing results, since {reason}: {', '.join(labels[:MOST_NAMED])}{more}")
        return left

    def prepare(self, input: Input) -> None:
        """Check that the results of an input can be written, before it is transcribed.

        Raises:
            OutputError: a file exists already, or a name is too long.
        """
        for file in self.files(input).values():
            if not (self._plan.replace or self._plan.resume) and os.path.lexists(file):
                raise writers.already_exists(file)
            if not self._kept(file):
                writers.refuse_name(file)
        if self._notes:
            self._notes.read(input)

    def write(self, input: Input, transcript: Transcript) -> None:
        """Write the results of an input. Each file is written completely or not at all.

        Raises:
            OutputError: a file cannot be written. The other files are written anyway.
        """
        problem: OutputError | None = None
        for (format, target), file in self.files(input).items():
            if self._kept(file):
                continue
            content = WRITERS[format](transcript.translated if target else transcript, self._plan.style)
            try:
                with console.uninterrupted():
                    writers.write_new(file, content, replace=self._plan.replace or file in self._outdated)
                    if self._notes:
                        self._notes.add(file, format, input, content, complete=transcript.complete)
                console.note(f"wrote {shown(file)}")
            except OutputError as error:
                problem = problem or error
        if problem:
            raise problem

    def _exists(self, input: Input) -> bool:
        return any(map(os.path.lexists, self.files(input).values()))

    def _kept(self, file: Path) -> bool:
        """Return whether `--resume` keeps a result."""
        return self._plan.resume and os.path.lexists(file) and file not in self._outdated

    def _refuse_shared_names(self, inputs: Sequence[Input], others: Iterable[Path]) -> None:
        """Raise a UsageError if two results, or a result and another file, would share a name.

        Names that differ only in case or Unicode form count as equal, as on some file systems.
        """
        taken = {_identity(path) for path in (*(input.path for input in inputs), *others)}
        for file in (file for input in inputs for file in self.files(input).values()):
            if _identity(file) in taken:
                hint = "choose another --output-dir or --output-template"
                message = f"{shown(file)}: a result would replace an input, or another file that this run uses"
                raise UsageError(message, hint, code="output-is-input")
        if clash := self._clash(inputs, self._plan.template):
            better = (name for name in (DEFAULT_TEMPLATE, FULL_TEMPLATE) if not self._clash(inputs, name))
            raise _shared(*clash, next(better, None))

    def _clash(self, inputs: Sequence[Input], template: str) -> tuple[Result, Result] | None:
        """Find two results that cannot both exist: with the same name, or one named like the other's folder."""
        owners: dict[str, Result] = {}
        for input in inputs:
            for file in self._files(input, template).values():
                identity = _identity(file)
                if identity in owners:
                    return owners[identity], (input, file)
                owners[identity] = input, file
        for identity, owner in owners.items():
            for folder in map(str, PurePath(identity).parents):
                if folder in owners:
                    return owners[folder], owner
        return None

    def _name(self, input: Input, content: Content, template: str) -> PurePath:
        """Return the name of a result. Inputs from a folder keep their subfolders, below the template's."""
        place, suffix = PurePath(input.stem), input.path.suffix.removeprefix(".")
        language = content.target or language_code(self._plan.language) or AUTO
        fields = {"stem": place.name, "suffix": suffix, "lang": language, "ext": content.format}
        name = PurePath(_filled_in(template, fields))
        if content.target and name.name and "{lang}" not in template:
            name = name.with_name(f"{name.stem}.{content.target}{name.suffix}")
        if not name.name or name.is_absolute() or ".." in name.parts:
            message = f"--output-template {template!r} leads out of the output folder"
            raise UsageError(message, TEMPLATE_HINT, code="option-value")
        above = list(takewhile(lambda part: "{stem}" not in part, PurePath(template).parts[:-1]))
        return PurePath(*name.parts[: len(above)], place.parent, *name.parts[len(above) :])


def _identity(path: Path) -> str:
    """Return a key that is equal for all paths of a file, and for names that some file systems treat as one."""
    return normalize("NFC", normalize("NFD", os.path.realpath(path)).casefold())


def _shared(one: Result, other: Result, better: str | None) -> UsageError:
    """Return the error for two results that would share a name; `better` is a template that avoids it."""
    (input, file), (other_input, other_file) = one, other
    names = f"{shown(file)}" if file == other_file else f"{shown(file)} and {shown(other_file)}"
    labels = " and ".join(dict.fromkeys(display_name(each.label) for each in (input, other_input)))
    hint = "use a separate --output-dir for each, or give a folder above both, with --recursive"
    if better:
        hint = f"give them different names with --output-template {better!r}"
    elif input is not other_input and os.path.realpath(input.path) == os.path.realpath(other_input.path):
        hint = "it is the same file: name it once"
    message = f"several results would be written to {names}: from {labels}"
    return UsageError(message, hint, code="output-shared")


def _filled_in(template: str, fields: dict[str, str]) -> str:
    try:
        parts = list(string.Formatter().parse(template))
        if any(field is not None and (field not in fields or spec or how) for _, field, spec, how in parts):
            raise ValueError
        return template.format(**fields)
    except ValueError as error:
        message = f"--output-template {template!r} is not a valid template"
        raise UsageError(message, TEMPLATE_HINT, code="option-value") from error


class Printer:
    """Printer of results, in the order of the inputs. Results that are ready too early are held back.

    With several inputs, each line begins with the input's name, as with grep. `json` prints one line per input.
    """

    def __init__(self, inputs: Sequence[Input], plan: OutputPlan):
        self._plan = plan
        # Names with their original bytes, even invalid UTF-8, so that a reader can open the file.
        names = [input.label.replace(shown(input.path), str(input.path), 1) for input in inputs]
        self._prefixes = [f"{name}: " if len(names) > 1 else "" for name in names]
        self._held: dict[int, list[str | Text]] = defaultdict(list)
        self._closed: set[int] = set()
        self._current = 0
        self._has_legend = False

    def print_segment(self, source: int, segment: Segment) -> None:
        """Print a segment, as soon as all earlier inputs are finished."""
        self._add(source, self._lines(source, [segment]))

    def print_transcript(self, source: int, transcript: Transcript) -> None:
        """Print a transcript, as soon as all earlier inputs are finished."""
        format = self._plan.formats[0]
        if format == "txt":
            self._add(source, self._lines(source, transcript.segments))
        else:
            self._add(source, WRITERS["jsonl" if format in LINE_FORMATS else format](transcript, self._plan.style))

    def close(self, source: int) -> None:
        """Mark an input as finished, and print what was held back."""
        self._closed.add(source)
        while self._current in self._closed:
            self._current += 1
            for text in self._held.pop(self._current, []):
                console.result(text)

    def _lines(self, source: int, segments: Iterable[Segment]) -> "str | Text":
        if self._plan.tint and not self._has_legend:
            console.note(LEGEND)
            self._has_legend = True
        style = self._plan.style
        times, shown = (
            style.times or DEFAULT_TIMES["txt"],
            [decorated(segment, style.tags) for segment in segments],
        )
        return (tinted_lines if self._plan.tint else as_lines)(shown, self._prefixes[source], times)

    def _add(self, source: int, text: "str | Text") -> None:
        if source == self._current:
            console.result(text)
        else:
            self._held[source].append(text)


def tinted_lines(segments: Iterable[Segment], prefix: str = "", times: Timestamps = Timestamps.NONE) -> "Text":
    """Return the text of `as_lines`, with words coloured by their probability."""
    from rich.text import Text

    lines = Text()
    for segment in segments:
        probabilities = [score.probability for score in segment.scores for _ in printable(score.text)]
        for head, piece in (*parts_of(segment, times), *translated(segment)):
            text = printable(piece.text)
            own, probabilities = probabilities[: len(text)], probabilities[len(text) :]
            if one_line(text):
                lines.append(f"{prefix.translate(console.CONTROLS)}{head}")
                for word, probability in scored_words(text, own):
                    style = DOUBTFUL_STYLE if probability < DOUBTFUL else UNSURE_STYLE
                    is_plain = word.isspace() or probability >= UNSURE
                    lines.append(" " if word.isspace() else word, "" if is_plain else style)
                lines.append("\n")
    return lines


def scored_words(text: str, probabilities: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Yield words, Chinese and Japanese characters, and white space, each with its probability."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    for match in WORD.finditer(text, start, end):
        yield match[0], min(probabilities[match.start() : match.end()], default=1.0)

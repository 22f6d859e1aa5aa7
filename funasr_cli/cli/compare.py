"""``funasr transcribe --compare-hotwords``: the differences that hotwords make."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from funasr_cli.characters import UNSPACED_LETTERS, one_line
from funasr_cli.cli import console
from funasr_cli.cli.display import Display
from funasr_cli.cli.outcome import Outcome
from funasr_cli.cli.output import WORD
from funasr_cli.cli.run import refuse_pipes, transcribe_all
from funasr_cli.errors import ExitCode, UsageError
from funasr_cli.formats import clock
from funasr_cli.inputs import Input
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling.events import Finished
from funasr_cli.transcript import Transcript, join_texts

if TYPE_CHECKING:
    from rich.text import Text

    from funasr_cli.pipeline import Recognizer

LETTER = rf"[^\W{UNSPACED_LETTERS}]"  # a letter of a script that separates words with spaces
ADDED_STYLE, REMOVED_STYLE = "green", "red"


@dataclass(frozen=True)
class Part:
    """A part of a recording that consists of whole segments in both transcripts."""

    start_s: float
    end_s: float
    without: str
    with_hotwords: str


def refuse_unusable(inputs: Sequence[Input], options: TranscribeOptions) -> None:
    """Raise a UsageError if there are no hotwords, or an input is a pipe, which cannot be read twice."""
    if not options.hotwords:
        hint = "add --hotword or --hotwords-file"
        raise UsageError("--compare-hotwords needs hotwords", hint, code="options-conflict")
    refuse_pipes(inputs, "--compare-hotwords")


def run(inputs: Sequence[Input], recognizer: "Recognizer", options: TranscribeOptions) -> ExitCode:
    """Transcribe all inputs with and without hotwords, print what differs, and return the exit code."""
    outcome, again = Outcome(), Outcome()
    with_hotwords = _transcribe(inputs, recognizer, options, outcome, set())
    reported = outcome.failed | {source for source, text in with_hotwords.items() if not text.complete}
    without = _transcribe(inputs, recognizer, replace(options, hotwords=()), again, reported)
    both = sorted(with_hotwords.keys() & without.keys())
    for source in both:
        parts = list(matching_parts(without[source], with_hotwords[source]))
        changed = [part for part in parts if part.without != part.with_hotwords]
        console.result(f"{inputs[source].label}: {len(changed)} of {len(parts)} segments differ\n")
        for part in changed:
            console.result(f"  {clock(part.start_s)}-{clock(part.end_s)}\n")
            console.result(_marked(part.without, part.with_hotwords, "  - ", REMOVED_STYLE))
            console.result(_marked(part.with_hotwords, part.without, "  + ", ADDED_STYLE))
    for word in options.hotwords:
        counts = [sum(count(word, texts[source].text) for source in both) for texts in (without, with_hotwords)]
        before, after = ("once" if number == 1 else f"{number} times" for number in counts)
        console.result(f"{word}: appears {before} without hotwords, {after} with them\n")
    outcome.failed |= again.failed
    console.note(outcome.summary())
    codes = (each.exit_code(strict=False) for each in (outcome, again))
    return min(filter(None, codes), default=ExitCode.OK)  # the more serious code is the lower one


def _transcribe(
    inputs: Sequence[Input],
    recognizer: "Recognizer",
    options: TranscribeOptions,
    outcome: Outcome,
    reported: set[int],
) -> dict[int, Transcript]:
    """Return the transcripts by input, and report problems, except those of inputs in `reported`."""
    task = f"{'with' if options.hotwords else 'without'} hotwords"
    display = Display(inputs, task=task, reported=reported)
    done: list[Finished] = []
    transcribe_all(inputs, recognizer, options, display, outcome, finish=done.append)
    return {event.source: event.transcript for event in done}


def matching_parts(without: Transcript, with_hotwords: Transcript) -> Iterator[Part]:
    """Yield the parts between segment ends that both transcripts share; segments may be split differently."""
    both = without.segments, with_hotwords.segments
    shared = set.intersection(*({segment.end_s for segment in segments} for segments in both))
    start_s = 0.0
    for end_s in [*sorted(shared), inf]:
        inside = [[piece for piece in pieces if start_s < piece.end_s <= end_s] for pieces in both]
        pieces = [*inside[0], *inside[1]]
        if pieces:
            first_s, last_s = min(piece.start_s for piece in pieces), max(piece.end_s for piece in pieces)
            yield Part(first_s, last_s, *(join_texts(piece.text for piece in side) for side in inside))
        start_s = end_s


def _marked(text: str, other: str, prefix: str, style: str) -> "Text":
    """Return a line in which words that the other text lacks are coloured."""
    from rich.text import Text

    words, others = ([match[0] for match in WORD.finditer(one_line(side))] for side in (text, other))
    line = Text(prefix)
    for kind, first, last, _, _ in difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        line.append("".join(words[first:last]), "" if kind == "equal" else style)
    return line.append("\n")


def count(word: str, text: str) -> int:
    """Count a hotword in a text, ignoring case: "AI" is not counted in "said", but it is in "用AI写"."""
    word = word.casefold().strip()
    before = rf"(?<!{LETTER})" if re.match(LETTER, word) else ""
    after = rf"(?!{LETTER})" if re.search(rf"{LETTER}\Z", word) else ""
    return len(re.findall(f"{before}{re.escape(word)}{after}", text.casefold()))

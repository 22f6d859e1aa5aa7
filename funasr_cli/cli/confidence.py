"""Words in the colour of how sure the model was of them."""

import re
from collections.abc import Iterable, Iterator

from rich.text import Text

from funasr_cli.characters import UNSPACED_LETTERS, one_line, printable
from funasr_cli.cli import console
from funasr_cli.transcript import Segment

# A word is as sure as the least likely of its tokens.
DOUBTFUL, DOUBTFUL_STYLE = 0.5, "red underline"
UNSURE, UNSURE_STYLE = 0.8, "yellow"
WORD = re.compile(rf"[{UNSPACED_LETTERS}]|[^\s{UNSPACED_LETTERS}]+|\s+")


def tinted_lines(segments: Iterable[Segment], prefix: str = "") -> Text:
    """The bare text, a line for each segment that has some."""
    lines = Text()
    for segment in segments:
        if one_line(segment.text):
            lines.append(prefix.translate(console.CONTROLS))
            for word, probability in scored_words(segment):
                lines.append(" " if word.isspace() else word, "" if word.isspace() else _style(probability))
            lines.append("\n")
    return lines


def scored_words(segment: Segment) -> Iterator[tuple[str, float]]:
    """Words, single Chinese and Japanese characters, and the white space between, with their probabilities.

    What `one_line` leaves out is left out.
    """
    probabilities = [score.probability for score in segment.scores for _ in printable(score.text)]
    text = printable(segment.text)
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    for match in WORD.finditer(text, start, end):
        yield match[0], min(probabilities[match.start() : match.end()], default=1.0)


def _style(probability: float) -> str:
    if probability < DOUBTFUL:
        return DOUBTFUL_STYLE
    return UNSURE_STYLE if probability < UNSURE else ""

"""Words in the colour of how sure the model was of them."""

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from funasr_cli.characters import UNSPACED_LETTERS, one_line, printable
from funasr_cli.cli import console
from funasr_cli.formats import parts_of
from funasr_cli.options import Timestamps
from funasr_cli.transcript import Segment

# A word is as sure as the least likely of its tokens.
DOUBTFUL, DOUBTFUL_STYLE = 0.5, "red underline"
UNSURE, UNSURE_STYLE = 0.8, "yellow"
WORD = re.compile(rf"[{UNSPACED_LETTERS}]|[^\s{UNSPACED_LETTERS}]+|\s+")


def tinted_lines(segments: Iterable[Segment], prefix: str = "", times: Timestamps = Timestamps.NONE) -> Text:
    """What `as_lines` gives."""
    lines = Text()
    for segment in segments:
        probabilities = _probabilities(segment)
        for head, piece in parts_of(segment, times):
            text = printable(piece.text)
            own, probabilities = probabilities[: len(text)], probabilities[len(text) :]
            if one_line(text):
                lines.append(f"{prefix.translate(console.CONTROLS)}{head}")
                for word, probability in scored_words(text, own):
                    lines.append(" " if word.isspace() else word, "" if word.isspace() else _style(probability))
                lines.append("\n")
    return lines


def _probabilities(segment: Segment) -> list[float]:
    """Of each character of its printable text."""
    return [score.probability for score in segment.scores for _ in printable(score.text)]


def scored_words(text: str, probabilities: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Words, single Chinese and Japanese characters, and the white space between, with their probabilities."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    for match in WORD.finditer(text, start, end):
        yield match[0], min(probabilities[match.start() : match.end()], default=1.0)


def _style(probability: float) -> str:
    if probability < DOUBTFUL:
        return DOUBTFUL_STYLE
    return UNSURE_STYLE if probability < UNSURE else ""

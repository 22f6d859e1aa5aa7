"""The interface of models that insert punctuation into a text that has none."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from funasr_cli.speech_model import Trace

Marks = tuple[tuple[int, str], ...]  # positions in a text, in order, and the mark to insert at each


class RunningText(Protocol):
    """A text that grows, such as the segments of a recording. A mark may depend on what follows."""

    def add(self, text: str) -> list[Marks]:
        """Add a part. Return the marks of all parts, in order, that are final now and were not before."""

    def end(self) -> list[Marks]:
        """End the text, and return the marks of the remaining parts. What is added later is another text."""


class PunctuationModel(Protocol):
    """A loaded model, ready to insert marks."""

    name: str  # name of the checkpoint that it was converted from
    languages: tuple[str, ...]  # ISO codes of those whose texts it reads

    def start(self) -> RunningText:
        """Begin a text."""

    def punctuate(self, texts: Sequence[str]) -> list[str]:
        """Return whole texts with marks, computed together. Without the inserted marks, they are as before."""

    def trace(self) -> Trace:
        """Read a fixed sentence and keep every stage, for comparing two conversions of a model."""


def inserted(text: str, marks: Iterable[tuple[int, str]]) -> str:
    """Return a text with marks at these positions."""
    parts, last = [], 0
    for position, mark in marks:
        parts += [text[last:position], mark]
        last = position
    return "".join([*parts, text[last:]])

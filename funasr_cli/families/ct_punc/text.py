"""Texts as tokens, the pieces in which the network reads them, and the marks that its labels stand for.

Source: FunASR ``funasr/models/ct_transformer/model.py`` (``inference``) and ``utils.py`` (``split_words``,
``split_to_mini_sentence``). What differs: marks are inserted into the text as it is; upstream changes capitals
and spaces; no mark is written after one that is there already. Words are the longest ones in the vocabulary;
upstream uses the library jieba. A sentence that is still without any mark after `MOST_CARRIED` tokens is cut off
without one; upstream reads all of it again every time.
"""

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from funasr_cli.families.ct_punc.config import ASCII_MARKS, COMMA, NO_MARK, QUESTION, STOP, UNKNOWN_MARK

STEP = 20  # tokens that are read in addition each time
LONG = 200  # a longer piece may be cut at a comma
MOST_CARRIED = 1000
RUN = re.compile(r"[^\s\x80-\U0010ffff]+|[^\s\x00-\x7f]+")  # of ASCII, of other characters
LONGEST_WORD = 16  # characters
WRITTEN = frozenset(",.?!:;，。？！：；、…")  # no mark is inserted after one of these


@dataclass(frozen=True)
class Token:
    """A token of a text: a word in ASCII, another character, or a word of the vocabulary."""

    text: str
    end: int  # position in its text after it


def tokens_of(text: str, words: Container[str] = ()) -> Iterator[Token]:
    """Yield the tokens of a text: runs of ASCII, and all other characters, or the longest of these words."""
    for run in RUN.finditer(text):
        start, end = run.span()
        while start < end:
            longest = end if text[start].isascii() else min(end, start + LONGEST_WORD)
            fitting = (stop for stop in range(longest, start + 1, -1) if text[start:stop] in words)
            stop = end if text[start].isascii() else next(fitting, start + 1)
            yield Token(text[start:stop], stop)
            start = stop


def mark_after(token: Token, label: str) -> str:
    """Return the mark to write after a token; an empty string for none."""
    if label in (NO_MARK, UNKNOWN_MARK) or token.text[-1] in WRITTEN:
        return ""
    return ASCII_MARKS.get(label, label) if token.text[-1].isascii() else label


def at_the_end(token: Token, label: str) -> str:
    """Return the label of the last token of a text, which ends its sentence."""
    shown = ASCII_MARKS.get(label, label) if token.text[0].isascii() else label
    shown = token.text[-1] if label == NO_MARK else shown
    return label if shown in (".", "?", STOP, QUESTION) else STOP


@dataclass
class Pieces:
    """The tokens of a growing text, as ids, and the labels that are final.

    The network reads pieces: what was left over from the piece before, and `STEP` further tokens. What follows the
    last end of a sentence in a piece is left over, because the tokens after it may change it.
    """

    names: Sequence[str]  # of the labels
    final: list[int] = field(default_factory=list)  # labels, from the first token on
    _left_over: list[int] = field(default_factory=list)  # ids
    _unread: list[int] = field(default_factory=list)  # ids

    def add(self, ids: Iterable[int]) -> None:
        """Add tokens at the end."""
        self._unread += ids

    def next(self, *, ended: bool) -> list[int] | None:
        """Return the ids of the next piece; None if there is none yet, since the last one is read differently."""
        ready = self._unread if ended else self._unread[STEP:]
        return self._left_over + self._unread[:STEP] if ready else None

    def take(self, labels: Sequence[int], *, ended: bool) -> None:
        """Take the labels of the piece that `next` has returned."""
        ids, labels = self._left_over + self._unread[:STEP], list(labels)
        del self._unread[:STEP]
        cut = len(ids) if ended and not self._unread else self._cut(labels)
        self.final += labels[:cut]
        self._left_over = ids[cut:]

    def _cut(self, labels: list[int]) -> int:
        """Return how many labels are final. A comma that ends a long sentence becomes a full stop."""
        inside = range(len(labels) - 2, 1, -1)
        if ends := [index for index in inside if self.names[labels[index]] in (STOP, QUESTION)]:
            return ends[0] + 1
        commas = [index for index in inside if self.names[labels[index]] == COMMA]
        if len(labels) > LONG and commas:
            labels[commas[0]] = self.names.index(STOP)
            return commas[0] + 1
        return len(labels) - STEP if len(labels) > MOST_CARRIED else 0

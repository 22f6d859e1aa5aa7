"""Splitting texts into units: words, or the characters of scripts without spaces.

`word_spans` includes adjacent punctuation and is used for word times. `units_of` excludes it and is used for
drafts, second opinions and error rates.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from funasr_cli.characters import UNSPACED_LETTERS

# More scripts in which spaces do not separate words: Thai, Lao, Burmese, Khmer; and Korean, with optional spaces.
LOOSELY_SPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uac00-\ud7a3"
TOKEN = re.compile(r"\S+")
UNSPACED_LETTER = re.compile(f"[{UNSPACED_LETTERS}]")
OPENING = ("Ps", "Pi", "Sc")  # Unicode categories of what belongs to the following word: brackets, quotes, "$"


def is_spoken(char: str) -> bool:
    """Return whether a character is a letter or a digit. Every word has at least one."""
    return unicodedata.category(char)[0] in "LN"


def folded(text: str) -> str:
    """Normalise a text for comparison: NFKC, case-folded, only letters, digits and marks."""
    kept = (
        char for char in unicodedata.normalize("NFKC", text).casefold() if unicodedata.category(char)[0] in "LNM"
    )
    return "".join(kept)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and end of each word, with adjacent punctuation.

    A token without letters and digits belongs to the word before it, including the space between them, or to the
    next word if it is the first. A text without letters and digits has no words.
    """
    spans: list[tuple[int, int]] = []
    leading: int | None = None  # start of punctuation that has no word before it
    for token in TOKEN.finditer(text):
        for start, end in pairwise([token.start(), *_cuts(text, *token.span()), token.end()]):
            if any(map(is_spoken, text[start:end])):
                spans.append((start if leading is None else leading, end))
                leading = None
            elif spans:
                spans[-1] = spans[-1][0], end
            elif leading is None:
                leading = start
    return spans


def _cuts(text: str, start: int, end: int) -> list[int]:
    """Return where to cut a stretch without spaces: between letters, if either is of a script without spaces."""
    cuts: list[int] = []
    last = ""  # letter or digit
    opening: int | None = None  # start of punctuation after it that belongs to the next one
    for index in range(start, end):
        char = text[index]
        if is_spoken(char):
            if last and (UNSPACED_LETTER.match(last) or UNSPACED_LETTER.match(char)):
                cuts.append(index if opening is None else opening)
            last, opening = char, None
        elif opening is None and unicodedata.category(char) in OPENING:
            opening = index
    return cuts


def common(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Return a longest common subsequence, as pairs of positions in increasing order.

    `difflib` may find a shorter one, and takes minutes if a few units recur often. This uses a table of both
    lengths: 3,000 by 3,000 take 18 MB and a tenth of a second.
    """
    codes = {text: code for code, text in enumerate(dict.fromkeys([*ours, *theirs]))}
    rows, columns = ([codes[text] for text in texts] for texts in (ours, theirs))
    other = np.array(columns, int)  # (columns,)
    longest = np.zeros((len(rows) + 1, len(columns) + 1), np.uint16)  # length for each pair of prefixes
    for row, code in enumerate(rows, 1):
        above = longest[row - 1]
        longest[row, 1:] = np.maximum.accumulate(np.maximum(above[1:], above[:-1] + (other == code)))
    pairs = []
    row, column = len(rows), len(columns)
    while row and column:
        if longest[row, column] == longest[row - 1, column]:
            row -= 1
        elif longest[row, column] == longest[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((row, column))
    return pairs[::-1]


@dataclass(frozen=True)
class Unit:
    """A piece of a text that is compared as a whole."""

    key: str  # case-folded, without white space
    text: str  # as in the text, with the white space before it
    end: int  # position in the text

    @property
    def start(self) -> int:
        """Position of its start, including white space."""
        return self.end - len(self.text)

    @property
    def space(self) -> str:
        """The white space before it."""
        return self.text[: len(self.text) - len(self.text.lstrip())]


def units_of(text: str, *, whole_numbers: bool = False, split_loose: bool = False) -> list[Unit]:
    """Split a text into units: words with their apostrophes, and characters of scripts without spaces.

    Punctuation is omitted.

    Args:
        text: the text.
        whole_numbers: treat digits as letters of words; otherwise each digit is a unit.
        split_loose: also split `LOOSELY_SPACED` scripts into characters.
    """
    found = _pattern(whole_numbers, split_loose).finditer(text)
    return [Unit(one[0].strip().casefold(), one[0], one.end()) for one in found]


@cache
def _pattern(whole_numbers: bool, split_loose: bool) -> re.Pattern[str]:
    alone = UNSPACED_LETTERS + (LOOSELY_SPACED if split_loose else "")
    digit, letter = ("", rf"[^\W_{alone}]") if whole_numbers else (r"|\d", rf"[^\W\d_{alone}]")
    return re.compile(rf"\s*(?:[{alone}]{digit}|{letter}+(?:['’]{letter}+)*)")

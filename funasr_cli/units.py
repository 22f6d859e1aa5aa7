"""The pieces in which texts are compared: words, or the characters of scripts without spaces.

With the punctuation at them for times (`word_spans`); without it for drafts, second opinions and error rates
(`units_of`).
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from funasr_cli.characters import UNSPACED_LETTERS

# Where spaces do not tell words either: Thai, Lao, Burmese, Khmer; Korean, in which many are optional.
LOOSELY_SPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uac00-\ud7a3"
TOKEN = re.compile(r"\S+")
UNSPACED_LETTER = re.compile(f"[{UNSPACED_LETTERS}]")
OPENING = ("Ps", "Pi", "Sc")  # Unicode's categories of what belongs to the word behind it: brackets, quotes, "$"


def is_spoken(char: str) -> bool:
    """Whether it is a letter or a digit: of anything else a word has to have one."""
    return unicodedata.category(char)[0] in "LN"


def folded(text: str) -> str:
    """Keep letters and digits, in the form in which texts are compared: NFKC, without case and punctuation."""
    kept = (
        char for char in unicodedata.normalize("NFKC", text).casefold() if unicodedata.category(char)[0] in "LNM"
    )
    return "".join(kept)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends, with the punctuation that stands at it.

    What has no letter and no digit belongs to the word in front, over the space in between, else to the one
    behind. A text without a single letter or digit has no word.
    """
    spans: list[tuple[int, int]] = []
    leading: int | None = None  # where punctuation begins that has no word in front
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
    """Where a stretch without spaces is cut: between letters of which one is of a script without spaces."""
    cuts: list[int] = []
    last = ""  # letter or digit
    opening: int | None = None  # where punctuation behind it begins that belongs to the next one
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
    """A longest common subsequence: pairs of positions, both increasing.

    Those of `difflib` can be shorter, and take minutes where few different units recur. This is a table of both
    lengths: 3,000 by 3,000 take 18 MB and a tenth of a second.
    """
    codes = {text: code for code, text in enumerate(dict.fromkeys([*ours, *theirs]))}
    rows, columns = ([codes[text] for text in texts] for texts in (ours, theirs))
    other = np.array(columns, int)  # (columns,)
    longest = np.zeros((len(rows) + 1, len(columns) + 1), np.uint16)  # of the first units of both
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

    key: str  # without case and white space
    text: str  # as it stands in the text, with the white space before it
    end: int  # where it ends

    @property
    def start(self) -> int:
        """Where it begins, white space included."""
        return self.end - len(self.text)

    @property
    def space(self) -> str:
        """The white space before it."""
        return self.text[: len(self.text) - len(self.text.lstrip())]


def units_of(text: str, *, whole_numbers: bool = False, split_loose: bool = False) -> list[Unit]:
    """The units of a text: words with their apostrophes, and characters of scripts without spaces.

    Punctuation is none.

    Args:
        text: any.
        whole_numbers: digits belong to words; else each is a unit.
        split_loose: the characters of `LOOSELY_SPACED` scripts are units, too.
    """
    found = _pattern(whole_numbers, split_loose).finditer(text)
    return [Unit(one[0].strip().casefold(), one[0], one.end()) for one in found]


@cache
def _pattern(whole_numbers: bool, split_loose: bool) -> re.Pattern[str]:
    alone = UNSPACED_LETTERS + (LOOSELY_SPACED if split_loose else "")
    digit, letter = ("", rf"[^\W_{alone}]") if whole_numbers else (r"|\d", rf"[^\W\d_{alone}]")
    return re.compile(rf"\s*(?:[{alone}]{digit}|{letter}+(?:['’]{letter}+)*)")

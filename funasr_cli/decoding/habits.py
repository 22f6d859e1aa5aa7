"""How a decoder writes what the CTC branch hears, learned from the texts of both while they come in.

CTC spells what is said: ``my birthday is on november twelfth``. The decoder writes ``My birthday is on November
12th.`` Nothing of that is known beforehand: which words begin with a capital, which numbers become digits and what
ends a text is seen in what the decoder has written, and used for the drafts of what follows.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from funasr_cli.characters import UNSPACED_LETTERS

FIRST, FURTHER, CASES = 0.8, 0.9, 8  # what drafts are worth before anything is known, and how fast that changes
LONGEST_PHRASE = 4  # units that are learned as a whole: a time of day, a year
# A word, a digit, or a character of a script without spaces; with the white space before it.
UNIT = re.compile(
    rf"\s*(?:[{UNSPACED_LETTERS}]|\d|(?:(?![{UNSPACED_LETTERS}\d_])\w)(?:(?![{UNSPACED_LETTERS}\d])[\w'’])*)"
)


@dataclass(frozen=True)
class Unit:
    """A piece of a text that is compared as a whole.

    Attributes:
        key: without case and white space.
        text: as it stands in the text, with the white space before it.
        end: where it ends.
    """

    key: str
    text: str
    end: int

    @property
    def space(self) -> str:
        """The white space before it."""
        return self.text[: len(self.text) - len(self.text.lstrip())]


def units_of(text: str) -> list[Unit]:
    """The units of a text; punctuation is none."""
    return [Unit(found[0].strip().casefold(), found[0], found.end()) for found in UNIT.finditer(text)]


class Rate:
    """How often something comes out well, by experience.

    Args:
        expected: what is taken for it beforehand.
        weight: how many cases' worth that is.
    """

    def __init__(self, expected: float, weight: float):
        self._good, self._all = expected * weight, weight

    def count(self, good: int, bad: int) -> None:
        """Take in some more cases."""
        self._good, self._all = self._good + good, self._all + good + bad

    @property
    def value(self) -> float:
        """0 to 1."""
        return self._good / self._all


class Habits:
    """Forms that the decoder has given to units of the CTC text, by whether they follow a digit.

    Attributes:
        first: how often a proposal's first token has been right.
        further: how often one behind right ones.
    """

    def __init__(self) -> None:
        self.first, self.further = Rate(FIRST, CASES), Rate(FURTHER, CASES)
        self._forms: dict[tuple[bool, tuple[str, ...]], Counter[str]] = defaultdict(Counter)
        self._capitals: Counter[bool] = Counter()  # at the beginning of a text
        self._endings: dict[str, Counter[str]] = defaultdict(Counter)  # by a text's last unit, and "" of all

    def learn(self, heard: str, written: str) -> None:
        """Look at a finished text."""
        theirs, ours = units_of(heard), units_of(written)
        if not theirs or not ours:
            return
        matcher = SequenceMatcher(None, [unit.key for unit in theirs], [unit.key for unit in ours], autojunk=False)
        for kind, start, end, begin, stop in matcher.get_opcodes():
            if kind in ("equal", "replace"):
                self._learn_block(theirs[start:end], ours, begin, stop, written)
        if ours[0].text.swapcase() != ours[0].text:
            self._capitals[ours[0].text[0].isupper()] += 1
        for last in (theirs[-1].key, ""):
            self._endings[last][written[ours[-1].end :]] += 1

    def _learn_block(
        self, theirs: Sequence[Unit], ours: Sequence[Unit], begin: int, stop: int, written: str
    ) -> None:
        """Units that stand for each other: one by one where they are as many, else as a phrase."""
        if len(theirs) == stop - begin:
            for place, unit in enumerate(theirs, begin):
                if place or ours[place].key != unit.key:  # a capital at the beginning is no habit of the word
                    self._note((unit.key,), ours, place, place + 1, written)
        elif len(theirs) <= LONGEST_PHRASE:
            self._note(tuple(unit.key for unit in theirs), ours, begin, stop, written)

    def _note(self, keys: tuple[str, ...], ours: Sequence[Unit], begin: int, stop: int, written: str) -> None:
        start = ours[begin].end - len(ours[begin].text)
        form = written[start : ours[stop - 1].end]
        follows_digit = written[:start][-1:].isdigit()
        self._forms[follows_digit, keys][form if follows_digit else form.lstrip()] += 1

    def write(self, heard: str) -> str:
        """How the decoder may write what CTC hears."""
        units, text, at = units_of(heard), "", 0
        while at < len(units):
            form, used = self._form(units, at, text)
            text, at = text + form, at + used
        text = text.lstrip()
        if self._capitals[True] > self._capitals[False]:
            text = text[:1].upper() + text[1:]
        return text + self._ending(units[-1].key) if units else text

    def _form(self, units: Sequence[Unit], at: int, before: str) -> tuple[str, int]:
        """The next piece of a text, and for how many units it stands."""
        follows_digit = before[-1:].isdigit()
        for length in range(min(LONGEST_PHRASE, len(units) - at), 0, -1):
            keys = tuple(unit.key for unit in units[at : at + length])
            if forms := self._forms.get((follows_digit, keys)):
                form = forms.most_common(1)[0][0]
                return (form if follows_digit else units[at].space + form), length
        return units[at].text, 1

    def _ending(self, last: str) -> str:
        endings = self._endings.get(last) or self._endings.get("")
        return endings.most_common(1)[0][0] if endings else ""

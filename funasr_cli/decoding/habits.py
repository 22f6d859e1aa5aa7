"""How a decoder writes what the CTC branch hears, learned from the texts of both while they come in.

CTC spells what is said: ``my birthday is on november twelfth``. The decoder writes ``My birthday is on November
12th.`` Nothing of that is known beforehand: which words begin with a capital, which numbers become digits and what
ends a text is seen in what the decoder has written, and used for the drafts of what follows.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from funasr_cli.units import Unit, common, units_of

FIRST, FURTHER, CASES = 0.8, 0.9, 8  # what drafts are worth before anything is known, and how fast that changes
LONGEST_PHRASE = 4  # units that are learned as a whole: a time of day, a year
LONGEST_FORM, LONGEST_ENDING = 40, 4  # characters: what is longer has not been heard
MOST_FORMS = 20_000  # the oldest are forgotten


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
        self._forms: dict[tuple[bool, tuple[str, ...]], Counter[str]] = {}
        self._capitals: Counter[bool] = Counter()  # at the beginning of a text
        self._endings: dict[str, Counter[str]] = defaultdict(Counter)  # by a text's last unit, and "" of all

    def learn(self, heard: str, written: str) -> None:
        """Look at a finished text."""
        theirs, ours = units_of(heard), units_of(written)
        if not theirs or not ours:
            return
        pairs = common([unit.key for unit in theirs], [unit.key for unit in ours])
        for (start, begin), (end, stop) in pairwise([(-1, -1), *pairs, (len(theirs), len(ours))]):
            self._learn_block(theirs[start + 1 : end], ours[begin + 1 : stop], written)
            if stop < len(ours):
                self._learn_block(theirs[end : end + 1], ours[stop : stop + 1], written)
        if ours[0].text.swapcase() != ours[0].text:
            self._capitals[ours[0].text[0].isupper()] += 1
        ending = written[ours[-1].end :]
        if len(ending) <= LONGEST_ENDING:
            for last in (theirs[-1].key, ""):
                self._endings[last][ending] += 1
        for known in (self._forms, self._endings):
            while len(known) > MOST_FORMS:
                known.pop(next(iter(known)))  # type: ignore[call-overload]

    def _learn_block(self, theirs: Sequence[Unit], ours: Sequence[Unit], written: str) -> None:
        """Units that stand for each other: one by one where they are as many, else as a phrase."""
        if len(theirs) == len(ours):
            for one, other in zip(theirs, ours, strict=True):
                if other.start or other.key != one.key:  # a capital at the beginning is no habit of the word
                    self._note((one.key,), [other], written)
        elif theirs and 0 < len(ours) <= 2 * LONGEST_PHRASE and len(theirs) <= LONGEST_PHRASE:
            self._note(tuple(unit.key for unit in theirs), ours, written)

    def _note(self, keys: tuple[str, ...], ours: Sequence[Unit], written: str) -> None:
        form = written[ours[0].start : ours[-1].end]
        follows_digit = written[: ours[0].start][-1:].isdigit()
        if len(form) <= LONGEST_FORM:
            forms = self._forms.setdefault((follows_digit, keys), Counter())
            forms[form if follows_digit else form.lstrip()] += 1

    def write(self, heard: str) -> str:
        """How the decoder may write what CTC hears."""
        units, text, at, end = units_of(heard), "", 0, 0
        while at < len(units):
            form, used = self._form(units, at, text)
            text += heard[end : units[at].start] + form  # punctuation, should CTC write any
            at, end = at + used, units[at + used - 1].end
        text = text.lstrip()
        if self._capitals[True] > self._capitals[False]:
            text = text[:1].upper() + text[1:]
        return text + (self._ending(units[-1].key) or heard[end:]) if units else heard

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

"""The text of the CTC branch as a draft of what the decoder will write.

CTC spells what is said: ``my birthday is on november twelfth``. The decoder writes ``My birthday is on November
12th.`` Nothing of that is known beforehand: which words begin with a capital, which numbers become digits and what
ends a text is learned from the texts of both while they come in. Where the decoder writes something else all the
same, the draft is taken up again behind the difference.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

from funasr_cli.decoding.text import UNFINISHED, TextStream
from funasr_cli.units import Unit, common, units_of

FIRST, FURTHER, CASES = 0.8, 0.9, 8  # what drafts are worth before anything is known, and how fast that changes
LONGEST_PHRASE = 4  # units that are learned as a whole: a time of day, a year
LONGEST_FORM, LONGEST_ENDING = 40, 4  # characters: what is longer has not been heard
MOST_FORMS = 20_000  # the oldest are forgotten
MOST_MISSES = 6  # in a row: then the texts have nothing to do with each other
OWN_CASES = 2  # how many of its own proposals change what a row expects
SKIPPED, ADDED, CHANGED = 0.6, 1.0, 0.9  # costs of a heard unit that is not written, the reverse, and another one
MOST_TOKENS = 32  # of a proposal: runs without a comma are rarely longer
MOST_CHARACTERS = 8 * MOST_TOKENS
REACH = 8  # units that one text may be ahead of the other
LOST_AT = 32  # written units since both last agreed: from then on, they are taken to go on side by side


class Rate:
    """How often something comes out well, 0 to 1, by experience."""

    def __init__(self, expected: float, weight: float):
        """`expected` is what is taken for it beforehand, which counts as much as `weight` cases."""
        self._good, self._all = expected * weight, weight

    def count(self, good: int, bad: int) -> None:
        """Take in some more cases."""
        self._good, self._all = self._good + good, self._all + good + bad

    @property
    def value(self) -> float:
        """0 to 1."""
        return self._good / self._all


class SpellingMemory:
    """Forms that the decoder has given to units of the CTC text, by whether they follow a digit."""

    def __init__(self) -> None:
        self.first = Rate(FIRST, CASES)  # how often a proposal's first token has been right
        self.further = Rate(FURTHER, CASES)  # how often one behind right ones
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


class CTCDraft:
    """Proposes how a row goes on whose text comes in on `stream`, by what the CTC branch `heard`."""

    def __init__(self, heard: str, stream: TextStream, encode: Callable[[str], list[int]], memory: SpellingMemory):
        self._text = memory.write(heard)
        self._units = units_of(self._text)
        self._stream = stream
        self._encode = encode
        self._at = 0  # units of the draft behind which both texts go on...
        self._read = 0  # ...and the number of characters that have been written up to there
        self._memory = memory
        self._first = Rate(memory.first.value, OWN_CASES)
        self._misses = self._wait = 0  # looks in a row that found nothing right, and steps until the next
        self._agreed = False  # both texts, anywhere so far
        self.proposed = 0  # tokens so far

    @property
    def odds(self) -> tuple[float, float]:
        """How likely the next proposal's first token is to be right, and each further one behind right ones.

        The first is learned from this row, the second from all rows.
        """
        return self._first.value, self._memory.further.value

    def propose(self) -> list[int] | None:
        """Guess the ids that come next, at most `MOST_TOKENS`; None where there will be no guess any more.

        After mistakes, there are ever fewer tries.
        """
        raw = self._stream.raw
        if self._wait:
            self._wait -= 1
            return []
        if self._misses > MOST_MISSES or self._at == len(self._units):
            return None
        if raw.endswith(UNFINISHED):
            return []
        coming = self._rest(raw)[:MOST_CHARACTERS]
        if not coming:
            return None if self._at == len(self._units) else []
        if self._misses and not self._agreed:
            self._miss()  # it began wrong: let the texts agree somewhere first
            return []
        return self._encode(coming)[:MOST_TOKENS]

    def judge(self, proposed: int, accepted: int) -> None:
        """Learn what became of as much of a proposal as was tried."""
        self.proposed += proposed
        for rate in (self._first, self._memory.first):
            rate.count(int(accepted > 0), int(accepted == 0))
        if accepted:
            self._memory.further.count(accepted - 1, int(accepted < proposed))
            self._agreed, self._misses = True, 0
        else:
            self._miss()

    def _miss(self) -> None:
        self._misses += 1
        self._wait = (1 << self._misses) // 2 if self._misses > 1 else 0  # 0, 2, 4, 8, ... steps

    def _rest(self, raw: str) -> str:
        """What is left of the draft behind the written text."""
        tail = raw[self._read :]
        written = units_of(tail)
        at, offset = self._at, self._units[self._at - 1].end if self._at else 0
        if written:
            at, offset = self._catch_up(written, raw)
            tail = tail[written[-1].end :]
        if self._text.startswith(tail, offset):
            return self._text[offset + len(tail) :]
        if at == len(self._units):
            return ""
        rest = self._text[self._units[at].start :]
        return rest.lstrip() if tail[-1].isspace() else rest

    def _catch_up(self, written: Sequence[Unit], raw: str) -> tuple[int, int]:
        """How many units of the draft the written text stands for, and where the rest of the draft begins."""
        ahead = self._units[self._at : self._at + len(written) + REACH]
        count, agrees = align(written, ahead, open_end=raw[-1:].isalpha())
        self._agreed |= agrees
        at, last = self._at + count, written[-1]
        offset = self._units[at - 1].end if at else 0
        if agrees and len(last.key) < len(self._units[at - 1].key):
            offset -= len(self._units[at - 1].key) - len(last.key)  # within a word
        elif agrees:
            self._at, self._read = at, self._read + last.end
        elif len(written) >= LOST_AT:
            half = len(written) // 2
            self._at, self._read = min(self._at + half, len(self._units)), self._read + written[half - 1].end
        return at, offset


def align(written: Sequence[Unit], heard: Sequence[Unit], open_end: bool) -> tuple[int, bool]:
    """Count the heard units that a beginning of a text stands for, and tell whether the last of both agree.

    Weighted edit distance (Wagner and Fischer 1974) between all that is written, at least one unit, and each
    beginning of the heard. With `open_end`, the last written unit may be the beginning of a word.
    """
    costs = [SKIPPED * count for count in range(len(heard) + 1)]
    agrees = [False] * (len(heard) + 1)
    for number, unit in enumerate(written, 1):
        is_open = open_end and number == len(written)
        above, costs = costs, [costs[0] + ADDED]
        agrees = [False]
        for column, other in enumerate(heard):
            same = other.key.startswith(unit.key) if is_open else other.key == unit.key
            choices = (
                (above[column] + (0.0 if same else CHANGED), same),
                (above[column + 1] + ADDED, False),
                (costs[column] + SKIPPED, False),
            )
            cost, agreed = min(choices, key=lambda choice: choice[0])
            costs.append(cost)
            agrees.append(agreed)
    best = min(range(len(costs)), key=costs.__getitem__)
    return best, agrees[best]

"""Drafts for speculative decoding: the CTC branch's text proposes the decoder's next tokens.

The CTC branch spells what is spoken: ``my birthday is on november twelfth``. The decoder writes ``My birthday is
on November 12th.`` `SpellingMemory` learns this spelling during the run, from finished segments: capitals, numbers
in digits and punctuation at the end. `CTCDraft` proposes the text of one row. If the decoder writes something
else, the draft is aligned with the decoded text and continues after the difference.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

from funasr_cli.decoding.text import UNFINISHED, TextStream
from funasr_cli.units import Unit, common, units_of

FIRST, FURTHER, CASES = 0.8, 0.9, 8  # acceptance rates assumed at first, and their weight in cases
LONGEST_PHRASE = 4  # units that are learned as one phrase: a time of day, a year
LONGEST_FORM, LONGEST_ENDING = 40, 4  # characters: anything longer was not in the audio
MOST_FORMS = 20_000  # the oldest are forgotten
MOST_MISSES = 6  # consecutive misses after which the draft is given up: the texts are unrelated
OWN_CASES = 2  # weight, in cases, of the rate over all rows as the prior of a row's own rate
# Alignment costs: a heard unit that is not written, a written unit that was not heard, a substitution.
SKIPPED, ADDED, CHANGED = 0.6, 1.0, 0.9
MOST_TOKENS = 32  # per proposal: stretches without a comma are rarely longer
MOST_CHARACTERS = 8 * MOST_TOKENS
REACH = 8  # units by which one text may be ahead of the other
LOST_AT = 32  # written units without agreement, after which both texts are assumed to advance at the same pace


class Rate:
    """Running estimate of a success rate, 0 to 1."""

    def __init__(self, expected: float, weight: float):
        """Start from a prior rate `expected`, which counts as much as `weight` cases."""
        self._good, self._all = expected * weight, weight

    def count(self, good: int, bad: int) -> None:
        """Add cases."""
        self._good, self._all = self._good + good, self._all + good + bad

    @property
    def value(self) -> float:
        """The estimated rate, 0 to 1."""
        return self._good / self._all


class SpellingMemory:
    """Memory of a run: how the decoder has written units of the CTC text, and the acceptance rates of drafts."""

    def __init__(self) -> None:
        self.first = Rate(FIRST, CASES)  # acceptance rate of a proposal's first token
        self.further = Rate(FURTHER, CASES)  # acceptance rate of a token whose predecessors were accepted
        # Written forms by heard units, and by whether the text before them ends with a digit.
        self._forms: dict[tuple[bool, tuple[str, ...]], Counter[str]] = {}
        self._capitals: Counter[bool] = Counter()  # whether texts start with a capital
        self._endings: dict[str, Counter[str]] = defaultdict(Counter)  # by a text's last unit; "" counts all texts

    def learn(self, heard: str, written: str) -> None:
        """Learn from a finished segment: the CTC text and the decoder's."""
        heard_units, written_units = units_of(heard), units_of(written)
        if not heard_units or not written_units:
            return
        pairs = common([unit.key for unit in heard_units], [unit.key for unit in written_units])
        for (start, begin), (end, stop) in pairwise([(-1, -1), *pairs, (len(heard_units), len(written_units))]):
            self._learn_block(heard_units[start + 1 : end], written_units[begin + 1 : stop], written)
            if stop < len(written_units):
                self._learn_block(heard_units[end : end + 1], written_units[stop : stop + 1], written)
        if written_units[0].text.swapcase() != written_units[0].text:
            self._capitals[written_units[0].text[0].isupper()] += 1
        ending = written[written_units[-1].end :]
        if len(ending) <= LONGEST_ENDING:
            for last in (heard_units[-1].key, ""):
                self._endings[last][ending] += 1
        for known in (self._forms, self._endings):
            while len(known) > MOST_FORMS:
                known.pop(next(iter(known)))  # type: ignore[call-overload]

    def _learn_block(self, heard_units: Sequence[Unit], written_units: Sequence[Unit], written: str) -> None:
        """Learn units that correspond to each other: one by one if their numbers are equal, else as a phrase."""
        if len(heard_units) == len(written_units):
            for one, other in zip(heard_units, written_units, strict=True):
                if other.start or other.key != one.key:  # a capital at the start is not specific to the word
                    self._note((one.key,), [other], written)
        elif heard_units and 0 < len(written_units) <= 2 * LONGEST_PHRASE and len(heard_units) <= LONGEST_PHRASE:
            self._note(tuple(unit.key for unit in heard_units), written_units, written)

    def _note(self, keys: tuple[str, ...], written_units: Sequence[Unit], written: str) -> None:
        form = written[written_units[0].start : written_units[-1].end]
        follows_digit = written[: written_units[0].start][-1:].isdigit()
        if len(form) <= LONGEST_FORM:
            forms = self._forms.setdefault((follows_digit, keys), Counter())
            forms[form if follows_digit else form.lstrip()] += 1

    def write(self, heard: str) -> str:
        """Predict how the decoder will write the CTC text."""
        units, text, at, end = units_of(heard), "", 0, 0
        while at < len(units):
            form, used = self._form(units, at, text)
            text += heard[end : units[at].start] + form  # first any punctuation of the CTC text
            at, end = at + used, units[at + used - 1].end
        text = text.lstrip()
        if self._capitals[True] > self._capitals[False]:
            text = text[:1].upper() + text[1:]
        return text + (self._ending(units[-1].key) or heard[end:]) if units else heard

    def _form(self, units: Sequence[Unit], at: int, before: str) -> tuple[str, int]:
        """Return the written form of the next units, and their number."""
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
    """The draft of one row: proposes the next tokens after `stream`, from the text that the CTC branch `heard`."""

    def __init__(self, heard: str, stream: TextStream, encode: Callable[[str], list[int]], memory: SpellingMemory):
        self._text = memory.write(heard)
        self._units = units_of(self._text)
        self._stream = stream
        self._encode = encode
        # Where both texts last agreed: the number of units of the draft, and of characters of the decoded text.
        self._at = 0
        self._read = 0
        self._memory = memory
        self._first = Rate(memory.first.value, OWN_CASES)
        self._misses = self._wait = 0  # consecutive misses, and steps to wait until the next proposal
        self._agreed = False  # whether both texts have agreed anywhere so far
        self.proposed = 0  # total number of proposed tokens

    @property
    def odds(self) -> tuple[float, float]:
        """Acceptance probability of the next proposal's first token, and of each further one after accepted ones.

        The first is estimated from this row, the second from all rows.
        """
        return self._first.value, self._memory.further.value

    def propose(self) -> list[int] | None:
        """Propose the next token ids, at most `MOST_TOKENS`; None if the draft has nothing more to propose.

        After misses, proposals pause for more and more steps.
        """
        raw = self._stream.raw
        if self._wait:
            self._wait -= 1
            return []
        if self._misses > MOST_MISSES or self._at == len(self._units):
            return None
        if raw.endswith(UNFINISHED):
            return []
        rest = self._rest(raw)[:MOST_CHARACTERS]
        if not rest:
            return None if self._at == len(self._units) else []
        if self._misses and not self._agreed:
            self._miss()  # the start was wrong: wait until the texts agree somewhere
            return []
        return self._encode(rest)[:MOST_TOKENS]

    def judge(self, proposed: int, accepted: int) -> None:
        """Count how many of the verified tokens of a proposal were accepted."""
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
        """Return the rest of the draft, after the part that corresponds to the decoded text."""
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
        """Align the draft with the text written since they last agreed.

        Returns:
            The number of the draft's units that the written text covers, and the offset of the rest of the draft.
        """
        ahead = self._units[self._at : self._at + len(written) + REACH]
        count, agrees = align(written, ahead, open_end=raw[-1:].isalpha())
        self._agreed |= agrees
        at, last = self._at + count, written[-1]
        offset = self._units[at - 1].end if at else 0
        if agrees and len(last.key) < len(self._units[at - 1].key):
            offset -= len(self._units[at - 1].key) - len(last.key)  # inside a word
        elif agrees:
            self._at, self._read = at, self._read + last.end
        elif len(written) >= LOST_AT:
            half = len(written) // 2
            self._at, self._read = min(self._at + half, len(self._units)), self._read + written[half - 1].end
        return at, offset


def align(written: Sequence[Unit], heard: Sequence[Unit], open_end: bool) -> tuple[int, bool]:
    """Return how many heard units the written text covers, and whether the last units of both agree.

    Weighted edit distance (Wagner and Fischer 1974) between the whole written text, at least one unit, and every
    prefix of the heard units; the cheapest prefix wins. With `open_end`, the last written unit may be part of a
    word.
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

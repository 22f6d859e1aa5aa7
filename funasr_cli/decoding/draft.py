"""The text of the CTC branch as a draft of what the decoder will write.

The decoder writes what CTC does not: capitals, punctuation, numbers as digits. Where it does, the draft is taken
up again behind the difference.
"""

from collections.abc import Callable, Sequence

from funasr_cli.decoding.batch import MOST_TOKENS
from funasr_cli.decoding.habits import Habits, Rate
from funasr_cli.decoding.text import UNFINISHED, TextStream
from funasr_cli.units import Unit, units_of

MOST_MISSES = 6  # in a row: then the texts have nothing to do with each other
OWN_CASES = 2  # how many of its own proposals change what a row expects
SKIPPED, ADDED, CHANGED = 0.6, 1.0, 0.9  # costs of a heard unit that is not written, the reverse, and another one
MOST_CHARACTERS = 8 * MOST_TOKENS
REACH = 8  # units that one text may be ahead of the other
LOST_AT = 32  # written units since both last agreed: from then on, they are taken to go on side by side


class CTCDraft:
    """Proposes how a row goes on.

    Args:
        heard: text of the CTC branch.
        stream: what the row has written so far.
        encode: text -> ids of the decoder's tokens.
        habits: how the decoder writes what CTC hears.

    Attributes:
        proposed: tokens so far.
    """

    def __init__(self, heard: str, stream: TextStream, encode: Callable[[str], list[int]], habits: Habits):
        self._text = habits.write(heard)
        self._units = units_of(self._text)
        self._stream = stream
        self._encode = encode
        self._at = 0  # so many of its units end where...
        self._read = 0  # ...so many characters have been written
        self._habits = habits
        self._first = Rate(habits.first.value, OWN_CASES)
        self._misses = self._wait = 0  # looks in a row that found nothing right, and steps until the next
        self._agreed = False  # both texts, anywhere so far
        self.proposed = 0

    @property
    def odds(self) -> tuple[float, float]:
        """As `batch.Drafter` says: as in other rows, and as in this one."""
        return self._first.value, self._habits.further.value

    def propose(self) -> list[int] | None:
        """Ids that may come next; ever fewer tries after mistakes, None where there is nothing left to try."""
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
        """Learn what became of a proposal, up to its first mistake."""
        self.proposed += proposed
        for rate in (self._first, self._habits.first):
            rate.count(int(accepted > 0), int(accepted == 0))
        if accepted:
            self._habits.further.count(accepted - 1, int(accepted < proposed))
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
    """How many heard units a beginning of a text stands for, and whether the last of both agree.

    Weighted edit distance (Wagner and Fischer 1974) between all that is written and each beginning of the heard.

    Args:
        written: at least one.
        heard: from where both last agreed.
        open_end: the last written unit may be the beginning of a word.
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

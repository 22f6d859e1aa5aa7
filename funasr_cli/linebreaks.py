"""Text on lines of limited width: at spaces, behind hyphens, and between Chinese or Japanese characters."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

from funasr_cli.characters import clusters, columns

HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]")  # written with spaces, though wide
QUOTES = "\"'"  # may open or close
# What no line begins with and what none ends with, besides brackets and quotation marks of Unicode's own classes.
SMALL_KANA = "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
CLOSING = set(QUOTES + SMALL_KANA + "、。，．・：；？！｡､･,.:;?!%‰％℃°…‥～〜ーｰ々〻ゝゞヽヾ")
OPENING = set(QUOTES + "$£¥€￥￡＄#＃@＠¿¡")
HYPHENS = set("-‐–—/")
SENTENCE_END = re.compile(r"""[.!?。！？｡．؟۔।॥]["'”’»)\]）」』】〉》〕]*$""")
FULL_STOP = re.compile(r"""\.["'”’»)\]]*$""")  # also ends abbreviations
ABBREVIATION = re.compile(r"(^|\W)([a-zа-я]|mr|mrs|ms|dr|prof|st)\.$", re.IGNORECASE)
CLAUSE_END = re.compile(r"""[,;:，、；：､،؛…—–]["'”’»)\]）」』】〉》〕]*$""")
AT_SENTENCE, AT_CLAUSE, AT_SPACE, ELSEWHERE = -0.1, 0.0, 0.3, 0.6  # costs of a break


@dataclass(frozen=True, slots=True)
class Word:
    """What stays on one line: a word, or a Chinese character with the punctuation around it."""

    text: str
    columns: int  # its width on a screen
    spaced: bool  # a space separates it from the one before
    cut: bool  # it begins within a word that is longer than a line


class Words:
    """A text that is on one line with single spaces, as words that are at most a line wide.

    A span of them is named by its first word and the one behind its last.
    """

    def __init__(self, text: str, line_width: int):
        self._width = line_width
        self.words = list(_split(text, line_width)) if text else []  # those wider than a line are cut
        widths = [word.columns for word in self.words]
        spaced = [word.spaced + word.columns for word in self.words]
        # Width of everything before each word and before the end, without spaces.
        self.columns_before = list(accumulate(widths, initial=0))
        self._spaced_before = list(accumulate(spaced, initial=0))
        self._costs = [_cost(before, after) for before, after in pairwise(self.words)]
        ends = [i for i, cost in enumerate(self._costs, 1) if cost == AT_SENTENCE]
        # Words before which a sentence ends, and the end of the text.
        self.sentence_ends = [*ends, len(self.words)] if self.words else []

    def width(self, first: int, last: int) -> int:
        """Columns of a span on one line."""
        return self._spaced_before[last] - self._spaced_before[first] - self.words[first].spaced

    def reach(self, first: int, last: int, lines: int) -> int:
        """Where the part of a span ends that fits on a number of lines."""
        for _ in range(lines):
            if first < last:
                room = self._spaced_before[first] + self.words[first].spaced + self._width
                first = bisect_right(self._spaced_before, room, first + 1, last + 1) - 1
        return first

    def line(self, first: int, last: int) -> str:
        """A span on one line, however wide."""
        spelled = "".join(f" {word.text}" if word.spaced else word.text for word in self.words[first:last])
        return spelled.removeprefix(" ")

    def lines(self, first: int, last: int) -> list[str]:
        """A span on as few lines as possible: about even ones that end at punctuation or spaces if they can."""
        count = next(lines for lines in range(1, last - first + 1) if self.reach(first, last, lines) == last)
        lines = []
        for left in range(count, 1, -1):
            cuts = range(first + 1, self.reach(first, last, 1) + 1)
            earliest = bisect_left(cuts, last, key=partial(self.reach, last=last, lines=left - 1))
            cut = self.best_cut(first, last, cuts[earliest:], left)
            lines.append(self.line(first, cut))
            first = cut
        return [*lines, self.line(first, last)]

    def best_cut(self, first: int, last: int, cuts: Iterable[int], parts: int) -> int:
        """The cut behind which the first of a number of even parts of a span ends best."""
        even = self.width(first, last) / parts
        return min(cuts, key=lambda cut: self._costs[cut - 1] + abs(self.width(first, cut) / even - 1))


def _split(text: str, width: int) -> Iterator[Word]:
    """The words of a text, and the parts of those within which a line may end or has to."""
    for word in text.split(" "):
        spaced = True
        for part in _parts(word):
            cut = False
            for run, used in _runs(part, width):
                yield Word(run, used, spaced, cut)
                spaced, cut = False, True


def _cost(before: Word, after: Word) -> float:
    """How bad it is to break between two words: the share of a part by which to go elsewhere to avoid it."""
    if not after.cut and not before.text[-1].isalnum():
        if _ends_sentence(before, after):
            return AT_SENTENCE
        if CLAUSE_END.search(before.text):
            return AT_CLAUSE
    return AT_SPACE if after.spaced else ELSEWHERE


def _ends_sentence(word: Word, following: Word) -> bool:
    if not SENTENCE_END.search(word.text):
        return False
    is_plain = following.spaced and not (following.text[0].islower() or ABBREVIATION.search(word.text))
    return is_plain or not FULL_STOP.search(word.text)


def _parts(word: str) -> list[str]:
    """A word at the places within it where a line may end."""
    if word.isascii() and HYPHENS.isdisjoint(word):
        return [word]
    parts, before = [""], ""
    for cluster in clusters(word):
        if before and _may_break(parts[-1], before, cluster):
            parts.append("")
        parts[-1] += cluster
        before = cluster
    return parts


def _may_break(part: str, before: str, after: str) -> bool:
    """Whether a line may end between two clusters, the first of which is the last one of ``part``."""
    if before[0] in OPENING or after[0] in CLOSING:
        return False
    if unicodedata.category(before[0]) in ("Ps", "Pi") or unicodedata.category(after[0]) in ("Pe", "Pf"):
        return False
    if _is_ideograph(before[0]) or _is_ideograph(after[0]):
        return True
    return before in HYPHENS and part[-2:-1].isalnum() and after[0].isalpha()


def _is_ideograph(char: str) -> bool:
    """Chinese, Japanese or an emoji: a line may end before and behind it."""
    return unicodedata.east_asian_width(char) in "WF" and not HANGUL.match(char)


def _runs(part: str, width: int) -> Iterator[tuple[str, int]]:
    """A part as it is, or cut wherever a line is full, between clusters; with the columns."""
    run, used = "", 0
    for cluster in clusters(part) if columns(part) > width else [part]:
        needed = columns(cluster)
        if used + needed > width:
            yield run, used
            run, used = "", 0
        run, used = run + cluster, used + needed
    yield run, used

"""Line breaking at a limited width: at spaces, after hyphens, and between Chinese or Japanese characters."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

from funasr_cli.characters import clusters, columns

HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]")  # wide characters, but written with spaces
QUOTES = "\"'"  # may open or close
# Characters that may not begin a line (CLOSING) or end one (OPENING), in addition to Unicode's bracket and quote
# classes.
SMALL_KANA = "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
CLOSING = set(QUOTES + SMALL_KANA + "、。，．・：；？！｡､･,.:;?!%‰％℃°…‥～〜ーｰ々〻ゝゞヽヾ")
OPENING = set(QUOTES + "$£¥€￥￡＄#＃@＠¿¡")
HYPHENS = set("-‐–—/")
SENTENCE_END = re.compile(r"""[.!?。！？｡．؟۔।॥]["'”’»)\]）」』】〉》〕]*$""")
FULL_STOP = re.compile(r"""\.["'”’»)\]]*$""")  # may also end an abbreviation
ABBREVIATION = re.compile(r"(^|\W)([a-zа-я]|mr|mrs|ms|dr|prof|st)\.$", re.IGNORECASE)
CLAUSE_END = re.compile(r"""[,;:，、；：､،؛…—–]["'”’»)\]）」』】〉》〕]*$""")
AT_SENTENCE, AT_CLAUSE, AT_SPACE, ELSEWHERE = -0.1, 0.0, 0.3, 0.6  # costs of a break


@dataclass(frozen=True, slots=True)
class Word:
    """An unbreakable unit of text: a word, or a Chinese character with its punctuation."""

    text: str
    columns: int  # display width
    spaced: bool  # a space separates it from the previous word
    cut: bool  # it begins within a word that is longer than a line


class Words:
    """A one-line text with single spaces, split into words that are at most a line wide.

    A span is given by the index of its first word and the index after its last, as in a slice.
    """

    def __init__(self, text: str, line_width: int):
        self._width = line_width
        self.words = list(_split(text, line_width)) if text else []  # words wider than a line are cut
        widths = [word.columns for word in self.words]
        spaced = [word.spaced + word.columns for word in self.words]
        # Total width of the words before each one, and of all words, without spaces.
        self.columns_before = list(accumulate(widths, initial=0))
        self._spaced_before = list(accumulate(spaced, initial=0))
        self._costs = [_cost(before, after) for before, after in pairwise(self.words)]
        ends = [i for i, cost in enumerate(self._costs, 1) if cost == AT_SENTENCE]
        # Indices of the words that follow the end of a sentence, and of the end of the text.
        self.sentence_ends = [*ends, len(self.words)] if self.words else []

    def width(self, first: int, last: int) -> int:
        """Return the columns that a span takes on one line."""
        return self._spaced_before[last] - self._spaced_before[first] - self.words[first].spaced

    def reach(self, first: int, last: int, lines: int) -> int:
        """Return the end of the longest part of a span that fits on this number of lines."""
        for _ in range(lines):
            if first < last:
                room = self._spaced_before[first] + self.words[first].spaced + self._width
                first = bisect_right(self._spaced_before, room, first + 1, last + 1) - 1
        return first

    def line(self, first: int, last: int) -> str:
        """Return a span on one line, regardless of width."""
        spelled = "".join(f" {word.text}" if word.spaced else word.text for word in self.words[first:last])
        return spelled.removeprefix(" ")

    def lines(self, first: int, last: int) -> list[str]:
        """Return a span on as few lines as possible, of about equal width, broken at punctuation or spaces."""
        count = next(lines for lines in range(1, last - first + 1) if self.reach(first, last, lines) == last)
        lines = []
        for left in range(count, 1, -1):
            cuts = range(first + 1, self.reach(first, last, 1) + 1)
            earliest = bisect_left(cuts, last, key=partial(self.reach, last=last, lines=left - 1))
            cut = self.best_cut(first, last, cuts[earliest:], left)
            lines.append(self.line(first, cut))
            first = cut
        return [*lines, self.line(first, last)]

    def best_cut(self, first: int, last: int, cuts: Iterable[int], parts: float) -> int:
        """Return the best cut after the first part when a span is divided into ``parts`` of about equal width."""
        even = self.width(first, last) / parts
        return min(cuts, key=lambda cut: self._costs[cut - 1] + abs(self.width(first, cut) / even - 1))


def _split(text: str, width: int) -> Iterator[Word]:
    """Yield the words of a text, cut wherever a line may break or a word is too wide."""
    for word in text.split(" "):
        spaced = True
        for part in _parts(word):
            cut = False
            for run, used in _runs(part, width):
                yield Word(run, used, spaced, cut)
                spaced, cut = False, True


def _cost(before: Word, after: Word) -> float:
    """Return the cost of a break between two words, as an equivalent relative deviation from equal parts."""
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
    """Split a word wherever a line may break inside it."""
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
    """Return whether a line may break between two clusters. ``before`` is the last cluster of ``part``."""
    if before[0] in OPENING or after[0] in CLOSING:
        return False
    if unicodedata.category(before[0]) in ("Ps", "Pi") or unicodedata.category(after[0]) in ("Pe", "Pf"):
        return False
    if _is_ideograph(before[0]) or _is_ideograph(after[0]):
        return True
    return before in HYPHENS and part[-2:-1].isalnum() and after[0].isalpha()


def _is_ideograph(char: str) -> bool:
    """Return whether a line may break before and after a character: Chinese, Japanese or an emoji."""
    return unicodedata.east_asian_width(char) in "WF" and not HANGUL.match(char)


def _runs(part: str, width: int) -> Iterator[tuple[str, int]]:
    """Yield a part and its columns, cut between clusters wherever a line is full."""
    run, used = "", 0
    for cluster in clusters(part) if columns(part) > width else [part]:
        needed = columns(cluster)
        if used + needed > width:
            yield run, used
            run, used = "", 0
        run, used = run + cluster, used + needed
    yield run, used

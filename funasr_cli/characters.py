"""Characters: what may stand on a line of a text file, how many columns it takes, and what needs no spaces."""

import unicodedata
from functools import lru_cache

# For classes of regular expressions: Chinese characters and kana, which are written without spaces.
UNSPACED_LETTERS = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
UNSPACED = f"{UNSPACED_LETTERS}\u3000-\u303f\uff00-\uff65"  # and their punctuation

JOINER = "\N{ZERO WIDTH JOINER}"
EMOJI_STYLE = "\N{VARIATION SELECTOR-16}"
BYTE_ORDER_MARK = 0xFEFF
SURROGATES = range(0xD800, 0xE000)  # halves of characters: no UTF-8 can hold them; from odd file names
SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")
FLAG_LETTERS = ("\U0001f1e6", "\U0001f1ff")  # two of them are a flag
SYLLABLE_ENDS = (("\u1160", "\u11ff"), ("\ud7b0", "\ud7ff"))  # Hangul letters that complete an earlier one

_UNPRINTABLE = {
    code: None for code in (*range(32), *range(127, 160), BYTE_ORDER_MARK) if not chr(code).isspace()
} | dict.fromkeys(SURROGATES, "\N{REPLACEMENT CHARACTER}")


def one_line(text: str) -> str:
    """The same on one line that any UTF-8 file can hold.

    White space and line ends of all kinds become single spaces, and are taken off both ends; control characters
    and byte order marks are left out; a lone surrogate becomes a replacement character.
    """
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """The same with white space as it is."""
    return text.translate(_UNPRINTABLE)


def clusters(text: str) -> list[str]:
    """What is seen as one character each: accents, emoji sequences, flags and jamo with what they belong to."""
    if text.isascii():
        return list(text)
    found: list[str] = []
    for char in text:
        if found and _may_continue(char) and _continues(found[-1], char):
            found[-1] += char
        else:
            found.append(char)
    return found


def columns(text: str) -> int:
    """Columns on a screen: two for East Asian wide characters and emoji, none for what is put onto another."""
    return len(text) if text.isascii() else sum(map(_cluster_columns, clusters(text)))


@lru_cache(maxsize=8192)
def is_wide(char: str) -> bool:
    """Whether a character takes two columns."""
    return unicodedata.east_asian_width(char) in "WF"


@lru_cache(maxsize=8192)
def _cluster_columns(cluster: str) -> int:
    first = cluster[0]
    if _is_extender(first):
        return 0
    if len(cluster) > 1 and _within(cluster[1], FLAG_LETTERS):
        return 2
    if EMOJI_STYLE in cluster and not first.isalpha():
        return 2
    return 2 if is_wide(first) else 1


@lru_cache(maxsize=8192)
def _may_continue(char: str) -> bool:
    """Whether a character belongs to what stands before it in some texts; few do."""
    return _is_extender(char) or unicodedata.category(char) == "So" or _within(char, SKIN_TONES)


def _continues(cluster: str, char: str) -> bool:
    """Whether such a character belongs to this cluster."""
    if _is_extender(char):
        return True
    if _within(char, SKIN_TONES):
        return unicodedata.category(cluster[0]) == "So"
    if _within(char, FLAG_LETTERS):
        return len(cluster) == 1 and _within(cluster, FLAG_LETTERS)
    return cluster[-1] == JOINER


def _is_extender(char: str) -> bool:
    """Whether a character takes no column of its own: accents, vowel signs, joiners, direction marks."""
    return unicodedata.category(char) in ("Mn", "Mc", "Me", "Cf") or any(
        _within(char, ends) for ends in SYLLABLE_ENDS
    )


def _within(char: str, ends: tuple[str, str]) -> bool:
    return ends[0] <= char <= ends[1]

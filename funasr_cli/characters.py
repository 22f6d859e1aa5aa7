"""Characters: what may stand on a line of a text file, how many columns it takes, and what needs no spaces."""

from functools import lru_cache

from wcwidth import iter_graphemes
from wcwidth import width as cells

# For classes of regular expressions: Chinese characters and kana, which are written without spaces.
UNSPACED_LETTERS = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
UNSPACED = f"{UNSPACED_LETTERS}\u3000-\u303f\uff00-\uff65"  # and their punctuation

BYTE_ORDER_MARK = 0xFEFF
SURROGATES = range(0xD800, 0xE000)  # halves of characters: no UTF-8 can hold them; from odd file names

_UNPRINTABLE = {
    code: None for code in (*range(32), *range(127, 160), BYTE_ORDER_MARK) if not chr(code).isspace()
} | dict.fromkeys(SURROGATES, "\N{REPLACEMENT CHARACTER}")


def one_line(text: str) -> str:
    """Fold a text to one line that any UTF-8 file can hold.

    White space and line ends of all kinds become single spaces, and are taken off both ends; control characters
    and byte order marks are left out; a lone surrogate becomes a replacement character.
    """
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """Do the same, but leave white space as it is."""
    return text.translate(_UNPRINTABLE)


def clusters(text: str) -> list[str]:
    """Split a text into what is seen as one character each: accents, emoji and flags stay whole (UAX 29)."""
    return list(text) if text.isascii() else list(iter_graphemes(text))


def columns(text: str) -> int:
    """Count columns on a screen: two for wide characters and emoji, none for what is put onto another."""
    return len(text) if text.isascii() else sum(map(_cluster_columns, clusters(text)))


@lru_cache(maxsize=8192)
def _cluster_columns(cluster: str) -> int:
    return min(2, cells(cluster))  # a cluster of several letters, as in Devanagari, is not cut

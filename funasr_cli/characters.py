"""Character properties: printable in a line of a text file, width in columns, scripts without spaces."""

from functools import lru_cache

from wcwidth import iter_graphemes
from wcwidth import width as cells

# For character classes in regular expressions: Chinese characters and kana, which are written without spaces.
UNSPACED_LETTERS = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
UNSPACED = f"{UNSPACED_LETTERS}\u3000-\u303f\uff00-\uff65"  # and their punctuation

BYTE_ORDER_MARK = 0xFEFF
SURROGATES = range(0xD800, 0xE000)  # cannot be encoded as UTF-8; may come from invalid file names

_UNPRINTABLE = {
    code: None for code in (*range(32), *range(127, 160), BYTE_ORDER_MARK) if not chr(code).isspace()
} | dict.fromkeys(SURROGATES, "\N{REPLACEMENT CHARACTER}")


def one_line(text: str) -> str:
    """Fold a text to one line that can be written to any UTF-8 file.

    Each run of white space and line ends becomes a single space, and is removed at both ends. Control characters
    and byte order marks are removed. A lone surrogate becomes a replacement character.
    """
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """Remove unprintable characters as in `one_line`, but keep white space unchanged."""
    return text.translate(_UNPRINTABLE)


def clusters(text: str) -> list[str]:
    """Split a text into grapheme clusters (UAX 29), which keep accents, emoji and flags whole."""
    return list(text) if text.isascii() else list(iter_graphemes(text))


def columns(text: str) -> int:
    """Count the columns of a text on a screen: two for wide characters and emoji, none for combining marks."""
    return len(text) if text.isascii() else sum(map(_cluster_columns, clusters(text)))


@lru_cache(maxsize=8192)
def _cluster_columns(cluster: str) -> int:
    return min(2, cells(cluster))  # a cluster of several letters, as in Devanagari, is never split

"""Count word errors as Whisper's authors do: after their own normalisation of both texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from funasr_cli.benchmarks.scoring import ErrorRate

# Languages in which every character is a unit, as in Whisper's evaluation.
UNSPACED = ("zh", "yue", "ja", "th", "lo", "my", "ko")
WITHOUT_ACCENTS = ("es", "fr")  # many texts of the recordings in these languages lack them


class Edit(NamedTuple):
    """A difference between two sequences of units: "replace", "delete" (missing in the text) or "insert"."""

    kind: str
    wanted: int  # position in the reference
    found: int  # position in the text


@cache
def _normaliser(language: str) -> Any:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if language == "en":
        return EnglishTextNormalizer()
    plain = language in WITHOUT_ACCENTS
    return BasicTextNormalizer(remove_diacritics=plain, split_letters=language in UNSPACED)


def units_in(text: str, language: str) -> list[str]:
    """Return the words of a text, or its characters in a language without spaces, normalised.

    An ellipsis is taken out first, because the normaliser would leave one of its dots, which counts as a word.
    """
    words: list[str] = _normaliser(language)(text.replace("...", " ")).split()
    return words


def edits(wanted: Sequence[str], found: Sequence[str]) -> list[Edit]:
    """Return the fewest edits that turn the found units into the wanted ones, in order."""
    from rapidfuzz.distance import Levenshtein

    return [Edit(one.tag, one.src_pos, one.dest_pos) for one in Levenshtein.editops(wanted, found)]


def matches(wanted: Sequence[str], found: Sequence[str]) -> list[tuple[int, int]]:
    """Return the positions of equal units in the alignment with the fewest edits, in order."""
    from rapidfuzz.distance import Levenshtein

    blocks = Levenshtein.opcodes(wanted, found)
    return [
        pair
        for block in blocks
        if block.tag == "equal"
        for pair in zip(
            range(block.src_start, block.src_end), range(block.dest_start, block.dest_end), strict=True
        )
    ]


def rate(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> ErrorRate:
    """Return the error rate over all (wanted, found) pairs of units, or of characters in strings."""
    total, counts = 0, Counter[str]()
    for wanted, found in pairs:
        total += len(wanted)
        counts.update(edit.kind for edit in edits(wanted, found))
    return ErrorRate(counts["replace"], counts["delete"], counts["insert"], total)


def text_rates(pairs: Iterable[tuple[str, str]], language: str) -> tuple[ErrorRate, ErrorRate]:
    """Return the rates of unit errors and of character errors (without spaces) over (wanted, found) texts."""
    split = [(units_in(wanted, language), units_in(found, language)) for wanted, found in pairs]
    return rate(split), rate(("".join(wanted), "".join(found)) for wanted, found in split)

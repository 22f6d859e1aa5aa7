"""A second opinion: how far the decoder's text and the CTC branch's reading of a segment differ.

The CTC branch spells what it hears, frame by frame; the decoder is a language model, and goes on writing where
there is nothing to hear. Where they have little in common, the text may be made up.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from funasr_cli.units import common, units_of

IN_WORDS = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}\N{COMBINING DOT ABOVE}]")  # "don't"; a Turkish I's dot
UNITS_A_DIGIT, UNITS_A_NUMBER = 2, 2  # most that a number has in words: "2026" "two thousand and twenty six"

# Doubtful: the larger part differs, and more than one word that was heard as another.
DOUBTFUL_SHARE, DOUBTFUL_UNITS = 0.5, 3


@dataclass(frozen=True)
class Comparison:
    """Two texts side by side, in units: characters of scripts without spaces, words of others."""

    common: int  # units that both texts have, in the same order; each counts once
    different: int  # units of either text that the other lacks

    def __add__(self, other: "Comparison") -> "Comparison":
        """Compare two pairs of texts together."""
        return Comparison(self.common + other.common, self.different + other.different)

    def better_than(self, other: "Comparison") -> bool:
        """Whether they have more in common; not if they only differ less, as mere numbers do."""
        return self.common > other.common and self.disagreement < other.disagreement

    @property
    def disagreement(self) -> float:
        """Share of the two texts that is not common to both, 0 to 1."""
        total = 2 * self.common + self.different
        return self.different / total if total else 0.0

    @property
    def doubtful(self) -> bool:
        """Whether the decoder's text may be made up; a single word that was heard as another is no reason."""
        return self.different >= DOUBTFUL_UNITS and self.disagreement > DOUBTFUL_SHARE


def compare(text: str, ctc_text: str) -> Comparison:
    """Compare what two ways of reading wrote, but for what they write differently on purpose.

    Case, punctuation and white space are left out. Where one text has a number in digits and the other something
    else ("3:20 pm", "three twenty p m"), that is no evidence for either side, unless it is longer than a number of
    that many digits can be in words.
    """
    # Sorted: of several longest subsequences always the same is taken.
    one, other = sorted((compared_units(text), compared_units(ctc_text)))
    pairs = common(one, other)
    borders = pairwise([(-1, -1), *pairs, (len(one), len(other))])  # of what lies between the pairs
    different = sum(_differing(one[a + 1 : b], other[c + 1 : d]) for (a, c), (b, d) in borders)
    return Comparison(len(pairs), different)


def said_before(text: str, earlier: str, ctc_text: str) -> str:
    """The earlier text with which a text begins, or nothing if the audio holds it, too.

    Upstream decodes a growing recording again and again, with what it has understood so far as the earlier text;
    others hand over what stands before a cut.
    """
    later = text.removeprefix(earlier)
    holds_all = compare(text, ctc_text).disagreement <= compare(later, ctc_text).disagreement
    return "" if not earlier or holds_all else earlier


def compared_units(text: str) -> list[str]:
    """Words, each digit, and each character of scripts without spaces, as they sound."""
    sounds = IN_WORDS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return [unit.key for unit in units_of(sounds, split_loose=True)]


def _differing(one: Sequence[str], other: Sequence[str]) -> int:
    """Count the units that are different where two texts have nothing in common."""
    numeric = [any(map(str.isdigit, side)) for side in (one, other)]
    if not one or not other or numeric[0] == numeric[1]:
        return len(one) + len(other)
    written, spoken = (one, other) if numeric[0] else (other, one)
    numbers = [len(list(group)) for is_digit, group in groupby(written, str.isdigit) if is_digit]
    words = len(written) - sum(numbers)
    longest = UNITS_A_NUMBER * len(numbers) + UNITS_A_DIGIT * sum(numbers)
    return max(0, words - len(numbers)) + max(0, len(spoken) - longest)

"""Second opinion: how much the decoder's text of a segment differs from the CTC branch's.

The CTC branch spells the audio frame by frame. The decoder is a language model and can write text that was never
spoken. If the two texts have little in common, the decoder's may be a hallucination.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from funasr_cli.units import common, units_of

IN_WORDS = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}\N{COMBINING DOT ABOVE}]")  # "don't"; a Turkish I's dot
# Most units of a number in words, per digit and in addition: "2026" is "two thousand and twenty six".
UNITS_PER_DIGIT, UNITS_PER_NUMBER = 2, 2

# A text is doubtful if more than half of it differs, and more than a single misheard word.
DOUBTFUL_SHARE, DOUBTFUL_UNITS = 0.5, 3


@dataclass(frozen=True)
class Comparison:
    """Result of comparing two texts in units: characters of scripts without spaces, words of other scripts.

    For a text with times but without a second one, the units are time steps: those that it covers are common.
    """

    common: int  # units that both texts have in the same order, each pair counted once
    different: int  # units of either text that the other lacks

    def __add__(self, other: "Comparison") -> "Comparison":
        """Add the counts of two comparisons."""
        return Comparison(self.common + other.common, self.different + other.different)

    def better_than(self, other: "Comparison") -> bool:
        """Return whether this pair agrees better. Fewer differences alone are not enough: numbers cause none."""
        return self.common > other.common and self.disagreement < other.disagreement

    @property
    def disagreement(self) -> float:
        """Share of the units of both texts that differ, 0 to 1."""
        total = 2 * self.common + self.different
        return self.different / total if total else 0.0

    @property
    def doubtful(self) -> bool:
        """Whether the decoder's text may be a hallucination. A single misheard word is not enough."""
        return self.different >= DOUBTFUL_UNITS and self.disagreement > DOUBTFUL_SHARE


def compare(text: str, ctc_text: str) -> Comparison:
    """Compare the decoder's text with the CTC branch's, ignoring intended differences of style.

    Case, punctuation and white space are ignored. If one text has a number in digits where the other has words
    ("3:20 pm", "three twenty p m"), this does not count as a difference, unless there are more words than the
    number could have.
    """
    # Sorted, so that the result does not depend on the order of the texts.
    one, other = sorted((compared_units(text), compared_units(ctc_text)))
    pairs = common(one, other)
    borders = pairwise([(-1, -1), *pairs, (len(one), len(other))])  # around each stretch between two pairs
    different = sum(_differing(one[a + 1 : b], other[c + 1 : d]) for (a, c), (b, d) in borders)
    return Comparison(len(pairs), different)


def spoken_before(text: str, earlier: str, ctc_text: str) -> str:
    """Return the earlier text, a prefix of `text`, if the audio does not contain it; else an empty string.

    The audio may or may not contain it. Upstream decodes a growing recording repeatedly, with its text so far as
    the earlier text. Other callers pass the text that precedes the audio.
    """
    later = text.removeprefix(earlier)
    holds_all = compare(text, ctc_text).disagreement <= compare(later, ctc_text).disagreement
    return "" if not earlier or holds_all else earlier


def compared_units(text: str) -> list[str]:
    """Split a text into normalised units: words, single digits, and characters of scripts without spaces."""
    sounds = IN_WORDS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return [unit.key for unit in units_of(sounds, split_loose=True)]


def _differing(one: Sequence[str], other: Sequence[str]) -> int:
    """Count the differing units of a stretch in which two texts have nothing in common."""
    numeric = [any(map(str.isdigit, side)) for side in (one, other)]
    if not one or not other or numeric[0] == numeric[1]:
        return len(one) + len(other)
    written, spoken = (one, other) if numeric[0] else (other, one)
    numbers = [len(list(group)) for is_digit, group in groupby(written, str.isdigit) if is_digit]
    words = len(written) - sum(numbers)
    longest = UNITS_PER_NUMBER * len(numbers) + UNITS_PER_DIGIT * sum(numbers)
    return max(0, words - len(numbers)) + max(0, len(spoken) - longest)

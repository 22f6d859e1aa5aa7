"""Error rates: what counts as a unit, and how many were got wrong."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
UNIT = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:'[^\W_{CJK}]+)*")


def units(text: str) -> list[str]:
    """Split a text: NFKC, case-folded, a unit for each CJK character and each word, no punctuation."""
    return UNIT.findall(unicodedata.normalize("NFKC", text).casefold())


@dataclass
class ErrorRate:
    """Edits needed, over units that should have been there."""

    edits: int = 0
    total: int = 0

    def add(self, wanted: str, got: str) -> None:
        """Count one text."""
        self.edits += Levenshtein.distance(units(wanted), units(got))
        self.total += len(units(wanted))

    @property
    def percent(self) -> float:
        """Error rate in percent."""
        return 100 * self.edits / self.total if self.total else 0.0


def error_rate(pairs: Iterable[tuple[str, str]]) -> ErrorRate:
    """Of (wanted, got) texts together."""
    rate = ErrorRate()
    for wanted, got in pairs:
        rate.add(wanted, got)
    return rate

"""Error rates of texts: what counts as a unit, how many were got wrong, and what should have been said.

Texts are normalised (NFKC), case-folded and split into units: each CJK character is one, each other word is one,
punctuation is none. So the rate is a word error rate for English, a character error rate for Chinese and Japanese.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.errors import SetupError, UsageError
from funasr_cli.units import units_of

LINES = "each line is a file name, a tab and a text"


def units(text: str) -> list[str]:
    """Split a text: NFKC, case-folded, a unit for each CJK character and each word, no punctuation."""
    normal = unicodedata.normalize("NFKC", text).casefold()
    return [unit.key for unit in units_of(normal, whole_numbers=True)]


@dataclass
class ErrorRate:
    """Edits needed, over units that should have been there."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    total: int = 0

    @property
    def edits(self) -> int:
        """All of them."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def percent(self) -> float:
        """Error rate in percent."""
        return 100 * self.edits / self.total if self.total else 0.0

    def add(self, wanted: str, got: str) -> None:
        """Count one text."""
        from rapidfuzz.distance import Levenshtein

        wanted_units = units(wanted)
        edits = [edit.tag for edit in Levenshtein.editops(wanted_units, units(got))]
        self.substitutions += edits.count("replace")
        self.deletions += edits.count("delete")
        self.insertions += edits.count("insert")
        self.total += len(wanted_units)


def error_rate(pairs: Iterable[tuple[str, str]]) -> ErrorRate:
    """Of (wanted, got) texts together."""
    rate = ErrorRate()
    for wanted, got in pairs:
        rate.add(wanted, got)
    return rate


def read_references(path: Path) -> dict[str, str]:
    """What should have been said: a file's name, a tab and its text on each line.

    Raises:
        UsageError: the file cannot be read, a line has no tab, or a name stands there twice.
        SetupError: rapidfuzz, which counts the errors, is not installed.
    """
    require_rapidfuzz()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", LINES) from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, tab, text = line.partition("\t")
        if not line.strip():
            continue
        if not tab:
            raise UsageError(f"{path}:{number}: no tab", LINES)
        if name in texts:
            raise UsageError(f"{path}:{number}: {name} stands there twice")
        texts[name] = text
    return texts


def reference_of(path: Path, texts: Mapping[str, str]) -> str:
    """The text of a recording, by its path as it was typed or by its file's name.

    Raises:
        UsageError: there is none.
    """
    for name in (str(path), path.name):
        if name in texts:
            return texts[name]
    raise UsageError(f"{path}: no text among the references", f"add a line: {path.name}, tab, text")


def require_rapidfuzz() -> None:
    """Raise a SetupError if rapidfuzz is missing."""
    try:
        import rapidfuzz  # noqa: F401
    except ImportError as error:
        raise SetupError(
            f"error rates are counted by rapidfuzz ({error})", "install it: pip install rapidfuzz"
        ) from error

"""Error rates of texts: what counts as a unit, how many were got wrong, and what should have been said.

Texts are normalised (NFKC), case-folded and split into units: each CJK character is one, each other word is one,
punctuation is none. So the rate is a word error rate for English, a character error rate for Chinese and Japanese.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.errors import SetupError, UsageError
from funasr_cli.paths import why_unreadable
from funasr_cli.units import units_of

LINES = "each line is a file name, a tab and a text"


def units(text: str) -> list[str]:
    """Split a text: NFKC, case-folded, a unit for each CJK character and each word, no punctuation."""
    normal = unicodedata.normalize("NFKC", text).casefold()
    return [unit.key for unit in units_of(normal, whole_numbers=True)]


@dataclass(frozen=True)
class ErrorRate:
    """Edits needed, over units that should have been there."""

    substitutions: int
    deletions: int
    insertions: int
    total: int

    @property
    def edits(self) -> int:
        """All of them."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def percent(self) -> float:
        """Error rate in percent."""
        return 100 * self.edits / self.total if self.total else 0.0


def error_rate(pairs: Iterable[tuple[str, str]]) -> ErrorRate:
    """Of (wanted, got) texts together."""
    from rapidfuzz.distance import Levenshtein

    split = [(units(wanted), units(got)) for wanted, got in pairs]
    edits = Counter(edit.tag for wanted, got in split for edit in Levenshtein.editops(wanted, got))
    return ErrorRate(edits["replace"], edits["delete"], edits["insert"], sum(len(wanted) for wanted, _ in split))


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
        raise UsageError(f"{path}: {why_unreadable(error)}", LINES, code="file-unreadable") from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, tab, text = line.partition("\t")
        if not line.strip():
            continue
        if not tab:
            raise UsageError(f"{path}:{number}: no tab", LINES, code="references-wrong")
        if name in texts:
            raise UsageError(f"{path}:{number}: {name} stands there twice", code="references-wrong")
        texts[name] = text
    return texts


def reference_of(path: Path, texts: Mapping[str, str]) -> str:
    """Find the text of a recording by its path as typed or its file's name; raise a UsageError if it has none."""
    for name in (str(path), path.name):
        if name in texts:
            return texts[name]
    hint = f"add a line: {path.name}, tab, text"
    raise UsageError(f"{path}: no text among the references", hint, code="references-wrong")


def require_rapidfuzz() -> None:
    """Raise a SetupError if rapidfuzz is missing."""
    try:
        import rapidfuzz  # noqa: F401
    except ImportError as error:
        message = f"error rates are counted by rapidfuzz ({error})"
        raise SetupError(message, "pip install 'funasr-cli[bench]'", code="package-missing") from error

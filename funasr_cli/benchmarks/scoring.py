"""Error rates of texts, and reference texts read from a file.

Texts are normalised (NFKC), case-folded and split into units: each CJK character and each other word is a unit;
punctuation is ignored. The result is a word error rate for English, and a character error rate for Chinese and
Japanese.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.errors import SetupError, UsageError
from funasr_cli.extras import to_add
from funasr_cli.paths import why_unreadable
from funasr_cli.units import units_of

LINES_HINT = "each line must be a file name, a tab and a text"


def units(text: str) -> list[str]:
    """Return the units of a text: normalised (NFKC), case-folded CJK characters and words, no punctuation."""
    normal = unicodedata.normalize("NFKC", text).casefold()
    return [unit.key for unit in units_of(normal, whole_numbers=True)]


@dataclass(frozen=True)
class ErrorRate:
    """Number of edits that turn a text into its reference, relative to the reference's units."""

    substitutions: int
    deletions: int
    insertions: int
    total: int

    @property
    def edits(self) -> int:
        """Total number of edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def percent(self) -> float:
        """Error rate in percent."""
        return 100 * self.edits / self.total if self.total else 0.0


def error_rate(pairs: Iterable[tuple[str, str]]) -> ErrorRate:
    """Return the error rate over all (wanted, got) pairs of texts."""
    from rapidfuzz.distance import Levenshtein

    split = [(units(wanted), units(got)) for wanted, got in pairs]
    edits = Counter(edit.tag for wanted, got in split for edit in Levenshtein.editops(wanted, got))
    return ErrorRate(edits["replace"], edits["delete"], edits["insert"], sum(len(wanted) for wanted, _ in split))


def read_references(path: Path) -> dict[str, str]:
    """Read reference texts by file name: on each line a file name, a tab and the text.

    Raises:
        UsageError: the file cannot be read, a line has no tab, or a name occurs twice.
        SetupError: rapidfuzz, which counts the errors, is not installed.
    """
    require_rapidfuzz()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {why_unreadable(error)}", LINES_HINT, code="file-unreadable") from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, tab, text = line.partition("\t")
        if not line.strip():
            continue
        if not tab:
            raise UsageError(f"{path}:{number}: no tab", LINES_HINT, code="references-wrong")
        if name in texts:
            raise UsageError(f"{path}:{number}: {name} occurs twice", code="references-wrong")
        texts[name] = text
    return texts


def reference_of(path: Path, texts: Mapping[str, str]) -> str:
    """Return the reference of a recording, found by its path as given or its file name; raise if there is none."""
    for name in (str(path), path.name):
        if name in texts:
            return texts[name]
    hint = f"add a line: {path.name}, tab, text"
    raise UsageError(f"{path}: has no reference text", hint, code="references-wrong")


def require_rapidfuzz() -> None:
    """Raise a SetupError if rapidfuzz is missing."""
    try:
        import rapidfuzz  # noqa: F401
    except ImportError as error:
        message = f"computing error rates needs rapidfuzz ({error})"
        raise SetupError(message, to_add("bench"), code="package-missing") from error

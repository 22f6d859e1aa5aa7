"""Recordings with known texts, and the error rate allowed for each."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.benchmarks.scoring import units
from funasr_cli.errors import UsageError
from funasr_cli.languages import LANGUAGES

REPOSITORY = Path(__file__).parents[2]
RELEASE_CLIPS = REPOSITORY / "tests/data/release.jsonl"
FIELDS = {"file": str, "language": str, "text": str, "max_error_percent": int | float}
FORM = 'each line is {"file": ..., "language": "en", "text": ..., "max_error_percent": 5}'


@dataclass(frozen=True)
class Clip:
    """A recording.

    Attributes:
        path: its file.
        language: ISO code, passed to the model.
        text: the spoken words; never empty.
        max_error_percent: allowed share of wrong units (see `benchmarks/scoring.py`); 0 allows no error.
    """

    path: Path
    language: str
    text: str
    max_error_percent: float


def read_clips(path: Path) -> tuple[Clip, ...]:
    """Read a list of clips. File names in it are relative to the list.

    Raises:
        UsageError: the list or a clip does not exist, or the list is invalid.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = "run this from a clone of the repository, or name a list with --clips"
        raise UsageError(
            f"{path}: the clips and their texts cannot be read ({error})", hint, code="file-unreadable"
        ) from error
    clips = tuple(_clip(line, f"{path}:{number}", path.parent) for number, line in enumerate(lines, 1) if line)
    if not clips:
        raise UsageError(f"{path}: contains no clips", FORM, code="clips-wrong")
    return clips


def _clip(line: str, where: str, folder: Path) -> Clip:
    row = _row(line, where)
    if row["language"] not in LANGUAGES:
        message = f"{where}: unknown language {row['language']!r}"
        raise UsageError(message, f"known: {', '.join(LANGUAGES)}", code="language-unknown")
    if not units(row["text"]):  # an error rate needs at least one
        raise UsageError(f"{where}: no words in text {row['text']!r}", FORM, code="clips-wrong")
    clip = Clip(folder / row["file"], row["language"], row["text"], row["max_error_percent"])
    if not clip.path.is_file():
        raise UsageError(f"{clip.path}: does not exist", f"it is listed in {where}", code="input-missing")
    return clip


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error})", FORM, code="clips-wrong") from error
    if not isinstance(row, dict) or row.keys() != FIELDS.keys():
        raise UsageError(f"{where}: expected exactly the fields {', '.join(FIELDS)}", FORM, code="clips-wrong")
    for name, kind in FIELDS.items():
        if not isinstance(row[name], kind):
            raise UsageError(f"{where}: {name} is {row[name]!r}", FORM, code="clips-wrong")
    return row

"""Expected output of a run: lines of text computed with the library, and the messages around them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import funasr_cli
from funasr_cli.formats import as_lines
from funasr_cli.options import AUTO_DTYPE
from funasr_cli.pipeline import Recognizer


@cache
def recognizer(model: Path | str, dtype: str = AUTO_DTYPE) -> Recognizer:
    """Load a model and keep it; no test may change it."""
    return funasr_cli.load(str(model), dtype)


def lines_of(model: Path | str, clip: Path, prefix: str = "", **options: object) -> str:
    """Return a line for each segment of a recording."""
    return as_lines(recognizer(model).transcribe(clip, **options).segments, prefix)


def cut_short(clip: Path, where: str, tokens: int) -> str:
    """Return the warning about a segment that stopped at the token limit."""
    return f"warning: {clip}: {where} s: cut short after {tokens} tokens: the end may be missing\n"


def made_up(clip: Path, where: str) -> str:
    """Return the warning about a text that the CTC branch does not support."""
    return f"warning: {clip}: {where} s: the second opinion disagrees with this text: it may be made up\n"


def summary(
    speech: str, share: str = "100.0%", repaired: int = 0, failed: int = 0, doubtful: int = 0, lost: str = ""
) -> str:
    """Return the last line on stderr."""
    counts = {"repaired": repaired, "failed": failed, "doubtful": doubtful}
    segments = [f"{count} segment{'s' * (count != 1)} {state}" for state, count in counts.items() if count]
    lost = f"{lost} of audio failed" if lost else ""
    return f"{', '.join(filter(None, [f'{share} of {speech} of speech transcribed', *segments, lost]))}\n"

"""Real weights and recorded speech, which `make real-data` fetches; a test that needs them is skipped without."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tools.real_data.__main__ import PARTS

# What openai-whisper writes for the clip of J. F. Kennedy, with the weights of base.
JFK = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."


def real_part(name: str) -> Path:
    """Return the folder of a part, such as `weights/whisper-base-hf`; skip the test if it is not complete."""
    if problem := _problem(name):
        pytest.skip(f"{name}: {problem}; `make real-data` fetches it")
    return next(part.folder for part in PARTS if part.name == name)


@cache
def _problem(name: str) -> str:
    return next(part.problem() for part in PARTS if part.name == name)

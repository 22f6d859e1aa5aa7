"""The tests' small SenseVoice, read by FunASR's own class: text, tags and word starts on held-out clips."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.parity.live import OFFLINE, reference_python

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "tests/data/sense_voice_small"
CLIPS = REPOSITORY / "tests/data/demo/clean"
LARGEST_BYTES = 8_000_000


def test_is_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= LARGEST_BYTES


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `sense-evaluate` prints for the tests' clips."""
    command = [reference_python(), "-m", "tools.demo", "sense-evaluate", "--model", MODEL, "--clips", CLIPS]
    environment = os.environ | OFFLINE | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return result


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("kind", ["spoken", "named"])
def test_text_in_words(found: dict[str, Any], kind: str) -> None:
    assert found["clips"] >= 40
    assert found[kind]["all"] <= 10.0
    assert found[kind]["tags"] >= 97.0


@pytest.mark.slow
@pytest.mark.process
def test_words_start_where_the_demo_model_has_them(found: dict[str, Any]) -> None:
    assert found["word_starts"]["within 120 ms of the demo's"] >= 95.0
    assert found["word_starts"]["words"] >= 250

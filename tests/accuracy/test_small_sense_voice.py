"""The tests' small SenseVoice in FunASR's own class: text, tags and word starts on held-out clips."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.parity.live import OFFLINE, reference_python
from support.small import convert

import funasr_cli
from funasr_cli.benchmarks.scoring import error_rate
from tools.accuracy.decoding import read_clips

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "tests/data/sense_voice_small"
CLIPS = REPOSITORY / "tests/data/demo/clean"
LARGEST_BYTES = 8_000_000


def test_is_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= LARGEST_BYTES


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The output of `sense-evaluate` for the tests' clips, and the texts."""
    texts = tmp_path_factory.mktemp("sense") / "texts.json"
    command = [reference_python(), "-m", "tools.demo", "sense-evaluate", "--model", MODEL, "--clips", CLIPS]
    command += ["--texts", texts]
    environment = os.environ | OFFLINE | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return result | {"texts": json.loads(texts.read_text(encoding="utf-8"))}


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


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("kind", "itn"), [("spoken", False), ("written", True)])
def test_reads_what_funasr_reads(found: dict[str, Any], kind: str, itn: bool, tmp_path: Path) -> None:
    """Converted in float32, it gives FunASR's texts, so it is equally accurate; the target is half a point."""
    convert(MODEL, tmp_path / "model", dtype="float32")
    recognizer = funasr_cli.load(tmp_path / "model")
    clips = read_clips(CLIPS)
    theirs = [text.rpartition("|>")[2].strip() for text in found["texts"][kind]]
    ours = [recognizer.transcribe(clip.path, vad=False, itn=itn).text for clip in clips]
    rates = [
        error_rate((clip.wanted(itn), text) for clip, text in zip(clips, texts, strict=True)).percent
        for texts in (ours, theirs)
    ]
    assert abs(rates[0] - rates[1]) <= 0.5
    assert sum(own == other for own, other in zip(ours, theirs, strict=True)) >= len(clips) - 1

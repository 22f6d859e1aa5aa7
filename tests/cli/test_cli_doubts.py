"""Text that the CTC branch did not hear: the warning, the summary, the ledger, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import made_up, summary
from support.running import invoke

RATE_HZ = 16000


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds in which nobody says a word, of which the model makes a sentence."""
    path = tmp_path_factory.mktemp("noise") / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(3).standard_normal(3 * RATE_HZ), RATE_HZ)
    return path


@pytest.mark.slow
def test_a_sentence_made_of_noise(noise: Path, tmp_path: Path) -> None:
    """It is no gap, strict or not: all of the speech has a text. What is right is not doubted: `test_demo.py`."""
    result = invoke("transcribe", "-m", "demo", "--no-vad", "--strict", "-f", "md,json", "-o", tmp_path, noise)
    assert result.exit_code == 0
    assert result.stderr.startswith(made_up(noise, "0.0-3.0"))
    assert result.stderr.endswith(summary("0:03", doubtful=1))
    content = json.loads((tmp_path / "noise.json").read_text(encoding="utf-8"))
    [segment] = content["segments"]
    assert [f"warning: {noise}: {warning}\n" for warning in content["warnings"]] == [made_up(noise, "0.0-3.0")]
    assert (segment["doubtful"], segment["state"], segment["retries"]) == (True, "transcribed", 0)
    assert segment["disagreement"] > 0.5
    assert segment["text"].strip()
    assert content["ledger"]["doubtful_s"] == content["ledger"]["transcribed_s"] == 3.0
    page = (tmp_path / "noise.md").read_text(encoding="utf-8")
    assert "0:03 long: 0:03 transcribed, 0:00 repaired, 0:00 failed, 0:00 silence; 0:03 of it doubtful.\n" in page
    assert "the CTC branch did not hear this" in page

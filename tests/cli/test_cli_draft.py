"""``--draft``, and `funasr bench --drafts`. Acceptance of drafts: `accuracy/test_drafts.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.measuring import check_case, measured
from support.running import invoke

from funasr_cli import demo

CLIPS = [clip.path for clip in demo.clips()]
DRAFTED = ("drafted", "accepted")


def transcribed(*arguments: Any, **settings: str) -> list[dict[str, Any]]:
    """Return the JSON result of each recording, transcribed one after the other."""
    options = ("-f", "json", "--batch-size", 1, "--quiet")
    result = invoke("transcribe", *arguments, *options, env=settings)
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- transcribe ---


@pytest.mark.slow
def test_off_in_a_variable_or_the_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('draft = "off"\n')
    settings = {"FUNASR_CONFIG": str(tmp_path / "config.toml")}
    for env in ({"FUNASR_DRAFT": "off"}, settings):
        (one,) = transcribed("-m", "demo", CLIPS[4], **env)
        assert [one["timings"][name] for name in DRAFTED] == [0, 0]
    (typed,) = transcribed("-m", "demo", CLIPS[4], "--draft", "auto", **settings)
    assert typed["timings"]["accepted"] > 0


@pytest.mark.parametrize(("draft", "calls"), [("auto", r" in [2-5] decoder calls"), ("off", "")])
def test_verbose_shows_decoder_calls_if_there_were_drafts(draft: str, calls: str) -> None:
    result = invoke("transcribe", "-m", "demo", CLIPS[4], "--verbose", "--draft", draft)
    costs = rf"{re.escape(str(CLIPS[4]))}: 1 segment, 6 tokens{calls}; read "
    assert re.search(rf"^{costs}", result.stderr, re.MULTILINE)


@pytest.mark.parametrize("draft", ["auto", "off"])
def test_a_model_without_drafts_refuses_them(draft: str, small_whisper: Path) -> None:
    """Whisper decodes token by token, but has no CTC branch. A setting is ignored."""
    options = ("-m", small_whisper, CLIPS[0], "--max-tokens", 2, "--quiet")
    invoke("transcribe", *options, "--draft", draft).assert_error(2, "option-unsupported", "--draft")
    set_elsewhere = invoke("transcribe", *options, env={"FUNASR_DRAFT": draft})
    assert set_elsewhere.exit_code == 1, "the text is cut short"


# --- bench ---


@pytest.mark.slow
def test_what_drafts_save() -> None:
    # On MLX: on the native engine, so small a decoder gets no drafts in a batch of 2.
    options = ("--trials", 2, "--batch-sizes", "1,2", "--engine", "mlx")
    data = measured("--drafts", "-m", "demo", *CLIPS[3:6], *options)
    assert data["settings"]["drafts"] == ["off", "auto"]
    cases = data["cases"]
    assert [case["case"] for case in cases] == [
        f"demo, 3 recordings, batch of {size}, draft {draft}" for size in (1, 2) for draft in ("off", "auto")
    ]
    for off, auto in (cases[:2], cases[2:]):
        assert (off["draft"], auto["draft"]) == ("off", "auto")
        assert off["texts"] == auto["texts"] == [clip.written for clip in demo.clips()[3:6]]
        assert off["same_texts"] == auto["same_texts"] == 3
        assert off["tokens"] == off["decoder_calls"] == auto["tokens"] > auto["decoder_calls"]
        assert (off["drafted"], off["accepted"]) == (0, 0)
        assert auto["tokens"] - auto["decoder_calls"] <= auto["accepted"] <= auto["drafted"]
        assert (off["times_faster"], off["text_times_faster"]) == (1, 1)
        for name, stage in (("times_faster", "total_s"), ("text_times_faster", "text_s")):
            ratio = off["stages"][stage]["median"] / auto["stages"][stage]["median"]
            assert auto[name] == pytest.approx(ratio)
        for case in (off, auto):
            check_case(case, trials=2)


@pytest.mark.slow
def test_silence_has_nothing_to_draft(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    for case in measured("--drafts", "-m", "demo", tmp_path / "silence.wav", "--trials", 1)["cases"]:
        assert (case["tokens"], case["decoder_calls"], case["drafted"]) == (0, 0, 0)
        assert (case["text_times_faster"], case["same_texts"]) == (1, 1)


def test_models_without_the_branch_are_refused(small_model: Path, short_wav: Path) -> None:
    result = invoke("bench", "--drafts", "-m", "demo", "-m", small_model, short_wav, "--trials", 1)
    result.assert_error(2, "option-unsupported", "--drafts", "Small-Nano", "--hub ms")

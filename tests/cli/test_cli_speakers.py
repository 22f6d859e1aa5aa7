"""``--speakers``: which model is used, what is refused, and results with a random model of voices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.campplus import converted_campplus
from support.running import invoke
from support.small import once

import funasr_cli
from funasr_cli import demo
from funasr_cli.hubs.find import find_speaker_model

CLIP = demo.clips()[0].path


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "campplus", converted_campplus) / "converted"


def test_json_has_speakers(voices: Path) -> None:
    result = invoke("transcribe", "-m", "demo", CLIP, "--speakers", "1", "--speaker-model", voices, "-f", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["speakers_by"] == "source"
    assert [segment["speaker"] for segment in found["segments"]] == ["Speaker 1"]
    assert all(word["speaker"] == "Speaker 1" for segment in found["segments"] for word in segment["words"])
    named = invoke(
        "transcribe", "-m", "demo", CLIP, "--speakers", "1", "--speaker-model", voices, "--speaker-names", "Ann"
    )
    assert named.stdout == f"Ann: {found['text']}\n"


def test_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    result = invoke("transcribe", "-m", "demo", CLIP, "--speakers", "auto")
    result.assert_error(3, "model-missing", "funasr convert campplus")


def test_the_converted_model_is_found(voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    place = tmp_path / "models/funasr/campplus"
    place.parent.mkdir(parents=True)
    place.symlink_to(voices)
    assert find_speaker_model("auto") == find_speaker_model("campplus") == place
    listed = json.loads(invoke("models", "--json").stdout)
    assert [row["kind"] for row in listed if row["name"] == "funasr/campplus"] == ["speakers"]
    assert invoke("models").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--speakers", "none", "--speaker-names", "a,b"), "option-idle"),
        (("--speaker-threshold", "0.5"), "option-idle"),
        (("--speakers", "4-2"), "option-value"),
        (("--speakers", "auto", "--speaker-threshold", "3"), "option-value"),
        (("--speakers", "auto", "--no-vad"), "options-conflict"),
    ],
)
def test_options_without_effect(options: tuple[str, ...], code: str) -> None:
    invoke("transcribe", "-m", "demo", CLIP, *options).assert_error(2, code)


def test_other_kinds_are_refused(voices: Path) -> None:
    invoke("transcribe", "-m", voices, CLIP).assert_error(3, "model-unsupported", "speech model")
    wrong = invoke("transcribe", "-m", "demo", CLIP, "--speakers", "auto", "--speaker-model", "demo")
    wrong.assert_error(3, "model-unsupported", "demo")
    with pytest.raises(funasr_cli.FunASRError, match="speakers"):
        funasr_cli.load("demo").transcribe(CLIP, speakers=(1, None))


def test_from_python(voices: Path) -> None:
    found = funasr_cli.load("demo", speaker_model=voices).transcribe(CLIP, speakers=(1, 1))
    assert {segment.speaker for segment in found.segments} == {"Speaker 1"}


def test_an_intact_conversion(voices: Path) -> None:
    result = invoke("convert", "--check", voices)
    assert result.exit_code == 0
    assert "--speakers" in result.stdout + result.stderr

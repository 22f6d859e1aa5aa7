"""``--speakers``: which model is used, what is refused, and results with a random model of voices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import soundfile
from support.running import invoke

import funasr_cli
from funasr_cli import demo
from funasr_cli.audio.decode import load_audio, open_recording
from funasr_cli.hubs.find import find_speaker_model

CLIP = demo.clips()[0].path
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/transcript.schema.json").read_text(encoding="utf-8"))


def test_json_has_speakers(voices: Path) -> None:
    result = invoke("transcribe", "-m", "demo", CLIP, "--speakers", "1", "--speaker-model", voices, "-f", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["speakers_by"] == "source"
    assert [segment["speaker"] for segment in found["segments"]] == ["Speaker 1"]
    assert all(word["speaker"] == "Speaker 1" for segment in found["segments"] for word in segment["words"])
    assert found["speaker_embeddings"] is None
    command = ("transcribe", "-m", "demo", CLIP, "--speakers", "1", "--speaker-model", voices, "-f", "json")
    named = json.loads(invoke(*command, "--speaker-names", "Ann", "--speaker-embeddings").stdout)
    assert {segment["speaker"] for segment in named["segments"]} == {"Ann"}
    [vector] = named["speaker_embeddings"].values()
    assert (len(vector), np.linalg.norm(vector)) == (192, pytest.approx(1, abs=1e-4))
    jsonschema.validate(named, SCHEMA)


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
        (("--speakers", "0"), "option-value"),
        (("--speakers", "auto", "--speaker-threshold", "3"), "option-value"),
        (("--speakers", "auto", "--no-vad"), "options-conflict"),
        (("--speaker-names", "a,b"), "option-idle"),
        (("--known-speakers", "."), "option-idle"),
        (("--speaker-method", "funasr"), "option-idle"),
        (("--speakers", "auto", "--speaker-embeddings"), "option-idle"),
        (("--speaker-embeddings", "-f", "json"), "option-idle"),
        (("--speakers", "2-4", "--speaker-method", "funasr"), "options-conflict"),
        (("--speakers", "2", "--speaker-method", "funasr", "--speaker-threshold", "0.5"), "options-conflict"),
        (("--speakers", "auto", "--channels", "split"), "options-conflict"),
        (("--speakers", "auto", "--known-speakers", "no-such-folder"), "option-value"),
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


def test_known_speakers(voices: Path, tmp_path: Path) -> None:
    """Named by a recording of each; --resume notices another recording, and another name."""
    people, out = tmp_path / "people", tmp_path / "out"
    people.mkdir()
    shutil.copy(CLIP, people / "ann.flac")
    model = ("-m", "demo", CLIP, "--speakers", "1", "--speaker-model", voices)
    command = ("transcribe", *model, "--known-speakers", people, "-o", out, "--resume")
    assert invoke(*command).exit_code == 0
    assert (out / f"{CLIP.stem}.txt").read_text().startswith("ann: ")
    assert "skipped 1" in invoke(*command).stderr
    (people / "ann.flac").rename(people / "bo.flac")
    assert invoke(*command).exit_code == 0
    assert (out / f"{CLIP.stem}.txt").read_text().startswith("bo: ")
    shutil.copy(CLIP, people / "bo.wav")
    invoke(*command).assert_error(2, "option-value", "bo")
    (people / "bo.wav").unlink()
    soundfile.write(people / "cy.wav", np.zeros(48000), 16000)
    invoke(*command[:-1], "--force").assert_error(1, "audio-too-short", "cy")
    for path in people.iterdir():
        path.unlink()
    invoke(*command).assert_error(2, "inputs-missing", "people")


def test_each_channel_is_a_speaker(tmp_path: Path) -> None:
    """In all formats, with the names that are given, in order of the channels."""
    clip, rate_hz = soundfile.read(CLIP)
    soundfile.write(tmp_path / "call.wav", np.stack([clip, clip[::-1]], axis=1), rate_hz)
    command = ("transcribe", "-m", "demo", tmp_path / "call.wav", "--channels", "split")
    out, names = tmp_path / "out", ("--speaker-names", "agent")
    assert invoke(*command, *names, "-f", "all", "-o", out).exit_code == 0
    found = [json.loads((out / f"call.ch{number}.json").read_text()) for number in (1, 2)]
    assert [each["speakers_by"] for each in found] == ["channels"] * 2
    speakers = [{segment["speaker"] for segment in each["segments"]} for each in found]
    assert speakers == [{"agent"}, {"Channel 2"}]
    assert {word["speaker"] for segment in found[0]["segments"] for word in segment["words"]} == {"agent"}
    assert (out / "call.ch1.txt").read_text().startswith("agent: ")
    assert "<v agent>" in (out / "call.ch1.vtt").read_text()
    assert "\tagent\t" in (out / "call.ch1.tsv").read_text()


def test_a_missing_extra(voices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("funasr_cli.funasr_clusters.missing", lambda *packages: ("speakers",))
    command = ("transcribe", "-m", "demo", CLIP, "--speakers", "1", "--speaker-model", voices)
    invoke(*command, "--speaker-method", "funasr").assert_error(5, "extra-missing", "speakers")


def test_from_python(voices: Path) -> None:
    found = funasr_cli.load("demo", speaker_model=voices).transcribe(CLIP, speakers=1)
    assert {segment.speaker for segment in found.segments} == {"Speaker 1"}


def test_known_speakers_and_channels_from_python(voices: Path) -> None:
    asr = funasr_cli.load("demo", speaker_model=voices)
    known = {"Ann": load_audio(CLIP, 16000)}  # a path is tested above
    found = asr.transcribe(CLIP, speakers=(1, 1), known_speakers=known, speaker_embeddings=True)
    assert {segment.speaker for segment in found.segments} == {"Ann"} == {*(found.speaker_embeddings or ())}
    alone = asr.transcribe(open_recording(CLIP, 16000, speaker="Bo"), word_times=True)
    assert {word.speaker for segment in alone.segments for word in segment.words} == {"Bo"}
    assert alone.speakers_by == "channels"


def test_an_intact_conversion(voices: Path) -> None:
    result = invoke("convert", "--check", voices)
    assert result.exit_code == 0
    assert "--speakers" in result.stdout + result.stderr

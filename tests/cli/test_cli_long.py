"""Recordings of any length: segments, retries, the ledger, the summary, exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import made_up, recognizer, summary
from support.running import funasr, invoke, tree

from funasr_cli import demo
from funasr_cli.formats import clock
from funasr_cli.transcript import Ledger

CLIPS = demo.clips()
RATE_HZ = 16000
PAUSE = np.zeros(9600)  # 0.6 s


def write(path: Path, *parts: np.ndarray) -> Path:
    soundfile.write(path, np.concatenate(parts), RATE_HZ)
    return path


def samples_of(clip: demo.DemoClip) -> np.ndarray:
    return soundfile.read(clip.path)[0]


def test_a_recording_of_many_sentences(joined: Path) -> None:
    result = funasr("transcribe", "-m", "demo", joined)
    assert result.stdout == "".join(f"{clip.written}\n" for clip in CLIPS)
    ledger = recognizer("demo").transcribe(joined).ledger
    assert (result.exit_code, result.stderr) == (0, summary(clock(ledger.speech_s)))
    assert 20 < ledger.speech_s < 25 < ledger.speech_s + ledger.silence_s < 34


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("--no-vad",), {"vad": False}), (("--vad-threshold", "0.98"), {"vad_threshold": 0.98}),
        (("--min-pause", "0.1"), {"min_pause_s": 0.1}), (("--join", "12"), {"join_s": 12.0}),
        (("--max-segment", "2"), {"max_segment_s": 2.0}), (("--vad-model", "fsmn"), {"vad_model": "fsmn"}),
        (("--vad-model", "fsmn-dynamic"), {"vad_model": "fsmn-dynamic"}),
    ],
)  # fmt: skip
def test_options_that_move_the_cuts(joined: Path, arguments: tuple[str, ...], options: dict) -> None:
    result = invoke("transcribe", "-m", "demo", joined, "-f", "json", *arguments)
    found = json.loads(result.stdout)
    assert found["vad_model"] == (options.get("vad_model", "silero") if options.get("vad", True) else None)
    cut = [(segment["start_s"], segment["end_s"]) for segment in found["segments"]]
    wanted, default = (
        [
            (round(one.start_s, 6), round(one.end_s, 6))
            for one in recognizer("demo").transcribe(joined, **o).segments
        ]
        for o in (options, {})
    )
    assert cut == wanted != default


# --- no speech ---


@pytest.mark.parametrize("options", [(), ("--stream",)])
@pytest.mark.parametrize(("samples", "level"), [(1, 0.5), (160, 0.5), (16000, 0.0)], ids=["1", "10ms", "silence"])
def test_recordings_without_speech(tmp_path: Path, samples: int, level: float, options: tuple[str, ...]) -> None:
    clip = write(tmp_path / "a.wav", np.full(samples, level))
    result = invoke("transcribe", "-m", "demo", clip, *options)
    assert (result.exit_code, result.stdout, result.stderr[:15]) == (6, "", "no speech found")


@pytest.mark.slow
def test_noise(tmp_path: Path) -> None:
    """Neither the detector nor the model finds speech in noise, read from files."""
    clip = write(tmp_path / "noise.flac", 0.1 * np.random.default_rng(0).standard_normal(20 * RATE_HZ))
    assert invoke("transcribe", "-m", "demo", clip, "-f", "txt,json", "-o", tmp_path / "out").exit_code == 6
    written = tree(tmp_path / "out")
    data = json.loads(written.pop("noise.json"))
    assert (data["text"], data["segments"], data["complete"], data["duration_s"]) == ("", [], True, 20.0)
    assert Ledger(**data["ledger"]) == Ledger(silence_s=20.0)
    assert written == {"noise.txt": b""}


# --- exit codes and their precedence ---


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good recording, two without speech, a file that is no recording, and one cut off after a whole segment."""
    folder = tmp_path_factory.mktemp("inputs")
    speech = samples_of(CLIPS[0])
    paths = {
        "good": write(folder / "good.wav", speech),
        "silent": write(folder / "silent.wav", np.zeros(RATE_HZ)),
        "still": write(folder / "still.wav", np.full(2 * RATE_HZ, 0.01)),
        "broken": folder / "broken.wav",
        "partial": write(folder / "partial.wav", speech, PAUSE, speech),
    }
    paths["broken"].write_text("no recording")
    os.truncate(paths["partial"], 44 + 2 * (len(speech) + 8000))
    return paths


GOOD, PARTIAL = summary("0:03"), summary("0:05", "49.0%", lost="0:03")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "options", "exit_code", "last"),
    [
        ("silent good still", ("--strict",), 0, GOOD),
        ("silent still", ("--strict",), 6, "no speech found"),
        ("good partial", (), 4, summary("0:08", "65.4%", lost="0:03")),
        ("good partial silent", ("--strict",), 1, summary("0:08", "65.4%", lost="0:03")),
        ("broken", (), 1, "  "),  # the hint of the error
        ("silent broken", (), 1, "1 of 2 inputs failed; no speech found"),
        ("broken partial silent", ("--strict",), 1, f"1 of 3 inputs failed; {PARTIAL}"),
    ],
)
def test_exit_code_and_summary(
    inputs: dict[str, Path], names: str, options: tuple[str, ...], exit_code: int, last: str
) -> None:
    chosen = names.split()
    result = invoke("transcribe", "-m", "demo", *(inputs[name] for name in chosen), *options)
    spoken = [inputs[name] for name in chosen if name in ("good", "partial")]
    prefixes = [f"{path}: " if len(chosen) > 1 else "" for path in spoken]
    assert result.stdout == "".join(f"{prefix}{CLIPS[0].written}\n" for prefix in prefixes)
    assert (result.exit_code, result.stderr.splitlines(keepends=True)[-1].startswith(last)) == (exit_code, True)
    assert [code for code, _ in result.errors] == ["audio-unreadable"] * ("broken" in chosen)
    assert (f"warning: {inputs['partial']}: broke off after 3.2 of 6.0 s\n" in result.stderr) == (
        "partial" in chosen
    )


# --- text that the CTC branch does not support ---


@pytest.mark.slow
def test_a_sentence_made_of_noise(tmp_path: Path) -> None:
    """The noise has no speech, and the CTC branch finds none. A text was made up, so it is no gap."""
    noise = write(tmp_path / "a.wav", 0.1 * np.random.default_rng(3).standard_normal(3 * RATE_HZ))
    result = invoke("transcribe", "-m", "demo", "--no-vad", "--strict", "-f", "md,json", "-o", tmp_path, noise)
    assert result.exit_code == 0
    assert result.stderr.startswith(made_up(noise, "0.0-3.0"))
    assert result.stderr.endswith(summary("0:03", doubtful=1))
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    [segment] = content["segments"]
    assert [f"warning: {noise}: {warning}\n" for warning in content["warnings"]] == [made_up(noise, "0.0-3.0")]
    assert (segment["doubtful"], segment["state"], segment["retries"]) == (True, "transcribed", 0)
    assert segment["disagreement"] > 0.5
    assert segment["text"].strip()
    assert content["ledger"]["doubtful_s"] == content["ledger"]["transcribed_s"] == 3.0
    page = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert "0:03 long: 0:03 transcribed, 0:00 repaired, 0:00 failed, 0:00 silence; 0:03 of it doubtful.\n" in page
    assert "the second opinion disagrees with this text" in page

"""The bundled model: at hand without a network, on request only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.expected import summary
from support.running import funasr, invoke

from funasr_cli import demo
from funasr_cli.checkpoints.hub import find_model

LIMIT_BYTES = 8_000_000


def test_it_is_small_and_complete() -> None:
    files = [path for path in demo.MODEL.rglob("*") if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json", "multilingual.tiktoken", "README.md"} <= {
        path.name for path in files
    }
    assert sum(path.stat().st_size for path in files) <= LIMIT_BYTES
    assert json.loads((demo.MODEL / "config.json").read_text())["dtype"] == "bfloat16"


def test_clips_and_their_texts() -> None:
    clips = demo.clips()
    assert len(clips) >= 6
    assert {clip.language for clip in clips} == {"en", "zh"}
    assert {clip.path for clip in clips} == set(demo.CLIPS.glob("*.flac"))


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_it_reads_its_clips(options: tuple[str, ...], tmp_path: Path) -> None:
    """In a process of its own, without a network or any model converted."""
    clips = demo.clips()
    paths = [clip.path for clip in clips]
    result = funasr("transcribe", "-m", "demo", *paths, *options, env={"FUNASR_HOME": str(tmp_path)})
    assert (result.exit_code, result.stderr) == (0, summary("0:24"))
    assert result.stdout == "".join(f"{clip.path}: {clip.written}\n" for clip in clips)


def test_it_is_offered_but_never_taken_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a copy of it under its own name, as `funasr convert demo` makes one."""
    home = {"FUNASR_HOME": str(tmp_path)}
    for command in (("transcribe", demo.clips()[0].path), ("bench", "--rtf")):
        invoke(*command, env=home).assert_error(3, "model-missing", "no model has been", "--model demo")
    shutil.copytree(demo.MODEL, tmp_path / "models/demo")
    for command in (("transcribe", demo.clips()[0].path), ("bench", "--rtf")):
        invoke(*command, env=home).assert_error(3, "model-missing", "no model but the demo", "--model demo")
    result = invoke("models", env=home)
    assert (result.stdout.split("\n")[0], result.stderr[:16]) == ("demo", "none but the dem")
    shutil.copytree(demo.MODEL, tmp_path / "models/mine")
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    assert find_model(None) == tmp_path / "models/mine"


def test_a_converted_model_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    assert find_model("demo") == demo.MODEL
    shutil.copytree(demo.MODEL, tmp_path / "models/demo")
    assert find_model("demo") == tmp_path / "models/demo"

"""Damaged models are refused, and the library's front door."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.small import convert, edit_json

import funasr_cli
from funasr_cli.checkpoints.load import load_model
from funasr_cli.errors import AudioError, ModelError, UsageError


def test_a_folder_whose_name_is_no_utf8(model: Path) -> None:
    """MLX itself opens no such file."""
    folder = model.rename(model.parent / os.fsdecode(b"m\xff"))
    assert load_model(folder).tokenizer.encode("a").ids


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", ["stored", "float32"])
@pytest.mark.parametrize("damage", ["no scales", "wrong bits", "wrong group", "no recipe"])
def test_damaged_quantization(small_checkpoint: Path, tmp_path: Path, bits: int, dtype: str, damage: str) -> None:
    folder = convert(small_checkpoint, tmp_path / "m", quantize=bits).folder
    if damage == "no scales":
        tensors = load_file(folder / "model.safetensors")
        del tensors["llm.model.layers.0.mlp.up_proj.biases"]
        save_file(tensors, folder / "model.safetensors")
    recipe = {"wrong bits": {"bits": 12 - bits, "group_size": 64}, "wrong group": {"bits": bits, "group_size": 32}}
    if damage in recipe:
        edit_json(folder / "config.json", lambda config: config.update(quantization=recipe[damage]))
    elif damage == "no recipe":
        edit_json(folder / "config.json", lambda config: config.pop("quantization"))
    with pytest.raises(ModelError):
        load_model(folder, dtype)


def test_weights_that_are_not_numbers_show_in_the_stop_reason(model: Path, zh_wav: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["llm.model.norm.weight"][3] = torch.nan
    save_file(tensors, model / "model.safetensors")
    transcript = funasr_cli.load(str(model)).transcribe(zh_wav)
    assert (transcript.text, transcript.complete, transcript.broken) == ("", False, True)
    assert [(s.stop_reason, s.retries, s.tokens) for s in transcript.segments] == [("nonfinite", 0, 0)] * 2
    assert transcript.warnings == tuple(
        f"{where} s: the decoder met a value that is not a number: the rest is missing"
        for where in ("0.9-2.4", "3.5-6.0")
    )


def test_front_door(small_model: Path, zh_wav: Path, short_wav: Path) -> None:
    recognizer = funasr_cli.load(str(small_model), dtype="float32")
    transcript = recognizer.transcribe(str(zh_wav), language="中文", max_tokens=8, hotwords=("a",))
    assert (transcript.source, transcript.duration_s, transcript.language) == (str(zh_wav), 6.0, "zh")
    assert [segment.tokens for segment in transcript.segments] == [8, 8]
    again = recognizer.transcribe(zh_wav, language="zh", max_tokens=8, hotwords=["a"])
    assert transcript == dataclasses.replace(again, timings=transcript.timings)
    whole = recognizer.transcribe(zh_wav, vad=False, max_tokens=8)
    assert [(segment.start_s, segment.end_s) for segment in whole.segments] == [(0.0, 6.0)]
    with pytest.raises(AudioError, match="no such file"):
        recognizer.transcribe("nowhere.wav")
    with pytest.raises(UsageError, match="not one of this model's"):
        recognizer.transcribe(short_wav, language="ko")
    with pytest.raises(UsageError, match="hotwords"):
        recognizer.transcribe(short_wav, hotwords="Kennedy")
    with pytest.raises(TypeError):
        recognizer.transcribe(short_wav, no_such_option=1)


def test_the_model_to_load_by_default(
    small_checkpoint: Path, short_wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="no model has been converted yet"):
        funasr_cli.load().transcribe(short_wav)
    convert(small_checkpoint)
    assert funasr_cli.load().transcribe(short_wav, max_tokens=2).model == "Small-Nano"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import json, sys, funasr_cli; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    heavy = set("mlx numpy torch librosa typer rich soundfile tokenizers huggingface_hub yaml".split())
    assert not heavy & {name.partition(".")[0] for name in modules}

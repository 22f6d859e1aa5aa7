"""Loading models: damaged ones are refused, and the default model is found."""

import os
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.errors import refused
from support.small import convert, edit_json

import funasr_cli
from funasr_cli.errors import ModelError
from funasr_cli.families.load import load_model


def test_a_folder_with_a_name_that_is_not_utf8(model: Path) -> None:
    """MLX cannot open such a file itself."""
    folder = model.rename(model.parent / os.fsdecode(b"m\xff"))
    assert load_model(folder).tokenizer.encode("a").ids


@pytest.mark.slow
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


def test_the_model_to_load_by_default(
    small_checkpoint: Path, short_wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    with refused("model-missing"):
        funasr_cli.load().transcribe(short_wav)
    convert(small_checkpoint)
    assert funasr_cli.load().transcribe(short_wav, max_tokens=2).model == "Small-Nano"

"""What is exported converts back to the very same model, and says the same about itself."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.running import tree
from support.small import MakeCheckpoint, convert

from funasr_cli.checkpoints.export import export
from funasr_cli.checkpoints.format import read_config
from funasr_cli.demo import MODEL
from funasr_cli.errors import ModelError, OutputError, SetupError


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SetupError) as caught:
        export(MODEL, tmp_path / "out")
    assert caught.value.message == "writing model.pt needs torch"
    assert caught.value.hint.endswith(" spares you CUDA")


VARIANTS = [
    {},
    {"with_ctc": True, "dtype": torch.bfloat16},
    {"llm_tied": False, "do_think": False, "sys_prompt": False, "use_low_frame_rate": False},
    {"kernel_size": 5, "sanm_shift": 1, "n_mels": 40, "lfr_m": 5, "lfr_n": 3, "adaptor_heads": 4},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS)
def test_round_trip(make_checkpoint: MakeCheckpoint, tmp_path: Path, changes: dict[str, object]) -> None:
    source = make_checkpoint(**changes)
    dtype = "bfloat16" if changes.get("dtype") is torch.bfloat16 else "float32"
    first = convert(source, tmp_path / "first", dtype=dtype, languages=("zh", "yue"))
    export(first.folder, tmp_path / "upstream")
    second = convert(str(tmp_path / "upstream"), tmp_path / "second", dtype=dtype, languages=("zh", "yue"))
    assert dataclasses.replace(second.model, source={}) == dataclasses.replace(first.model, source={})
    ours, again = tree(first.folder), tree(second.folder)
    assert ours.keys() == again.keys()
    stating_the_source = {"README.md", "SHA256SUMS", "config.json", "model.safetensors"}
    assert all(ours[name] == again[name] for name in ours.keys() - stating_the_source)
    tensors = [
        torch.load(folder / "model.pt", weights_only=True)["state_dict"]
        for folder in (source, tmp_path / "upstream")
    ]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_quantized_models_and_existing_folders_are_refused(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    source = str(make_checkpoint())
    quantized = convert(source, tmp_path / "quantized", quantize=4, group_size=32).folder
    with pytest.raises(ModelError, match="is quantized"):
        export(quantized, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    dense = convert(source, tmp_path / "dense").folder
    with pytest.raises(OutputError, match="exists already"):
        export(dense, quantized)
    assert read_config(quantized).quantization


def test_the_bundled_model_loses_nothing(tmp_path: Path) -> None:
    export(MODEL, tmp_path / "upstream")
    again = convert(tmp_path / "upstream", tmp_path / "again", languages=("zh", "en")).folder
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (MODEL, again))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

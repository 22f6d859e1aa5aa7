"""An exported model converts back to exactly the same model, with the same metadata."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.errors import refused
from support.layouts import read_tensors
from support.running import tree
from support.small import MakeCheckpoint, convert

from funasr_cli.demo import MODEL
from funasr_cli.families.converted import read_config
from tools.export import export


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with refused("package-missing", "model.pt", "torch"):
        export(MODEL, tmp_path / "out")


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
    given, back = (read_tensors(folder) for folder in (source, tmp_path / "upstream"))
    assert given.keys() == back.keys()
    assert all(torch.equal(given[name], back[name]) for name in given)


def test_quantized_models_and_existing_folders_are_refused(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    source = str(make_checkpoint())
    quantized = convert(source, tmp_path / "quantized", quantize=4, group_size=32).folder
    with refused("model-quantized", quantized):
        export(quantized, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    dense = convert(source, tmp_path / "dense").folder
    with refused("output-exists", quantized):
        export(dense, quantized)
    assert read_config(quantized).quantization


def test_the_bundled_model_loses_nothing(tmp_path: Path) -> None:
    export(MODEL, tmp_path / "upstream")
    again = convert(tmp_path / "upstream", tmp_path / "again", languages=("zh", "en")).folder
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (MODEL, again))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

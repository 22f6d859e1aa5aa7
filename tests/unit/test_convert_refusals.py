"""Checkpoints that are not converted: what is listed, and what helps; more damage: `support/damaged.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small import convert, edit_tensors

from funasr_cli.errors import ExitCode, ModelError

Tensors = dict[str, torch.Tensor]
NORM = "audio_encoder.tp_norm.weight"


def refusal(folder: Path, **options: Any) -> ModelError:
    out = folder.parent / "out"
    with pytest.raises(ModelError) as caught:
        convert(folder, out, **options)
    assert not out.exists()
    assert not list(folder.parent.glob(".*"))
    assert caught.value.exit_code == ExitCode.MODEL
    return caught.value


def test_missing_unexpected_and_misshapen_tensors_are_listed(checkpoint: Path) -> None:
    taps = "audio_encoder.encoders.0.self_attn.fsmn_block.weight"

    def change(tensors: Tensors) -> None:
        del tensors[NORM]
        tensors["audio_encoder.extra.weight"] = torch.zeros(2, 3)
        tensors["audio_encoder.tp_norm.bias"] = torch.zeros(5)
        tensors[taps] = tensors[taps].transpose(-1, -2).contiguous()  # as if converted once already

    edit_tensors(checkpoint, change)
    error = refusal(checkpoint)
    head, *lines = error.message.splitlines()
    assert error.code == "model-misfit"
    assert head.startswith(f"{checkpoint / 'model.pt'}: 4 tensors")
    assert lines[:2] == [f"  missing: {NORM} (32,)", "  unexpected: audio_encoder.extra.weight (2, 3)"]
    for line, parts in zip(
        lines[2:], [(taps, "(32, 1, 11)", "(32, 11, 1)"), ("bias", "(5,)", "(32,)")], strict=True
    ):
        assert line.startswith("  misshapen: ")
        assert all(part in line for part in parts)


def test_long_lists_are_cut(checkpoint: Path) -> None:
    edit_tensors(checkpoint, lambda tensors: [tensors.pop(n) for n in list(tensors) if n.startswith("llm.")])
    lines = refusal(checkpoint).message.splitlines()
    assert ": 24 tensors" in lines[0]
    assert "18 more" in lines[-1]
    assert len(lines) == 8


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_tensors_that_are_not_real_numbers(checkpoint: Path, dtype: torch.dtype) -> None:
    """A tied head and embedding among them cannot even be compared."""
    names = ("llm.model.embed_tokens.weight", "llm.lm_head.weight")
    edit_tensors(checkpoint, lambda tensors: tensors.update({name: tensors[name].to(dtype) for name in names}))
    error = refusal(checkpoint)
    assert error.code == "model-misfit"
    assert f"{names[0]} is of type {str(dtype).removeprefix('torch.')}" in error.message


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["model.pt.ep2", "model.pt.ep10", "model.pt.best"], "model.pt.best"),
        (["model.pt.ep1", "model.pt.avg10"], "model.pt.avg10"),
        (["model.pt.\x1b[31m"], "model.pt.\N{REPLACEMENT CHARACTER}[31m"),
    ],
)
def test_what_upstreams_trainer_leaves(checkpoint: Path, names: list[str], named: str) -> None:
    for name in names:
        shutil.copyfile(checkpoint / "model.pt", checkpoint / name)
    (checkpoint / "model.pt").unlink()
    error = refusal(checkpoint)
    assert error.code == "model-missing"
    assert f"mv {named} model.pt" in error.hint


def test_a_config_json_that_is_not_ours_is_no_matter(checkpoint: Path, tmp_path: Path) -> None:
    """FunASR's own layout does not need one."""
    (checkpoint / "config.json").write_text("{")
    assert convert(checkpoint, tmp_path / "out").tensors > 0

"""Where a conversion is written: never over something else, and whole or not at all."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from support.running import tree

import funasr_cli
from funasr_cli.checkpoints import format as module
from funasr_cli.checkpoints.format import read_config
from funasr_cli.errors import ExitCode, OutputError


def refusal(source: Path, out: Path, **options: Any) -> str:
    """Message of a refused conversion, after which everything is as it was."""
    before = tree(out.parent)
    with pytest.raises(OutputError) as caught:
        funasr_cli.convert(str(source), out, **options)
    assert tree(out.parent) == before
    assert not list(out.parent.glob(".funasr*"))
    assert caught.value.exit_code == ExitCode.INPUT_FAILED
    return caught.value.message


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "years of work"},
        {"config.json": '{"model_type": "qwen3"}', "model.safetensors": ""},
        {"config.json": "[]"},
        {"config.json": "{"},
    ],
)
def test_force_never_replaces_a_foreign_folder(
    small_checkpoint: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    for name, content in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(content)
    assert str(tmp_path / "out") in refusal(small_checkpoint, tmp_path / "out", force=True)


@pytest.mark.parametrize("force", [False, True])
def test_the_source_is_never_replaced(small_checkpoint: Path, tmp_path: Path, force: bool) -> None:
    checkpoint = shutil.copytree(small_checkpoint, tmp_path / "deeper/checkpoint")
    for out in (checkpoint, checkpoint.parent, checkpoint / "."):
        assert str(out) in refusal(checkpoint, out, force=force)
    (checkpoint.parent / "link").symlink_to(checkpoint)
    out = checkpoint.parent / "link"
    assert str(out) in refusal(checkpoint, out, force=force)


@pytest.mark.slow
def test_beside_and_inside_the_source(checkpoint: Path) -> None:
    funasr_cli.convert(str(checkpoint), checkpoint / "mlx")
    assert read_config(checkpoint / "mlx")


@pytest.mark.parametrize("step", ["write_safetensors", "copyfile", "write_config", "write_text", "fsync"])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_full_disk_leaves_the_old_model_and_nothing_else(
    small_checkpoint: Path, model: Path, monkeypatch: pytest.MonkeyPatch, step: str, replacing: bool
) -> None:
    out = model if replacing else model.parent / "new"
    owner = {"write_text": Path, "copyfile": shutil, "fsync": os}.get(step, module)
    monkeypatch.setattr(owner, step, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    assert "No space left on device" in refusal(small_checkpoint, out, force=True)
    assert os.listdir(model.parent) == [model.name]

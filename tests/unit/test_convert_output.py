"""Where a conversion is written: never over something else, and whole or not at all."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.running import tree

import funasr_cli
from funasr_cli.checkpoints import convert as module
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


@pytest.mark.parametrize("kind", ["model", "empty folder", "file", "link"])
def test_existing_output_is_refused(small_checkpoint: Path, model: Path, tmp_path: Path, kind: str) -> None:
    out = model if kind == "model" else tmp_path / "out"
    if kind == "empty folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("mine")
    elif kind == "link":
        out.symlink_to(model)
    assert str(out) in refusal(small_checkpoint, out)


def test_force_replaces_a_conversion(small_checkpoint: Path, model: Path) -> None:
    os.truncate(model / "model.safetensors", 10)
    conversion = funasr_cli.convert(str(small_checkpoint), model, force=True)
    assert read_config(model) == conversion.model
    assert funasr_cli.load(str(model)).config == conversion.model.config
    assert os.listdir(model.parent) == [model.name]


def test_force_replaces_what_a_link_leads_to(small_checkpoint: Path, model: Path, tmp_path: Path) -> None:
    """The model is called as it was asked for."""
    os.truncate(model / "model.safetensors", 10)
    (tmp_path / "link").symlink_to(model)
    conversion = funasr_cli.convert(str(small_checkpoint), tmp_path / "link", force=True)
    assert conversion.folder == tmp_path / "link"
    assert (tmp_path / "link").readlink() == model
    assert read_config(model) == conversion.model


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


def test_force_never_replaces_a_folder_in_a_model(small_checkpoint: Path, model: Path) -> None:
    (model / "recordings").mkdir()
    (model / "recordings/a.wav").write_text("mine")
    assert "recordings" in refusal(small_checkpoint, model, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_the_source_is_never_replaced(small_checkpoint: Path, tmp_path: Path, force: bool) -> None:
    checkpoint = shutil.copytree(small_checkpoint, tmp_path / "deeper/checkpoint")
    for out in (checkpoint, checkpoint.parent, checkpoint / "."):
        assert str(out) in refusal(checkpoint, out, force=force)
    (checkpoint.parent / "link").symlink_to(checkpoint)
    out = checkpoint.parent / "link"
    assert str(out) in refusal(checkpoint, out, force=force)


def test_folders_of_the_source_are_never_replaced(checkpoint: Path) -> None:
    """The decoder's folder has a `config.json`, as conversions have."""
    assert "is not a converted model" in refusal(checkpoint, checkpoint / "Qwen3-0.6B", force=True)


def test_beside_and_inside_the_source(checkpoint: Path) -> None:
    funasr_cli.convert(str(checkpoint), checkpoint / "mlx")
    assert read_config(checkpoint / "mlx")


def test_parents_are_made_and_permissions_are_usual(small_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "a/b/out"
    funasr_cli.convert(str(small_checkpoint), out)
    assert out.stat().st_mode & 0o777 == 0o755
    assert os.listdir(out.parent) == ["out"]


def fail_at(name: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    owners = {"write_text": Path, "copyfile": shutil, "fsync": os}
    monkeypatch.setattr(owners.get(name, module), name, fail)


@pytest.mark.parametrize("step", ["write_safetensors", "copyfile", "write_config", "write_text", "fsync"])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_full_disk_leaves_the_old_model_and_nothing_else(
    small_checkpoint: Path, model: Path, monkeypatch: pytest.MonkeyPatch, step: str, replacing: bool
) -> None:
    out = model if replacing else model.parent / "new"
    fail_at(step, OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    assert "No space left on device" in refusal(small_checkpoint, out, force=True)
    assert os.listdir(model.parent) == [model.name]


def test_ctrl_c_leaves_nothing(small_checkpoint: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(model.parent)
    fail_at("write_config", KeyboardInterrupt(), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        funasr_cli.convert(str(small_checkpoint), model, force=True)
    assert tree(model.parent) == before

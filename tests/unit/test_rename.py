"""Renames that never overwrite, and folders that swap their names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.placing import NEW, OLD, file_system, write_model
from support.running import tree

from funasr_cli.checkpoints.rename import exchange, rename_new

__all__ = ["file_system"]


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("kind", ["file", "empty folder", "folder", "link to a folder", "link to nothing"])
def test_renaming_never_overwrites(tmp_path: Path, kind: str) -> None:
    source, target = write_model(tmp_path / "source", "new"), tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind.startswith("link"):
        target.symlink_to(write_model(tmp_path / "linked", "old") if kind == "link to a folder" else "nowhere")
    else:
        target.mkdir()
        if kind == "folder":
            (target / "thesis.txt").write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(FileExistsError):
        rename_new(source, target)
    assert tree(tmp_path) == before
    assert target.is_symlink() == kind.startswith("link")
    assert target.is_dir() == ("folder" in kind)


@pytest.mark.usefixtures("file_system")
def test_renaming(tmp_path: Path) -> None:
    rename_new(write_model(tmp_path / "source", "new"), tmp_path / "目标")
    assert os.listdir(tmp_path) == ["目标"]
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "source", tmp_path / "other")


def test_exchanging(tmp_path: Path) -> None:
    first, second = write_model(tmp_path / "first", "old"), write_model(tmp_path / "second", "new")
    if not exchange(first, second):
        pytest.skip("this file system cannot exchange folders")
    assert (tree(first), tree(second)) == (NEW, OLD)
    with pytest.raises(FileNotFoundError):
        exchange(first, tmp_path / "third")


def test_an_older_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    assert not exchange(tmp_path, tmp_path)

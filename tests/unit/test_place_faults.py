"""Disks that are full, read-only or gone; Ctrl-C. What is said, and that nothing is left behind."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.placing import NEW, OLD, convert, file_system, refusal, write_model
from support.running import tree

import funasr_cli
from funasr_cli.checkpoints import place, rename
from funasr_cli.checkpoints.place import new_folder
from funasr_cli.errors import ModelError, OutputError

__all__ = ["file_system"]

DISCONNECTED = "see whether its disk is still connected, and run it again"
FAULTS = {
    errno.ENOSPC: "make room on that disk, or name a folder on another one",
    errno.EDQUOT: "your quota there is used up: delete something, or name a folder on another disk",
    errno.EFBIG: "that disk does not take files of this size: name a folder on another one",
    errno.EROFS: "that disk can only be read from: name a folder on another one",
    errno.EACCES: "name a folder that you may write to",
    errno.EPERM: "name a folder that you may write to",
    errno.EBUSY: "it is a disk of its own: name a folder on it",
    errno.EIO: DISCONNECTED,
    errno.ENODEV: DISCONNECTED,
    errno.ENOENT: DISCONNECTED,
    errno.EMFILE: "",
}


def reason(number: int) -> str:
    return f"[Errno {number}] {os.strerror(number)}"


def break_at(step: str, error: BaseException, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a step fail. The last fsync is that of the folder above, after the rename."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    def fail_above(path: Path, sync: Callable[[Path], None] = place._sync) -> None:
        fail() if path == parent else sync(path)

    if step == "last fsync":
        monkeypatch.setattr(place, "_sync", fail_above)
    else:
        owner = os if step == "fsync" else Path if hasattr(Path, step) else place
        monkeypatch.setattr(owner, step, fail)


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("step", ["mkdir", "write_bytes", "fsync", "last fsync", "rename_new", "_swap"])
@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: str, replace: bool) -> None:
    """What happened, where, and what to do; an old model is as it was."""
    out = tmp_path / "out"
    if replace or step == "_swap":
        write_model(out, "old")
    before = tree(tmp_path)
    with monkeypatch.context() as broken:
        break_at(step, OSError(number, os.strerror(number)), tmp_path, broken)
        with pytest.raises(OutputError) as caught:
            convert(out, replace=out.exists())
    assert caught.value.message == f"{out}: cannot be written ({reason(number)})"
    assert caught.value.hint == FAULTS[number]
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == (["out"] if before else [])


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("step", ["write_bytes", "fsync", "last fsync", "rename_new"])
def test_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, replace: bool) -> None:
    if replace:
        write_model(tmp_path / "out", "old")
    before = tree(tmp_path)
    with monkeypatch.context() as broken:
        break_at(step, KeyboardInterrupt(), tmp_path, broken)
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "out", replace=replace)
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == (["out"] if replace else [])


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
def test_an_old_model_comes_back_from_where_it_stood_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(place, "exchange", lambda *_: False)

    def fail_for_the_new_one(source: Path, target: Path) -> None:
        if source.name == place.NEW and not target.exists():
            raise error
        rename.rename_new(source, target)

    monkeypatch.setattr(place, "rename_new", fail_for_the_new_one)
    out = write_model(tmp_path / "out", "old")
    with pytest.raises((OutputError, KeyboardInterrupt)):
        convert(out, replace=True)
    assert tree(out) == OLD
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_folders_that_cannot_be_synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Some file systems do not know how; of a file, it is an error."""
    fsync, broken = os.fsync, os.path.isdir

    def fail(descriptor: int) -> None:
        if broken(f"/dev/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    convert(tmp_path / "out")
    assert tree(tmp_path / "out") == NEW
    broken = os.path.isfile
    assert refusal(tmp_path / "other")[0] == f"{tmp_path / 'other'}: cannot be written ({reason(number)})"


def test_temporary_names_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, new_folder(tmp_path / "out") as folder:
        (folder / "missing/file").touch()
    assert caught.value.message == f"{tmp_path / 'out'}: cannot be written ({reason(errno.ENOENT)})"
    assert caught.value.hint == DISCONNECTED


def test_what_cannot_be_read_is_not_said_to_be_unwritable(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught, new_folder(tmp_path / "out"):
        (tmp_path / "tokenizer.json").read_bytes()
    assert caught.value.message == f"{tmp_path / 'tokenizer.json'}: cannot be read (No such file or directory)"
    assert os.listdir(tmp_path) == []


def test_a_drive_that_is_not_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name must not become a folder on another one."""
    monkeypatch.setattr(place, "DRIVES", tmp_path)
    message = f"{tmp_path / 'Backup'}: no such drive is connected"
    for name in ("Backup", "Backup/models/nano"):
        with pytest.raises(OutputError) as caught:
            convert(tmp_path / name)
        assert (caught.value.message, caught.value.hint) == (message, "connect it, or name another folder")
        assert os.listdir(tmp_path) == []
    (tmp_path / "Backup").mkdir()
    convert(tmp_path / "Backup/models/nano")
    assert tree(tmp_path / "Backup/models/nano") == NEW


# --- real disks ---

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small disk of memory, with these options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        try:
            run = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True)
        except FileNotFoundError:
            pytest.skip("there is no mount")
        if run.returncode:
            pytest.skip("mounting is not allowed here")
        return disk

    yield mount
    if os.path.ismount(disk):
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("replace", [False, True])
def test_a_disk_that_is_full(mount: Mount, replace: bool) -> None:
    out = mount("size=64k") / "out"
    if replace:
        write_model(out, "old")
    message, hint = refusal(out, 100 * "n", replace)
    assert message == f"{out}: cannot be written ({reason(errno.ENOSPC)})"
    assert hint == FAULTS[errno.ENOSPC]


def test_a_disk_without_room_for_a_folder(mount: Mount) -> None:
    disk = mount("nr_inodes=2")
    (disk / "file").touch()
    message = f"{disk / 'out'}: cannot be written ({reason(errno.ENOSPC)})"
    assert refusal(disk / "out") == (message, FAULTS[errno.ENOSPC])


def test_a_disk_that_can_only_be_read_from(mount: Mount) -> None:
    disk = mount("size=64k,ro")
    assert refusal(disk / "out") == (f"{disk}: nothing can be written there", "name another folder")


def test_a_disk_that_from_now_on_can_only_be_read_from(mount: Mount) -> None:
    disk = mount("size=64k")
    with pytest.raises(OutputError) as caught:
        convert(disk / "out", meanwhile=lambda: subprocess.run(["mount", "-o", "remount,ro", disk], check=True))
    assert caught.value.message == f"{disk / 'out'}: cannot be written ({reason(errno.EROFS)})"
    assert caught.value.hint == FAULTS[errno.EROFS]
    assert not (disk / "out").exists()


def test_a_disk_that_is_taken_away(mount: Mount) -> None:
    disk = mount("size=64k")
    with pytest.raises(OutputError) as caught:
        convert(disk / "out", meanwhile=lambda: subprocess.run(["umount", "--lazy", disk], check=True))
    assert caught.value.message == f"{disk / 'out'}: cannot be written ({reason(errno.ENOENT)})"
    assert caught.value.hint == DISCONNECTED
    assert os.listdir(disk) == []


def test_a_disk_itself(mount: Mount) -> None:
    """It has no other name that it could get."""
    disk = mount("size=64k")
    message = f"{disk}: cannot be written ({reason(errno.EBUSY)})"
    assert refusal(disk, replace=True) == (message, FAULTS[errno.EBUSY])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("replace", [False, True])
def test_a_conversion_onto_a_disk_that_gets_full(
    small_checkpoint: Path,
    small_model: Path,
    mount: Mount,
    share: float,
    replace: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the first file, in the weights, behind them: another program has filled it since it was asked."""
    monkeypatch.setattr("funasr_cli.checkpoints.convert.require_space", lambda *_: None)
    page = 4096
    pages = sum(-(-len(content) // page) for content in tree(small_model).values()) + 2  # folders take some, too
    old = pages if replace else 0
    out = mount(f"size={(old + int(share * pages)) * page}") / "out"
    if replace:
        shutil.copytree(small_model, out)
    with pytest.raises(OutputError) as caught:
        funasr_cli.convert(str(small_checkpoint), out, dtype="float32", force=replace)
    assert caught.value.message == f"{out}: cannot be written ({reason(errno.ENOSPC)})"
    assert caught.value.hint == FAULTS[errno.ENOSPC]
    assert tree(out) == (tree(small_model) if replace else {})
    assert os.listdir(out.parent) == (["out"] if replace else [])

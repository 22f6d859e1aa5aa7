"""Disks that are full, read-only or gone, Ctrl-C and SIGKILL: the message, and what is left or restored."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from support.errors import refused
from support.killing import Death, victims
from support.placing import NEW, OLD, convert, leftover, refusal, write_model
from support.running import tree

from funasr_cli.conversion import place
from funasr_cli.conversion.place import HINTS, check_place, new_folder
from funasr_cli.errors import FunASRError, OutputError
from funasr_cli.hubs.find import ASIDE_PREFIX, find_model

CODES = dict.fromkeys((errno.EROFS, errno.EACCES, errno.EBUSY, errno.EIO, errno.EMFILE), "output-unwritable")
CODES |= dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "disk-full")


def assert_fault(error: FunASRError, out: Path, number: int) -> None:
    """Assert that an error names the folder, the system's message and a hint, but no temporary name."""
    assert error.message == f"{out}: cannot be written ([Errno {number}] {os.strerror(number)})"
    hint = HINTS.get(number, "").format(choose="name")
    assert (error.code, error.hint) == (CODES.get(number, "output-unwritable"), hint)


def break_at(step: str, error: BaseException, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a step fail, once. The last fsync is that of the parent folder, after the rename."""
    rename, sync = Path.rename, place._sync

    def fail(*_: Any, **__: Any) -> None:
        raise error

    def rename_fails(source: Path, target: Path) -> Path:
        if (source.name == "new") == (step == "second rename"):
            monkeypatch.setattr(Path, "rename", rename)
            raise error
        return rename(source, target)

    if step.endswith("rename"):
        monkeypatch.setattr(Path, "rename", rename_fails)
    elif step == "last fsync":
        monkeypatch.setattr(place, "_sync", lambda path: fail() if path == parent else sync(path))
    else:
        monkeypatch.setattr(os if step == "fsync" else Path, step, fail)


STEPS = ["mkdir", "write_bytes", "fsync", "last fsync", "second rename", "first rename"]
FAULTS = [  # a disk that cannot synchronise is not a fault
    (step, number)
    for step in STEPS
    for number in (*CODES, None)
    if step != "fsync" or number not in place.UNSUPPORTED
]


@pytest.mark.parametrize(
    ("step", "number"), FAULTS, ids=[f"{step} {errno.errorcode.get(number, 'Ctrl-C')}" for step, number in FAULTS]
)
@pytest.mark.parametrize("replace", [False, True])
def test_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, step: str, replace: bool
) -> None:
    """The message has what, where and a hint. An old model is unchanged."""
    out = tmp_path / "out"
    if replace or step == "first rename":
        write_model(out, "old")
    before = tree(tmp_path)
    fault = KeyboardInterrupt() if number is None else OSError(number, os.strerror(number))
    with monkeypatch.context() as broken:
        break_at(step, fault, tmp_path, broken)
        with pytest.raises((OutputError, KeyboardInterrupt)) as caught:
            convert(out, replace=out.exists())
    if number is not None:
        assert isinstance(caught.value, OutputError)
        assert_fault(caught.value, out, number)
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == (["out"] if before else [])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_does_not_synchronise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Some file systems do not support it; the computed result must not be lost for that."""

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    convert(tmp_path / "out")
    assert tree(tmp_path / "out") == NEW


def test_temporary_names_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, new_folder(tmp_path / "out") as folder:
        (folder / "missing/file").touch()
    assert_fault(caught.value, tmp_path / "out", errno.ENOENT)


def test_unreadable_is_not_reported_as_unwritable(tmp_path: Path) -> None:
    with refused("model-damaged", tmp_path / "tokenizer.json"), new_folder(tmp_path / "out"):
        (tmp_path / "tokenizer.json").read_bytes()
    assert os.listdir(tmp_path) == []


def test_a_disconnected_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mount point must not become a folder on another disk."""
    monkeypatch.setattr(place, "DRIVES", tmp_path)
    for name in ("Backup", "Backup/models/nano"):
        with refused("output-unwritable", f"{tmp_path}/Backup: "):
            convert(tmp_path / name)
        assert os.listdir(tmp_path) == []
    (tmp_path / "Backup").mkdir()
    convert(tmp_path / "Backup/models/nano")
    assert tree(tmp_path / "Backup/models/nano") == NEW


# --- real disks ---

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A function that mounts a small in-memory disk with the given options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting is not possible here")
        return disk

    yield mount
    if os.path.ismount(disk):
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("command", "number"),
    [(["mount", "-o", "remount,ro"], errno.EROFS), (["umount", "--lazy"], errno.ENOENT)],
    ids=["read-only", "taken away"],
)
def test_a_disk_that_changes_meanwhile(mount: Mount, command: list[str], number: int) -> None:
    disk = mount("size=64k")
    with pytest.raises(OutputError) as caught:
        convert(disk / "out", meanwhile=lambda: subprocess.run([*command, disk], check=True))
    assert_fault(caught.value, disk / "out", number)
    assert not (disk / "out").exists()


def test_a_disk_itself(mount: Mount) -> None:
    """A mount point cannot be renamed."""
    disk = mount("size=64k")
    assert_fault(refusal(disk, replace=True), disk, errno.EBUSY)


# --- leftovers of killed processes: who removes and restores them, and what is never touched ---


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """Files, such as an unfinished result of `transcribe`, and targets of links are kept."""
    for digit in "0a":
        leftover(tmp_path, digit)
    foreign = {".funasr-abcdefgh", ".funasr-convert", ".funasr-convert-" + 16 * "g", ".funasr-old-1", ".out.old-1"}
    for name in foreign:
        (tmp_path / name).mkdir()
    file, link, aside = (tmp_path / name for name in (
        f"{place.TEMPORARY_PREFIX}{16 * '1'}", f"{place.TEMPORARY_PREFIX}{16 * '2'}", f"{ASIDE_PREFIX}{16 * '3'}"
    ))  # fmt: skip
    file.write_text("mine")
    for path in (link, aside):
        path.symlink_to(write_model(tmp_path / "linked", "old"))
    convert(tmp_path / "out")
    assert set(os.listdir(tmp_path)) == foreign | {file.name, link.name, aside.name, "linked", "out"}
    assert tree(tmp_path / "linked") == OLD


def test_folders_of_running_processes_are_kept(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        write_model(folder, "new")
        convert(tmp_path / "other")
        assert tree(folder) == NEW
    assert tree(tmp_path / "out") == NEW
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EBADF])
def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Their owner would be unknown. Converting works without locks, even when it replaces an old model."""

    leftover(tmp_path, aside="old")
    before = tree(tmp_path)
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(number, os.strerror(number))))
    for content in ("old", "new"):
        convert(tmp_path / "out", content, replace=content == "new")
    assert tree(tmp_path / "out") == NEW
    shutil.rmtree(tmp_path / "out")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("replace", [False, True])
def test_a_model_moved_aside_is_restored(tmp_path: Path, replace: bool) -> None:
    """The next conversion to any place restores it before it looks for `out`."""
    leftover(tmp_path, aside="out")
    leftover(tmp_path, "1")
    convert(tmp_path / "next", replace=replace)
    assert tree(tmp_path / "out") == OLD
    assert sorted(os.listdir(tmp_path)) == ["next", "out"]
    leftover(tmp_path, aside="other")
    with refused("output-exists", tmp_path / "other"):
        convert(tmp_path / "other")
    assert tree(tmp_path / "other") == OLD


def test_a_model_moved_aside_is_removed_if_there_is_a_new_one(tmp_path: Path) -> None:
    """This includes one that a killed process was removing, though the new model has since been removed."""
    for is_interrupted in (False, True):
        leftover(tmp_path, aside="out")
        write_model(tmp_path / "out", "new")
        with pytest.MonkeyPatch.context() as broken:
            if is_interrupted:
                broken.setattr(shutil, "rmtree", lambda *_, **__: None)
            check_place(tmp_path / "next", None, replace=False)
        assert tree(tmp_path / "out") == NEW
        shutil.rmtree(tmp_path / "out")
        check_place(tmp_path / "out", None, replace=False)
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("named", ["folder", "id"])
def test_a_model_moved_aside_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """Code that only looks for the model names it, and does not move it."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    leftover(tmp_path / "models/owner", aside="model")
    name = str(tmp_path / "models/owner/model") if named == "folder" else "owner/model"
    with refused("model-aside", f"{tmp_path}/models/owner/{ASIDE_PREFIX}{16 * '0'}/model"):
        find_model(name)


# --- SIGKILL ---


@pytest.fixture(scope="module")
def kill() -> Iterator[Callable[..., Death]]:
    with victims("support.placing") as kill:
        yield kill


@pytest.mark.parametrize("replace", [False, True])
def test_killed_before_every_step(kill: Callable[..., Death], tmp_path: Path, replace: bool) -> None:
    """The folder is complete, a model moved aside is restored, and the next conversion removes leftovers."""
    contents: dict[str, dict[str, bytes]] = {"nothing": {}, "old": OLD, "new": NEW}
    seen: list[str] = []
    for step in range(1, 300):
        out = tmp_path / str(step) / "out"
        write_model(out, "old") if replace else out.parent.mkdir()
        death = kill("write", out, replace, within=out.parent, at_step=step)
        if death.exit_code != -9:
            assert death == Death(0, death.writing_s, step - 1)
            assert tree(out) == NEW
            break
        [outcome] = [name for name, content in contents.items() if tree(out) == content]
        assert out.exists() == (outcome != "nothing")
        if replace and outcome == "nothing":  # between the two renames
            assert [tree(old) for old in out.parent.glob(f"{ASIDE_PREFIX}*/out")] == [OLD]
        seen.append(outcome)
        check_place(out, None, replace=True)
        assert tree(out) == (OLD if replace and outcome == "nothing" else contents[outcome])
        convert(out.parent / "next")
        there = ["next", "out"] if replace or outcome == "new" else ["next"]
        assert sorted(os.listdir(out.parent)) == there
    assert set(seen) == ({"old", "nothing", "new"} if replace else {"nothing", "new"})
    assert len(seen) > 15

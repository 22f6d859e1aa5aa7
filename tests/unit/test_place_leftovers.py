"""What processes leave behind that die: who removes it, what comes back, and what is never touched."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.killing import Death, victims
from support.placing import NEW, OLD, convert, leftover, refusal, write_model
from support.running import tree

from funasr_cli.checkpoints import place
from funasr_cli.checkpoints.place import check_place, new_folder
from funasr_cli.errors import OutputError


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """Least of all a file, such as an unfinished result of `transcribe`."""
    for digit in "0a":
        leftover(tmp_path, digit)
    foreign = [".funasr-abcdefgh", ".funasr-convert", ".funasr-convert-cache", ".funasr-convert-" + 16 * "g"]
    for name in foreign:
        (tmp_path / name).mkdir()
    file, link = (tmp_path / f"{place.TEMPORARY_PREFIX}{16 * digit}" for digit in "12")
    file.write_text("mine")
    link.symlink_to(write_model(tmp_path / "linked", "old"))
    convert(tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {*foreign, file.name, link.name, "linked", "out"}
    assert tree(tmp_path / "linked") == OLD


def test_folders_of_the_living_stay(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        write_model(folder, "new")
        convert(tmp_path / "other")
        assert tree(folder) == NEW
    assert tree(tmp_path / "out") == NEW
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EBADF])
def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Nobody could tell whose it is. Converting itself does without."""

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    left = leftover(tmp_path, aside="old")
    monkeypatch.setattr(fcntl, "flock", fail)
    convert(tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"out", left.name}
    assert tree(left / place.ASIDE / "old") == OLD


def test_locks_that_fail_for_another_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlocked, the folder of a living process would pass for a leftover."""

    def fail(*_: Any) -> None:
        raise OSError(errno.EINTR, os.strerror(errno.EINTR))

    monkeypatch.setattr(fcntl, "flock", fail)
    assert refusal(tmp_path / "out")[0].endswith(f": cannot be written ([Errno 4] {os.strerror(errno.EINTR)})")


@pytest.mark.parametrize("moment", ["before it is open", "before it is locked"])
def test_a_clean_up_before_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Another process may see a folder before it is locked, and take it for a leftover."""
    owner, name = (os, "open") if moment == "before it is open" else (fcntl, "flock")
    original, cleaned = getattr(owner, name), []

    def clean_up_first(*arguments: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        cleaned.extend(tmp_path.glob(place.LEFTOVERS))
        place._remove_leftovers(tmp_path)
        assert not list(tmp_path.glob(place.LEFTOVERS))
        return original(*arguments)

    monkeypatch.setattr(owner, name, clean_up_first)
    with new_folder(tmp_path / "out") as folder:
        write_model(folder, "new")
        place._remove_leftovers(tmp_path)
    assert len(cleaned) == 1
    assert tree(tmp_path / "out") == NEW
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("replace", [False, True])
def test_what_stood_aside_comes_back(tmp_path: Path, replace: bool) -> None:
    """Whatever is converted next, and before it is looked whether there is something."""
    leftover(tmp_path, aside="out")
    leftover(tmp_path, "1")
    convert(tmp_path / "next", replace=replace)
    assert tree(tmp_path / "out") == OLD
    assert sorted(os.listdir(tmp_path)) == ["next", "out"]
    leftover(tmp_path, aside="other")
    with pytest.raises(OutputError, match="other: exists already"):
        convert(tmp_path / "other")
    assert tree(tmp_path / "other") == OLD


def test_what_stood_aside_is_removed_when_its_place_is_taken(tmp_path: Path) -> None:
    leftover(tmp_path, aside="out")
    write_model(tmp_path / "out", "new")
    check_place(tmp_path / "next", None, replace=False)
    assert tree(tmp_path / "out") == NEW
    assert os.listdir(tmp_path) == ["out"]


def test_half_of_what_stood_aside_never_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has died while it removed one, whose place has become free since."""
    left = leftover(tmp_path, aside="out")
    write_model(tmp_path / "out", "new")

    def die(path: Path, **_: Any) -> None:
        for part in path.rglob("model.safetensors"):
            part.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("shutil.rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            place._remove_leftovers(tmp_path)
    assert left.exists()
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    check_place(tmp_path / "out", None, replace=False)
    assert os.listdir(tmp_path) == ["elsewhere"]


# --- SIGKILL ---


@pytest.fixture(scope="module")
def kill() -> Iterator[Callable[..., Death]]:
    with victims("support.placing") as kill:
        yield kill


@pytest.mark.parametrize(
    ("replace", "in_steps", "outcomes"),
    [
        (False, False, {"nothing", "new"}),
        (False, True, {"nothing", "new"}),
        (True, False, {"old", "new"}),  # never missing
        (True, True, {"old", "nothing", "new"}),
    ],
)
def test_killed_before_every_step(
    kill: Callable[..., Death], tmp_path: Path, replace: bool, in_steps: bool, outcomes: set[str]
) -> None:
    """What is there is whole, what stood aside comes back, and the rest goes when the next model is written."""
    contents: dict[str, dict[str, bytes]] = {"nothing": {}, "old": OLD, "new": NEW}
    seen: list[str] = []
    for step in range(1, 300):
        out = tmp_path / str(step) / "out"
        write_model(out, "old") if replace else out.parent.mkdir()
        death = kill("write", out, replace, within=out.parent, at_step=step, in_steps=in_steps)
        if death.exit_code != -9:
            assert death == Death(0, death.writing_s, step - 1)
            assert tree(out) == NEW
            break
        [outcome] = [name for name, content in contents.items() if tree(out) == content]
        assert out.exists() == (outcome != "nothing")
        seen.append(outcome)
        check_place(out, None, replace=True)
        assert tree(out) == (OLD if replace and outcome == "nothing" else contents[outcome])
        convert(out.parent / "next")
        there = ["next", "out"] if replace or outcome == "new" else ["next"]
        assert sorted(os.listdir(out.parent)) == there
    assert set(seen) == outcomes
    assert len(seen) > 15

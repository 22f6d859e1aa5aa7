"""What processes leave behind that die: who removes it, what comes back, and what is never touched."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.errors import refused
from support.killing import Death, victims
from support.placing import NEW, OLD, convert, leftover, refusal, write_model
from support.running import tree

from funasr_cli.checkpoints import place
from funasr_cli.checkpoints.hub import ASIDE_PREFIX, find_model
from funasr_cli.checkpoints.place import check_place, new_folder


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """Least of all a file, such as an unfinished result of `transcribe`, or what a link leads to."""
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


def test_folders_of_the_living_stay(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        write_model(folder, "new")
        convert(tmp_path / "other")
        assert tree(folder) == NEW
    assert tree(tmp_path / "out") == NEW
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EBADF])
def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Nobody could tell whose it is. Converting itself does without, also in place of an old model."""

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    leftover(tmp_path, aside="old")
    before = tree(tmp_path)
    monkeypatch.setattr(fcntl, "flock", fail)
    for content in ("old", "new"):
        convert(tmp_path / "out", content, replace=content == "new")
    assert tree(tmp_path / "out") == NEW
    shutil.rmtree(tmp_path / "out")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("replace", [False, True])
def test_what_stood_aside_comes_back(tmp_path: Path, replace: bool) -> None:
    """Whatever is converted next, and before `out` is looked for."""
    leftover(tmp_path, aside="out")
    leftover(tmp_path, "1")
    convert(tmp_path / "next", replace=replace)
    assert tree(tmp_path / "out") == OLD
    assert sorted(os.listdir(tmp_path)) == ["next", "out"]
    leftover(tmp_path, aside="other")
    with pytest.raises(AssertionError):  # it is there again, which `refusal` sees
        refusal(tmp_path / "other")
    assert tree(tmp_path / "other") == OLD


def test_what_stood_aside_is_removed_when_its_place_is_taken(tmp_path: Path) -> None:
    """Also when a process has died while it removed one, whose place has become free since."""
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
def test_a_model_that_stands_aside_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """By what looks for it, and does not write there."""
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
    """What is there is whole, what stood aside comes back, and the rest goes when the next model is written."""
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

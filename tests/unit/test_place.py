"""A folder that appears whole or not at all, and others that are put in the same place meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.placing import (
    NEW,
    OLD,
    convert,
    file_system,
    leftover,
    model_of,
    refusal,
    without_exchange,
    write_model,
)
from support.running import tree

from funasr_cli.checkpoints import place, rename
from funasr_cli.checkpoints.hashes import write_sums
from funasr_cli.checkpoints.place import new_folder
from funasr_cli.errors import OutputError

__all__ = ["file_system"]


@pytest.mark.usefixtures("file_system")
def test_new_and_replaced(tmp_path: Path) -> None:
    for content in ("old", "new"):
        convert(tmp_path / "out", content, replace=content == "new")
        assert tree(tmp_path / "out") == model_of(content)
        assert os.listdir(tmp_path) == ["out"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        convert(tmp_path / "out")
    finally:
        os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_nobody_else_looks_into_what_is_unfinished(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        [temporary] = tmp_path.iterdir()
        assert temporary in folder.parents
        assert temporary.name.startswith(".funasr-")
        assert temporary.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("replace", [False, True])
def test_a_link_that_leads_nowhere(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    hint = "see whether the disk that it leads to is connected, or name another folder"
    assert refusal(tmp_path / "out", replace=replace) == (f"{tmp_path / 'out'}: a link that leads nowhere", hint)


@pytest.mark.parametrize("out", [".", "../here/."])
def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    """It has a name all the same."""
    monkeypatch.chdir(write_model(tmp_path / "here", "old"))
    convert(Path(out), "new", replace=True)
    assert tree(tmp_path / "here") == NEW
    assert os.listdir(tmp_path) == ["here"]


def test_a_link_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out").symlink_to("file")
    assert refusal(tmp_path / "out")[0] == f"{tmp_path / 'out'}: exists already"
    message = f"{tmp_path / 'out'}: is not a converted model, so it is not replaced"
    assert refusal(tmp_path / "out", replace=True)[0] == message


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("before", ["a model", "nothing"])
def test_what_a_link_leads_to_is_replaced(tmp_path: Path, before: str) -> None:
    """The models of a small disk lie on a large one: also what is unfinished."""
    elsewhere = tmp_path / "disk/elsewhere"
    write_model(elsewhere, "old") if before == "a model" else elsewhere.mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/elsewhere")
    unfinished: list[bool] = []
    leftover(tmp_path / "disk")
    convert(
        tmp_path / "out", replace=True,
        meanwhile=lambda: unfinished.append(len(list((tmp_path / "disk").glob(place.LEFTOVERS))) == 1),
    )  # fmt: skip
    assert (tmp_path / "out").readlink() == Path("disk/elsewhere")
    assert (tree(elsewhere), unfinished) == (NEW, [True])
    assert sorted(os.listdir(tmp_path)) == ["disk", "out"]
    assert os.listdir(tmp_path / "disk") == ["elsewhere"]


# --- what somebody else has put there ---


@pytest.mark.parametrize("name", ["mynotes.txt", "a.py", ".hidden", "model.safetensors.bak"])
@pytest.mark.parametrize("listed", [False, True])
def test_own_files_in_a_model_are_not_deleted(tmp_path: Path, name: str, listed: bool) -> None:
    out = write_model(tmp_path / "out", "old")
    if listed:
        write_sums(out, {})
    (out / name).write_text("mine")
    (out / "zzz").write_text("mine, too")
    assert refusal(out, replace=True) == (
        f"{out}: holds {name}, which no conversion writes, so it is not replaced",
        "move it, or name another folder",
    )


@pytest.mark.parametrize("listed", [False, True])
def test_a_folder_that_is_called_like_a_file_of_ours(tmp_path: Path, listed: bool) -> None:
    out = write_model(tmp_path / "out", "old")
    if listed:
        write_sums(out, {})
    (out / "vocab.json").mkdir()
    assert refusal(out, replace=True)[0].startswith(f"{out}: holds vocab.json, which no conversion writes")


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("sums", [None, "whole", b"", b"damaged"])
def test_all_that_a_conversion_writes_is_replaced(tmp_path: Path, sums: str | bytes | None) -> None:
    """With its list, without, as older ones are, and with a damaged one; Finder leaves a file of its own."""
    out = write_model(tmp_path / "out", "old")
    names = (
        "tokenizer.json", "multilingual.tiktoken", "tokenizer_config.json", "vocab.json", "merges.txt",
        "generation_config.json",
    )  # fmt: skip
    for name in names:
        (out / name).touch()
    if sums == "whole":
        (out / "of a later version").touch()
        write_sums(out, {})
    elif isinstance(sums, bytes):
        (out / "SHA256SUMS").write_bytes(sums)
    (out / ".DS_Store").touch()
    convert(out, replace=True)
    assert tree(out) == NEW
    assert os.listdir(tmp_path) == ["out"]


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, their folder, the rename, the folder above; and the folders above that are new, too."""
    steps: list[tuple[str, bool]] = []
    out, fsync = tmp_path / "a/b/out", os.fsync

    def note(descriptor: int) -> None:
        everything = [tmp_path, *tmp_path.rglob("*")]
        [path] = [path for path in everything if os.path.samestat(path.stat(), os.fstat(descriptor))]
        steps.append((path.name, out.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    convert(out)
    assert sorted(steps[:2]) == sorted([("a", False), (tmp_path.name, False)])
    assert sorted(steps[2:5]) == sorted((name, False) for name in NEW)
    assert steps[5:] == [("new", False), ("b", True)]


# --- others ---


@pytest.mark.usefixtures("file_system")
def test_the_second_to_finish_overwrites_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError) as caught:
        convert(out, meanwhile=lambda: convert(out, "old"))
    assert caught.value.message == f"{out}: has appeared meanwhile"
    hint = "another program has put it there: use that, pass --force, or name another folder"
    assert caught.value.hint == hint
    assert tree(out) == OLD
    assert os.listdir(tmp_path) == ["out"]


def test_what_has_appeared_before_anything_is_written(tmp_path: Path) -> None:
    """During a download."""
    out = write_model(tmp_path / "out", "old")
    with pytest.raises(OutputError, match="has appeared meanwhile"), new_folder(out):
        pytest.fail("it could have been known before")


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("appeared", ["empty folder", "file", "link"])
def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path, appeared: str) -> None:
    """Not even an empty folder, which a mere rename would replace in silence."""
    out = tmp_path / "out"
    appear = {"empty folder": out.mkdir, "file": out.touch, "link": lambda: out.symlink_to("nowhere")}
    with pytest.raises(OutputError, match="has appeared meanwhile"):
        convert(out, meanwhile=appear[appeared])
    assert (out.is_dir(), out.is_file(), out.is_symlink()) == tuple(appeared == kind for kind in appear)
    assert tree(tmp_path) == ({"out": b""} if appeared == "file" else {})
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("before", ["nothing", "a model"])
def test_the_last_to_finish_wins_if_it_may_replace(tmp_path: Path, before: str) -> None:
    out = tmp_path / "out"
    if before == "a model":
        write_model(out, "older")

    def be_faster() -> None:
        convert(out, "old", replace=True)
        assert tree(out) == OLD

    convert(out, replace=True, meanwhile=be_faster)
    assert tree(out) == NEW
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.usefixtures("file_system")
def test_a_model_that_is_gone_when_it_is_to_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the exchange."""
    out, swap = write_model(tmp_path / "out", "old"), place._swap

    def come_late(new: Path, target: Path) -> None:
        target.rename(tmp_path / "moved")
        swap(new, target)

    monkeypatch.setattr(place, "_swap", come_late)
    convert(out, replace=True)
    assert (tree(out), tree(tmp_path / "moved")) == (NEW, OLD)
    assert sorted(os.listdir(tmp_path)) == ["moved", "out"]


def test_one_that_appears_while_another_stands_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the moment that a file system without exchanges takes."""
    without_exchange(monkeypatch)
    out, renaming = write_model(tmp_path / "out", "older"), rename.rename_new

    def come_between(source: Path, target: Path) -> None:
        if source.name == place.NEW and not target.exists():
            write_model(out, "old")
            monkeypatch.setattr(place, "rename_new", renaming)
        renaming(source, target)

    monkeypatch.setattr(place, "rename_new", come_between)
    convert(out, replace=True)
    assert place.rename_new is renaming
    assert tree(out) == NEW
    assert os.listdir(tmp_path) == ["out"]


def test_what_has_become_foreign_is_not_replaced(tmp_path: Path) -> None:
    """While a model was converted for an hour, its user has put something else there."""
    out = write_model(tmp_path / "out", "old")
    with pytest.raises(OutputError) as caught:
        convert(out, replace=True, meanwhile=(out / "thesis").mkdir)
    assert caught.value.message == f"{out}: holds thesis, which no conversion writes, so it is not replaced"
    assert (out / "thesis").is_dir()
    assert tree(out) == OLD
    assert os.listdir(tmp_path) == ["out"]

"""A folder that appears completely or not at all, while others may write to the same place."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.errors import refused
from support.placing import NEW, OLD, convert, leftover, model_of, refusal, write_model
from support.running import tree

from funasr_cli.checkpoints.format import write_sums
from funasr_cli.conversion.place import check_place, new_folder


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    """These are the result's permissions. An unfinished folder is private."""
    mask = os.umask(0o027)
    try:
        with new_folder(tmp_path / "out") as folder:
            [temporary] = tmp_path.iterdir()
            assert temporary in folder.parents
            assert temporary.name.startswith(".funasr-")
            assert temporary.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_an_unwritable_place_is_refused_in_advance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes places that the system reports as writable, such as network shares."""
    assert os.access(tmp_path, os.W_OK)
    out, unwilling = (
        tmp_path / "deep/out",
        Mock(side_effect=PermissionError(errno.EPERM, os.strerror(errno.EPERM))),
    )
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", unwilling)
        with refused("output-unwritable", out):
            check_place(out, None, replace=False)
    check_place(out, None, replace=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("out", [".", "../here/."])
def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    """Its name is found."""
    monkeypatch.chdir(write_model(tmp_path / "here", "old"))
    convert(Path(out), "new", replace=True)
    assert tree(tmp_path / "here") == NEW
    assert os.listdir(tmp_path) == ["here"]


def test_the_longest_name(tmp_path: Path) -> None:
    """There is also a name for moving it aside."""
    out = tmp_path / (255 * "n")
    for content in ("old", "new"):
        convert(out, content, replace=True)
        assert tree(out) == model_of(content)


@pytest.mark.parametrize("before", ["a model", "nothing"])
def test_the_target_of_a_link_is_replaced(tmp_path: Path, before: str) -> None:
    """A link may lead from a small disk to a large one, so unfinished files must be there as well."""
    elsewhere = tmp_path / "disk/elsewhere"
    write_model(elsewhere, "old") if before == "a model" else elsewhere.mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/elsewhere")
    leftover(tmp_path / "disk")
    unfinished: list[str] = []
    convert(tmp_path / "out", replace=True, meanwhile=lambda: unfinished.extend(os.listdir(tmp_path / "disk")))
    assert (tmp_path / "out").readlink() == Path("disk/elsewhere")
    assert tree(elsewhere) == NEW
    assert len(unfinished) == 2
    assert sorted(os.listdir(tmp_path)) == ["disk", "out"]
    assert os.listdir(tmp_path / "disk") == ["elsewhere"]


@pytest.mark.parametrize(("target", "codes"), [
    ("nowhere", ("output-unwritable", "output-unwritable")), ("file", ("output-exists", "output-foreign")),
])  # fmt: skip
def test_other_links(tmp_path: Path, target: str, codes: tuple[str, str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out").symlink_to(target)
    assert codes == tuple(refusal(tmp_path / "out", replace=replace).code for replace in (False, True))


# --- files of others ---


@pytest.mark.parametrize("name", ["mynotes.txt", "a.py", ".hidden", "model.safetensors.bak", "vocab.json/"])
@pytest.mark.parametrize("listed", [False, True])
def test_the_users_files_in_a_model_are_not_deleted(tmp_path: Path, name: str, listed: bool) -> None:
    """Nor is a folder with the name of one of our files."""
    out = write_model(tmp_path / "out", "old")
    if listed:
        write_sums(out, {})
    (out / name).mkdir() if name.endswith("/") else (out / name).write_text("mine")
    (out / "zzz").write_text("mine, too")
    error = refusal(out, replace=True)
    assert error.code == "output-foreign"
    assert f" {name.rstrip('/')}," in error.message


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("native/int8.json", True),
        ("native/.int8.safetensors.part", True),
        ("native/int8.sha256", True),
        ("native/mine", False),
        ("other/int8.json", False),
    ],
)
def test_what_the_native_engine_keeps_is_replaced(tmp_path: Path, name: str, is_ours: bool) -> None:
    out = write_model(tmp_path / "out", "old")
    (out / name).parent.mkdir()
    (out / name).write_text("kept")
    if is_ours:
        convert(out, "new", replace=True)
        assert tree(out) == NEW
    else:
        assert refusal(out, replace=True).code == "output-foreign"


@pytest.mark.parametrize("sums", [None, "whole", b"", b"damaged"])
def test_all_files_of_a_conversion_are_replaced(tmp_path: Path, sums: str | bytes | None) -> None:
    """The list of digests may exist, be missing as in older models, or be damaged. Finder adds its own file."""
    out = write_model(tmp_path / "out", "old")
    names = (
        "tokenizer.json", "multilingual.tiktoken", "tokenizer_config.json", "vocab.json", "merges.txt",
        "generation_config.json", ".DS_Store",
    )  # fmt: skip
    for name in names:
        (out / name).touch()
    if sums == "whole":
        (out / "of a later version").touch()
        write_sums(out, {})
    elif isinstance(sums, bytes):
        (out / "SHA256SUMS").write_bytes(sums)
    convert(out, replace=True)
    assert tree(out) == NEW
    assert os.listdir(tmp_path) == ["out"]


def test_everything_is_synchronised_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This covers files, their folder, the rename, the parent folder, and new folders above it."""
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


# --- concurrent writers ---


@pytest.mark.parametrize("config", ["", '{"model_type": "qwen3"}', "[]", "{"])
def test_a_folder_that_is_no_model_of_ours_is_not_replaced(tmp_path: Path, config: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt" if not config else out / "config.json").write_text(config)
    assert refusal(out, replace=True).code == "output-foreign"
    assert refusal(out).code == "output-exists"


def test_a_folder_that_appeared_before_writing(tmp_path: Path) -> None:
    """It may appear during a download."""
    out = write_model(tmp_path / "out", "old")
    with refused("output-exists", out), new_folder(out):
        pytest.fail("it could have been known before")


@pytest.mark.parametrize("appeared", ["model", "empty folder", "file", "link"])
def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, appeared: str) -> None:
    """This includes an empty folder, which a plain rename would silently replace."""
    out = tmp_path / "out"
    appear: dict[str, Callable[[], object]] = {
        "model": lambda: convert(out, "old"),
        "empty folder": out.mkdir,
        "file": out.touch,
        "link": lambda: out.symlink_to("nowhere"),
    }
    with refused("output-exists", out):
        convert(out, meanwhile=appear[appeared])
    kind = "link" if out.is_symlink() else "file" if out.is_file() else "model" if tree(out) else "empty folder"
    assert kind == appeared
    assert os.listdir(tmp_path) == ["out"]


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


def test_a_model_that_disappears_before_it_is_replaced(tmp_path: Path) -> None:
    out = write_model(tmp_path / "out", "old")
    convert(out, replace=True, meanwhile=lambda: out.rename(tmp_path / "moved"))
    assert (tree(out), tree(tmp_path / "moved")) == (NEW, OLD)
    assert sorted(os.listdir(tmp_path)) == ["moved", "out"]


def test_other_files_that_appear_meanwhile_are_not_replaced(tmp_path: Path) -> None:
    """During a conversion of an hour, the user may have put other files there."""
    out = write_model(tmp_path / "out", "old")
    with refused("output-foreign", out):
        convert(out, replace=True, meanwhile=(out / "thesis").mkdir)
    assert (out / "thesis").is_dir()
    assert tree(out) == OLD
    assert os.listdir(tmp_path) == ["out"]

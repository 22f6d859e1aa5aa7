"""Every error of `funasr convert` and `funasr models`: exit code, named values, and nothing written."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from support.running import Result, funasr, invoke, tree

import funasr_cli
from funasr_cli import demo

ROOT = Path(funasr_cli.__file__).parents[1]


@pytest.fixture
def here(checkpoint: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in: a checkpoint, an earlier conversion, and things that are neither."""
    folder = checkpoint.parent
    monkeypatch.chdir(folder)
    checkpoint.rename("Nano")
    model.rename("earlier")
    Path("nothing").mkdir()
    Path("notes").mkdir()
    Path("notes/config.json").write_text('{"format": "mine"}')
    Path("file").touch()
    return folder


# Arguments of `funasr convert`, the value that the error names, and the hint.
USAGE_ERRORS = [
    ("", "SOURCE", "--help"),
    ("Nano out more", "more", "--help"),
    ("Nano out --quantise 4", "--quantise", "--help"),
    ("Nano out --dtype", "--dtype", "--help"),
    *((f"Nano out --quantize {recipe}", f"--quantize is {recipe!r}", "4, 8, mixed") for recipe in ("x", "3", "0")),
    ("Nano out --dtype float16", "float16", "bfloat16"),
    ("Nano out --dtype int8", "--dtype is 'int8'", "bfloat16, float32"),
    ("Nano out --dtype ''", "''", "bfloat16, float32"),
    ("Nano out --group-size 64", "--group-size needs", "--quantize"),
    ("Nano out --quantize 4 --group-size 20", "--group-size is 20", "32, 64, 128"),
    ("Nano out --languages zh,xx", "'xx'", "zh, en, yue, ja, ko, "),
    ("Nano out --languages ''", "''", "zh, en, "),
    ("Nano out --languages zh,", "''", "zh, en, "),
    (
        "--check earlier out --revision v1 --dtype float32 --quantize-encoder 8 --group-size 64 --languages zh "
        "--verify off --quantize 4 --force",
        "OUT", "--revision", "--force", "--dtype", "--quantize", "--quantize-encoder", "--group-size",
        "--languages", "--verify",
    ),
    ("--check earlier --quantize-encoder 8", "--quantize-encoder"),
    ("Nano out --revision main", "--revision main", "Nano", "hub id"),
    ("demo out --revision main", "--revision main", str(demo.MODEL), "hub id"),
]  # fmt: skip


@pytest.mark.parametrize("row", USAGE_ERRORS, ids=[row[0] for row in USAGE_ERRORS])
def test_usage_errors(row: tuple[str, ...], here: Path) -> None:
    before = tree(here)
    invoke("convert", *shlex.split(row[0])).assert_fails(2, "error", *row[1:])
    assert tree(here) == before


# The same, with the exit code.
PLACES = [
    # the destination
    *((typed, 1, typed.split()[1]) for typed in ("Nano Nano", "Nano . --force", "Nano Nano/../Nano --force")),
    *((f"Nano {name}", 1, name, "--force") for name in ("earlier", "notes", "file")),
    *((f"Nano {name} --force", 1, name, "another folder") for name in ("notes", "file")),
    *((f"Nano {name}", 1, name) for name in ("file/out", "a" * 300)),
    # the source
    *((name, 3, name, "hub id") for name in ("nowhere", "https://hub.invalid/owner/model")),
    *((name, 3, name, "folder") for name in ("file", "notes/config.json", "Nano/model.pt")),
    *((typed, 3, "SOURCE") for typed in ("''", "'' out")),
    ("nothing out", 3, "nothing", "--explain"),
    ("notes out", 3, "notes/config.json", "model_type", "--explain"),
]


@pytest.mark.parametrize("row", PLACES, ids=[row[0][:40] for row in PLACES])
def test_places(row: tuple[Any, ...], here: Path) -> None:
    """Nothing is written, and everything that exists is unchanged."""
    typed, exit_code, *values = row
    before = tree(here)
    invoke("convert", *shlex.split(typed)).assert_fails(exit_code, "error", *values)
    assert tree(here) == before


@pytest.mark.slow
def test_what_may_be_replaced(here: Path) -> None:
    """With --force, an earlier conversion and an empty folder."""
    (here / "empty").mkdir()
    for name in ("earlier", "empty"):
        before = tree(here / name)
        invoke("convert", "Nano", name).assert_fails(1, name, "--force")
        assert tree(here / name) == before
        result = invoke("convert", "Nano", name, "--force", "--verify", "off", "--quiet")
        assert result == Result(0, f"{name}\n", "")
        assert tree(here / name) != before


def test_a_file_by_its_whole_path(here: Path) -> None:
    """It is not taken for the folder to create."""
    before = tree(here)
    for more in ((), ("--force",)):
        invoke("convert", here / "Nano/model.pt", *more).assert_error(3, "model-missing", "name its folder")
    assert tree(here) == before


def test_options_that_do_not_fit_the_checkpoint(here: Path) -> None:
    result = invoke("convert", "Nano", "out", "--quantize", 4, "--group-size", 128)
    result.assert_error(3, "model-misfit", "llm.model.embed_tokens.weight", "64", "128")
    assert not (here / "out").exists()


def test_without_torch(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is missing or cannot be imported. A source that does not need it still converts."""
    (here / "torch.py").write_text("raise ImportError('no torch here')")
    result = funasr("convert", "Nano", "out", cwd=here, env={"PYTHONPATH": f"{here}{os.pathsep}{ROOT}"})
    result.assert_error(5, "package-missing", "the extra convert", "Transformers' layout")
    monkeypatch.setitem(sys.modules, "torch", None)
    invoke("convert", "Nano", "out").assert_error(5, "package-missing")
    assert not (here / "out").exists()
    arguments = ("--languages", "zh", "--verify", "off", "--quiet")
    assert invoke("convert", "earlier", "out", *arguments) == Result(0, "out\n", "")


@pytest.mark.usefixtures("here")
def test_a_home_that_is_a_file() -> None:
    invoke("convert", "Nano", env={"FUNASR_HOME": "file"}).assert_fails(
        1, "file/models/Nano", "set FUNASR_HOME to a folder"
    )


@pytest.mark.parametrize(
    ("typed", "value"),
    [("models demo", "demo"), ("models --jsn", "--jsn"), ("models --json=1", "--json"), ("info demo", "demo"),
     ("info --verbose", "--verbose")],
)  # fmt: skip
def test_errors_of_commands_that_only_read(typed: str, value: str) -> None:
    invoke(*typed.split()).assert_fails(2, value, f"funasr {typed.split()[0]} --help")

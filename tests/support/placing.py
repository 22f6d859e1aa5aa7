"""Shared code for tests of `funasr_cli.conversion.place`: small folders that pass for models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.running import tree

from funasr_cli.conversion import place
from funasr_cli.conversion.place import check_place, new_folder
from funasr_cli.errors import FunASRError
from funasr_cli.hubs.find import ASIDE_PREFIX


def model_of(content: str) -> dict[str, bytes]:
    """Return files that pass for a converted model unless it is loaded."""
    text = content.encode()
    return {"config.json": b'{"format": "funasr-cli"}', "model.safetensors": 1000 * text, "README.md": text}


OLD, NEW = model_of("old"), model_of("new")


def write_model(folder: Path, content: str) -> Path:
    """Write such a model; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in model_of(content).items():
        (folder / name).write_bytes(data)
    return folder


def convert(
    out: Path, content: str = "new", replace: bool = False, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Place a model as a conversion does, and call `meanwhile` while it is being written."""
    check_place(out, None, replace=replace)
    with new_folder(out, replace=replace) as folder:
        write_model(folder, content)
        meanwhile()


def refusal(out: Path, content: str = "new", replace: bool = False) -> FunASRError:
    """Return the error of a conversion, and assert that it changed nothing."""
    before, names = tree(out.parent), os.listdir(out.parent)
    with pytest.raises(FunASRError) as caught:
        convert(out, content, replace)
    assert tree(out.parent) == before
    assert os.listdir(out.parent) == names
    assert str(out) in caught.value.message
    return caught.value


def leftover(parent: Path, digit: str = "0", aside: str = "") -> None:
    """Write what a killed process leaves: its temporary folder, perhaps with an old model moved aside."""
    number = 2 * place.RANDOM_BYTES * digit
    write_model(parent / f"{place.TEMPORARY_PREFIX}{number}" / "new", "half")
    if aside:
        write_model(parent / f"{ASIDE_PREFIX}{number}" / aside, "old")

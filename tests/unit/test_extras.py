"""The command that adds an extra: its packages, and the installer of this environment."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from funasr_cli.extras import EXTRAS, requirements, to_add

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("extra", sorted({*EXTRAS.values(), "bench", "plot"}))
def test_the_packages_are_those_of_the_project(extra: str) -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def normal(lines: list[str]) -> list[list[str]]:
        return sorted(sorted(line.replace("<", ",<").replace(">", ",>").split(",")) for line in lines)

    def without_empty(rows: list[list[str]]) -> list[list[str]]:
        return [[part for part in row if part] for row in rows]

    assert without_empty(normal(requirements(extra))) == without_empty(normal(stated[extra])) != []


@pytest.mark.parametrize(
    ("installed_by", "expected"),
    [
        ("pipx", ["pipx", "inject", "funasr-cli"]),
        ("pip", [sys.executable, "-m", "pip", "install"]),
        ("uv", ["uv", "pip", "install", "--python", sys.executable]),
    ],
)
def test_the_command_suits_the_environment(
    installed_by: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if installed_by == "pipx":
        (tmp_path / "pipx_metadata.json").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if installed_by == "uv" else object())
    command = shlex.split(to_add("convert").partition(", or run ")[2])
    assert command == [*expected, *requirements("convert")]


def test_without_metadata_only_the_page_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert to_add("serve", "plot") == "install the extras serve and plot: see docs/install.md#optional-features"

"""The written documentation names the commands, options and exit codes that there are."""

import re
from pathlib import Path

import pytest
import typer.main

from funasr_cli.cli.app import app
from funasr_cli.errors import ExitCode

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def documented_options(text: str, command: str) -> set[str]:
    """Long options of the section of `docs/cli.md` on a command."""
    section = text.split(f"## `funasr {command}`")[1].split("\n## ")[0]
    listed = section.split("**Options**:")[1]
    return set(
        re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join(re.findall(r"^\* `([^`]+)`", listed, re.MULTILINE)))
    )


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_reference_lists_every_option(command: str) -> None:
    """`make docs` was run after the last change of an option."""
    options = {
        name
        for parameter in COMMANDS[command].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    documented = documented_options((ROOT / "docs/cli.md").read_text(encoding="utf-8"), command)
    assert documented - {"--help"} == options - {"--help"}


def test_readme_lists_every_exit_code() -> None:
    """The table in the README is complete."""
    table = dict(
        re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set(map(int, table)) == set(map(int, ExitCode))


def test_options_shown_in_the_readme_exist() -> None:
    """No example in the README uses an option that is not there."""
    known = {name for command in COMMANDS.values() for parameter in command.params for name in parameter.opts}
    known |= {
        name for command in COMMANDS.values() for parameter in command.params for name in parameter.secondary_opts
    }
    lines = re.findall(r"^(?:\$ )?funasr .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    used = {option for line in lines for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line.split("#")[0])}
    assert used
    assert used <= known


def test_no_placeholder_is_left() -> None:
    """What is still to be filled in stands as @NAME@ while a page is being written."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert not re.findall(r"@[A-Z]+@", page.read_text(encoding="utf-8")), page

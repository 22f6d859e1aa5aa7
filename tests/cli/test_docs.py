"""The documentation matches the commands, options and exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from support.running import environment, invoke

from funasr_cli import __version__
from funasr_cli.cli.app import app
from funasr_cli.decoding.cost import (
    CPU_FIXED_POSITIONS,
    CPU_SLOW_FIXED_POSITIONS,
    GPU_FIXED_POSITIONS,
    RunCost,
    tried_at_once,
)
from funasr_cli.decoding.draft import CASES, FIRST, FURTHER, MOST_TOKENS
from funasr_cli.errors import ExitCode
from funasr_cli.families.sense_voice.config import LANGUAGE_ROWS
from funasr_cli.languages import LANGUAGES, MLT_LANGUAGES, NANO_LANGUAGES, WHISPER_TOKEN_OF
from funasr_cli.models.layers import FULL_ROWS

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_reference_matches_the_app() -> None:
    """`make docs` was run after the last change to the command line."""
    command = [sys.executable, "-m", "typer", "funasr_cli.cli.app", "utils", "docs", "--name", "funasr"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=True)
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8").strip() == done.stdout.strip()


def test_every_exit_code_is_listed() -> None:
    page = (ROOT / "docs/exit-codes.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE))
    assert set(map(int, table)) == set(map(int, ExitCode))


def test_the_newest_version_in_the_changelog_is_this_one() -> None:
    page = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+) - (\d{4}-\d\d-\d\d)$", page, re.MULTILINE)
    assert versions[0][0] == __version__
    assert [date for _, date in versions] == sorted((date for _, date in versions), reverse=True)


def test_readme_fits_on_a_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


OURS = {
    name
    for command in COMMANDS.values()
    for parameter in command.params
    for name in (*parameter.opts, *parameter.secondary_opts)
} | {"--help", "--version", "--install-completion", "--show-completion"}


@pytest.mark.parametrize("page", ["README.md", "docs/usage.md", "docs/convert.md", "docs/performance.md"])
def test_options_in_examples_exist(page: str) -> None:
    """Every option in an example exists."""
    lines = re.findall(r"^(?:\$ )?.*\bfunasr .*$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    calls = [line.split("funasr ", 1)[1].split(" #")[0] for line in lines if not line.startswith("#")]
    used = {option for call in calls for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", call)}
    assert used
    assert used <= OURS


def test_our_options_in_the_comparison_exist() -> None:
    """In our column, and in the list of what only this project has."""
    page = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in page.split("## The lists")[0].splitlines() if line[:2] == "| "]
    cells = [cells[2].replace(cells[0], "") for cells in rows if len(cells) == 3]
    alone = page.split("## Ours alone")[1].split("\n## ")[0]
    named = set(re.findall(r"`(--[a-z][a-z-]*)", " ".join([*cells, alone])))
    assert len(named) > 30
    assert named <= OURS


def test_variables_in_the_settings_exist() -> None:
    known = {parameter.envvar for command in COMMANDS.values() for parameter in command.params}
    without_option = {
        "FUNASR_API_KEY",
        "FUNASR_CONFIG",
        "FUNASR_HOME",
        "FUNASR_BLAS",
        "FUNASR_NATIVE",
        "FUNASR_OFFLINE",
        "FUNASR_REFERENCE_PYTHON",
        "FUNASR_TRACEBACK",
    }
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    named = set(re.findall(r"FUNASR_[A-Z_]*[A-Z]", page))
    assert len(named) > 8
    assert without_option <= named <= known | without_option


def test_the_tables_of_names_match_explain() -> None:
    """They were copied after the last change to any family's rules."""
    page = (ROOT / "docs/porting.md").read_text(encoding="utf-8")
    [tables] = re.findall(
        r"<!-- the tables of `funasr convert --explain` -->\n(.*?)<!-- their end -->\n", page, re.DOTALL
    )
    assert tables == invoke("convert", "--explain").stdout
    assert tables.count("###") == 21
    assert tables.startswith("Short names"), "what most readers look for comes first"


def test_the_table_of_languages() -> None:
    """It has every language that a model knows, with its code and names."""
    page = (ROOT / "docs/languages.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in page.splitlines() if "| `" in row]
    models = NANO_LANGUAGES, MLT_LANGUAGES, LANGUAGE_ROWS, WHISPER_TOKEN_OF
    assert rows == [
        [language.english_name, code, ", ".join(language.own_names)]
        + ["yes" if code in known else "-" for known in models]
        for code, language in LANGUAGES.items()
    ]


def test_no_placeholder_is_left() -> None:
    """Unfinished pages contain placeholders such as @NAME@."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        assert not re.findall(r"@[A-Z]+@", page.read_text(encoding="utf-8")), page


# --- constants of drafts in docs/performance.md ---

PAGE = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
SECTION = " ".join(PAGE.split("## Drafted decoding")[1].split("\n## ")[0].split())
ROWS = [
    list(map(int, row))
    for row in re.findall(
        r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE
    )
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} rows")
def test_the_table_of_what_is_tried_at_once(row: list[int]) -> None:
    rows, *shown = row
    costs = RunCost(CPU_FIXED_POSITIONS, FULL_ROWS), RunCost(GPU_FIXED_POSITIONS)
    tried = [
        tried_at_once([MOST_TOKENS] * rows, [(first, FURTHER)] * rows, cost)
        for cost in costs
        for first in (0.8, 0.4, 0.1)
    ]
    assert tried == shown


def test_constants_of_drafts() -> None:
    assert len(ROWS) == 3
    assert f"{CPU_FIXED_POSITIONS} on a CPU in float32" in SECTION
    assert f"{CPU_SLOW_FIXED_POSITIONS} on a CPU in other types" in SECTION
    assert f"{GPU_FIXED_POSITIONS} on a GPU" in SECTION
    assert f"({FIRST:g} and {FURTHER:g}, which count as much as {CASES} observations)" in SECTION

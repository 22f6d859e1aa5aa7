"""Statements about development are true: targets of make, workflows, pinned versions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.messages import PAGE, ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def test_lines_of_c_are_as_short_as_those_of_python() -> None:
    sources = sorted((ROOT / "funasr_cli/native/src").glob("*.[ch]"))
    assert sources
    longest = {path.name: max(map(len, path.read_text(encoding="utf-8").splitlines())) for path in sources}
    assert {
        name: length for name, length in longest.items() if length > PROJECT["tool"]["ruff"]["line-length"]
    } == {}


def test_targets_of_make_exist() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *WORKFLOWS, ROOT / ".ci/run"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if page != PAGE)
    named = set(re.findall(r"(?:`|run: |exec |^(?=make [a-z-]+(?: +#| +[A-Z_]+=|$)))make ([a-z-]+)", text, re.M))
    assert {"test", "test-quick", "test-full", "lint", "messages"} <= named
    assert named <= set(re.findall(r"^([a-z][a-z-]+):", MAKEFILE, re.M))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows(path: Path) -> None:
    """Workflows are valid YAML, have a time limit, only read by default, and use actions with a version."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for action in (step["uses"] for step in job["steps"] if "uses" in step):
            assert re.search(r"@(release/)?v\d+$", action)


def test_only_a_tag_publishes() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    assert workflow[True]["push"] == {"tags": ["v*"]}  # YAML parses the key `on` as a boolean
    publish = workflow["jobs"]["publish"]
    assert publish["environment"] == "pypi"
    assert "refs/tags/v" in publish["if"]
    assert {*publish["needs"]} == {name for name in workflow["jobs"] if name.startswith("run")}


def test_all_dependencies_are_pinned() -> None:
    """Pins have a name and version and no URL, and satisfy the project's requirements."""
    pins = {canonicalize_name(pin.name): pin for pin in PINS}
    assert not [pin for pin in PINS if pin.url or not pin.specifier]
    extras = PROJECT["project"]["optional-dependencies"].values()
    groups = PROJECT["dependency-groups"].values()
    for line in {*PROJECT["project"]["dependencies"], *(line for lines in (*extras, *groups) for line in lines)}:
        wanted = Requirement(line)
        if wanted.extras & {"cuda12", "cuda13"}:
            continue
        pin = pins[canonicalize_name(wanted.name)]
        for version in (stated.version for stated in pin.specifier if stated.operator in ("==", ">=")):
            assert wanted.specifier.contains(version), f"{pin} for {wanted}"

"""The layout of the tests: `tests/unit` mirrors the package, and shared code is only in `tests/support`."""

import re
from pathlib import Path

from support.messages import PACKAGE, ROOT

TESTS = ROOT / "tests"
# Packages count by their folder's name, modules by their own; `cases` covers `benchmarks/cases.py`.
MODULES = {path.parent.name if path.stem == "__init__" else path.stem for path in PACKAGE.rglob("*.py")}


def mirrors(name: str) -> bool:
    """Return whether a test file is named after a module, or after a module and a topic."""
    return any(name == module or name.startswith(f"{module}_") for module in MODULES)


def imported(path: Path) -> set[str]:
    """Return the first parts of all module names that a file imports."""
    return set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_unit_tests_mirror_the_package() -> None:
    names = {path.stem.removeprefix("test_") for path in TESTS.glob("unit/*.py")}
    assert {name for name in names if not mirrors(name)} == set()


def test_no_test_imports_a_test() -> None:
    """No test or helper imports a test or a conftest."""
    tests = {path.stem for path in TESTS.rglob("*.py") if path.stem.startswith("test_")}
    folders = {path.name for path in TESTS.iterdir() if path.is_dir()} - {"support"}
    borrowed = {name for path in TESTS.rglob("*.py") for name in imported(path)} & (tests | folders | {"conftest"})
    assert borrowed - {"tools"} == set()


def test_names_of_test_files_are_unique() -> None:
    """pytest identifies them by their last part."""
    names = [path.stem for path in TESTS.rglob("test_*.py")]
    assert len(names) == len(set(names))

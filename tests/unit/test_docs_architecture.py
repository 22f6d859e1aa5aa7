"""The page on where things happen names every module, and no other."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "funasr_cli"
NAMED = set(re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "docs/architecture.md").read_text(encoding="utf-8")))
FOLDERS = ("checkpoints/layouts/",)


def has_code(module: Path) -> bool:
    """Whether there is more in it than a docstring."""
    return len(ast.parse(module.read_text(encoding="utf-8")).body) > 1


def test_every_module_is_named() -> None:
    """One by one, or by the folder of many of a kind."""
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if has_code(path)}
    assert "pipeline.py" in modules
    assert {module for module in modules - NAMED if not module.startswith(FOLDERS)} == set()
    assert set(FOLDERS) <= NAMED


def test_what_is_named_is_there() -> None:
    assert {name for name in NAMED if not (PACKAGE / name).exists() and not (ROOT / name).exists()} == set()

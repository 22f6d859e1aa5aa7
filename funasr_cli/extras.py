"""The optional extras of this package: which ones are missing, and how to add them."""

import importlib.metadata
import importlib.util
import re
import shlex
import sys
from pathlib import Path

DISTRIBUTION = "funasr-cli"
EXTRAS = {  # the extra that installs each package
    "torch": "convert",
    "sentencepiece": "convert",
    "modelscope_hub": "modelscope",
    "starlette": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "msgspec": "serve",
    "sklearn": "speakers",
    "umap": "speakers",
}
PAGE = "docs/install.md#optional-features"


def missing(*packages: str) -> tuple[str, ...]:
    """Return the extras that install those packages which are not installed."""
    absent = (package for package in packages if importlib.util.find_spec(package) is None)
    return tuple(dict.fromkeys(EXTRAS[package] for package in absent))


def named(*extras: str) -> str:
    """Name extras, and the page that explains how to add them."""
    them = f"the extra {extras[0]}" if len(extras) == 1 else f"the extras {' and '.join(extras)}"
    return f"{them}: see {PAGE}"


def to_add(*extras: str) -> str:
    """Return a hint that names extras to add, with a command that suits how this program was installed."""
    packages = requirements(*extras)
    command = f", or run {shlex.join([*_installer(), *packages])}" if packages else ""
    return f"install {named(*extras)}{command}"


def requirements(*extras: str) -> list[str]:
    """Return the packages of extras, such as ``torch>=2.4``. It is empty if this program has no metadata."""
    try:
        stated = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
        return []
    found = (re.fullmatch(r"([^;]+);\s*extra\s*==\s*['\"]([\w-]+)['\"]", line) for line in stated)
    return [each[1].strip() for each in found if each and each[2] in extras]


def _installer() -> list[str]:
    """Return the command that installs packages into the environment that this program runs in."""
    if (Path(sys.prefix) / "pipx_metadata.json").exists():
        return ["pipx", "inject", DISTRIBUTION]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install"]
    return ["uv", "pip", "install", "--python", sys.executable]  # environments of uv have no pip

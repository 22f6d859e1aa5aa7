"""``funasr info``."""

import difflib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from funasr_cli import __version__
from funasr_cli.cli import console
from funasr_cli.cli.models import known_models
from funasr_cli.cli.settings import CONFIG_VARIABLE, config_file, read_settings

OWN_VARIABLES = (CONFIG_VARIABLE, "FUNASR_HOME", "FUNASR_BLAS", "FUNASR_TRACEBACK")  # those of no option
PACKAGES = ("mlx", "numpy", "soxr", "soundfile", "tokenizers", "huggingface_hub", "torch", "av")


def info(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show versions, the device, models found and settings in force: what a bug report needs."""
    facts = gather()
    if as_json:
        console.result(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            console.result(f"{name:<{width}}  {_shown(value)}\n")
    for name, near in _unread_variables(context.find_root().command):
        console.warn(f"nothing reads {name}" + (f"; did you mean {near}?" if near else ""))
    if other := _other_funasr():
        console.warn(f"another funasr comes first on PATH: {other}; call ours as funasr-cli")


def gather() -> dict[str, Any]:
    """Everything, by name."""
    from funasr_cli.backend import describe, lacks_blas
    from funasr_cli.checkpoints.hub import models_folder
    from funasr_cli.measure import available_bytes

    return {
        "funasr-cli": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "device": describe() + (", which is slow: install OpenBLAS or MKL" if lacks_blas() else ""),
        "memory": f"{available_bytes() / 1e9:.1f} GB at hand",
        "ffmpeg": shutil.which("ffmpeg"),
        "models folder": str(models_folder()),
        "models": [model["name"] for model in known_models()],
        "settings file": str(config_file()) + ("" if config_file().is_file() else " (not there)"),
        "settings": read_settings(config_file()),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("FUNASR_")},
    }


def _unread_variables(group: Any) -> Iterator[tuple[str, str | None]]:
    """Variables that look like ours but set nothing, with what may have been meant."""
    options = {parameter.envvar for command in group.commands.values() for parameter in command.params}
    known = [*OWN_VARIABLES, *sorted(filter(None, options))]
    for name in sorted(os.environ):
        if name.startswith("FUNASR_") and name not in known:
            yield name, next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)


def _other_funasr() -> str | None:
    """A command of that name which the shell would run instead of ours: the PyPI package funasr installs one."""
    found = shutil.which("funasr")
    ours = Path(sys.executable).parent
    if found and Path(found).absolute().parent != ours and (ours / "funasr").exists():
        return found
    if _version("funasr"):
        return f"the package funasr {_version('funasr')} in the same environment"
    return None

"""``funasr info`` and ``funasr models``: versions, device, settings, models."""

import difflib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Annotated, Any

import typer

from funasr_cli import __version__
from funasr_cli.cli import console
from funasr_cli.cli.convert import ON_MODELSCOPE, has_ctc_on_modelscope
from funasr_cli.cli.settings import CONFIG_VARIABLE, Setting, command_settings, config_file, settings_in_force
from funasr_cli.errors import FunASRError, ModelError
from funasr_cli.paths import REFERENCE_PYTHON

# Those of no option.
OWN_VARIABLES = (
    CONFIG_VARIABLE, "FUNASR_HOME", "FUNASR_BLAS", "FUNASR_NATIVE", "FUNASR_TRACEBACK", REFERENCE_PYTHON
)  # fmt: skip
PACKAGES = ("mlx", "numpy", "soxr", "soundfile", "tokenizers", "sentencepiece", "huggingface_hub", "torch", "av")


def info(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show versions, device, models and settings."""
    group: Any = context.find_root().command
    facts, problems = gather(group)
    settings = facts["settings"]
    if as_json:
        facts |= {"settings": [setting._asdict() for setting in settings], "problems": problems}
        console.result(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    else:
        facts["settings"] = [_in_words(setting, group) for setting in settings]
        abilities = facts["capabilities"].items()
        facts["capabilities"] = [f"{name}: {', '.join(able)}" for name, able in abilities]
        width = max(map(len, facts))
        for name, value in facts.items():
            console.result(f"{name:<{width}}  {_shown(value, width + 2)}\n")
    for problem in problems:
        console.warn(problem)
    if other := _other_funasr():
        console.warn(f"{other}; call ours as funasr-cli")


def gather(group: Any) -> tuple[dict[str, Any], list[str]]:
    """Find everything, by name, as far as it can be known; and what keeps the rest from it."""
    from funasr_cli.hubs.find import models_folder

    problems: list[str] = []
    facts: dict[str, Any] = {
        "funasr-cli": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        **dict.fromkeys(("device", "blas", "native engine", "memory", "models folder")),
        "models": [],
        "capabilities": {},
        "settings file": None,
        "environment": {name: os.environ[name] for name in OWN_VARIABLES if name in os.environ},
        "settings": settings_in_force(group, {}),
    }
    for gather_some in (
        _computing,
        lambda: {"models folder": str(models_folder()), **_models()},
        lambda: {"settings file": f"{config_file()}{'' if config_file().exists() else ' (not there)'}"},
        lambda: {"settings": settings_in_force(group, command_settings(group))},
    ):
        try:
            facts |= gather_some()
        except FunASRError as error:  # this is what one looks for here
            problems.append("; ".join(filter(None, (error.message, error.hint))))
    return facts, list(dict.fromkeys(problems))


def _models() -> dict[str, Any]:
    rows = known_models()
    abilities = {row["name"]: row["capabilities"] for row in rows if "problem" not in row}
    return {"models": [row["name"] for row in rows], "capabilities": abilities}


def _computing() -> dict[str, Any]:
    from funasr_cli.compute.backend import BLAS
    from funasr_cli.compute.device import gflops_a_core, in_words, slowness
    from funasr_cli.compute.memory import available_bytes, total_bytes

    gflops = gflops_a_core()
    return {
        "device": in_words(gflops),
        "native engine": _native_engine(),
        "blas": (BLAS or "MLX's own") + (", which is slow" if slowness(gflops) else ""),
        "memory": f"{available_bytes() / 1e9:.1f} of {total_bytes() / 1e9:.1f} GB at hand",
    }


def _native_engine() -> str:
    """Name the instruction sets of the native engine, the fastest first, or what keeps it from being used."""
    from funasr_cli.native.library import instruction_sets, library, why_missing

    loaded = library()
    return ", ".join(instruction_sets(loaded)) if loaded else f"not available: {why_missing()}"


def warn_of_unread_variables(group: Any) -> None:
    """Name variables that look like ours but set nothing, with what may have been meant."""
    options = {parameter.envvar for command in group.commands.values() for parameter in command.params}
    known = [*OWN_VARIABLES, *sorted(filter(None, options))]
    for name in sorted(os.environ):
        if name.startswith("FUNASR_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            console.warn(f"nothing reads {name}" + (f"; did you mean {near[0]}?" if near else ""))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _in_words(setting: Setting, group: Any) -> str:
    """Write "lang = zh (FUNASR_LANG)", with its commands, unless that is all that have the option."""
    having = {
        name
        for name, command in group.commands.items()
        if any(f"--{setting.option}" in parameter.opts for parameter in command.params)
    }
    where = "" if having == set(setting.commands) else f"{', '.join(setting.commands)}: "
    return f"{where}{setting.option} = {setting.value} ({setting.origin})"


def _shown(value: Any, indent: int) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return f"\n{' ' * indent}".join(value) or "none"
    return "none" if value is None else str(value)


def _other_funasr() -> str | None:
    """Find a command of that name which may be run instead of ours: the PyPI package funasr installs one."""
    if version := _version("funasr"):
        return f"the package funasr {version} in the same environment has a command of that name, too"
    folders = Path(sys.argv[0]).resolve().parent, sysconfig.get_path("scripts")
    ours = {os.path.realpath(os.path.join(folder, "funasr")) for folder in folders}
    found = shutil.which("funasr")
    if found and os.path.realpath(found) not in ours:  # a link to ours is what pipx and uv install
        return f"another funasr comes first on PATH: {found}"
    return None


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything known as JSON.")] = False,
) -> None:
    """List converted models and where they are."""
    from funasr_cli.hubs.find import models_folder

    rows = known_models()
    if as_json:
        console.result(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    for row in rows:
        console.result(f"{row['name']}\n  {row['folder']}\n  {_facts(row)}\n")
    if len(rows) == 1:
        console.note(f"none but the demo yet in {models_folder()}; try --model demo, or: funasr convert nano")


def known_models() -> list[dict[str, Any]]:
    """Name, folder and facts of every model that ``--model`` can name; the bundled one comes last."""
    from funasr_cli import demo
    from funasr_cli.hubs.find import DEMO, converted_models

    found = converted_models()
    found.setdefault(DEMO, demo.MODEL)
    return [_describe(name, folder) for name, folder in found.items()]


def _describe(name: str, folder: Path) -> dict[str, Any]:
    from funasr_cli.checkpoints.format import WEIGHTS_FILE
    from funasr_cli.families.converted import read_config
    from funasr_cli.families.registry import capabilities

    row: dict[str, Any] = {"name": name, "folder": str(folder)}
    try:
        file = read_config(folder)
        size = (folder / WEIGHTS_FILE).stat().st_size
    except (ModelError, OSError) as error:
        return row | {"problem": str(error)}
    able = capabilities(file.config)
    return row | {
        "bytes": size,
        "dtype": file.dtype,
        "quantized_bits": file.quantization.usual.bits if file.quantization else None,
        "languages": list(able.languages),
        "capabilities": list(able.names()),
        "ctc": able.alignment,
        "ctc_on_modelscope": not able.word_times and has_ctc_on_modelscope(file.source),
        "source": file.source.get("source"),
        "revision": file.source.get("revision"),
    }


def _facts(row: dict[str, Any]) -> str:
    if "problem" in row:
        return f"unusable: {row['problem']}"
    weights = f"{row['quantized_bits']}-bit" if row["quantized_bits"] else row["dtype"]
    languages = row["languages"]
    spoken = ", ".join(languages) if len(languages) < 6 else f"{len(languages)} languages"
    timed = "with word times" if "word times" in row["capabilities"] else "without word times"
    abilities = f"\n  it can do: {', '.join(row['capabilities'])}"
    elsewhere = f"\n  {ON_MODELSCOPE}" if row["ctc_on_modelscope"] else ""
    return f"{row['bytes'] / 1e6:,.0f} MB, {weights}, {spoken}, {timed}{abilities}{elsewhere}"

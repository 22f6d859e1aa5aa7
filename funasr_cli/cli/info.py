"""``funasr info`` and ``funasr models``: versions, device, settings, models."""

import difflib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from funasr_cli import __version__
from funasr_cli.cli import console
from funasr_cli.cli.convert import FETCHES_CTC
from funasr_cli.cli.serve import KEY_VARIABLE
from funasr_cli.cli.settings import CONFIG_VARIABLE, Setting, command_settings, config_file, settings_in_force
from funasr_cli.errors import FunASRError, ModelError
from funasr_cli.languages import LANGUAGES, listed
from funasr_cli.options import INT8
from funasr_cli.paths import REFERENCE_PYTHON

if TYPE_CHECKING:
    from funasr_cli.families.kept import Kept

COMPARED = "compared with float32"  # the fact about what the native engine rounds, by model
# Variables that belong to no option.
OWN_VARIABLES = (
    CONFIG_VARIABLE, "FUNASR_HOME", "FUNASR_OFFLINE", "FUNASR_BLAS", "FUNASR_NATIVE", "FUNASR_TRACEBACK",
    REFERENCE_PYTHON,
)  # fmt: skip
SECRETS = (KEY_VARIABLE,)  # never shown
# Variables of the hubs' clients. Tokens are left out, since the report is meant to be passed on.
HUB_VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "MODELSCOPE_CACHE",
    "MODELSCOPE_ENDPOINT",
)
NO_SETTINGS = "none; every option has its default value"
FACT_COLUMNS = 14  # width of the labels in the list of models
SUPPORTS = {  # words for capabilities in lists; empty for those that matter only inside the program
    "ITN switch": "numbers as digits or as words", "digits": "numbers as digits",
    "partial text": "live text (--stream)", "alignment": "word times for other models (--align-with)",
    "drafts": "drafts", "language found": "language detection", "tags": "emotion and sounds (--tags)",
    "ITN punctuation": "punctuation (not with --no-itn)",
    **dict.fromkeys(("prompt", "word times", "CTC text", "second opinion"), ""),
}  # fmt: skip
WORKS = {  # of models that are no speech models, by kind
    "punctuation": "punctuation for models that write none (--punctuation)",
    "speakers": "telling speakers apart (--speakers)",
    "text": "translating transcripts (--translator), and text from text (from Python)",
}
PACKAGES = ("mlx", "numpy", "soxr", "soundfile", "tokenizers", "sentencepiece", "huggingface_hub", "torch", "av")


def info(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the information as JSON.")] = False,
) -> None:
    """Show versions, device, models and settings, for example for a bug report."""
    group: Any = context.find_root().command
    facts, problems = gather(group)
    settings = facts["settings"]
    if as_json:
        facts |= {"settings": [setting._asdict() for setting in settings], "problems": problems}
        console.result(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    else:
        facts["settings"] = [_in_words(setting, group) for setting in settings] or NO_SETTINGS
        facts[COMPARED] = [f"{name}: {kept}" for name, kept in facts[COMPARED].items()]
        abilities = facts["capabilities"].items()
        facts["capabilities"] = [f"{name}: {', '.join(_supports(able))}" for name, able in abilities]
        width = max(map(len, facts))
        for name, value in facts.items():
            console.result(f"{name:<{width}}  {_shown(value, width + 2)}\n")
    for problem in problems:
        console.warn(problem)
    if other := _other_funasr():
        console.warn(f"{other}; run this program as funasr-cli")


def gather(group: Any) -> tuple[dict[str, Any], list[str]]:
    """Return all facts that can be found, by name, and the problems with the others."""
    problems: list[str] = []
    facts: dict[str, Any] = {
        "funasr-cli": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        **dict.fromkeys(("device", "blas", "native engine", "memory", "models folder")),
        "models": [],
        "capabilities": {},
        COMPARED: {},
        "settings file": None,
        "environment": {name: os.environ[name] for name in OWN_VARIABLES + HUB_VARIABLES if name in os.environ},
        "settings": settings_in_force(group, {}),
    }
    for gather_some in (
        _computing,
        _models,
        _kept,
        lambda: {"settings file": f"{config_file()}{'' if config_file().exists() else ' (does not exist)'}"},
        lambda: {"settings": settings_in_force(group, command_settings(group))},
    ):
        try:
            facts |= gather_some()
        except FunASRError as error:  # reporting such problems is the purpose of this command
            problems.append("; ".join(filter(None, (error.message, error.hint))))
    return facts, list(dict.fromkeys(problems))


def _models() -> dict[str, Any]:
    from funasr_cli.hubs.find import models_folder

    rows = known_models()
    abilities = {row["name"]: row["capabilities"] for row in rows if "problem" not in row}
    return {
        "models folder": str(models_folder()),
        "models": [row["name"] for row in rows],
        "capabilities": abilities,
    }


def _kept() -> dict[str, Any]:
    """Describe what the native engine keeps about each model that it can compute."""
    from funasr_cli.families import registry
    from funasr_cli.families.kept import Kept
    from funasr_cli.families.native import native_parts, rounding
    from funasr_cli.families.open import open_model

    found = {}
    for row in known_models():
        folder = Path(row["folder"])
        with suppress(FunASRError):  # a problem is listed elsewhere, or the engine cannot compute it here
            checkpoint = open_model(folder)
            family = registry.of_config(checkpoint.config)
            native_parts(checkpoint, family, INT8)
            found[row["name"]] = (
                f"{rounding(family)}: {_kept_in_words(Kept.about(checkpoint, folder), family.compared)}"
            )
    return {COMPARED: found}


def _kept_in_words(kept: "Kept", compared: str) -> str:
    proof, packed = kept.proof(), kept.packed_file()
    if proof is None:
        words = "not yet compared with float32"
    elif proof.holds:
        words = f"the same texts as in float32 on {len(proof.clips)} {compared}"
    else:
        words = f"other texts than in float32 on {len(proof.differing)} of {len(proof.clips)} {compared}"
    return words + (f"; {packed.stat().st_size / 1e6:,.0f} MB of packed weights: {packed}" if packed else "")


def _computing() -> dict[str, Any]:
    from funasr_cli.compute.backend import BLAS
    from funasr_cli.compute.device import gflops_a_core, in_words, slowness
    from funasr_cli.compute.memory import available_bytes, total_bytes

    gflops = gflops_a_core()
    return {
        "device": in_words(gflops),
        "native engine": _native_engine(),
        "blas": (BLAS or "MLX's own") + (", which is slow" if slowness(gflops) else ""),
        "memory": f"{available_bytes() / 1e9:.1f} of {total_bytes() / 1e9:.1f} GB available",
    }


def _native_engine() -> str:
    """Name the instruction sets of the native engine, the fastest first, or what keeps it from being used."""
    from funasr_cli.native.library import instruction_sets, library, why_missing

    loaded = library()
    return ", ".join(instruction_sets(loaded)) if loaded else f"not available: {why_missing()}"


def warn_of_unread_variables(group: Any) -> None:
    """Warn of variables with our prefix that set nothing, and suggest the right name."""
    options = {parameter.envvar for command in group.commands.values() for parameter in command.params}
    known = [*OWN_VARIABLES, *sorted(filter(None, options))]
    for name in sorted(os.environ):
        if name.startswith("FUNASR_") and name not in (*known, *SECRETS):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            console.warn(f"unknown variable {name} is ignored" + (f"; did you mean {near[0]}?" if near else ""))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _in_words(setting: Setting, group: Any) -> str:
    """Return "lang = zh (FUNASR_LANG)", preceded by the commands if other commands have the option as well."""
    with_option = {
        name
        for name, command in group.commands.items()
        if any(f"--{setting.option}" in parameter.opts for parameter in command.params)
    }
    where = "" if with_option == set(setting.commands) else f"{', '.join(setting.commands)}: "
    return f"{where}{setting.option} = {setting.value} ({setting.origin})"


def _shown(value: Any, indent: int) -> str:
    """Write a value on one or more lines; a terminal breaks them between words."""
    if isinstance(value, dict):
        value = [", ".join(f"{name} {item}" for name, item in value.items())]
    lines = value if isinstance(value, list) else [] if value is None else [str(value)]
    if columns := console.stdout_columns():
        lines = [piece for line in lines for piece in console.wrapped(line, columns - indent).split("\n")]
    return f"\n{' ' * indent}".join(lines) or "none"


def _other_funasr() -> str | None:
    """Find another command named funasr that may run instead of ours, such as that of the PyPI package funasr."""
    if version := _version("funasr"):
        return f"the package funasr {version} in this environment also installs a command named funasr"
    folders = Path(sys.argv[0]).resolve().parent, sysconfig.get_path("scripts")
    ours = {os.path.realpath(os.path.join(folder, "funasr")) for folder in folders}
    found = shutil.which("funasr")
    if found and os.path.realpath(found) not in ours:  # pipx and uv install a link to ours
        return f"another funasr is first on PATH: {found}"
    return None


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the models on this machine and what each one supports.

    Use a name from the list with: funasr transcribe --model NAME recording.m4a
    """
    from funasr_cli.hubs.find import models_folder

    rows = known_models()
    if as_json:
        console.result(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    columns = console.stdout_columns()
    for row in rows:
        console.result("".join(f"{line}\n" for line in (row["name"], *_lines(_facts(row), columns))))
    if len(rows) == 1:
        hint = f"funasr transcribe recording.m4a offers to fetch another into {models_folder()}"
        console.note(f"only the demo model is on this machine; {hint}")


def _lines(facts: dict[str, str], columns: int | None) -> Iterator[str]:
    """Yield indented lines with labels; long values are broken to fit a terminal of this width."""
    for name, value in facts.items():
        pieces = console.wrapped(value, columns - FACT_COLUMNS).split("\n") if columns else [value]
        for number, piece in enumerate(pieces):
            label = "" if number else f"  {name}:"
            yield f"{label:<{FACT_COLUMNS}}{piece}"


def known_models() -> list[dict[str, Any]]:
    """Return name, folder and facts of every model that ``--model`` can name. The demo model comes last."""
    from funasr_cli import demo
    from funasr_cli.hubs.find import DEMO, converted_models

    found = converted_models()
    found.setdefault(DEMO, demo.MODEL)
    return [_describe(name, folder) for name, folder in found.items()]


def _describe(name: str, folder: Path) -> dict[str, Any]:
    from funasr_cli.checkpoints.format import WEIGHTS_FILE
    from funasr_cli.families.converted import read_config
    from funasr_cli.families.family import SPEECH
    from funasr_cli.families.registry import capabilities, of_config
    from funasr_cli.hubs.find import ctc_copy

    row: dict[str, Any] = {"name": name, "folder": str(folder)}
    try:
        file = read_config(folder)
        size = (folder / WEIGHTS_FILE).stat().st_size
    except (ModelError, OSError) as error:
        return row | {"problem": str(error)}
    able, family = capabilities(file.config), of_config(file.config)
    return row | {
        "family": family.title,
        "kind": family.kind,
        "model_type": family.model_type,
        "bytes": size,
        "dtype": file.dtype,
        "quantized_bits": file.quantization.usual.bits if file.quantization else None,
        "languages": list(able.languages),
        "capabilities": list(able.names()) if family.kind == SPEECH else [WORKS[family.kind]],
        "ctc": able.alignment,
        "ctc_on_modelscope": family.kind == SPEECH and not able.word_times and ctc_copy(file.source) is not None,
        "source": file.source.get("source"),
        "revision": file.source.get("revision"),
    }


def _supports(capabilities: Iterable[str]) -> list[str]:
    """Return the capabilities that matter to a user, in words."""
    return [words for name in capabilities if (words := SUPPORTS.get(name, name))]


def _facts(row: dict[str, Any]) -> dict[str, str]:
    """Return what the list shows of a model, by label."""
    from funasr_cli.families.converted import read_config
    from funasr_cli.families.family import SPEECH
    from funasr_cli.hubs.find import ctc_copy

    if "problem" in row:
        return {"unusable": row["problem"], "folder": row["folder"]}
    weights = f"{row['quantized_bits']}-bit" if row["quantized_bits"] else row["dtype"]
    times = "yes" if "word times" in row["capabilities"] else "no"
    copy = ctc_copy(read_config(Path(row["folder"])).source) if row["ctc_on_modelscope"] else None
    languages = [LANGUAGES[code].english_name for code in row["languages"]]
    always = {
        "family": f"{row['family']} ({row['bytes'] / 1e6:,.0f} MB, {weights})",
        **({"languages": listed(languages)} if languages else {}),
    }
    if row["kind"] != SPEECH:
        return always | {"supports": ", ".join(row["capabilities"]), "folder": row["folder"]}
    return always | {
        "word times": times + (f"; {copy} {FETCHES_CTC}" if copy else ""),
        "supports": ", ".join(_supports(row["capabilities"])) or "only plain transcription",
        "folder": row["folder"],
    }

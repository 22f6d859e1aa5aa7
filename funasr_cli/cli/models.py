"""``funasr models``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from funasr_cli.cli import console
from funasr_cli.cli.conversion_report import ON_MODELSCOPE, has_ctc_on_modelscope
from funasr_cli.errors import ModelError


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything known as JSON.")] = False,
) -> None:
    """List converted models and where they are."""
    from funasr_cli.checkpoints.hub import models_folder

    rows = known_models()
    if as_json:
        console.result(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    for row in rows:
        console.result(f"{row['name']}\n  {row['folder']}\n  {_facts(row)}\n")
    if len(rows) == 1:
        console.note(f"none converted yet in {models_folder()}; try --model demo, or: funasr convert nano")


def known_models() -> list[dict[str, Any]]:
    """Name, folder and facts of every model that ``--model`` can name; the bundled one comes last."""
    from funasr_cli import demo
    from funasr_cli.checkpoints.hub import DEMO, converted_models

    found = converted_models()
    bundled = {} if DEMO in found else {DEMO: demo.MODEL}
    return [_describe(name, folder) for name, folder in {**found, **bundled}.items()]


def _describe(name: str, folder: Path) -> dict[str, Any]:
    from funasr_cli.checkpoints.format import WEIGHTS_FILE, read_config

    row: dict[str, Any] = {"name": name, "folder": str(folder)}
    try:
        file = read_config(folder)
        size = (folder / WEIGHTS_FILE).stat().st_size
    except (ModelError, OSError) as error:
        return row | {"problem": str(error)}
    return row | {
        "bytes": size,
        "dtype": file.dtype,
        "quantized_bits": file.quantization.usual.bits if file.quantization else None,
        "languages": list(file.config.prompt.languages),
        "ctc": file.config.ctc is not None,
        "ctc_on_modelscope": file.config.ctc is None and has_ctc_on_modelscope(file.source),
        "source": file.source.get("source"),
        "revision": file.source.get("revision"),
    }


def _facts(row: dict[str, Any]) -> str:
    if "problem" in row:
        return f"unusable: {row['problem']}"
    weights = f"{row['quantized_bits']}-bit" if row["quantized_bits"] else row["dtype"]
    languages = row["languages"]
    spoken = ", ".join(languages) if len(languages) < 6 else f"{len(languages)} languages"
    branch = "with CTC branch and word times" if row["ctc"] else "without CTC branch and word times"
    elsewhere = f"\n  {ON_MODELSCOPE}" if row["ctc_on_modelscope"] else ""
    return f"{row['bytes'] / 1e6:,.0f} MB, {weights}, {spoken}, {branch}{elsewhere}"

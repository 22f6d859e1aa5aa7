"""Which layout a folder is in, and its reader; the rules of each layout, as tables for people."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CONFIG_FILE, FORMAT, WEIGHTS_FILE, open_converted
from funasr_cli.checkpoints.untrusted import file_in, quoted, read_json
from funasr_cli.errors import ModelError
from funasr_cli.families.fun_asr_nano import layout_funasr as funasr
from funasr_cli.families.fun_asr_nano import layout_mlx_audio as mlx_audio
from funasr_cli.families.fun_asr_nano import layout_transformers as transformers
from funasr_cli.families.fun_asr_nano.config import MODEL_TYPE
from funasr_cli.families.fun_asr_nano.layout_funasr import UPSTREAM_CONFIG, UPSTREAM_WEIGHTS
from funasr_cli.languages import MLT_LANGUAGES, NANO_LANGUAGES

ADAPTER = "adapter_config.json"  # of a folder that PEFT has written
KNOWN = "funasr convert --explain lists the layouts that are known"
RULES = {
    funasr.LAYOUT: keymap.FUNASR,
    transformers.LAYOUT: keymap.TRANSFORMERS,
    f"{mlx_audio.LAYOUT} and {FORMAT}": keymap.OURS,
}


def open_checkpoint(folder: Path, name: str) -> Checkpoint:
    """Open a checkpoint in any layout.

    Which languages it can write, its hub id or folder's name tells: that stands in no file but a converted one.

    Raises:
        ModelError: it is in no known layout, of another model, incomplete, damaged or hostile.
        SetupError: torch is needed and not installed.
    """
    has_config = (folder / CONFIG_FILE).exists()
    # With both, safetensors go before the pickle, as in what the hubs' files are chosen by.
    is_safe = has_config and any((folder / file).exists() for file in (WEIGHTS_FILE, transformers.INDEX_FILE))
    if not is_safe and any((folder / file).exists() for file in (UPSTREAM_WEIGHTS, UPSTREAM_CONFIG)):
        return funasr.open_funasr(folder, languages_of(name))
    if not has_config:
        if (folder / ADAPTER).exists():
            raise keymap.lora_unmerged(str(folder / ADAPTER), "a model is not beside them")
        raise ModelError(f"{folder}: no checkpoint in a layout that is known", KNOWN, code="model-unsupported")
    if _is_transformers(_config(folder)):
        return transformers.open_transformers(folder, languages_of(name))
    return open_model(folder, name)


def open_model(folder: Path, name: str | None = None) -> Checkpoint:
    """Open a model that can be computed with as it lies there: converted by us or by mlx-audio.

    What it is called counts where its files do not say; None takes the folder's name.

    Raises:
        ModelError: it is something else, incomplete or damaged.
    """
    content = _config(folder)
    if content.get("format") == FORMAT:
        return open_converted(folder)
    if _is_transformers(content):
        hint = f"run: funasr convert {folder}"
        raise ModelError(f"{folder}: has to be converted first", hint, code="model-unconverted")
    # A snapshot in Hugging Face's cache: models--OWNER--NAME/snapshots/COMMIT. Of a folder, whatever it was,
    # mlx-audio writes Nano's id into model_repo.
    called = name or (folder.parents[1] if folder.parent.name == "snapshots" else folder).name
    return mlx_audio.open_mlx_audio(folder, languages_of(f"{content.get('model_repo')} {called}"))


def is_model(folder: Path) -> bool:
    """Whether a folder is in a layout that `open_model` reads: ours, or that of mlx-audio."""
    with suppress(ModelError):
        content = _config(folder)
        is_ours = content.get("format") == FORMAT
        can_be_loaded = is_ours or (not _is_transformers(content) and bool(mlx_audio.decoder_of(content)))
        return can_be_loaded and (folder / WEIGHTS_FILE).is_file()
    return False


def _is_transformers(content: dict[str, Any]) -> bool:
    return "audio_config" in content


def _config(folder: Path) -> dict[str, Any]:
    path = file_in(folder, CONFIG_FILE, "this is no model that can be loaded")
    content = read_json(path)
    if content.get("model_type") != MODEL_TYPE:
        message = f"{path}: the model is {quoted(content.get('model_type'))}, not {MODEL_TYPE}"
        raise ModelError(message, KNOWN, code="model-unsupported")
    return content


def languages_of(name: str) -> tuple[str, ...]:
    """ISO codes, by the name of a checkpoint."""
    return MLT_LANGUAGES if "mlt" in name.casefold() else NANO_LANGUAGES


def is_converted(folder: Path) -> bool:
    """Whether its ``config.json`` is ours; one that cannot be read is not."""
    try:
        return bool(read_json(folder / CONFIG_FILE).get("format") == FORMAT)
    except ModelError:
        return False


def explain() -> str:
    """Markdown for ``convert --explain``: a table for each layout, and what the braces in them stand for."""
    tables = [
        f"### Layout: {layout}\n\n| there | here | how |\n|---|---|---|\n"
        + "".join(f"| `{rule.theirs}` | `{rule.here}` | {rule.how} |\n" for rule in rules)
        for layout, rules in RULES.items()
    ]
    words = "".join(f"- `{{{name}}}`: {said}\n" for name, (_, said) in keymap.PLACEHOLDERS.items())
    return "\n".join([*tables, f"In them:\n\n{words}"])

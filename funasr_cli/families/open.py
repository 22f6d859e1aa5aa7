"""Detecting a folder's layout and family, opening it, and printing the rules of each layout as tables."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints import adapters, funasr, keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CONFIG_FILE, FORMAT, INDEX_FILE, WEIGHTS_FILE
from funasr_cli.checkpoints.untrusted import file_in, quoted, read_json
from funasr_cli.checkpoints.values import Options, stated_in
from funasr_cli.errors import ModelError
from funasr_cli.families import registry
from funasr_cli.families.converted import open_converted, read_config
from funasr_cli.families.family import Family, Layout, Sources

LAYOUTS_HINT = "funasr convert --explain NAME shows the layouts of a model, such as whisper-base or nano"
SEVERAL_HINT = "it has several .pt files: move the one to convert alone into another folder, and name that"
CTRANSLATE2 = "model.bin"  # weights of CTranslate2 (faster-whisper), whose config.json has no model_type


def open_checkpoint(
    folder: Path, name: str, adapter: Path | None = None, sources: Sources | None = None
) -> Checkpoint:
    """Open a checkpoint in any layout, and merge a LoRA adapter into it.

    Args:
        folder: where the checkpoint is. If PEFT has written an adapter into it, or into the folder of a part's
            language model, that is merged.
        name: its hub id or its folder's name, which may be the only indication of its languages.
        adapter: the folder of another adapter.
        sources: the parts of a model that is put together from several; None looks for them in the folder.

    Raises:
        ModelError: the layout or the model is unsupported, the checkpoint or the adapter is incomplete, damaged or
            malicious, or they do not fit each other.
        SetupError: torch is needed, but not installed.
    """
    checkpoint = _open(folder, name, sources or Sources(folder))
    # A language model that is a part of the model, whose weights are the last, may be in another folder.
    places = {place.resolve(): place for place in (folder, checkpoint.weights[-1].parent)}.values()
    found = [place for place in places if (place / adapters.CONFIG).exists()]
    for each in (*found, *([adapter] if adapter else [])):
        tied = registry.of_config(checkpoint.config).tied(checkpoint.config)
        checkpoint = adapters.apply(checkpoint, adapters.open_adapter(each), tied)
    return checkpoint


def _open(folder: Path, name: str, sources: Sources) -> Checkpoint:
    assembled = registry.of_sources(sources)
    if assembled and assembled.open_sources:
        return assembled.open_sources(sources)
    has_config = (folder / CONFIG_FILE).exists()
    # Safetensors take precedence over a pickle, as in the choice of files to download.
    is_safe = has_config and any((folder / file).exists() for file in (WEIGHTS_FILE, INDEX_FILE))
    upstream = (funasr.UPSTREAM_WEIGHTS, funasr.UPSTREAM_CONFIG)
    if not is_safe and any((folder / file).exists() for file in upstream):
        path, options = funasr.read_config(folder)
        with stated_in(str(path)):
            open_funasr = registry.of_upstream_class(options.get("model")).open_funasr
        assert open_funasr is not None  # of a family with upstream classes
        return open_funasr(folder, options, name)
    if not has_config:
        if (folder / adapters.CONFIG).exists():
            message = f"{folder / adapters.CONFIG}: a LoRA adapter, without the model that it changes"
            hint = f"name its base model, and the folder with --lora {folder}"
            raise ModelError(message, hint, code="lora-unmerged")
        named = [each for each in registry.other_weights() if (folder / each).is_file()]
        pickles = [each for each in named if each.endswith(".bin")] or sorted(
            path.name for path in folder.glob("*.pt")
        )
        if len(pickles) == 1 and (reader := registry.of_pickle(pickles[0]).open_pickle):
            return reader(file_in(folder, pickles[0]), name)
        hint = SEVERAL_HINT if len(pickles) > 1 else LAYOUTS_HINT
        raise ModelError(f"{folder}: no checkpoint in a supported layout", hint, code="model-unsupported")
    family, content = _config(folder)
    if content.get("format") == FORMAT:
        return open_converted(folder)
    return _layout(family, folder, content).open(folder, name)


def open_model(folder: Path) -> Checkpoint:
    """Open a model that MLX can run, converted by us or, in some families, by other tools.

    Raises:
        ModelError: the folder is not such a model, incomplete or damaged.
    """
    family, content = _config(folder)
    hint = f"run: funasr convert {folder}"
    if (folder / adapters.CONFIG).exists():
        raise ModelError(f"{folder}: its adapter must be merged first", hint, code="model-unconverted")
    if content.get("format") == FORMAT:
        return open_converted(folder)
    layout = _layout(family, folder, content)
    if not layout.is_ready:
        raise ModelError(f"{folder}: this model must be converted first", hint, code="model-unconverted")
    # A snapshot in Hugging Face's cache: models--OWNER--NAME/snapshots/COMMIT.
    return layout.open(folder, (folder.parents[1] if folder.parent.name == "snapshots" else folder).name)


def capabilities(folder: Path) -> Capabilities:
    """Return the capabilities of a model that `open_model` reads, from its configuration, without loading it."""
    if is_converted(folder):
        return registry.capabilities(read_config(folder).config)
    return registry.capabilities(open_model(folder).config)


def is_model(folder: Path) -> bool:
    """Return whether a folder is in a layout that `open_model` reads."""
    with suppress(ModelError):
        family, content = _config(folder)
        if content.get("format") == FORMAT:
            return (folder / WEIGHTS_FILE).is_file()
        layout = _layout(family, folder, content)
        return layout.is_ready and any((folder / name).is_file() for name in layout.weights)
    return False


def _config(folder: Path) -> tuple[Family, Options]:
    path = file_in(folder, CONFIG_FILE, "this is not a model that can be loaded")
    content = read_json(path)
    family = registry.of_model_type(content.get("model_type"))
    if family is None and content.get("model_type") is None:
        if (folder / CTRANSLATE2).exists():
            message = f"{folder}: the layout of CTranslate2 (faster-whisper) is not supported"
            hint = "convert the model that it was made from, such as: funasr convert whisper-base"
            raise ModelError(message, hint, code="model-unsupported")
        raise ModelError(f"{path}: does not state a model_type", LAYOUTS_HINT, code="model-unsupported")
    if family is None:
        message = f"{path}: the model is {quoted(content.get('model_type'))}, not {registry.model_types()}"
        raise ModelError(message, LAYOUTS_HINT, code="model-unsupported")
    return family, content


def _layout(family: Family, folder: Path, content: Options) -> Layout:
    """Find the third-party layout of a folder."""
    path = folder / CONFIG_FILE
    with stated_in(str(path)):
        for layout in family.layouts:
            if layout.matches(content):
                return layout
    message = f"{path}: not a model converted by funasr or mlx-audio"
    raise ModelError(message, "run funasr convert on its source", code="model-unsupported")


def is_converted(folder: Path) -> bool:
    """Return whether a folder has our ``config.json``; False if it cannot be read."""
    try:
        return bool(read_json(folder / CONFIG_FILE).get("format") == FORMAT)
    except ModelError:
        return False


def explain(families: Sequence[Family] = registry.FAMILIES) -> str:
    """Write Markdown for ``convert --explain``: short names, a table per layout, and the placeholders in them."""
    tables = [
        f"### {family.title} in the layout of {layout}\n\n| there | here | how |\n|---|---|---|\n"
        + "".join(f"| `{rule.source}` | `{rule.here}` | {rule.how} |\n" for rule in rules)
        for family in families
        for layout, rules in family.rules.items()
    ]
    words = "".join(f"- `{{{name}}}`: {meaning}\n" for name, (_, meaning) in keymap.PLACEHOLDERS.items())
    short = "".join(f"- `{alias}`: {hub_id}\n" for family in families for alias, hub_id in family.aliases.items())
    return "\n".join([f"Short names of hub ids:\n\n{short}", *tables, f"Placeholders:\n\n{words}"])

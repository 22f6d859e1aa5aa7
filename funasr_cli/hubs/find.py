"""Find the folder of a model or checkpoint from a folder, a hub id, a short name or a converted model's name."""

import difflib
import glob
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from funasr_cli import demo
from funasr_cli.checkpoints.format import CONFIG_FILE
from funasr_cli.checkpoints.untrusted import read_json, readable
from funasr_cli.errors import ModelError, UsageError
from funasr_cli.families import registry
from funasr_cli.families.family import PUNCTUATION, SPEAKERS, SPEECH, TEXT, Download
from funasr_cli.families.open import is_model
from funasr_cli.hubs.repository import CheckpointFolder, is_complete
from funasr_cli.options import AUTO_PUNCTUATION, AUTO_SPEAKER_MODEL, DEFAULT_HUB, NO_PUNCTUATION, Hub
from funasr_cli.paths import cache_folder

ALIASES = registry.aliases()  # hub ids by short names
DOWNLOADS = registry.downloads()  # what `funasr transcribe` fetches, by short names or hub ids
DEFAULT_MODEL = ALIASES[registry.DEFAULT_ALIAS]  # the model to use if none is named
DEFAULT_DOWNLOAD = DOWNLOADS[registry.DEFAULT_ALIAS]  # the same model in a layout that needs no torch
DEMO = "demo"
AMBIGUOUS = "more than one model has this name"
DID_YOU_MEAN = "did you mean"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ASIDE_PREFIX = ".funasr-old-"  # a folder that keeps an old model while it is being replaced
DOWNLOADING, VERIFYING = "downloading", "verifying"  # steps that are reported as progress

Progress = Callable[[str, int, int], None]  # called with a step, bytes done and bytes in total


def counter(progress: Progress, doing: str, total: int) -> Callable[[int], None]:
    """Return a function that takes the size of each piece, adds the sizes up, and reports the sum as progress."""
    done = 0

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress(doing, done, total)

    return count


def models_folder() -> Path:
    """Return the folder of converted models."""
    return cache_folder() / "models"


def local_folder(name: str) -> Path | None:
    """Return the folder with this name; None if there is none, or if it cannot be a folder's name."""
    try:
        folder = Path(name).expanduser()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, the home of an unknown user, a null byte
        return None


def local_checkpoint(name: str) -> CheckpointFolder | None:
    """Return a checkpoint on this machine: a folder, else a converted model. None: it must come from a hub.

    Hub ids and short names always mean the hub, even if they have been converted already.

    Raises:
        ModelError: the name is empty or a file's, or several converted models have it.
    """
    if not name:
        raise ModelError("SOURCE is empty", "name a folder or a hub id", code="model-missing")
    if folder := local_folder(name):
        return CheckpointFolder(
            folder, readable(os.fsencode(folder.resolve().name).decode(errors="replace")), None
        )
    if name in ALIASES or HUB_ID.fullmatch(name):
        return None
    if os.path.isfile(name):
        raise _neither(name)
    matches = _matching(name, converted_models())
    if len(matches) > 1:
        folders = ", ".join(map(str, matches.values()))
        raise ModelError(f"{name}: {AMBIGUOUS}", f"name its folder: {folders}", code="model-ambiguous")
    return next((CheckpointFolder(folder, model, None) for model, folder in matches.items()), None)


def fetch_checkpoint(
    name: str, revision: str | None = None, progress: Progress = lambda *_: None, hub: Hub = DEFAULT_HUB
) -> CheckpointFolder:
    """Find a checkpoint on disk, or download it from a hub. Files in the cache of the hub's client are reused.

    Args:
        name: folder, name of a converted model, hub id or short name.
        revision: branch, tag or commit of a hub id; None takes the default branch.
        progress: called as the download proceeds.
        hub: the hub that has the hub id.

    Raises:
        UsageError: a revision was given for a local folder.
        ModelError: neither a folder nor a hub id, the hub does not have it, it is not a checkpoint, or see
            `local_checkpoint`.
        OutputError: the disk is too full.
        SetupError: the checkpoint is not in the cache, and the hub cannot be reached or a variable forbids
            downloads; the download ended early; or the client is missing or rejects the value of a variable.
    """
    local = local_checkpoint(name)
    if local:
        if revision is not None:
            message = f"cannot combine --revision {revision} with the local folder {local.folder}"
            raise UsageError(message, "it applies to a hub id", code="options-conflict")
        return local
    name = ALIASES.get(name, name)
    if (name in registry.modelscope_ids()) == (hub is Hub.MS):  # otherwise it is already the id on this hub
        name = registry.other_hub_id(name) or name
    require_hub_id(name)
    if hub is Hub.HF and name in registry.only_on_modelscope():
        raise ModelError(f"{name}: only on ModelScope", f"add --hub {Hub.MS}", code="model-missing")
    if hub is Hub.MS:
        from funasr_cli.hubs.modelscope import fetch
    else:
        from funasr_cli.hubs.huggingface import fetch
    return fetch(name, revision, partial(progress, DOWNLOADING))


def require_hub_id(name: str) -> None:
    """Raise a ModelError for a name that no model on a hub can have. Nothing is asked of a hub."""
    if name not in ALIASES and (not HUB_ID.fullmatch(name) or os.path.exists(name)):
        raise _neither(name)


def _neither(name: str) -> ModelError:
    """Return the error for a name that is neither a folder's nor a hub id."""
    is_file, is_address = os.path.isfile(name), "://" in name
    if not (is_file or is_address) and _is_path(name):
        return ModelError(f"{name}: no such folder", code="model-missing")
    as_file = f"name the folder of a checkpoint; to transcribe a recording: funasr transcribe {name}"
    if name.endswith(".pt"):
        as_file = "name its folder, which must have no other .pt file"
    hint = as_file if is_file else "a hub id looks like FunAudioLLM/Fun-ASR-Nano-2512"
    return ModelError(f"{name}: neither a folder nor a hub id", hint, code="model-missing")


def _is_path(name: str) -> bool:
    """Return whether a name can only be a path or an address: a hub id has one slash, other names have none."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def offered(name: str | None) -> Download | None:
    """Return what to fetch for a model that is not on this machine; None if the name cannot be on a hub."""
    if name is None:
        return DEFAULT_DOWNLOAD
    if name in DOWNLOADS:
        return DOWNLOADS[name]
    if not HUB_ID.fullmatch(name) or os.path.exists(name):
        return None
    hub_id = name if name in registry.modelscope_ids() else registry.other_hub_id(name) or name
    known = (download for download in DOWNLOADS.values() if download.hub_id == hub_id)
    return next(known, Download(hub_id, hub_id))


def short_name(download: Download) -> str | None:
    """Return the short name of the model that a download contains; None if it has none."""
    ids = {download.hub_id, DOWNLOADS.get(download.hub_id, download).hub_id}
    known = ((alias, hub_id) for alias, hub_id in ALIASES.items() if alias in DOWNLOADS)
    names = (alias for alias, hub_id in known if ids & {hub_id, DOWNLOADS[alias].hub_id})
    return next(names, None)


def ctc_copy(source: Mapping[str, str | None]) -> str | None:
    """Return the command that fetches a copy with a CTC branch, for a model without one; None if there is none.

    Args:
        source: the model's origin, as its config.json states it.
    """
    origins = {source.get("source"), source.get("origin")}
    for alias in registry.ctc_on_modelscope() if source.get("hub") != Hub.MS else ():
        if origins & {ALIASES[alias], DOWNLOADS[alias].hub_id}:
            return f"funasr convert {alias} --hub {Hub.MS}"
    return None


def is_fetched(download: Download) -> bool:
    """Return whether the weights of a download are in the hub's cache."""
    from funasr_cli.hubs.huggingface import cached

    found = cached(download.hub_id)
    return found is not None and is_complete(found.folder)


def require_room(download: Download, packed_bytes: int = 0) -> None:
    """Raise an OutputError if the disk is too full for a download, its conversion and its packed weights."""
    from funasr_cli.hubs import huggingface

    if download.size_bytes and download.converted_bytes:  # otherwise it is checked when the hub states the size
        to_fetch = 0 if is_fetched(download) else download.size_bytes
        huggingface.require_room(download.name, to_fetch, download.converted_bytes + packed_bytes, models_folder())


def hub_of(model: Path) -> Hub | None:
    """Return the hub a converted model was fetched from; None for a local folder, or if there is no such model."""
    try:
        source = read_json(model / CONFIG_FILE).get("source")
        named = source.get("hub") if isinstance(source, dict) else None
        return Hub(named) if named else None
    except (ModelError, ValueError):
        return None


def converted_models() -> dict[str, Path]:
    """Return the models in the models folder: names (``owner/model`` or ``model``) and folders."""
    root = models_folder()
    folders = sorted(path.parent for pattern in ("*", "*/*") for path in root.glob(f"{pattern}/{CONFIG_FILE}"))
    models = {folder.relative_to(root).as_posix(): folder for folder in folders}
    return {name: folder for name, folder in models.items() if "/." not in f"/{name}"}


def kind_of(folder: Path) -> str:
    """Return the kind of a model, as in `Family.kind`; `SPEECH` if its configuration cannot be read."""
    with suppress(ModelError):
        if family := registry.of_model_type(read_json(folder / CONFIG_FILE).get("model_type")):
            return family.kind
    return SPEECH


def converted_for(kind: str) -> dict[str, Path]:
    """Return those of `converted_models` that are of a kind."""
    return {name: folder for name, folder in converted_models().items() if kind_of(folder) == kind}


def _other_kind(name: object, found: str, kind: str) -> ModelError:
    """Return the error for a model of a kind that is not the one that is needed."""
    work, option = {
        PUNCTUATION: ("inserts punctuation", "--punctuation"),
        SPEAKERS: ("tells voices apart", "--speaker-model"),
        TEXT: ("writes text from text", "--translator"),
    }.get(found, ("", ""))
    message, hint = {
        SPEECH: (
            f"{name}: not a speech model, but one that {work}",
            f"name a speech model with --model, and this one with {option}",
        ),
        PUNCTUATION: (f"{name}: not a punctuation model", "use ct-punc"),
        SPEAKERS: (f"{name}: not a model of voices", "use campplus"),
        TEXT: (f"{name}: not a model that writes text from text", "use qwen3-0.6b, or a larger one"),
    }[kind]
    return ModelError(message, hint, code="model-unsupported")


def find_model(name: str | None, kind: str | None = SPEECH) -> Path:
    """Find the folder of a model that is ready to use. Nothing is downloaded.

    Args:
        name: a folder, the name of a converted model or the last part of it, a hub id on either hub, a short name,
            or "demo" for the bundled model. A converted model of exactly this name comes before those that a hub
            id or a short name stands for. A hub id that has not been converted is looked up in Hugging Face's
            cache, in case it can be used without conversion. A short name also stands for the conversion of its
            entry in `DOWNLOADS`. None takes Fun-ASR-Nano if it has been converted, else the only converted model
            other than the demo.
        kind: what the model must be for; None allows any kind.

    Raises:
        ModelError: no model, or more than one, has this name; or it is of another kind.
    """
    if name is None:
        return _default_model(converted_for(SPEECH))
    known = registry.of_hub_name(name)
    if kind and known and known.kind != kind and name not in converted_models():
        raise _other_kind(name, known.kind, kind)
    folder = _named(name, kind)
    if kind and (found := kind_of(folder)) != kind:
        raise _other_kind(name, found, kind)
    return folder


def _named(name: str, kind: str | None) -> Path:
    """Find the folder of the model with this name; see `find_model`. Errors suggest models of the kind."""
    models = converted_models()
    if not name:
        ways = "name a model that funasr models lists, a folder or a hub id"
        raise ModelError("the model's name is empty", ways, code="model-missing")
    folder = local_folder(name)
    if folder and (folder / CONFIG_FILE).is_file() and (name not in models or is_model(folder)):
        return folder
    if name in models:  # as `funasr models` lists it, even if it is also a short name
        return models[name]
    hub_id = ALIASES.get(name, name)
    others = [registry.other_hub_id(hub_id), DOWNLOADS[name].hub_id if name in DOWNLOADS else None]
    found_by = (_matching(known, models) for known in (hub_id, *filter(None, others)))
    matches = next(filter(None, found_by), {})
    if len(matches) == 1:
        return next(iter(matches.values()))
    if HUB_ID.fullmatch(name) and not matches and not folder:
        from funasr_cli.hubs.huggingface import cached

        found = cached(name)
        if found and is_model(found.folder):
            return found.folder
    if matches:
        raise ModelError(f"{name}: {AMBIGUOUS}", f"name one of them: {', '.join(matches)}", code="model-ambiguous")
    if folder:
        is_source = any(folder.glob("*.pt"))
        hint = f"convert it first: funasr convert {name}" if is_source else "name the folder of a converted model"
        raise ModelError(f"{name}: not a converted model", hint, code="model-unconverted")
    _refuse_aside(name)
    if _is_path(name):
        raise _neither(name)
    what = "not on this machine" if name in ALIASES or HUB_ID.fullmatch(name) else "no such model"
    raise ModelError(f"{name}: {what}", _missing_hint(name, kind), code="model-missing")


def find_aligner(name: str) -> Path:
    """Find the folder of a model that aligns words, as `find_model` does. Errors suggest such a model."""
    try:
        return find_model(name)
    except ModelError as error:
        if error.code == "model-missing" and not error.hint.startswith(DID_YOU_MEAN):
            error.hint = "convert a model that provides word times: funasr convert sensevoice"
        raise


def find_punctuation(name: str) -> Path | None:
    """Find the folder of a punctuation model, as `find_model` does.

    "none" is None, as is "auto" if no such model has been converted. Of several, "auto" takes the one whose short
    name comes first.
    """
    if name == NO_PUNCTUATION:
        return None
    if name == AUTO_PUNCTUATION:
        return _first_converted(PUNCTUATION)
    try:
        return find_model(name, PUNCTUATION)
    except ModelError as error:
        if error.code == "model-missing" and not error.hint.startswith(DID_YOU_MEAN):
            wanted = name if name in ALIASES or HUB_ID.fullmatch(name) else "ct-punc"
            error.hint = f"convert it with: {convert_command(wanted)}"
        raise


def _first_converted(kind: str) -> Path | None:
    """Return the converted model of a kind whose short name comes first; None if there is none."""
    ids = list(ALIASES.values())

    def place(model: str) -> int:
        return next((ids.index(each) for each in (model, registry.other_hub_id(model)) if each in ids), len(ids))

    models = converted_for(kind)
    return models[min(models, key=place)] if models else None


def find_speaker_model(name: str) -> Path:
    """Find the folder of a model that tells speakers apart; "auto" is the first that has been converted.

    Raises:
        ModelError: there is none, or see `find_model`. Errors say how to convert one.
    """
    if name == AUTO_SPEAKER_MODEL:
        if folder := _first_converted(SPEAKERS):
            return folder
        message = "no model that tells speakers apart has been converted"
        raise ModelError(message, f"convert it with: {convert_command('campplus')}", code="model-missing")
    return find_model(name, SPEAKERS)


def find_translator(name: str) -> Path:
    """Find the folder of a language model that translates, as `find_model` does. Errors suggest such a model."""
    try:
        return find_model(name, TEXT)
    except ModelError as error:
        if error.code == "model-missing" and not error.hint.startswith(DID_YOU_MEAN):
            wanted = name if name in ALIASES or HUB_ID.fullmatch(name) else "qwen3-4b"
            error.hint = f"name the folder of a chat model, or convert one: {convert_command(wanted)}"
        raise


def convert_command(name: str) -> str:
    """Return the command that fetches and converts a model."""
    there = ALIASES.get(name, name) in registry.only_on_modelscope()
    return f"funasr convert {name}{f' --hub {Hub.MS}' if there else ''}"


def _refuse_aside(name: str) -> None:
    """Raise a ModelError if a conversion was killed while replacing this model; the next one restores it."""
    for place in (
        (Path(name), *(models_folder() / each for each in {name, ALIASES.get(name, name)})) if name else ()
    ):
        with suppress(OSError, ValueError):  # it cannot be a folder's name
            for old in place.parent.glob(f"{ASIDE_PREFIX}*/{glob.escape(place.name)}"):
                message = f"{name}: a conversion was killed while replacing this model, which is now in {old}"
                raise ModelError(message, f"move it back to {place}, or convert it again", code="model-aside")


def _matching(name: str, models: dict[str, Path]) -> dict[str, Path]:
    """Return the model with this name, else those with this last part; "demo" is also the bundled one."""
    if name in models:
        return {name: models[name]}
    matches = {model: path for model, path in models.items() if name == model.rpartition("/")[2]}
    return matches or ({DEMO: demo.MODEL} if name == DEMO else {})


def _missing_hint(name: str, kind: str | None) -> str:
    """Return a hint for a name that no model has: a similar name, or how to convert a model of the kind.

    A converted model whose name begins like this comes before names that are only similar.
    """
    models = converted_for(kind) if kind else converted_models()
    families = [family for family in registry.FAMILIES if kind in (None, family.kind)]
    aliases = {alias: hub_id for family in families for alias, hub_id in family.aliases.items()}
    downloads = {alias: download for alias, download in DOWNLOADS.items() if alias in aliases}
    known_names = {download.name.lower(): alias for alias, download in downloads.items()}
    if "/" not in name:
        on_hubs = [*aliases.values(), *(download.hub_id for download in downloads.values())]
        known_names |= {hub_id.rpartition("/")[2].lower(): hub_id for hub_id in on_hubs}
    short = [model.rpartition("/")[2] for model in models]
    known_names |= {known.lower(): known for known in [*short, *models, *aliases]}
    if kind in (None, SPEECH):
        known_names[DEMO] = DEMO
    here = [known.lower() for known in [*short, *models] if known.lower().startswith(name.lower())]
    near = here or difflib.get_close_matches(name.lower(), known_names, n=1)
    ids = {hub_id := ALIASES.get(name, name), registry.other_hub_id(hub_id)}
    alias = name if name in ALIASES else next((alias for alias, known in ALIASES.items() if known in ids), None)
    if near and not alias:
        return f"{DID_YOU_MEAN} {known_names[near[0]]}?"
    known = f"converted so far: {', '.join(models)}; " if models else ""
    first = registry.DEFAULT_ALIAS if registry.DEFAULT_ALIAS in aliases else next(iter(aliases))
    wanted = alias or (name if HUB_ID.fullmatch(name) else first)
    return f"{known}convert one with: {convert_command(wanted)}"


def _default_model(models: dict[str, Path]) -> Path:
    for name in (DEFAULT_MODEL, DEFAULT_DOWNLOAD.hub_id):
        if name in models:
            return models[name]
    others = [name for name in models if name != DEMO]  # the demo model is used only if it is named
    if len(others) == 1:
        return models[others[0]]
    if others:
        hint = f"name one of them: {', '.join(models)}"
        raise ModelError("several models have been converted", hint, code="model-ambiguous")
    _refuse_aside(DEFAULT_MODEL)
    message = (
        f"no model{' except the demo' if models else ''} has been converted yet (looked in {models_folder()})"
    )
    ways = f"run funasr convert {DEFAULT_DOWNLOAD.hub_id}", "name the folder of a converted model"
    hint = f"{', '.join(ways)}, or test the installation with the bundled model {DEMO}"
    raise ModelError(message, hint, code="model-missing")

"""From what a user types (folder, hub id, name of a converted model) to a folder on disk."""

import difflib
import glob
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import platformdirs

from funasr_cli import demo
from funasr_cli.checkpoints.format import CONFIG_FILE
from funasr_cli.checkpoints.untrusted import read_json, readable
from funasr_cli.errors import ModelError, UsageError
from funasr_cli.families import registry
from funasr_cli.families.open import is_model
from funasr_cli.hubs.repository import CheckpointFolder
from funasr_cli.options import DEFAULT_HUB, Hub
from funasr_cli.paths import path_in_variable

ALIASES = registry.aliases()  # hub ids by short names
DEFAULT_MODEL = ALIASES[registry.DEFAULT_ALIAS]  # where none is named
CTC_ON_MODELSCOPE = ALIASES["nano"]  # whose copy on Hugging Face lacks the CTC branch
DEMO = "demo"
AMBIGUOUS = "more than one model goes by that name"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ASIDE_PREFIX = ".funasr-old-"  # of a folder that keeps an old model while a new one takes its place
DOWNLOADING, VERIFYING = "downloading", "verifying"  # what progress is told

Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all


def counter(progress: Progress, doing: str, total: int) -> Callable[[int], None]:
    """What is called with the bytes of each piece, and tells the progress of all of them."""
    done = 0

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress(doing, done, total)

    return count


def models_folder() -> Path:
    """Where converted models are kept: ``$FUNASR_HOME/models``, else in the platform's cache folder."""
    return (path_in_variable("FUNASR_HOME") or platformdirs.user_cache_path("funasr-cli")) / "models"


def local_folder(name: str) -> Path | None:
    """The folder of this name; None where there is none, or where it cannot be a folder's name at all."""
    try:
        folder = Path(name).expanduser()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, the home of an unknown user, a null byte
        return None


def local_checkpoint(name: str) -> CheckpointFolder | None:
    """A checkpoint that is on this machine: a folder, else a converted model; None: it is to come from a hub.

    Hub ids and aliases mean the hub, whatever has been converted from it.

    Raises:
        ModelError: the name is empty, or several converted models go by it.
    """
    if not name:
        raise ModelError("SOURCE is empty", "name a folder or a hub id", code="model-missing")
    if folder := local_folder(name):
        return CheckpointFolder(
            folder, readable(os.fsencode(folder.resolve().name).decode(errors="replace")), None
        )
    if name in ALIASES or HUB_ID.fullmatch(name):
        return None
    matches = _called(name, converted_models())
    if len(matches) > 1:
        folders = ", ".join(map(str, matches.values()))
        raise ModelError(f"{name}: {AMBIGUOUS}", f"name its folder: {folders}", code="model-ambiguous")
    return next((CheckpointFolder(folder, model, None) for model, folder in matches.items()), None)


def fetch_checkpoint(
    name: str, revision: str | None = None, progress: Progress = lambda *_: None, hub: Hub = DEFAULT_HUB
) -> CheckpointFolder:
    """Find a checkpoint on disk, or download what makes one from a hub, but for what its client's cache has.

    Args:
        name: folder, name of a converted model, hub id or alias.
        revision: branch, tag or commit of a hub id; None takes the default branch.
        progress: told how many bytes of how many have been downloaded.
        hub: where to look for a hub id.

    Raises:
        UsageError: a revision was given for a local folder.
        ModelError: neither a folder nor a hub id, the hub does not have it, it is no checkpoint, or see
            `local_checkpoint`.
        OutputError: there is no room for it.
        SetupError: the hub cannot be reached and the cache does not have it, the download ended early, or the
            client is not installed or refuses the value of a variable.
    """
    local = local_checkpoint(name)
    if local:
        if revision is not None:
            message = f"--revision {revision} with the local folder {local.folder}"
            raise UsageError(message, "it applies to a hub id", code="options-conflict")
        return local
    name = ALIASES.get(name, name)
    if (name in registry.modelscope_ids()) == (hub is Hub.MS):  # or it is the id on this hub already
        name = registry.other_hub_id(name) or name
    if not HUB_ID.fullmatch(name) or os.path.exists(name):
        is_file, is_address = os.path.isfile(name), "://" in name
        if not (is_file or is_address) and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
            raise ModelError(f"{name}: no such folder", code="model-missing")
        hint = "name its folder" if is_file else "a hub id looks like FunAudioLLM/Fun-ASR-Nano-2512"
        raise ModelError(f"{name}: neither a folder nor a hub id", hint, code="model-missing")
    if hub is Hub.MS:
        from funasr_cli.hubs.modelscope import fetch
    else:
        from funasr_cli.hubs.huggingface import fetch
    return fetch(name, revision, partial(progress, DOWNLOADING))


def hub_of(model: Path) -> Hub | None:
    """Where a converted model was fetched from; None: from a folder, or there is no such model."""
    try:
        source = read_json(model / CONFIG_FILE).get("source")
        named = source.get("hub") if isinstance(source, dict) else None
        return Hub(named) if named else None
    except (ModelError, ValueError):
        return None


def converted_models() -> dict[str, Path]:
    """Names (``owner/model`` or ``model``) and folders of what lies in the models folder."""
    root = models_folder()
    folders = sorted(path.parent for pattern in ("*", "*/*") for path in root.glob(f"{pattern}/{CONFIG_FILE}"))
    models = {folder.relative_to(root).as_posix(): folder for folder in folders}
    return {name: folder for name, folder in models.items() if "/." not in f"/{name}"}


def find_model(name: str | None) -> Path:
    """Folder of a converted model.

    Args:
        name: a folder, a hub id on either hub, an alias, the last part of a converted model's name, or "demo" for
            the bundled model; None takes Fun-ASR-Nano where it has been converted, else the only model converted
            but for the demo. Of a hub id that has not been converted, what Hugging Face's cache has, if it can be
            used as it is.

    Raises:
        ModelError: nothing, or more than one model, goes by that name.
    """
    models = converted_models()
    if name is None:
        return _default_model(models)
    folder = local_folder(name)
    if folder and (folder / CONFIG_FILE).is_file():
        return folder
    hub_id = ALIASES.get(name, name)
    matches = _called(hub_id, models) or _called(registry.other_hub_id(hub_id) or hub_id, models)
    if len(matches) == 1:
        return next(iter(matches.values()))
    if HUB_ID.fullmatch(name) and not matches and not folder:
        from funasr_cli.hubs.huggingface import cached

        found = cached(name)
        if found and is_model(found.folder):
            return found.folder
    if matches:
        raise ModelError(f"{name}: {AMBIGUOUS}", f"say which: {', '.join(matches)}", code="model-ambiguous")
    if folder:
        is_source = any(folder.glob("*.pt"))
        hint = f"convert it first: funasr convert {name}" if is_source else "funasr convert makes one"
        raise ModelError(f"{name}: not a converted model", hint, code="model-unconverted")
    _refuse_aside(name)
    raise ModelError(f"{name}: no such model", _what_else(name, models), code="model-missing")


def find_aligner(name: str) -> Path:
    """Folder of a converted model that tells when words were said, as `find_model` does; errors name one."""
    try:
        return find_model(name)
    except ModelError as error:
        if error.code == "model-missing":
            error.hint = "fetch one that can tell when words were said: funasr convert sensevoice"
        raise


def _refuse_aside(name: str) -> None:
    """Say where an old model is whose replacement was killed; the next conversion beside it puts it back."""
    for place in (Path(name), models_folder() / ALIASES.get(name, name)) if name else ():
        with suppress(OSError, ValueError):  # what cannot be a folder's name
            for old in place.parent.glob(f"{ASIDE_PREFIX}*/{glob.escape(place.name)}"):
                message = f"{name}: its replacement was killed, which has left the old model in {old}"
                raise ModelError(message, f"move it back to {place}, or convert again", code="model-aside")


def _called(name: str, models: dict[str, Path]) -> dict[str, Path]:
    """Which of these models go by a name or its last part; the bundled one does, if none of them is called so."""
    matches = {model: path for model, path in models.items() if name in (model, model.rpartition("/")[2])}
    return matches or ({DEMO: demo.MODEL} if name == DEMO else {})


def _what_else(name: str, models: dict[str, Path]) -> str:
    short = [model.rpartition("/")[2] for model in models]
    near = difflib.get_close_matches(name, [DEMO, *ALIASES, *models, *short], n=1)
    ids = {hub_id := ALIASES.get(name, name), registry.other_hub_id(hub_id)}
    alias = name if name in ALIASES else next((alias for alias, known in ALIASES.items() if known in ids), None)
    if near and not alias:
        return f"did you mean {near[0]}?"
    known = f"converted so far: {', '.join(models)}; " if models else ""
    wanted = alias or (name if HUB_ID.fullmatch(name) else registry.DEFAULT_ALIAS)
    return f"{known}convert one with: funasr convert {wanted}"


def _default_model(models: dict[str, Path]) -> Path:
    if DEFAULT_MODEL in models:
        return models[DEFAULT_MODEL]
    others = [name for name in models if name != DEMO]  # the demo is never taken unasked
    if len(others) == 1:
        return models[others[0]]
    if others:
        hint = f"choose one with --model: {', '.join(models)}"
        raise ModelError("several models have been converted", hint, code="model-ambiguous")
    _refuse_aside(DEFAULT_MODEL)
    message = f"no model{' but the demo' if models else ''} has been converted yet (looked in {models_folder()})"
    hint = f"run: funasr convert {DEFAULT_MODEL}; or try the small bundled model: --model {DEMO}"
    raise ModelError(message, hint, code="model-missing")

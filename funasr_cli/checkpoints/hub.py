"""From what a user types (folder, hub id, name of a converted model) to a folder on disk."""

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from funasr_cli import demo
from funasr_cli.checkpoints.format import CONFIG_FILE
from funasr_cli.errors import ModelError, SetupError, UsageError
from funasr_cli.paths import path_in_variable

ALIASES = {
    "nano": "FunAudioLLM/Fun-ASR-Nano-2512",
    "mlt-nano": "FunAudioLLM/Fun-ASR-MLT-Nano-2512",
}
DEMO = "demo"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
UNREACHED_HINT = "HF_ENDPOINT names a mirror; a folder downloaded elsewhere, as from ModelScope, works as well"
DOWNLOADING = "downloading"  # what progress is told
NEEDED_FILES = ["*.pt", "*.yaml", "*.json", "*.txt", "*.tiktoken", "README.md"]


Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all


@dataclass(frozen=True)
class Source:
    """A checkpoint to convert.

    Attributes:
        name: hub id, or the folder's name.
        revision: commit of the hub it was taken from; None for a local folder.
    """

    folder: Path
    name: str
    revision: str | None


def models_folder() -> Path:
    """Where converted models are kept: ``$FUNASR_HOME/models``, else in the platform's cache folder.

    Raises:
        UsageError: the variable holds no path.
    """
    return (path_in_variable("FUNASR_HOME") or platformdirs.user_cache_path("funasr-cli")) / "models"


def local_folder(name: str) -> Path | None:
    """The folder of this name; None where there is none, or where it cannot be a folder's name at all."""
    try:
        folder = Path(name).expanduser()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, the home of an unknown user, a null byte
        return None


def source_name(name: str) -> str:
    """What a conversion of this folder, hub id or alias is called."""
    folder = local_folder(name)
    return os.fsencode(folder.resolve().name).decode(errors="replace") if folder else ALIASES.get(name, name)


def fetch_source(name: str, revision: str | None = None, progress: Progress = lambda *_: None) -> Source:
    """Find a checkpoint on disk, or download it from Hugging Face.

    Args:
        name: folder, hub id or alias.
        revision: branch, tag or commit of a hub id.
        progress: told how many bytes of how many have been downloaded.

    Raises:
        UsageError: a revision was given for a local folder.
        ModelError: neither a folder nor a hub id, or the hub does not have it.
        SetupError: the hub cannot be reached.
    """
    folder = local_folder(name)
    if folder:
        if revision is not None:
            raise UsageError(f"--revision {revision} with the local folder {folder}", "it applies to a hub id")
        return Source(folder, source_name(name), None)
    name = ALIASES.get(name, name)
    if not HUB_ID.fullmatch(name) or os.path.exists(name):
        raise ModelError(
            f"{name}: neither a folder nor a hub id", "a hub id looks like FunAudioLLM/Fun-ASR-Nano-2512"
        )
    return _download(name, revision, progress)


def _download(hub_id: str, revision: str | None, progress: Progress) -> Source:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevisionError

    try:
        bars = _bars_that_tell(progress)
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=NEEDED_FILES, tqdm_class=bars))
    except RepositoryNotFoundError as error:
        raise ModelError(f"{hub_id}: not on the hub, or private", "check the spelling, or set HF_TOKEN") from error
    except NoRevisionError as error:
        raise ModelError(f"{hub_id}: no revision {revision}", "name a branch, tag or commit") from error
    except LocalEntryNotFoundError as error:
        raise SetupError(f"{hub_id}: {_why_unreached(error)}", UNREACHED_HINT) from error
    except HFValidationError as error:
        raise ModelError(f"{hub_id}: neither a folder nor a hub id", str(error)) from error
    except Exception as error:  # the hub's client lets through what its HTTP and Xet libraries raise
        raise SetupError(f"{hub_id}: the download failed ({error})", "run it again: it resumes") from error
    # The cache keeps each snapshot in a folder named after its commit.
    commit = (
        folder.name if folder.parent.name == "snapshots" else HfApi().model_info(hub_id, revision=revision).sha
    )
    return Source(folder, hub_id, commit)


def _why_unreached(error: Exception) -> str:
    """Which hub it is, and the innermost reason."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "not on this machine, and HF_HUB_OFFLINE forbids to download it"
    reason: BaseException = error
    while inner := reason.__cause__ or reason.__context__:
        reason = inner
    return f"{constants.ENDPOINT} cannot be reached ({getattr(reason, 'strerror', None) or reason})"


def _bars_that_tell(progress: Progress) -> type:
    """A class of progress bars that draw nothing; those of bytes tell how far they are."""
    from tqdm import tqdm

    furthest = 0  # of several that count bytes: those from the network, those on disk

    class Bar(tqdm):
        def display(self, *_: object, **__: object) -> None:
            nonlocal furthest
            if self.unit == "B" and self.n >= furthest:
                furthest = int(self.n)
                progress(DOWNLOADING, furthest, int(self.total or 0))

        def close(self) -> None:
            self.disable = True  # or it would end its line

    return Bar


def converted_models() -> dict[str, Path]:
    """Names (``owner/model`` or ``model``) and folders of what lies in the models folder."""
    root = models_folder()
    folders = sorted(path.parent for pattern in ("*", "*/*") for path in root.glob(f"{pattern}/{CONFIG_FILE}"))
    return {
        folder.relative_to(root).as_posix(): folder
        for folder in folders
        if not any(part.startswith(".") for part in folder.relative_to(root).parts)
    }


def find_model(name: str | None) -> Path:
    """Folder of a converted model.

    Args:
        name: a folder, a hub id, an alias, the last part of a converted model's name, or "demo" for the
            bundled model; None takes Fun-ASR-Nano where it has been converted, else the only model converted.

    Raises:
        ModelError: nothing, or more than one model, goes by that name.
    """
    models = converted_models()
    if name is None:
        return _default_model(models)
    folder = local_folder(name)
    if folder and (folder / CONFIG_FILE).is_file():
        return folder
    wanted = ALIASES.get(name, name)
    matches = {model: path for model, path in models.items() if wanted in (model, model.rpartition("/")[2])}
    if len(matches) == 1:
        return next(iter(matches.values()))
    if name == DEMO and not matches:
        return demo.MODEL
    if matches:
        raise ModelError(f"{name}: more than one model goes by that name", f"say which: {', '.join(matches)}")
    if folder:
        is_source = any(folder.glob("*.pt"))
        hint = f"convert it first: funasr convert {name}" if is_source else "funasr convert makes one"
        raise ModelError(f"{name}: not a converted model", hint)
    raise ModelError(f"{name}: no such model", _what_else(name, models))


def _what_else(name: str, models: dict[str, Path]) -> str:
    short = [model.rpartition("/")[2] for model in models]
    near = difflib.get_close_matches(name, [DEMO, *ALIASES, *models, *short], n=1)
    if near and name not in ALIASES:
        return f"did you mean {near[0]}?"
    known = f"converted so far: {', '.join(models)}; " if models else ""
    wanted = ALIASES.get(name, name)
    return f"{known}convert one with: funasr convert {wanted if HUB_ID.fullmatch(wanted) else 'nano'}"


def _default_model(models: dict[str, Path]) -> Path:
    if ALIASES["nano"] in models:
        return models[ALIASES["nano"]]
    if len(models) == 1:
        return next(iter(models.values()))
    if models:
        raise ModelError("several models have been converted", f"choose one with --model: {', '.join(models)}")
    raise ModelError(
        f"no model has been converted yet (looked in {models_folder()})",
        f"run: funasr convert {ALIASES['nano']}; or try the small bundled model: --model {DEMO}",
    )

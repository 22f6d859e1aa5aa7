"""Downloads from Hugging Face through the public functions of its client, with progress in bytes."""

import glob
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.checkpoints.format import sha256_of
from funasr_cli.errors import FunASRError, ModelError, SetupError
from funasr_cli.hubs.network import (
    Access,
    failure,
    offline,
    offline_variable,
    unreached,
    wrong_address,
    wrong_token,
)
from funasr_cli.hubs.repository import CheckpointFolder, Report, is_complete, wanted
from funasr_cli.options import Hub
from funasr_cli.paths import nearest_existing, require_space

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

ADDRESS = "https://huggingface.co"  # the default endpoint
ENDPOINT, TOKENS = "HF_ENDPOINT", ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
RETRY_HINT = "run it again: complete files are kept; on a bad connection, convert a folder made with hf download"
CACHE_VARIABLE = "HF_HOME"
OTHER_DISK_HINT = f"free some space, or set {CACHE_VARIABLE} to a folder on another disk"
MODELS_HINT = "free some space, or set FUNASR_HOME to a folder on another disk"
HUB_OFFLINE = "HF_HUB_OFFLINE"
PIECE_BYTES = 1 << 18  # read at a time; the client's 10 MB would delay progress and Ctrl-C on a slow connection


def forbids_downloads() -> str | None:
    """Return the name of the variable that forbids downloads from Hugging Face, if one is set."""
    _import_client()
    from huggingface_hub import constants

    return offline_variable() or (HUB_OFFLINE if constants.HF_HUB_OFFLINE else None)


def cache_folder() -> Path:
    """Return the folder where the client keeps downloads; it need not exist."""
    _import_client()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def site() -> str:
    """Return the hub's name for questions: the host if a variable names a mirror."""
    _import_client()
    from huggingface_hub import constants

    if constants.ENDPOINT == ADDRESS:
        return Hub.HF.label
    return str(constants.ENDPOINT).rpartition("://")[2].rpartition("@")[2]  # never a password


def require_room(what: str, to_fetch: int, converted: int, models: Path) -> None:
    """Raise an OutputError if the disk is too full for a download and its conversion together.

    Args:
        what: the model's name.
        to_fetch: bytes to download into the cache.
        converted: bytes of the conversion.
        models: the folder of the conversion.
    """
    cache = cache_folder()
    same_disk = nearest_existing(cache).stat().st_dev == nearest_existing(models).stat().st_dev
    require_space(models, converted + (to_fetch if same_disk else 0), what, MODELS_HINT)
    if not same_disk:
        require_space(cache, to_fetch, f"the download of {what}", OTHER_DISK_HINT)


def fetch(
    hub_id: str, revision: str | None, report: Report, converted_into: Path | None = None
) -> CheckpointFolder:
    """Download the files of a checkpoint, or find them in the cache; see `find.fetch_checkpoint`.

    If ``converted_into`` is a folder, require room there for a conversion of the same size before the download.
    """
    variable = forbids_downloads()  # imports the client
    if variable:
        found = cached(hub_id, revision)
        if found and is_complete(found.folder):
            return found
        raise offline(hub_id, variable, partly=bool(found))
    from huggingface_hub import HfApi

    with _quiet():
        try:
            info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        except Exception as error:
            if answer := _answer(hub_id, revision, error):
                raise answer from error
            found = cached(hub_id, revision)  # without a network, use the cache
            if found and is_complete(found.folder):
                return found
            raise unreached(hub_id, error, _access()) from error
        try:
            return _download(hub_id, revision, info, report, converted_into)
        except FunASRError:
            raise
        except Exception as error:  # the client passes on errors of its HTTP and Xet libraries
            raise _answer(hub_id, revision, error) or failure(hub_id, error, _access(), RETRY_HINT) from error


def cached(hub_id: str, revision: str | None = None) -> CheckpointFolder | None:
    """Return the cached snapshot of a repository without contacting the hub. Files may be missing."""
    _import_client()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=[], local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return _folder(hub_id, Path(folder))


def _folder(hub_id: str, snapshot: Path) -> CheckpointFolder:
    # A snapshot's folder is named after its commit.
    return CheckpointFolder(snapshot, hub_id, snapshot.name, Hub.HF)


def _download(
    hub_id: str, revision: str | None, info: "ModelInfo", report: Report, converted_into: Path | None
) -> CheckpointFolder:
    from huggingface_hub import snapshot_download

    files = {file.rfilename: file for file in info.siblings or ()}
    patterns = list(map(glob.escape, wanted(hub_id, files)))
    # Pass the revision, not the commit, so that the cache records which commit the branch pointed to.
    silent = _bars(lambda _: None, threading.Event())
    plan = snapshot_download(hub_id, revision=revision, allow_patterns=patterns, dry_run=True, tqdm_class=silent)
    missing = {file.filename: file.file_size or 0 for file in plan if file.will_download}
    total = sum(missing.values())
    if converted_into:
        require_room(hub_id, total, sum(file.file_size or 0 for file in plan), converted_into)
    else:
        require_space(cache_folder(), total, f"the download of {hub_id}", OTHER_DISK_HINT)
    with _interruptible() as interrupted:
        bars = _bars(lambda count: report(min(count, total), total), interrupted)
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, tqdm_class=bars))
    for name in missing:  # the client checks only the size of files that come over HTTP
        stated = files[name].lfs
        if stated and stated.sha256 != sha256_of(folder / name):
            (folder / name).resolve().unlink()
            (folder / name).unlink(missing_ok=True)
            raise OSError(f"{name} has arrived damaged: its SHA-256 is not the hub's")
    return _folder(hub_id, folder)


def _import_client() -> None:
    """Import the client; raise a SetupError that names the variable if it rejects one."""
    try:
        with warnings.catch_warnings(action="ignore"):  # warnings about variables that no longer have an effect
            import huggingface_hub.constants  # noqa: F401
    except ValueError as error:
        variables = {name: value for name, value in os.environ.items() if name.startswith("HF_") and value}
        named = [f"{name}={value}" for name, value in variables.items() if repr(value) in str(error)]
        message = f"{', '.join(named) or 'a variable HF_...'}: huggingface_hub rejects it ({error})"
        wrong = wrong_address(os.environ.get(ENDPOINT, ADDRESS), ENDPOINT)
        hint = "write a whole number, or unset it"
        raise wrong or SetupError(message, hint, code="hub-setting") from error


def _access() -> Access:
    from huggingface_hub import constants

    tokens = {name: os.environ[name] for name in TOKENS if os.environ.get(name)}
    file = Path(constants.HF_TOKEN_PATH)
    if not tokens and file.is_file():
        tokens = {str(file): file.read_text(errors="replace")}
    return Access(
        constants.ENDPOINT, ENDPOINT, tokens, ("SSL_CERT_FILE", "SSL_CERT_DIR"), "socksio",
        "set HF_ENDPOINT to a mirror; or use funasr convert ID --hub ms if ModelScope has the model",
        Path(constants.HF_HUB_CACHE), CACHE_VARIABLE, OTHER_DISK_HINT,
    )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the client's logger: errors are reported by this program."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _answer(hub_id: str, revision: str | None, error: Exception) -> ModelError | SetupError | None:
    """Return the error for a request that the hub refused; None for other errors."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        hint = f"accept its terms at {constants.ENDPOINT}/{hub_id}, and set HF_TOKEN to that account's token"
        return ModelError(f"{hub_id}: its owner requires consent first", hint, code="hub-gated")
    if isinstance(error, errors.RepositoryNotFoundError):
        access = _access()
        token = f"check that {next(iter(access.tokens))} may read it" if access.tokens else "set HF_TOKEN"
        message, hint = f"{hub_id}: not on Hugging Face, or private", f"check the spelling, or {token}"
        return wrong_token(access) or ModelError(message, hint, code="hub-missing")
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "name a branch, tag or commit"
        return ModelError(f"{hub_id}: no revision {revision}", hint, code="revision-missing")
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"{hub_id}: neither a folder nor a hub id", str(error), code="model-missing")
    return None


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets. Otherwise the client's threads would first finish their files."""
    from huggingface_hub import constants

    interrupted = threading.Event()
    before, piece = signal.getsignal(signal.SIGINT), constants.DOWNLOAD_CHUNK_SIZE

    def interrupt(*arguments: Any) -> None:
        interrupted.set()
        with suppress(Exception):  # stops what its Xet library is fetching; absent from some versions
            from huggingface_hub.utils._xet import abort_xet_session

            abort_xet_session()  # type: ignore[no-untyped-call]
        if callable(before):
            before(*arguments)  # raises KeyboardInterrupt

    handles = callable(before) and threading.current_thread() is threading.main_thread()
    constants.DOWNLOAD_CHUNK_SIZE = PIECE_BYTES
    if handles:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = piece
        if handles:
            signal.signal(signal.SIGINT, before)


def _bars(report: Callable[[int], None], interrupted: threading.Event) -> type:
    """Make a class of progress bars that draw nothing; those that count bytes report them.

    After an interrupt, they raise KeyboardInterrupt in the client's threads, which ends their downloads.
    """
    from tqdm import tqdm

    furthest = 0  # several bars count bytes: received ones and written ones

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            return super().update(n)

        def display(self, *_: object, **__: object) -> None:
            nonlocal furthest
            if self.unit == "B" and self.n >= furthest:
                furthest = int(self.n)
                report(furthest)

        def close(self) -> None:
            self.disable = True  # otherwise it would print a line feed

    return Bar

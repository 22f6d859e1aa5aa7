"""Hugging Face, through the public functions of its client: its cache, branches as commits, progress in bytes."""

import glob
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.checkpoints.format import sha256_of
from funasr_cli.errors import FunASRError, ModelError, SetupError
from funasr_cli.hubs.network import Access, failure, unreached, wrong_address, wrong_token
from funasr_cli.hubs.repository import CheckpointFolder, Tell, is_complete, wanted
from funasr_cli.options import Hub
from funasr_cli.paths import require_space

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

ENDPOINT, TOKENS = "HF_ENDPOINT", ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
BROKEN_OFF = "run it again: whole files are kept; on a bad line, convert a folder made with hf download"
ELSEWHERE = "make room there, or let HF_HOME name a folder on another disk"


def fetch(hub_id: str, revision: str | None, tell: Tell) -> CheckpointFolder:
    """Download what makes a checkpoint, or find it in the cache; see `find.fetch_checkpoint`."""
    _import_client()
    from huggingface_hub import HfApi, constants

    with _quiet():
        try:
            info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        except Exception as error:
            if answer := _answer(hub_id, revision, error):
                raise answer from error
            found = cached(hub_id, revision)  # no network, or none wanted: what is here will do
            if found and is_complete(found.folder):
                return found
            if constants.HF_HUB_OFFLINE:
                here = "only in part" if found else "not"
                message = f"{hub_id}: {here} on this machine, and HF_HUB_OFFLINE forbids to download it"
                raise SetupError(message, "unset it, or name a folder", code="hub-offline") from error
            raise unreached(hub_id, error, _access()) from error
        try:
            return _download(hub_id, revision, info, tell)
        except FunASRError:
            raise
        except Exception as error:  # the client lets through what its HTTP and Xet libraries raise
            raise _answer(hub_id, revision, error) or failure(hub_id, error, _access(), BROKEN_OFF) from error


def cached(hub_id: str, revision: str | None = None) -> CheckpointFolder | None:
    """What the cache has of a repository, without asking the hub; it may lack files."""
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


def _download(hub_id: str, revision: str | None, info: "ModelInfo", tell: Tell) -> CheckpointFolder:
    from huggingface_hub import constants, snapshot_download

    files = {file.rfilename: file for file in info.siblings or ()}
    patterns = list(map(glob.escape, wanted(hub_id, files)))
    # The revision, not the commit: the cache is to know which one the branch stood for.
    plan = snapshot_download(
        hub_id, revision=revision, allow_patterns=patterns, dry_run=True, tqdm_class=_bars(lambda _: None)
    )
    missing = {file.filename: file.file_size or 0 for file in plan if file.will_download}
    total = sum(missing.values())
    require_space(Path(constants.HF_HUB_CACHE), total, f"the download of {hub_id}", ELSEWHERE)
    bars = _bars(lambda count: tell(min(count, total), total))
    folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, tqdm_class=bars))
    for name in missing:  # of what comes over HTTP, the client checks no more than the size
        stated = files[name].lfs
        if stated and stated.sha256 != sha256_of(folder / name):
            (folder / name).resolve().unlink()
            (folder / name).unlink(missing_ok=True)
            raise OSError(f"{name} has arrived damaged: its SHA-256 is not the hub's")
    return _folder(hub_id, folder)


def _import_client() -> None:
    """Import the client; what it refuses in the environment is named."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of variables that have no effect any more
            import huggingface_hub.constants  # noqa: F401
    except ValueError as error:
        variables = {name: value for name, value in os.environ.items() if name.startswith("HF_") and value}
        named = [f"{name}={value}" for name, value in variables.items() if repr(value) in str(error)]
        message = f"{', '.join(named) or 'a variable HF_...'}: huggingface_hub refuses it ({error})"
        wrong = wrong_address(os.environ.get(ENDPOINT, "https://huggingface.co"), ENDPOINT)
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
        "HF_ENDPOINT names a mirror; --hub ms takes it from ModelScope, if that has it",
        Path(constants.HF_HUB_CACHE), ELSEWHERE,
    )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client from logging: what there is to say, we say."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _answer(hub_id: str, revision: str | None, error: Exception) -> ModelError | SetupError | None:
    """What to say where the hub has answered that it does not give this; None where it has not."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        hint = f"agree to its terms at {constants.ENDPOINT}/{hub_id}, and let HF_TOKEN hold that account's token"
        return ModelError(f"{hub_id}: its owner asks for consent first", hint, code="hub-gated")
    if isinstance(error, errors.RepositoryNotFoundError):
        access = _access()
        token = f"see whether {next(iter(access.tokens))} may read it" if access.tokens else "set HF_TOKEN"
        message, hint = f"{hub_id}: not on the hub, or private", f"check the spelling, or {token}"
        return wrong_token(access) or ModelError(message, hint, code="hub-missing")
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "name a branch, tag or commit"
        return ModelError(f"{hub_id}: no revision {revision}", hint, code="revision-missing")
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"{hub_id}: neither a folder nor a hub id", str(error), code="model-missing")
    return None


def _bars(tell: Callable[[int], None]) -> type:
    """A class of progress bars that draw nothing; those of bytes tell how far they are."""
    from tqdm import tqdm

    furthest = 0  # of several that count bytes: those from the network, those on disk

    class Bar(tqdm):
        def display(self, *_: object, **__: object) -> None:
            nonlocal furthest
            if self.unit == "B" and self.n >= furthest:
                furthest = int(self.n)
                tell(furthest)

        def close(self) -> None:
            self.disable = True  # or it would end its line

    return Bar

"""Hugging Face: its client's cache, branches as commits, and weights that go on where a connection was lost."""

import glob
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.checkpoints.repository import (
    SHA256,
    Snapshot,
    Tell,
    causes,
    failure,
    is_complete,
    quiet,
    reason,
    wanted,
)
from funasr_cli.errors import FunASRError, ModelError, SetupError
from funasr_cli.paths import require_space

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

UNREACHED_HINT = "HF_ENDPOINT names a mirror; --hub ms takes it from ModelScope, if that has it"
ELSEWHERE = "make room there, or let HF_HOME name a folder on another disk"
PARTIAL = ".funasr-incomplete"
UNSATISFIABLE = 416  # HTTP: the file ends before what was asked for


def fetch(hub_id: str, revision: str | None, tell: Tell) -> Snapshot:
    """Download what makes a checkpoint, or find it in the cache.

    Args:
        hub_id: ``owner/name``.
        revision: branch, tag or commit; None takes the default branch.
        tell: told how far the download is.

    Raises:
        ModelError: the hub does not have it, or there is no checkpoint in it.
        OutputError: there is no room for it.
        SetupError: the hub cannot be reached and the cache does not have it, or the download ended early.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    with quiet("huggingface_hub"), _our_errors(hub_id, revision):
        try:
            info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
            raise
        except Exception as error:  # no network, or none wanted: what is here will do
            found = cached(hub_id, revision)
            if found and is_complete(found.folder):
                return found
            raise _unreached(hub_id, error, "only in part" if found else "not") from error
        return _download(hub_id, revision, info, tell)


def cached(hub_id: str, revision: str | None = None) -> Snapshot | None:
    """What the cache has of a repository, without asking the hub; it may lack files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=[], local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return Snapshot(Path(folder), Path(folder).name)  # a snapshot's folder is named after its commit


def _download(hub_id: str, revision: str | None, info: "ModelInfo", tell: Tell) -> Snapshot:
    from huggingface_hub import constants, snapshot_download

    files = {file.rfilename: file for file in info.siblings or ()}
    names = wanted(hub_id, files)
    missing = [files[name] for name in names if not _is_cached(hub_id, info.sha, files[name])]
    total = sum(file.size or 0 for file in missing)
    partial = sum(_size(_partial(blob)) for file in missing if (blob := _blob(hub_id, file)))
    require_space(Path(constants.HF_HUB_CACHE), total - partial, f"the download of {hub_id}", ELSEWHERE)
    done = 0

    def telling(before: int) -> Callable[[int], None]:
        return lambda count: tell(min(before + count, total), total)

    for file in missing:
        if blob := _blob(hub_id, file):
            _fetch_blob(hub_id, info.sha, file, blob, _bars(telling(done)))
            done += file.size or 0
    folder = snapshot_download(
        hub_id,
        revision=revision,  # not the commit: the cache is to know which one the branch stood for
        allow_patterns=list(map(glob.escape, names)),
        tqdm_class=_bars(telling(done)),
    )
    return Snapshot(Path(folder), Path(folder).name)


def _blob(hub_id: str, file: "RepoSibling") -> Path | None:
    """Where the cache keeps a large file: under its SHA-256. None for the small ones, which git holds itself."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if file.lfs is None or not SHA256.fullmatch(file.lfs.sha256):
        return None
    repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")
    return repository / "blobs" / file.lfs.sha256


def _lock(blob: Path) -> Path:
    """The lock that the client itself takes for this file."""
    repository = blob.parent.parent
    return repository.parent / ".locks" / repository.name / f"{blob.name}.lock"


def _partial(blob: Path) -> Path:
    return blob.with_name(blob.name + PARTIAL)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_cached(hub_id: str, commit: str | None, file: "RepoSibling") -> bool:
    from huggingface_hub import try_to_load_from_cache

    blob = _blob(hub_id, file)
    if blob and blob.exists():
        return True
    return isinstance(try_to_load_from_cache(hub_id, file.rfilename, revision=commit), str)


def _fetch_blob(hub_id: str, commit: str | None, file: "RepoSibling", blob: Path, bars: type) -> None:
    """Put a large file into the cache, going on where an earlier run ended.

    Since version 1.18 (pull request 4306), huggingface_hub begins a file anew in each run, and so does Xet; of
    what has come it checks no more than the size.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]  # lazy

    partial, size = _partial(blob), file.size
    url = hf_hub_url(hub_id, file.rfilename, revision=commit)
    lock = _lock(blob)
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():  # another run has been waited for
            return
        if _size(partial) > (size or 0):
            partial.unlink()
        with partial.open("ab") as target:
            try:
                http_get(
                    url, target, resume_size=target.tell(), headers=build_hf_headers(), expected_size=size,
                    displayed_filename=file.rfilename, tqdm_class=bars,
                )  # fmt: skip
            except Exception as error:
                if _contradicts(error):
                    partial.unlink()
                raise
        with partial.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != blob.name:
            partial.unlink()
            raise OSError(f"{file.rfilename} has arrived damaged: its SHA-256 is not the hub's")
        partial.replace(blob)


def _contradicts(error: Exception) -> bool:
    """Whether the hub has another file than it lists, so that going on would never end well."""
    response = getattr(error, "response", None)
    if response is not None:
        return bool(response.status_code == UNSATISFIABLE)
    return isinstance(error, OSError) and error.errno is None  # http_get, about a size


@contextmanager
def _our_errors(hub_id: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except FunASRError:
        raise
    except RepositoryNotFoundError as error:
        raise ModelError(f"{hub_id}: not on the hub, or private", "check the spelling, or set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{hub_id}: no revision {revision}", "name a branch, tag or commit") from error
    except HFValidationError as error:
        raise ModelError(f"{hub_id}: neither a folder nor a hub id", str(error)) from error
    except Exception as error:  # the client lets through what its HTTP and Xet libraries raise
        raise failure(hub_id, error, Path(constants.HF_HUB_CACHE)) from error


def _unreached(hub_id: str, error: Exception, here: str) -> FunASRError:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        offline = f"{hub_id}: {here} on this machine, and HF_HUB_OFFLINE forbids to download it"
        return SetupError(offline, "unset it, or name a folder")
    if any(isinstance(cause, OSError) and cause.errno for cause in causes(error)):
        return SetupError(f"{hub_id}: {constants.ENDPOINT} cannot be reached ({reason(error)})", UNREACHED_HINT)
    return SetupError(f"{hub_id}: {constants.ENDPOINT} is out of order ({reason(error)})", UNREACHED_HINT)


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

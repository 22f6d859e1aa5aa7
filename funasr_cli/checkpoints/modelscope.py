"""ModelScope, through the client that it publishes (`modelscope-hub`), which runs nothing that it fetches."""

import functools
import importlib.util
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.checkpoints.repository import (
    COMMIT,
    RESUMES,
    Snapshot,
    Tell,
    failure,
    is_complete,
    quiet,
    reason,
    wanted,
)
from funasr_cli.errors import FunASRError, ModelError, OutputError, SetupError
from funasr_cli.paths import require_space

if TYPE_CHECKING:
    from modelscope_hub import HubApi

DEFAULT_BRANCH = "master"
MODEL = "model"  # what kind of repository it is
UNREACHED_HINT = "MODELSCOPE_ENDPOINT names another site; --hub hf takes it from Hugging Face, if that has it"
ELSEWHERE = "make room there, or let MODELSCOPE_CACHE name a folder on another disk"
PARTIAL = ".incomplete"  # of the client's

Entry = dict[str, Any]  # a file as the hub lists it: Path, Size, Sha256, Revision, CommittedDate, ...


def require_client() -> None:
    """Say early that the client is missing.

    Raises:
        SetupError: it is.
    """
    if importlib.util.find_spec("modelscope_hub") is None:
        raise SetupError("--hub ms needs modelscope-hub", "pip install 'funasr-cli[modelscope]'")


def fetch(hub_id: str, revision: str | None, tell: Tell) -> Snapshot:
    """Download what makes a checkpoint, or find it in the cache.

    Args:
        hub_id: ``owner/name``.
        revision: branch, tag or commit; None takes ``master``.
        tell: told how far the download is.

    Raises:
        ModelError: the hub does not have it, or there is no checkpoint in it.
        OutputError: there is no room for it.
        SetupError: the client is not installed, the hub cannot be reached and the cache does not have it, or the
            download ended early.
    """
    require_client()
    from modelscope_hub import AuthenticationError, NotExistError, PermissionDeniedError

    with quiet("modelscope_hub"), _without_bars():
        api, cache = _client()
        with _our_errors(hub_id, cache):
            try:
                commit, entries = _listing(api, hub_id, revision)
            except (FunASRError, AuthenticationError, NotExistError, PermissionDeniedError):
                raise
            except Exception as error:  # no network: what is here will do
                if found := _cached(api, hub_id, revision):
                    return found
                raise _unreached(hub_id, api.legacy.endpoint, error) from error
            return _download(api, cache, hub_id, commit or revision or DEFAULT_BRANCH, entries, tell)


def _client() -> tuple["HubApi", Path]:
    """The client and its cache; what it sends is not tied to an id that it would keep in the user's home."""
    from modelscope_hub import HubApi, HubConfig

    class Config(HubConfig):
        def get_session_id(self) -> str:
            return uuid.uuid4().hex

    config = Config()
    return HubApi(config), config.cache_dir


def _listing(api: "HubApi", hub_id: str, revision: str | None) -> tuple[str | None, list[Entry]]:
    """The files of a revision, and the commit that pins them.

    The hub does not say which commit a branch stands for, but which one changed each file last. The latest of
    these has all files as they are now, which a second listing confirms; if it does not, there is no commit.
    """
    entries = _files(api, hub_id, revision or DEFAULT_BRANCH)
    if not entries:  # also what an unknown revision is answered with
        revisions = [str(entry.get("Revision")) for entry in api.list_repo_revisions(hub_id, MODEL)]
        if revision in revisions:
            return None, []
        raise ModelError(
            f"{hub_id}: no revision {revision or DEFAULT_BRANCH}", f"ModelScope has {', '.join(revisions)}"
        )
    latest = str(max(entries, key=lambda entry: entry.get("CommittedDate") or 0).get("Revision") or "")
    if revision and COMMIT.fullmatch(revision):
        return revision, entries
    if COMMIT.fullmatch(latest) and _contents(_files(api, hub_id, latest)) == _contents(entries):
        return latest, entries
    return None, entries


def _files(api: "HubApi", hub_id: str, revision: str) -> list[Entry]:
    entries: list[Entry] = api.legacy.list_repo_files(hub_id, MODEL, revision=revision)
    return [entry for entry in entries if entry.get("Type") != "tree"]


def _contents(entries: list[Entry]) -> set[tuple[Any, Any]]:
    return {(entry.get("Path"), entry.get("Sha256")) for entry in entries}


def _download(
    api: "HubApi", cache: Path, hub_id: str, revision: str, entries: list[Entry], tell: Tell
) -> Snapshot:
    files = {str(entry.get("Path")): entry for entry in entries}
    chosen = [files[name] for name in wanted(hub_id, files)]  # plain names only: the client would follow any path
    missing = sum(_missing_bytes(_folders(cache, hub_id, revision), entry) for entry in chosen)
    require_space(cache, missing, f"the download of {hub_id}", ELSEWHERE)
    folder = api.download_repo(
        hub_id, MODEL, revision=revision, file_list=chosen, progress_callbacks=[_counter(missing, tell)]
    )
    return Snapshot(folder, revision)


def _folders(cache: Path, hub_id: str, revision: str) -> list[Path]:
    """Where the client looks for a repository's files: its own layout, and that of earlier ones, FunASR's too."""
    owner, name = hub_id.split("/")
    earlier = Path("models") / owner / name.replace(".", "___")
    return [
        cache / earlier,
        cache / "hub" / earlier,
        cache / "models" / f"{owner}--{name}" / "snapshots" / revision,
    ]


def _missing_bytes(folders: list[Path], entry: Entry) -> int:
    size = int(entry.get("Size") or 0)
    for path in (folder / str(entry["Path"]) for folder in folders):
        partial = path.with_name(path.name + PARTIAL)
        if path.exists() and path.stat().st_size == size:
            return 0
        if partial.exists():
            return max(0, size - partial.stat().st_size)
    return size


def _cached(api: "HubApi", hub_id: str, revision: str | None) -> Snapshot | None:
    """What the cache has of a repository, if it is whole."""
    from modelscope_hub import CacheNotFound

    try:
        folder = api.download_repo(hub_id, MODEL, revision=revision, local_files_only=True)
    except CacheNotFound:
        return None
    if not is_complete(folder):
        return None
    return Snapshot(folder, folder.name if folder.parent.name == "snapshots" else None)


def _counter(total: int, tell: Tell) -> type:
    """What the client makes one of for each file: told of bytes that have come, of fewer when it starts over."""
    lock, done = threading.Lock(), 0

    class Counter:
        def __init__(self, filename: str, file_size: int) -> None:
            pass

        def update(self, size: int) -> None:
            nonlocal done
            with lock:
                done += size
                tell(min(done, total), total)

        def end(self) -> None:
            pass

    return Counter


def _unreached(hub_id: str, endpoint: str, error: Exception) -> SetupError:
    what = "cannot be reached" if isinstance(error, ConnectionError) else "is out of order"  # as NetworkError is
    return SetupError(f"{hub_id}: {endpoint} {what} ({reason(error)})", UNREACHED_HINT)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the client from drawing progress bars: it cannot be told not to."""
    from tqdm.auto import tqdm

    draw = tqdm.__init__
    tqdm.__init__ = functools.partialmethod(draw, disable=True)
    try:
        yield
    finally:
        tqdm.__init__ = draw


@contextmanager
def _our_errors(hub_id: str, cache: Path) -> Iterator[None]:
    from modelscope_hub import AuthenticationError, FileDownloadError, NotExistError, PermissionDeniedError

    try:
        yield
    except FunASRError:
        raise
    except (NotExistError, AuthenticationError, PermissionDeniedError) as error:
        raise ModelError(
            f"{hub_id}: not on ModelScope, or private", "check the spelling, or set MODELSCOPE_API_TOKEN"
        ) from error
    except FileDownloadError as error:
        raise _file_failure(hub_id, error.failed_files, cache) from error
    except Exception as error:  # the client lets through what its HTTP library raises
        raise failure(hub_id, error, cache) from error


def _file_failure(hub_id: str, failed: dict[str, BaseException], cache: Path) -> FunASRError:
    """Of the files that did not arrive, the first; a full disk is no matter of a file."""
    failures = [failure(hub_id, error, cache) for error in failed.values()]
    if full := next((one for one in failures if isinstance(one, OutputError)), None):
        return full
    name, error = next(iter(failed.items()))
    return SetupError(f"{hub_id}: the download of {name} failed ({reason(error)})", RESUMES)

"""Downloads from ModelScope through its client (`modelscope-hub`), which runs no code from repositories.

The client draws progress bars, logs and warns, and none of this can be switched off. It therefore runs in a
separate process, which reports progress and its result on standard output, one JSON value per line.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli import errors
from funasr_cli.errors import FunASRError, ModelError, OutputError, SetupError
from funasr_cli.extras import to_add
from funasr_cli.hubs.network import Access, failure, offline, offline_variable, unreached, wrong_token
from funasr_cli.hubs.repository import CheckpointFolder, Report, is_complete, wanted
from funasr_cli.options import Hub
from funasr_cli.paths import require_space

if TYPE_CHECKING:
    from modelscope_hub import HubApi, HubConfig

DEFAULT_BRANCH = "master"
MODEL = "model"  # the repository type
ENDPOINT, TOKEN = "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN"
COMMIT = re.compile(r"[0-9a-f]{40}")  # checked, because it becomes a folder's name
RETRY_HINT = "run it again: the download resumes where it stopped"
CACHE_VARIABLE = "MODELSCOPE_CACHE"
OTHER_DISK_HINT = f"free some space, or set {CACHE_VARIABLE} to a folder on another disk"
PARTIAL = ".incomplete"  # the client's ending for unfinished files

Entry = dict[str, Any]  # a file as the hub lists it: Path, Size, Sha256, Revision, CommittedDate, ...


def fetch(hub_id: str, revision: str | None, report: Report) -> CheckpointFolder:
    """Download the files of a checkpoint, or find them in the cache; see `find.fetch_checkpoint`."""
    if importlib.util.find_spec("modelscope_hub") is None:
        message = "--hub ms needs the package modelscope-hub"
        raise SetupError(message, to_add("modelscope"), code="package-missing")
    command = [sys.executable, "-P", "-m", __name__, hub_id, *([revision] if revision else [])]
    environment = os.environ | {"TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=null, stdout=pipe, stderr=null) as process:
        try:
            for kind, values in map(json.loads, process.stdout or ()):
                if kind == "progress":
                    report(*values)
                elif kind == "fetched":
                    return CheckpointFolder(Path(values[0]), hub_id, values[1], Hub.MS)
                else:
                    raise getattr(errors, kind)(*values[:2], code=values[2])
        finally:
            process.kill()
    raise SetupError(f"{hub_id}: the download process ended unexpectedly", RETRY_HINT, code="download-failed")


def _run(hub_id: str, revision: str | None = None) -> None:
    """Run in the separate process; only lines for the parent process reach its standard output."""
    stdout, sys.stdout = sys.stdout, sys.stderr

    def send(kind: str, *values: object) -> None:
        print(json.dumps([kind, values]), file=stdout, flush=True)

    try:
        send("fetched", *_fetch(hub_id, revision, lambda *sizes: send("progress", *sizes)))
    except FunASRError as error:
        send(type(error).__name__, error.message, error.hint, error.code)
    except Exception as error:
        send("UnexpectedError", f"unexpected {type(error).__name__}: {error}", "", "unexpected")


def _fetch(hub_id: str, revision: str | None, report: Report) -> tuple[str, str | None]:
    """Download a repository; return its folder and commit."""
    from modelscope_hub import HubApi, HubConfig

    class Config(HubConfig):
        def get_session_id(self) -> str:
            """Return a new id each time, instead of one that the client would keep in the user's home."""
            return uuid.uuid4().hex

    config = Config()
    api = HubApi(config)
    if variable := offline_variable():
        folder = _folder(api, hub_id, revision)
        if folder and is_complete(folder):
            return _cached(folder)
        raise offline(hub_id, variable, partly=bool(folder))
    try:
        commit, entries = _listing(api, hub_id, revision)
    except FunASRError:
        raise
    except Exception as error:
        if answer := _answer(hub_id, config, error):
            raise answer from error
        folder = _folder(api, hub_id, revision)  # without a network, use the cache
        if folder and is_complete(folder):
            return _cached(folder)
        raise unreached(hub_id, error, _access(config)) from error
    try:
        revision = commit or revision or DEFAULT_BRANCH
        return _download(api, config.cache_dir, hub_id, revision, entries, report), revision
    except FunASRError:
        raise
    except Exception as error:  # the client passes on errors of its HTTP library
        raise _answer(hub_id, config, error) or failure(hub_id, error, _access(config), RETRY_HINT) from error


def _cached(folder: Path) -> tuple[str, str | None]:
    """Return the folder and commit of a cached repository. Not every cache layout has the commit."""
    return str(folder), folder.name if folder.parent.name == "snapshots" else None


def _access(config: "HubConfig") -> Access:
    """Return the client's settings. The client itself puts https:// before the value of the variable."""
    stated, token = os.environ.get(ENDPOINT, ""), os.environ.get(TOKEN, "")
    return Access(
        stated if "://" in stated else str(config.endpoint), ENDPOINT, {TOKEN: token} if token else {},
        ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "pysocks",
        f"set {ENDPOINT} to another site, or use --hub hf if Hugging Face has the model",
        config.cache_dir, CACHE_VARIABLE, OTHER_DISK_HINT,
    )  # fmt: skip


def _listing(api: "HubApi", hub_id: str, revision: str | None) -> tuple[str | None, list[Entry]]:
    """List the files of a revision, and find the commit that pins them.

    The hub reports the commit that last changed each file, but not the commit that a branch points to. The latest
    of these commits should contain all files as they are now. A second listing confirms that; otherwise the commit
    is None.
    """

    def files(revision: str) -> list[Entry]:
        found = api.legacy.list_repo_files(hub_id, MODEL, revision=revision)
        return [entry for entry in found if entry.get("Type") != "tree"]

    def contents(entries: list[Entry]) -> set[tuple[Any, Any]]:
        return {(entry.get("Path"), entry.get("Sha256")) for entry in entries}

    entries = files(revision or DEFAULT_BRANCH)
    if not entries:  # the hub gives the same answer for an unknown revision
        revisions = [str(entry.get("Revision")) for entry in api.list_repo_revisions(hub_id, MODEL)]
        if revision in revisions:
            return None, []
        message = f"{hub_id}: no revision {revision or DEFAULT_BRANCH}"
        raise ModelError(message, f"ModelScope has {', '.join(revisions)}", code="revision-missing")
    latest = str(max(entries, key=lambda entry: entry.get("CommittedDate") or 0).get("Revision") or "")
    if revision and COMMIT.fullmatch(revision):
        return revision, entries
    if COMMIT.fullmatch(latest) and contents(files(latest)) == contents(entries):
        return latest, entries
    return None, entries


def _download(api: "HubApi", cache: Path, hub_id: str, revision: str, entries: list[Entry], report: Report) -> str:
    """Download the files of a checkpoint, and return their folder."""
    files = {str(entry.get("Path")): entry for entry in entries}
    # `wanted` returns only plain names; the client would follow any path.
    chosen = [files[name] for name in wanted(hub_id, files)]
    begun = _folder(api, hub_id, revision)
    missing = sum(_missing_bytes(begun, entry) for entry in chosen)
    require_space(cache, missing, f"the download of {hub_id}", OTHER_DISK_HINT)
    counters = [_counter(missing, report)]
    return str(api.download_repo(hub_id, MODEL, revision=revision, file_list=chosen, progress_callbacks=counters))


def _folder(api: "HubApi", hub_id: str, revision: str | None) -> Path | None:
    """Return the cached folder of a revision, in the layout of this client, an earlier one or FunASR's."""
    from modelscope_hub import CacheNotFound

    try:
        return api.download_repo(hub_id, MODEL, revision=revision, local_files_only=True)
    except CacheNotFound:
        return None


def _missing_bytes(folder: Path | None, entry: Entry) -> int:
    """Return how many bytes of a file are missing; it may be cached as a whole or in part."""
    size, path = int(entry.get("Size") or 0), (folder or Path()) / entry["Path"]
    paths = (path, path.with_name(path.name + PARTIAL)) if folder else ()
    here = next((path.stat().st_size for path in paths if path.exists()), 0)
    return max(0, size - here)


def _counter(total: int, report: Report) -> type:
    """Make a class that counts bytes. The client creates one per file, and passes negative sizes at a restart."""
    from modelscope_hub import ProgressCallback

    lock, done = threading.Lock(), 0

    class Counter(ProgressCallback):
        def update(self, size: int) -> None:
            nonlocal done
            with lock:
                done += size
                report(min(done, total), total)

    return Counter


def _answer(hub_id: str, config: "HubConfig", error: Exception) -> FunASRError | None:
    """Return the error for a request that the hub refused, or for files that failed; None for other errors."""
    from modelscope_hub import AuthenticationError, FileDownloadError, NotExistError, PermissionDeniedError

    access = _access(config)
    if isinstance(error, NotExistError | AuthenticationError | PermissionDeniedError):
        token = f"check that {TOKEN} may read it" if access.tokens else f"set {TOKEN}"
        message, hint = f"{hub_id}: not on ModelScope, or private", f"check the spelling, or {token}"
        return wrong_token(access) or ModelError(message, hint, code="hub-missing")
    if isinstance(error, FileDownloadError):  # report the first file, unless the disk is full
        failed = error.failed_files.items()
        failures = [failure(f"{hub_id}/{name}", cause, access, RETRY_HINT) for name, cause in failed]
        return next((one for one in failures if isinstance(one, OutputError)), failures[0])
    return None


if __name__ == "__main__":
    _run(*sys.argv[1:])

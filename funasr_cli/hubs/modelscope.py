"""ModelScope, through the client that it publishes (`modelscope-hub`), which runs nothing that it fetches.

The client draws progress bars and cannot be told not to, logs and warns. So it works in a process of its own,
which tells on its standard output, one JSON value a line, how far it is and how it ends.
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
from funasr_cli.hubs.network import Access, failure, unreached, wrong_token
from funasr_cli.hubs.repository import CheckpointFolder, Tell, is_complete, wanted
from funasr_cli.options import Hub
from funasr_cli.paths import require_space

if TYPE_CHECKING:
    from modelscope_hub import HubApi, HubConfig

DEFAULT_BRANCH = "master"
MODEL = "model"  # what kind of repository it is
ENDPOINT, TOKEN = "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN"
COMMIT = re.compile(r"[0-9a-f]{40}")  # it is made a folder's name of
RESUMES = "run it again: it goes on where it stopped"
ELSEWHERE = "make room there, or let MODELSCOPE_CACHE name a folder on another disk"
PARTIAL = ".incomplete"  # of the client's

Entry = dict[str, Any]  # a file as the hub lists it: Path, Size, Sha256, Revision, CommittedDate, ...


def fetch(hub_id: str, revision: str | None, tell: Tell) -> CheckpointFolder:
    """Download what makes a checkpoint, or find it in the cache; see `find.fetch_checkpoint`."""
    if importlib.util.find_spec("modelscope_hub") is None:
        install = "pip install 'funasr-cli[modelscope]'"
        raise SetupError("--hub ms needs modelscope-hub", install, code="package-missing")
    command = [sys.executable, "-P", "-m", __name__, hub_id, *([revision] if revision else [])]
    surroundings = os.environ | {"TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, env=surroundings, stdin=null, stdout=pipe, stderr=null) as process:
        try:
            for kind, values in map(json.loads, process.stdout or ()):
                if kind == "progress":
                    tell(*values)
                elif kind == "fetched":
                    return CheckpointFolder(Path(values[0]), hub_id, values[1], Hub.MS)
                else:
                    raise getattr(errors, kind)(*values[:2], code=values[2])
        finally:
            process.kill()
    raise SetupError(f"{hub_id}: the download was ended by something else", RESUMES, code="download-failed")


def _run(hub_id: str, revision: str | None = None) -> None:
    """What the process does; nothing but its own lines gets to its standard output."""
    stdout, sys.stdout = sys.stdout, sys.stderr

    def say(kind: str, *values: object) -> None:
        print(json.dumps([kind, values]), file=stdout, flush=True)

    try:
        say("fetched", *_fetch(hub_id, revision, lambda *sizes: say("progress", *sizes)))
    except FunASRError as error:
        say(type(error).__name__, error.message, error.hint, error.code)
    except Exception as error:
        say("UnexpectedError", f"unexpected {type(error).__name__}: {error}", "", "unexpected")


def _fetch(hub_id: str, revision: str | None, tell: Tell) -> tuple[str, str | None]:
    """Folder and commit."""
    from modelscope_hub import HubApi, HubConfig

    class Config(HubConfig):
        def get_session_id(self) -> str:
            """What is sent is not tied to an id that the client would keep in the user's home."""
            return uuid.uuid4().hex

    config = Config()
    api = HubApi(config)
    try:
        commit, entries = _listing(api, hub_id, revision)
    except FunASRError:
        raise
    except Exception as error:
        if answer := _answer(hub_id, config, error):
            raise answer from error
        folder = _folder(api, hub_id, revision)  # no network: what is here will do
        if folder and is_complete(folder):
            return str(folder), folder.name if folder.parent.name == "snapshots" else None
        raise unreached(hub_id, error, _access(config)) from error
    try:
        revision = commit or revision or DEFAULT_BRANCH
        return _download(api, config.cache_dir, hub_id, revision, entries, tell), revision
    except FunASRError:
        raise
    except Exception as error:  # the client lets through what its HTTP library raises
        raise _answer(hub_id, config, error) or failure(hub_id, error, _access(config), RESUMES) from error


def _access(config: "HubConfig") -> Access:
    """The client itself puts https:// before whatever is in the variable."""
    stated, token = os.environ.get(ENDPOINT, ""), os.environ.get(TOKEN, "")
    return Access(
        stated if "://" in stated else str(config.endpoint), ENDPOINT, {TOKEN: token} if token else {},
        ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "pysocks",
        f"{ENDPOINT} names another site; --hub hf takes it from Hugging Face, if that has it",
        config.cache_dir, ELSEWHERE,
    )  # fmt: skip


def _listing(api: "HubApi", hub_id: str, revision: str | None) -> tuple[str | None, list[Entry]]:
    """The files of a revision, and the commit that pins them.

    The hub does not say which commit a branch stands for, but which one changed each file last. The latest of
    these has all files as they are now, which a second listing confirms; if it does not, there is no commit.
    """

    def files(revision: str) -> list[Entry]:
        found = api.legacy.list_repo_files(hub_id, MODEL, revision=revision)
        return [entry for entry in found if entry.get("Type") != "tree"]

    def contents(entries: list[Entry]) -> set[tuple[Any, Any]]:
        return {(entry.get("Path"), entry.get("Sha256")) for entry in entries}

    entries = files(revision or DEFAULT_BRANCH)
    if not entries:  # also what an unknown revision is answered with
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


def _download(api: "HubApi", cache: Path, hub_id: str, revision: str, entries: list[Entry], tell: Tell) -> str:
    files = {str(entry.get("Path")): entry for entry in entries}
    chosen = [files[name] for name in wanted(hub_id, files)]  # plain names only: the client would follow any path
    begun = _folder(api, hub_id, revision)
    missing = sum(_missing_bytes(begun, entry) for entry in chosen)
    require_space(cache, missing, f"the download of {hub_id}", ELSEWHERE)
    told = [_counter(missing, tell)]
    return str(api.download_repo(hub_id, MODEL, revision=revision, file_list=chosen, progress_callbacks=told))


def _folder(api: "HubApi", hub_id: str, revision: str | None) -> Path | None:
    """Where the cache has something of a revision, laid out as by this client or earlier ones, FunASR's too."""
    from modelscope_hub import CacheNotFound

    try:
        return api.download_repo(hub_id, MODEL, revision=revision, local_files_only=True)
    except CacheNotFound:
        return None


def _missing_bytes(folder: Path | None, entry: Entry) -> int:
    """What is still to come of a file: it may be there, or in part."""
    size, path = int(entry.get("Size") or 0), (folder or Path()) / entry["Path"]
    paths = (path, path.with_name(path.name + PARTIAL)) if folder else ()
    here = next((path.stat().st_size for path in paths if path.exists()), 0)
    return max(0, size - here)


def _counter(total: int, tell: Tell) -> type:
    """What the client makes one of for each file: told of bytes that have come, of fewer when it starts over."""
    from modelscope_hub import ProgressCallback

    lock, done = threading.Lock(), 0

    class Counter(ProgressCallback):
        def update(self, size: int) -> None:
            nonlocal done
            with lock:
                done += size
                tell(min(done, total), total)

    return Counter


def _answer(hub_id: str, config: "HubConfig", error: Exception) -> FunASRError | None:
    """What to say where the hub does not give this, or some of its files; None of other errors."""
    from modelscope_hub import AuthenticationError, FileDownloadError, NotExistError, PermissionDeniedError

    access = _access(config)
    if isinstance(error, NotExistError | AuthenticationError | PermissionDeniedError):
        token = f"see whether {TOKEN} may read it" if access.tokens else f"set {TOKEN}"
        message, hint = f"{hub_id}: not on ModelScope, or private", f"check the spelling, or {token}"
        return wrong_token(access) or ModelError(message, hint, code="hub-missing")
    if isinstance(error, FileDownloadError):  # the first of the files; a full disk is no matter of a file
        failed = error.failed_files.items()
        told = [failure(f"{hub_id}/{name}", cause, access, RESUMES) for name, cause in failed]
        return next((one for one in told if isinstance(one, OutputError)), told[0])
    return None


if __name__ == "__main__":
    _run(*sys.argv[1:])

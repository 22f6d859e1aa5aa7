"""Local model hubs: the part of the protocols that a download needs, and typical faults."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

MAIN, OLDER = "a" * 40, "b" * 40  # commits
PIECE_BYTES = 1 << 14
LARGE = (".pt", ".safetensors")  # files that a hub stores outside of git, under their SHA-256

Answer = tuple[int, bytes, dict[str, str]]  # status, body, headers
R = TypeVar("R", bound="Repository")


class Repository:
    """A repository. Faults stay in force until they are cleared."""

    hub_id = "owner/model"

    fault: tuple[int, str] | None = None  # status and error code of every response
    breaks_after: int | None = (
        None  # close the connection after this many bytes of a large file; the next one succeeds
    )
    stays_broken = False  # if true, large files are refused from then on
    is_broken = False
    omits_bytes = 0  # bytes at the end of a large file that are silently not sent
    halfway: Callable[[], None] | None = None  # called when half of a large file has been sent
    stated_bytes: int | None = None  # the size of large files that the hub lists, if not the real one
    before_piece: Callable[[], None] | None = None  # called before each piece of a large file is sent
    url = ""

    def __init__(self, folder: Path) -> None:
        self.files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        self.downloaded: list[str] = []  # names of files that were sent, completely or partly
        self.ranges: list[str] = []  # ranges requested of the large files
        self.authorization: set[str] = set()
        self.requests = 0

    def answer(self, path: str) -> Answer:
        """Return status, body and headers for a GET, unless a `fault` is set."""
        raise NotImplementedError

    def file_of(self, path: str) -> str | None:
        """Return the file that a path requests."""
        raise NotImplementedError

    def size(self, name: str) -> int:
        """Return the size that the hub lists for a file."""
        return self.stated_bytes if self.stated_bytes and name.endswith(LARGE) else self.files[name].stat().st_size

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.files[name].read_bytes()).hexdigest()


class Hub(Repository):
    """Hugging Face, with a branch `main` and a tag `v1`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.revisions = {"main": MAIN, "v1": OLDER, MAIN: MAIN, OLDER: OLDER}

    def file_of(self, path: str) -> str | None:
        parts = urlsplit(path).path.strip("/").split("/")
        return "/".join(parts[4:]) if parts[2:3] == ["resolve"] else None

    def answer(self, path: str) -> Answer:
        parts = urlsplit(path).path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._api(parts[2:])
        if "/".join(parts[:2]) != self.hub_id:
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        name = self.file_of(path)
        if name not in self.files:
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        content, commit = self.files[name].read_bytes(), self.revisions[parts[3]]
        if name.endswith(LARGE):
            linked = {"X-Linked-ETag": f'"{self.sha256(name)}"', "X-Linked-Size": str(self.size(name))}
        else:
            linked = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        return 200, content, {**linked, "X-Repo-Commit": commit}

    def _api(self, parts: list[str]) -> Answer:
        if "/".join(parts[:2]) != self.hub_id:
            return 401, b"", {"X-Error-Code": "RepoNotFound"}
        commit = self.revisions.get(parts[3] if len(parts) > 3 else "main")
        if commit is None:
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        if parts[2:3] == ["tree"]:
            content: Any = [self._entry(name, "path", "oid", "oid") | {"type": "file"} for name in self.files]
        else:
            siblings = [self._entry(name, "rfilename", "blobId", "sha256") for name in self.files]
            content = {"id": self.hub_id, "sha": commit, "siblings": siblings}
        return 200, json.dumps(content).encode(), {"Content-Type": "application/json"}

    def _entry(self, name: str, name_key: str, blob_key: str, sha_key: str) -> dict[str, Any]:
        content = self.files[name].read_bytes()
        entry = {name_key: name, "size": self.size(name), blob_key: hashlib.sha1(content).hexdigest()}
        if not name.endswith(LARGE):
            return entry
        return entry | {"lfs": {sha_key: self.sha256(name), "size": self.size(name), "pointerSize": 130}}


class ModelScopeHub(Repository):
    """ModelScope, with a branch `master` and a tag `v1`. The responses follow those of the real hub.

    It does not report which commit a branch points to. An unknown revision is not an error: it has no files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names = {"master": MAIN, "v1": OLDER}
        self.changed_last = "README.md" if "README.md" in self.files else "config.yaml"
        self.knows_commits = True

    def file_of(self, path: str) -> str | None:
        parts = urlsplit(path)
        return parse_qs(parts.query)["FilePath"][0] if parts.path.endswith("/repo") else None

    def answer(self, path: str) -> Answer:
        url = urlsplit(path)
        parts, query = url.path.strip("/").split("/"), parse_qs(url.query)
        if parts[:3] != ["api", "v1", "models"] or "/".join(parts[3:5]) != self.hub_id:
            return self._envelope(None, 404, 10010205001, "record not found")
        revision = query.get("Revision", ["master"])[0]
        match parts[5:]:
            case ["revisions"]:
                listed = {"Branches": [{"Revision": "master"}], "Tags": [{"Revision": "v1"}]}
                return self._envelope({"RevisionMap": listed})
            case ["repo", "files"]:
                return self._envelope({"Files": self._listing(revision), "LatestCommitter": None})
            case ["repo"] if (name := query["FilePath"][0]) in self.files:
                return 200, self.files[name].read_bytes(), {"Content-Type": "application/octet-stream"}
        return self._envelope(None, 404, 10990101007, "file not found")

    def _listing(self, revision: str) -> list[dict[str, Any]] | None:
        commits = set(self.names.values()) if self.knows_commits else set()
        if revision not in {*self.names, *commits}:
            return None
        folders = sorted({name.rpartition("/")[0] for name in self.files} - {""})
        trees = [{"Path": name, "Type": "tree", "Size": 0, "Revision": "c" * 40} for name in folders]
        return trees + [self._entry(name, self.names.get(revision, revision)) for name in self.files]

    def _entry(self, name: str, commit: str) -> dict[str, Any]:
        is_last = name == self.changed_last
        return {
            "Path": name, "Type": "blob", "Size": self.size(name), "Sha256": self.sha256(name),
            "Revision": commit if is_last else "d" * 40, "CommittedDate": 1_700_000_000 + is_last,
        }  # fmt: skip

    def _envelope(self, data: Any, status: int = 200, code: int = 200, message: str = "success") -> Answer:
        content = {"Code": code, "Data": data, "Message": message, "Success": status == 200}
        return status, json.dumps(content).encode(), {"Content-Type": "application/json"}


class Server(ThreadingHTTPServer):
    """A server with a backlog as large as a client's connections: a client retries a dropped one for minutes."""

    request_queue_size = 128


@contextmanager
def serving(repository: R, certificate: Path | None = None) -> Iterator[R]:
    """Answer requests at the repository's `url` until the block ends; with a certificate and key, over TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            repository.requests += 1
            repository.authorization.add(self.headers.get("Authorization", ""))
            if fault := repository.fault:
                status, body, headers = fault[0], b"", {"X-Error-Code": fault[1]}
            else:
                status, body, headers = repository.answer(self.path)
            name = repository.file_of(self.path) if status < 300 else None
            is_large = name is not None and name.endswith(LARGE)
            if self.command == "GET" and name:
                repository.downloaded.append(name.rpartition("/")[2])
            if self.command == "GET" and is_large:
                status, body, headers = self.part(body, headers)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "GET":
                return
            if is_large and repository.breaks_after is not None:
                body, repository.breaks_after = body[: repository.breaks_after], None
                repository.is_broken = repository.stays_broken
                self.close_connection = True
            if is_large and repository.halfway:
                half = len(body) // 2
                self.wfile.write(body[:half])
                repository.halfway()
                body = body[half:]
            step = PIECE_BYTES if is_large and repository.before_piece else max(1, len(body))
            for start in range(0, len(body), step):
                if is_large and repository.before_piece:
                    repository.before_piece()
                self.wfile.write(body[start : start + step])

        do_HEAD = do_CONNECT = do_GET  # clients send CONNECT to a proxy

        def part(self, body: bytes, headers: dict[str, str]) -> Answer:
            """Return the part of the body that the `Range` header requests."""
            if repository.is_broken:
                return 503, b"", {}
            body = body[: len(body) - repository.omits_bytes]
            asked = self.headers.get("Range", "")
            repository.ranges.append(asked)
            if not asked:
                return 200, body, headers
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            if begin >= len(body):
                return 416, b"", {"Content-Range": f"bytes */{len(body)}"}
            return 206, body[begin:], {**headers, "Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"}

        def log_message(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    repository.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client has disconnected
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield repository
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

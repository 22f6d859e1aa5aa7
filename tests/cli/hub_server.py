"""A model hub on this machine: as much of the protocol as a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAIN, OLDER = "a" * 40, "b" * 40  # commits


class Hub:
    """One repository, `owner/model`, with a branch `main` and a tag `v1`; `fault` makes it misbehave."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        self.revisions = {"main": MAIN, "v1": OLDER, MAIN: MAIN, OLDER: OLDER}
        self.fault: tuple[int, str] | None = None  # status and error code of every answer
        self.downloaded: list[str] = []
        self.url = ""

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a GET."""
        if self.fault:
            return self.fault[0], b"", {"X-Error-Code": self.fault[1]}
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._api(parts[2:])
        if parts[:2] != ["owner", "model"]:
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        commit, file = self.revisions[parts[3]], self.files.get("/".join(parts[4:]))
        if parts[2] != "resolve" or file is None:
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        content = file.read_bytes()
        return 200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}

    def _api(self, parts: list[str]) -> tuple[int, bytes, dict[str, str]]:
        if parts[:2] != ["owner", "model"]:
            return 401, b"", {"X-Error-Code": "RepoNotFound"}
        commit = self.revisions.get(parts[3] if len(parts) > 3 else "main")
        if commit is None:
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        if parts[2:3] == ["tree"]:
            content: Any = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
                for name, file in self.files.items()
            ]
        else:
            siblings = [{"rfilename": name} for name in self.files]
            content = {"id": "owner/model", "sha": commit, "siblings": siblings}
        return 200, json.dumps(content).encode(), {"Content-Type": "application/json"}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer requests at `hub.url` until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body, headers = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                if "/resolve/" in self.path:
                    hub.downloaded.append(self.path.rpartition("/")[2])
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""A server on a free port of this machine, in a thread of the tests' own process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette

from funasr_cli.families.load import load_model
from funasr_cli.pipeline import Recognizer
from funasr_cli.server import run
from funasr_cli.server.app import PAGE, make_app
from funasr_cli.server.guard import Guard
from funasr_cli.server.service import Transcriptions
from funasr_cli.server.shelf import Shelf

MB = 1 << 20


@dataclass
class Served:
    """A running server."""

    address: str
    service: Transcriptions
    server: run.Server
    folder: Path  # for uploads

    @property
    def v1(self) -> str:
        return f"{self.address}/v1"

    def post(self, path: str = "/v1/audio/transcriptions", **rest: Any) -> httpx.Response:
        return httpx.post(f"{self.address}{path}", timeout=60.0, **rest)

    def transcribe(self, audio: Path, **fields: Any) -> httpx.Response:
        return self.post(files={"file": ("a.flac", audio.read_bytes())}, data=fields)

    def uploads(self) -> list[Path]:
        """Return what is in the folder for uploads."""
        return list(self.folder.iterdir())


def load(folder: Path) -> Recognizer:
    return Recognizer(load_model(folder))


@contextmanager
def serving(
    folders: Mapping[str, Path],
    guard: Guard = Guard(),  # noqa: B008 - it is frozen
    *,
    most_bytes: int = 50 * MB,
    keep_alive_s: float = float("inf"),
    load: Callable[[Path], Any] = load,
    load_voices: Callable[[], Any] | None = None,
    page: Path = PAGE,
    **rest: Any,
) -> Iterator[Served]:
    """Run a server until the end of the context."""
    service = Transcriptions(Shelf(folders, load, keep_alive_s, load_voices), **rest)
    app: Starlette = make_app(service, guard, most_bytes, page)
    listener = run.listening("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app, lifespan="on", access_log=False, log_config=None, ws="none", timeout_graceful_shutdown=5
    )
    server = run.Server(config, service)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        yield Served(address, service, server, app.state.folder)
    finally:
        server.should_exit = True
        thread.join(30.0)
        assert not thread.is_alive()
        assert not app.state.folder.exists()

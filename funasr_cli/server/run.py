"""Run the server until a signal ends it. What is open then is finished, or refused when that takes too long."""

import asyncio
import logging
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from funasr_cli.errors import SetupError, UnexpectedError
from funasr_cli.server.service import Transcriptions

log = logging.getLogger(__name__)

FINISH_S = 30.0  # for what is open when a signal ends the server
REFUSE_S = 5.0  # then, to tell the others


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise a `SetupError` if the address cannot be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "choose another --port or --host"
        raise SetupError(f"{host}:{port}: cannot listen ({reason})", hint, code="port-unusable") from error
    return listener


class Server(uvicorn.Server):
    """A server that tells what is still open, after a while, that it is going down."""

    def __init__(self, config: uvicorn.Config, service: Transcriptions):
        super().__init__(config)
        self._service = service

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end, several times a second: also if nothing can be computed any more."""
        return self._service.crashed or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is open, for `FINISH_S`; then refuse the rest."""
        self._service.closing = True
        refusal = asyncio.get_running_loop().call_later(FINISH_S, self._service.stop)
        await super().shutdown(sockets)
        refusal.cancel()


def run(app: Starlette, service: Transcriptions, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, and call `ready` once requests are accepted.

    Raises:
        UnexpectedError: the thread that computes has ended with a bug.
    """
    config = uvicorn.Config(
        app, lifespan="on", access_log=False, log_config=None, server_header=False, ws="none",
        timeout_graceful_shutdown=int(FINISH_S + REFUSE_S),
    )  # fmt: skip
    server = Server(config, service)

    async def serve() -> None:
        task = asyncio.create_task(server.serve([listener]))
        while not (server.started or task.done()):
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        await task

    asyncio.run(serve())
    if service.crashed:
        raise UnexpectedError("the server has stopped because of a bug", "start it again", code="unexpected")

"""Who may use the server: names of the host, origins of web pages, the key.

Any web page can send requests to a server on its visitor's own machine. So a page of another origin is refused
unless it is allowed, and so is a host name that is not known to be ours: otherwise a page could point its own name
at this machine (DNS rebinding).
"""

import hmac
import ipaddress
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from funasr_cli.server.problems import Problem

ANY = "*"
LOCAL_NAMES = ("localhost", "ip6-localhost")


@dataclass(frozen=True)
class Guard:
    """What is allowed.

    Attributes:
        key: required of each request; None for none.
        hosts: names of this server in addition to its addresses and the name of the machine.
        origins: origins of web pages that may use it, such as https://example.com, or `ANY`.
    """

    key: str | None = None
    hosts: Collection[str] = ()
    origins: Collection[str] = ()

    def refuse_stranger(self, headers: Headers) -> None:
        """Raise a `Problem` for a host name that is not ours, or a page of an origin that is not allowed."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Problem(403, f"the host {host!r} is not allowed; see --allowed-host", "host_not_allowed")
        origin = headers.get("origin")
        if origin and not (self.allows(origin) or origin.partition("://")[2].casefold() == host.casefold()):
            raise Problem(403, f"the origin {origin!r} is not allowed; see --cors-origin", "origin_not_allowed")

    def allows(self, origin: str) -> bool:
        """Return whether pages of another origin may use the server."""
        return ANY in self.origins or origin in self.origins

    def refuse_without_key(self, headers: Headers) -> None:
        """Raise a `Problem` if the key is missing or wrong."""
        if self.key is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer":
            given = headers.get("x-api-key", "")
        sent = given.encode("latin-1").strip()  # the bytes as they came; clients send UTF-8
        if not hmac.compare_digest(sent, self.key.encode()):
            what = "the API key is wrong" if given else "an API key is required: Authorization: Bearer KEY"
            raise Problem(401, what, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _is_ours(self, host: str) -> bool:
        machine = socket.gethostname().casefold()
        known = (
            *LOCAL_NAMES,
            machine,
            f"{machine}.local",
            *(known.rstrip(".").casefold() for known in self.hosts),
        )
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            return name in known or bool(ipaddress.ip_address(name))
        except ValueError:  # not an address, or nothing that a host could be
            return False


class AsStated:
    """Middleware that forbids browsers to guess types: a text that looks like a web page is not run as one."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and add the header to its answer."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-content-type-options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, sent)


class Strangers:
    """Middleware that refuses strangers before anything else happens."""

    def __init__(self, app: ASGIApp, guard: Guard):
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that is allowed."""
        try:
            if scope["type"] != "lifespan":
                self._guard.refuse_stranger(Headers(scope=scope))
        except Problem as problem:
            await problem.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class KeyRequired:
    """Middleware for the routes that need the key. It is checked before the body is read."""

    def __init__(self, app: ASGIApp, guard: Guard):
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with the key."""
        self._guard.refuse_without_key(Headers(scope=scope))
        await self._app(scope, receive, send)

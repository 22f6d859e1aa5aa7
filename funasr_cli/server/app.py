"""The server's routes, and how a request for a transcription is answered: at once, late, or as events."""

import asyncio
import json
import logging
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from funasr_cli.scheduling.events import Event, Finished, SegmentFinished
from funasr_cli.server import replies, sse
from funasr_cli.server.fields import Wanted, wanted
from funasr_cli.server.guard import AsStated, Guard, KeyRequired, Strangers
from funasr_cli.server.problems import Problem, as_problem, where
from funasr_cli.server.rewriting import rewritten
from funasr_cli.server.service import Transcriptions
from funasr_cli.server.uploads import private_folder, received
from funasr_cli.transcript import Transcript

log = logging.getLogger(__name__)

# Proxies and clients give up if no byte arrives for long. White space may precede JSON.
SILENCE_S = 20.0  # after which the answer begins, even if the transcript is not there yet
BEAT_S = 15.0  # between white space, or comments among events
NOTES_HEADER, MOST_NOTES = "x-funasr-notes", 1000  # characters, since clients limit the size of headers
PAGE = Path(__file__).with_name("page")
PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # the files change with the package
}
Events = AsyncGenerator[tuple[int, Event]]  # each with the number of its channel


@dataclass(frozen=True)
class Endpoint:
    """The endpoint of transcriptions, or of translations."""

    service: Transcriptions
    folder: Path  # for uploads
    most_bytes: int  # of an upload
    translate: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Whatever happens, its file is removed and its rows are freed."""
        request, began = Request(scope, receive), time.monotonic()
        answer = Answer(send)
        try:
            with self.service.place():
                async with received(request, self.folder, self.most_bytes) as upload:
                    model = scope["path_params"].get("model")
                    asked = await asyncio.to_thread(wanted, upload.fields, model, translate=self.translate)
                    offer = self.service.shelf.find(asked.model)
                    await unless_gone(request, self._transcribe(upload.path, asked, answer))
            log.info("%s: %s, %.1f s", answer.status, offer.name, time.monotonic() - began)
        except ClientDisconnect:
            log.info("the client has left after %.1f s", time.monotonic() - began)
        except Exception as error:
            problem = as_problem(error)
            if not isinstance(error, Problem):
                log.error("a bug: %s", where(error))
            log.info("%s: %s", problem.status, problem.code)
            await answer.fail(problem)

    async def _transcribe(self, path: Path, asked: Wanted, answer: "Answer") -> None:
        settled: list[Wanted] = []
        events = self.service.events(path, asked, settled)
        try:
            async with aclosing(events):
                if asked.stream:
                    await self._stream(events, settled, answer)
                else:
                    await self._whole(events, asked, settled, answer)
        except Exception as error:
            raise as_problem(error, asked.spelled) from error

    async def _whole(self, events: Events, asked: Wanted, settled: list[Wanted], answer: "Answer") -> None:
        """Answer with a whole transcript. If it takes long, JSON begins with white space."""
        found: dict[int, Transcript] = {}
        can_wait = replies.content_type(asked) == replies.JSON_TYPE
        async with aclosing(with_pauses(events, lambda: answer.patience_s if can_wait else None)) as paced:
            async for item in paced:
                if item is None:
                    await answer.send(b" ", replies.JSON_TYPE)
                elif isinstance(item[1], Finished):
                    found[item[0]] = item[1].transcript
        [wanted] = settled
        transcripts = [found[channel] for channel in sorted(found)]
        notes = " ".join("; ".join(replies.notes(transcripts, wanted)).split())
        headers = {NOTES_HEADER: notes[:MOST_NOTES].encode("ascii", "replace").decode()} if notes else {}
        body = await asyncio.to_thread(replies.body, transcripts, wanted)
        await answer.send(body.encode(), replies.content_type(wanted), headers, last=True)

    async def _stream(self, events: Events, settled: list[Wanted], answer: "Answer") -> None:
        """Answer with events. An error before the first one still has its own status."""
        stream, found = sse.Stream(), list[Transcript]()
        async with aclosing(with_pauses(events, lambda: answer.patience_s)) as paced:
            async for item in paced:
                if item is None:
                    lines = sse.COMMENT
                elif isinstance(item[1], SegmentFinished):
                    lines = stream.segment(item[1].segment, settled[0])
                elif isinstance(item[1], Finished):
                    found.append(item[1].transcript)
                    continue
                if lines:
                    await answer.send(lines.encode(), sse.TYPE, sse.HEADERS)
        last = await asyncio.to_thread(stream.done, found, settled[0])
        await answer.send(last.encode(), sse.TYPE, sse.HEADERS, last=True)


class Answer:
    """The answer to a request, which begins with its first bytes."""

    def __init__(self, send: Send):
        self._send = send
        self.status = 0
        self._type = ""

    @property
    def begun(self) -> bool:
        """Whether the status has been sent."""
        return bool(self.status)

    @property
    def patience_s(self) -> float:
        """Return how long the client may hear nothing."""
        return BEAT_S if self.begun else SILENCE_S

    async def send(
        self, data: bytes, content_type: str, headers: Mapping[str, str] | None = None, *, last: bool = False
    ) -> None:
        """Send a part of the body, or its `last` one; before the first one, the status and the headers."""
        if not self.begun:
            pairs = {"content-type": content_type, **(headers or {})}
            if last:
                pairs["content-length"] = str(len(data))
            await self._begin(200, [(name.encode(), value.encode("latin-1")) for name, value in pairs.items()])
            self._type = content_type
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def fail(self, problem: Problem) -> None:
        """Answer with an error; within the body if the answer has begun. A client that has gone hears nothing."""
        with suppress(OSError):
            if self.begun:
                text = json.dumps(problem.body)
                text = sse.line(text) if self._type == sse.TYPE else text
                await self.send(text.encode(), self._type, last=True)
                return
            response = problem.response()
            # The body may not have been read.
            await self._begin(problem.status, [*response.raw_headers, (b"connection", b"close")])
            await self._send({"type": "http.response.body", "body": response.body, "more_body": False})

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


async def unless_gone(request: Request, work: Awaitable[None]) -> None:
    """Await some work; cancel it and raise `ClientDisconnect` if the client leaves before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        task.result()
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def with_pauses(
    events: Events, pause_s: Callable[[], float | None]
) -> AsyncGenerator[tuple[int, Event] | None]:
    """Yield events, and None whenever none arrives for some seconds."""
    waiting: asyncio.Future[Any] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(events))
            await asyncio.wait({waiting}, timeout=pause_s())
            if not waiting.done():
                yield None
                continue
            try:
                item, waiting = waiting.result(), None
            except StopAsyncIteration:
                return
            yield item
    finally:
        if waiting and not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


class Page(StaticFiles):
    """Static files for browsers, which load nothing from elsewhere."""

    def file_response(self, *given: Any, **more: Any) -> Response:
        """Return a file, with headers that keep foreign scripts out."""
        response = super().file_response(*given, **more)
        response.headers.update(PAGE_HEADERS)
        return response


def make_app(service: Transcriptions, guard: Guard, most_bytes: int, page: Path = PAGE) -> Starlette:
    """Return the server as an ASGI application.

    Args:
        service: makes the transcriptions.
        guard: who may use the server.
        most_bytes: largest upload.
        page: folder of static files, for everything else below ``/`` if it exists; they need no key.
    """
    folder = private_folder()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        async with AsyncExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.push_async_callback(asyncio.to_thread, service.join)
            stack.callback(service.stop)
            yield

    def health(request: Request) -> Response:
        return JSONResponse({"status": "closing" if service.closing else "ok"}, 503 if service.closing else 200)

    def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": service.shelf.entries()})

    def model(request: Request) -> Response:
        return JSONResponse(service.shelf.find(request.path_params["id"]).entry)

    async def rewrite(request: Request) -> Response:
        with service.place():  # a transcript of 16 MB takes seconds, and hundreds of megabytes
            return await rewritten(request)

    key = [Middleware(KeyRequired, guard=guard)]
    transcribe = Endpoint(service, folder, most_bytes)
    translate = Endpoint(service, folder, most_bytes, translate=True)
    api: Sequence[BaseRoute] = [
        Route("/audio/transcriptions", transcribe, methods=["POST"], middleware=key),
        Route("/audio/transcriptions/{model:path}", transcribe, methods=["POST"], middleware=key),
        Route("/audio/translations", translate, methods=["POST"], middleware=key),
        Route("/transcripts/{format}", rewrite, methods=["POST"], middleware=key),
        Route("/models", sync(models), middleware=key),
        Route("/models/{id:path}", sync(model), middleware=key),
    ]
    routes = [Route("/health", sync(health)), Mount("/v1", routes=api), *api]
    if page.is_dir():
        routes.append(Mount("/", Page(directory=page, html=True)))
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(guard.origins),
        allow_methods=["GET", "POST", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=[NOTES_HEADER],
    )
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(AsStated), Middleware(Strangers, guard=guard), *([cors] if guard.origins else [])],
        exception_handlers={HTTPException: http_problem, Problem: own_problem, Exception: own_problem},
    )
    app.state.folder = folder
    return app


def sync(answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that runs in the event loop, not in a pool of threads: it does not wait for anything."""

    async def endpoint(request: Request) -> Response:
        return answer(request)

    return endpoint


def http_problem(request: Request, error: Any) -> Response:
    """Answer an unknown path or method."""
    problem = Problem(error.status_code, f"{request.method} {request.url.path[:100]}: {error.detail}", "not_found")
    problem.headers.update(error.headers or {})
    return problem.response()


def own_problem(request: Request, error: Exception) -> Response:
    """Answer any other error."""
    return as_problem(error).response()

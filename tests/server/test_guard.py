"""Keys, hosts, origins, preflights; limits; damaged, slow and cut-off uploads: no 500, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import socket
import tempfile
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import Request
from support.serving import MB, Served, serving
from support.speaking import SpeakingModel

import funasr_cli.server as server_package
from funasr_cli import demo
from funasr_cli.pipeline import Recognizer
from funasr_cli.server import uploads
from funasr_cli.server.guard import Guard
from funasr_cli.server.problems import Problem

CLIP = demo.clips()[3].path.read_bytes()
ORIGIN = "https://page.example"
WITH_KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for temporary files of all kinds."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def server(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    page = tmp_path_factory.mktemp("page")
    (page / "index.html").write_text("a page")
    guard = Guard("secret", ("speech.example", "Other.example."), (ORIGIN,))
    with serving(
        {"speaking": demo.MODEL}, guard, most_bytes=2 * MB, load=lambda folder: Recognizer(SpeakingModel()),
        page=page,
    ) as served:  # fmt: skip
        yield served


def own_threads() -> set[threading.Thread]:
    """Return all threads but those of the pools of asyncio and Starlette, which have limits."""
    pools = ("asyncio_", "AnyIO worker thread")
    return {thread for thread in threading.enumerate() if not thread.name.startswith(pools)}


@pytest.fixture(autouse=True)
def _nothing_is_left(server: Served, temporary: Path) -> Iterator[None]:
    threads = own_threads()
    yield
    deadline = time.monotonic() + 10
    while (server.uploads() or server.service._open or own_threads() - threads) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.uploads()
    assert not server.service._open
    assert [entry.name for entry in temporary.iterdir()] == [server.folder.name]
    assert server.folder.stat().st_mode & 0o777 == 0o700
    assert own_threads() <= threads


def post(server: Served, headers: dict[str, str], **rest: object) -> httpx.Response:
    return server.post(headers=headers, files={"file": ("a.flac", CLIP)}, **rest)


def test_the_key(server: Served) -> None:
    for right in (WITH_KEY, {"authorization": "bearer secret"}, {"X-API-Key": "secret"}):
        assert post(server, right).status_code == 200
    for wrong in (
        {},
        {"Authorization": "Bearer Secret"},
        {"Authorization": "Basic secret"},
        {"X-API-Key": "\u00fc"},
    ):
        answer = post(server, {name: value.encode() for name, value in wrong.items()})  # type: ignore[misc]
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/models", "/v1/models/speaking"):
        assert httpx.get(server.address + path).status_code == 401
        assert httpx.get(server.address + path, headers=WITH_KEY).status_code == 200
    assert httpx.get(f"{server.address}/health").json() == {"status": "ok"}
    page = httpx.get(f"{server.address}/")
    assert page.text == "a page"
    assert page.headers["content-security-policy"].startswith("default-src 'self';")


def test_browsers_do_not_guess_types(server: Served) -> None:
    """A transcript as text may look like a web page. Pages, errors and answers of every kind say what they are."""
    answers = [
        *(httpx.get(server.address + path) for path in ("/health", "/", "/models")),
        post(server, {}), post(server, {**WITH_KEY, "Host": "evil.example"}),
        *(post(server, WITH_KEY, data={"response_format": name}) for name in ("text", "srt", "json")),
        post(server, WITH_KEY, data={"stream": "true"}),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 200, 401, 401, 403, 200, 200, 200, 200]
    assert [answer.headers["x-content-type-options"] for answer in answers] == ["nosniff"] * len(answers)


@pytest.mark.parametrize("key", ["schl\u00fcssel", "\u5bc6\u94a5", "voil\u00e0", "\u2026"])
def test_a_key_of_any_letters_arrives_as_utf_8(key: str) -> None:
    """The last bytes of the last two would be white space or control characters in Latin-1."""
    for sent in ((b"authorization", b"Bearer " + key.encode()), (b"x-api-key", key.encode() + b" ")):
        Guard(key).refuse_without_key(Headers(raw=[sent]))
    with pytest.raises(Problem):
        Guard(key).refuse_without_key(Headers(raw=[(b"x-api-key", key.encode()[:-1])]))


def test_hosts(server: Served) -> None:
    port = server.address.rpartition(":")[2]
    known = [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "192.168.1.5",
        "speech.example",
        "Speech.Example.",
        "other.example",
        socket.gethostname(),
    ]
    for host in known:
        assert httpx.get(f"{server.address}/health", headers={"Host": f"{host}:{port}"}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil", "speech.example.evil", "["):
        answer = post(server, {"Host": f"{host}:{port}", **WITH_KEY})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


def test_origins(server: Served) -> None:
    assert post(server, {"Origin": server.address, **WITH_KEY}).status_code == 200
    allowed = post(server, {"Origin": ORIGIN, **WITH_KEY})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "access-control-allow-credentials" not in allowed.headers
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", f"{ORIGIN}.evil"):
        answer = post(server, {"Origin": origin, **WITH_KEY})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in answer.headers


def test_preflights(server: Served) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-csrf-token",
    }
    path = f"{server.address}/v1/audio/transcriptions"
    answer = httpx.options(path, headers={"Origin": ORIGIN, **asked})
    assert answer.status_code == 200
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert {"authorization", "x-csrf-token"} <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert httpx.options(path, headers={"Origin": "https://evil.example", **asked}).status_code == 403


def test_unknown_paths_and_methods_are_answered_in_json(server: Served) -> None:
    for method, path, status in (
        ("GET", "/v1/audio/transcriptions", 405), ("DELETE", "/v1/models", 405), ("GET", "/v1/nothing", 404),
        ("POST", "/v1/audio/speech", 404),
    ):  # fmt: skip
        answer = httpx.request(method, server.address + path, headers=WITH_KEY)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


def test_too_large(server: Served) -> None:
    """By the length that is stated, or by what arrives if none is."""
    large = bytes(3 * MB)
    stated = server.post(headers=WITH_KEY, files={"file": ("a", large)})
    boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    in_chunks = server.post(
        headers={"Content-Type": "multipart/form-data; boundary=x", **WITH_KEY},
        content=iter([boundary, *[bytes(MB // 4)] * 20]),
    )
    for answer in (stated, in_chunks):
        assert answer.status_code == 413
        assert f"{2 * MB:,}" in answer.json()["error"]["message"]
    assert server.post(headers=WITH_KEY, json={"file": "A" * (3 * MB)}).status_code == 413


def test_too_many_fields(server: Served) -> None:
    fields = {f"x{number}": "" for number in range(201)}
    file = {"file": ("a", CLIP)}
    base64 = {"file": b64encode(CLIP).decode()}
    assert server.post(headers=WITH_KEY, files=file, data=fields).status_code == 400
    assert server.post(headers=WITH_KEY, json=base64 | fields).status_code == 400
    del fields["x0"]
    assert server.post(headers=WITH_KEY, files=file, data=fields).status_code == 200
    assert server.post(headers=WITH_KEY, json=base64 | fields).status_code == 200


def test_forms_take_little_memory_besides_their_file(server: Served) -> None:
    file = {"file": ("a", CLIP)}
    assert server.post(headers=WITH_KEY, files=file, data={"x": "a" * 65_000}).status_code == 200
    assert server.post(headers=WITH_KEY, files=file, data={"x": "a" * 66_000}).status_code == 400
    others = {f"x{number}": ("a", b"") for number in range(2)}
    assert server.post(headers=WITH_KEY, files=file | others).status_code == 400


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/octet-stream", ""])
def test_bodies_of_other_kinds_are_not_read(server: Served, kind: str) -> None:
    """Not even their first byte."""
    answer = send_raw(server, head(server, MB, kind))
    assert b" 400 " in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("place", ["app.wanted", "uploads._read_json"])
def test_others_are_answered_while_fields_are_read(
    server: Served, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Neither JSON nor fields are read in the thread that moves bytes."""
    reading, go_on = threading.Event(), threading.Event()
    read = attrgetter(place)(server_package)

    def slow(*given: object, **more: object) -> object:
        reading.set()
        assert go_on.wait(20)
        return read(*given, **more)

    monkeypatch.setattr(f"funasr_cli.server.{place}", slow)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, headers=WITH_KEY, json={"file": b64encode(CLIP).decode()})
        try:
            assert reading.wait(20)
            assert httpx.get(f"{server.address}/health", timeout=5).status_code == 200
        finally:
            go_on.set()
        assert answer.result().status_code == 200


def test_a_full_disk(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("funasr_cli.server.uploads.shutil.copyfileobj", full)
    answer = post(server, WITH_KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "disk-full")


def send_raw(server: Served, data: bytes, *, close_after: float | None = None, cut_off: bool = False) -> bytes:
    """Send bytes, and return what comes back; or close after some seconds, or end what is sent."""
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with suppress(ConnectionError):  # refused before all of it has been sent
            connection.sendall(data)
        if close_after is not None:
            time.sleep(close_after)
            return b""
        if cut_off:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while part := connection.recv(1 << 16):
                found += part
        except ConnectionError:
            pass
        return found


def head(server: Served, length: int, content_type: str = "multipart/form-data; boundary=x") -> bytes:
    host = server.address.removeprefix("http://")
    lines = ["POST /v1/audio/transcriptions HTTP/1.1", f"Host: {host}", "Connection: close",
             "Authorization: Bearer secret",
             f"Content-Type: {content_type}", f"Content-Length: {length}", "", ""]  # fmt: skip
    return "\r\n".join(lines).encode()


def form(content: bytes = CLIP, *fields: tuple[str, str]) -> bytes:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content + b"\r\n"
    return b"".join([*parts, file, b"--x--\r\n"])


def test_a_form_by_hand(server: Served) -> None:
    body = form(CLIP, ("model", "speaking"))
    assert b"Hello there." in send_raw(server, head(server, len(body)) + body)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_uploads_that_are_cut_off(server: Served, share: float) -> None:
    body = form()
    part = body[: round(share * len(body))]
    send_raw(server, head(server, len(body)) + part, close_after=0.05)
    assert b" 500 " not in send_raw(server, head(server, len(body)) + part, cut_off=True)


def test_an_upload_that_stalls(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "STALL_S", 0.2)
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head(server, 1000) + form()[:100])
        assert b" 408 " in connection.recv(1 << 16)


@pytest.mark.slow
def test_an_upload_that_is_slow(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bytes arrive all the time, but never enough. Many bytes earn more time."""
    monkeypatch.setattr(uploads, "STALL_S", 1.0)
    monkeypatch.setattr(uploads, "LEAST_BYTES_A_SECOND", 1000)
    body = form()
    assert len(body) > 20_000
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=0.1) as connection:
        connection.sendall(head(server, len(body)) + body[:100])
        answer = b""
        for number in range(100, 200):
            try:
                answer = connection.recv(1 << 16)
                break
            except TimeoutError:
                connection.sendall(body[number : number + 1])
        assert b" 408 " in answer
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head(server, len(body)) + body[:10_000])
        for number in range(10_000, 10_015):
            time.sleep(0.1)
            connection.sendall(body[number : number + 1])
        connection.sendall(body[10_015:])
        assert b" 200 " in connection.recv(1 << 16)


@pytest.mark.parametrize(
    ("bytes_a_second", "longest_s"),
    [(9_000, 660), (50_000, 1200), (80_000, 3000), (101_000, None), (10_000_000, None)],
)
def test_how_long_an_upload_may_take(
    monkeypatch: pytest.MonkeyPatch, bytes_a_second: int, longest_s: int | None
) -> None:
    """Even one that is never too slow for long may not keep its place for hours: by a clock that tests set."""
    now_s, most_bytes = 0.0, 500 * MB
    monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=lambda: now_s))

    async def receive() -> dict[str, object]:
        nonlocal now_s
        now_s += 10.0
        return {"type": "http.request", "body": bytes(10 * bytes_a_second), "more_body": True}

    async def all_of_it() -> None:
        scope = {"type": "http", "headers": []}
        limited = uploads.counted(Request(scope, receive), most_bytes)
        while True:
            await limited.receive()

    with pytest.raises(Problem) as refused:
        asyncio.run(all_of_it())
    assert refused.value.status == (408 if longest_s else 413)
    if longest_s:
        assert refused.value.headers["x-should-retry"] == "false"
        assert 0.9 * longest_s < now_s < 1.1 * longest_s


@st.composite
def damaged_forms(draw: st.DrawFn) -> bytes:
    """Draw a form with changed, missing and added bytes, most of them in its structure."""
    names = st.sampled_from(["model", "language", "prompt", "file", "x"])
    fields = draw(st.lists(st.tuples(names, st.text(max_size=9)),
                           max_size=3))  # fmt: skip
    seed = draw(st.integers(0, 10**6))
    content = draw(st.sampled_from([CLIP, b"", b"RIFF" + bytes(40), CLIP[:300], b"--x\r\n"]))
    return damaged(form(content, *fields), random.Random(seed), draw(st.integers(0, 6)))


def damaged(whole: bytes, chance: random.Random, count: int) -> bytes:
    """Change, remove or add some bytes, most of them in the structure of a form."""
    body = bytearray(whole)
    structure = [index for index in range(len(body)) if index < 250 or index > len(body) - 60]
    for _ in range(count):
        index = chance.choice(structure) % max(1, len(body))
        match chance.randrange(3):
            case 0:
                body[index : index + 1] = bytes([chance.randrange(256)])
            case 1:
                del body[index : index + chance.randrange(1, 20)]
            case _:
                body[index:index] = chance.choice([b"\r\n", b"--x", b'"', b"\0", b"=", b"; filename=", b"\xff"])
    return bytes(body)


TYPES = ["multipart/form-data; boundary=x"] * 6 + [
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x; charset=utf-16",
    "application/json", "application/x-www-form-urlencoded", "text/plain", "",
    "multipart/form-data; boundary=\u00fc",
]  # fmt: skip


def refuse_500(server: Served, body: bytes, kind: str) -> None:
    answer = httpx.post(f"{server.v1}/audio/transcriptions", content=body, timeout=60,
                        headers={"Content-Type": kind.encode(), **WITH_KEY})  # type: ignore[dict-item]  # fmt: skip
    assert answer.status_code in (200, 400, 404)
    assert answer.json().get("text") is not None or answer.json()["error"]["message"]


@pytest.mark.slow
@given(body=damaged_forms(), kind=st.sampled_from(TYPES))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damaged_uploads(server: Served, body: bytes, kind: str) -> None:
    refuse_500(server, body, kind)


def hostile(server: Served, number: int) -> tuple[str, bytes]:
    """Send an upload that is damaged, too large, too slow, cut off or left; return its kind and the answer."""
    chance = random.Random(number)
    body = form(CLIP, ("model", chance.choice(["speaking", "gone", ""])))
    part = body[: chance.randrange(len(body))]
    match number % 7:
        case 0:
            return "too large", send_raw(server, head(server, chance.randrange(2 * MB + 1, 10**12)) + part)
        case 1:
            chunk = b"%x\r\n" % MB + bytes(MB) + b"\r\n"
            chunked = head(server, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
            return "too large", send_raw(server, chunked + b"%x\r\n" % len(part) + part + b"\r\n" + 3 * chunk)
        case 2:
            return "too slow", send_raw(server, head(server, len(body)) + part)
        case 3:
            return "cut off", send_raw(server, head(server, len(body)) + part, cut_off=True)
        case 4:
            return "left", send_raw(server, head(server, len(body)) + part, close_after=chance.choice([0.0, 0.02]))
        case 5:
            broken = damaged(head(server, len(body)), chance, 3)
            return "damaged head", send_raw(server, broken + body, cut_off=True)
        case _:
            broken = damaged(body, chance, chance.randrange(1, 7))
            return "damaged", send_raw(server, head(server, len(broken)) + broken)


@pytest.mark.slow
@pytest.mark.parametrize("count", [70, pytest.param(1000, marks=pytest.mark.full)])
def test_hostile_uploads(server: Served, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """At the same time. `_nothing_is_left` looks at files, places and threads afterwards."""
    monkeypatch.setattr(uploads, "STALL_S", 0.3)
    head_statuses = {0, 200, 400, 401, 403, 404, 405, 408, 411, 413, 431, 501}
    expected = {  # 0: no answer, since the client, or its data on the way, has closed the connection
        "too large": {0, 408, 413}, "too slow": {408}, "cut off": {0, 400, 408}, "left": {0},
        "damaged head": head_statuses, "damaged": {200, 400, 404, 408},
    }  # fmt: skip
    found = Counter[tuple[str, int]]()
    with ThreadPoolExecutor(16) as pool:
        for kind, answer in pool.map(lambda number: hostile(server, number), range(count)):
            line = answer.partition(b"\r\n")[0].split()
            status = int(line[1]) if line else 0
            assert status in expected[kind], (kind, answer)
            found[kind, status] += 1
    assert min(found["too large", 413], found["too slow", 408]) > 5
    assert post(server, WITH_KEY).status_code == 200

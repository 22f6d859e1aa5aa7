"""Requests that wait, leave or are too many; models that come and go; the end of the server; what is logged."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import openai
import pytest
from support.errors import refused
from support.serving import Served, load, serving
from support.speaking import SAID, SpeakingModel, SpeakingSession
from support.waiting import wait_for

from funasr_cli import demo
from funasr_cli.errors import SetupError
from funasr_cli.families.registry import DEFAULT_ALIAS
from funasr_cli.hubs.find import ALIASES
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling import engine
from funasr_cli.server import app, run
from funasr_cli.server.app import make_app
from funasr_cli.server.fields import Wanted
from funasr_cli.server.guard import Guard
from funasr_cli.server.problems import Problem
from funasr_cli.server.service import Transcriptions
from funasr_cli.server.shelf import Shelf
from funasr_cli.server.sse import Stream
from funasr_cli.speech_model import SegmentRequest, Update
from funasr_cli.transcript import Segment

pytestmark = pytest.mark.slow

CLIP = demo.clips()[3].path
SECRET = "Anton's password is swordfish"


@dataclass
class Held(SpeakingModel):
    """A model that finishes no segment before it is released."""

    row_options: tuple[str, ...] = ("language",)
    released: threading.Event = field(default_factory=threading.Event)
    rows: set[int] = field(default_factory=set)
    bug: Exception | None = None

    def session(self, options: TranscribeOptions) -> Session:
        return Session(self)


class Session(SpeakingSession):
    def __init__(self, model: Held):
        super().__init__(model.result)
        self._model = model
        model.rows.clear()

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        numbers = super().add(requests)
        self._model.rows |= set(numbers)
        return numbers

    def step(self) -> list[Update]:
        time.sleep(0.002)
        if self._model.bug:
            raise self._model.bug
        return super().step() if self._model.released.is_set() else []

    def drop(self, row: int) -> None:
        super().drop(row)
        self._model.rows.discard(row)


@pytest.fixture
def model() -> Held:
    return Held()


@pytest.fixture
def server(model: Held) -> Iterator[Served]:
    with serving({"held": demo.MODEL}, load=lambda _: Recognizer(model), most_open=3) as served:
        try:
            yield served
            wait_for(lambda: not served.uploads())
        finally:
            model.released.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def test_more_requests_than_places(server: Served, model: Held, pool: ThreadPoolExecutor) -> None:
    """Those that have a place are served; others hear it before they have sent a byte of their file."""
    served = [pool.submit(server.transcribe, CLIP) for _ in range(3)]
    wait_for(lambda: len(model.rows) == 3)
    refused = server.transcribe(CLIP)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) > 0
    assert httpx.get(f"{server.address}/health").status_code == 200
    model.released.set()
    assert [answer.result().status_code for answer in served] == [200] * 3
    assert server.transcribe(CLIP).status_code == 200


def test_more_temperatures_than_sessions(
    model: Held, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is refused after a while."""
    monkeypatch.setattr(engine, "LONGEST_WAIT_S", 0.2)
    model.capabilities = replace(model.capabilities, sampling=True)
    with serving({"held": demo.MODEL}, load=lambda _: Recognizer(model)) as server:
        temperatures = [str(0.1 * number) for number in range(engine.MOST_LANES)]
        held = [pool.submit(server.transcribe, CLIP, temperature=each) for each in temperatures]
        wait_for(lambda: len(server.service._engine._lanes) == engine.MOST_LANES)
        refused = server.transcribe(CLIP, temperature="0.9")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) > 0
        model.released.set()
        assert [answer.result().status_code for answer in held] == [200] * 4


def test_the_wait_for_a_session_ends_before_an_answer_begins() -> None:
    """So that the status can say it."""
    assert engine.LONGEST_WAIT_S < app.SILENCE_S


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_client_that_leaves_frees_its_rows(server: Served, model: Held, stream: str) -> None:
    """While another one stays, so that the session continues."""
    with ThreadPoolExecutor(1) as pool:
        stays = pool.submit(server.transcribe, CLIP)
        wait_for(lambda: len(model.rows) == 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.v1}/audio/transcriptions", data={"stream": stream}, timeout=0.4,
                       files={"file": CLIP.read_bytes()})  # fmt: skip
        wait_for(lambda: len(model.rows) == 1 and server.service._open == 1)
        assert len(server.uploads()) == 1
        model.released.set()
        assert stays.result().status_code == 200


def test_an_answer_that_takes_long_begins_with_white_space(
    server: Served, model: Held, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SILENCE_S", 0.05)
    monkeypatch.setattr(app, "BEAT_S", 0.05)
    client = openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0)
    ask = client.audio.transcriptions.create
    plain = pool.submit(server.transcribe, CLIP)
    events = pool.submit(lambda: list(ask(file=CLIP, model="", stream=True)))
    wait_for(lambda: len(model.rows) == 2)
    time.sleep(0.3)
    model.released.set()
    assert plain.result().text.startswith("   ")
    assert plain.result().json()["text"] == SAID.text
    assert [event.type for event in events.result()] == ["transcript.text.delta", "transcript.text.done"]
    monkeypatch.setattr(app, "SILENCE_S", 0.0)
    assert ask(file=CLIP, model="").text == SAID.text


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_bug_is_our_fault_and_no_secret_is_told(
    server: Served,
    model: Held,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    late: bool,
    stream: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    model.bug = ValueError(SECRET)
    if late:
        model.bug = None
        monkeypatch.setattr(app, "SILENCE_S", 0.0)
        threading.Timer(0.3, lambda: setattr(model, "bug", ValueError(SECRET))).start()
    answer = server.transcribe(CLIP, stream=stream)
    assert answer.status_code == (200 if late else 500)
    line = next(line for line in answer.text.splitlines() if "{" in line)
    assert json.loads(line.removeprefix("data:"))["error"]["code"] == "unexpected"
    if not late:
        assert answer.headers["x-should-retry"] == "false"
    else:
        client = openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0)
        events = client.audio.transcriptions.create(file=CLIP, model="", stream=True)
        with pytest.raises(openai.APIError):
            list(events)
    assert "ValueError at test_service.py" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in answer.text
    model.bug = None
    model.released.set()
    assert server.transcribe(CLIP).status_code == 200


def test_no_text_is_logged(server: Served, model: Held, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "funasr_cli")
    caplog.set_level(logging.DEBUG, "uvicorn")
    model.result = replace(SAID, text=SECRET)
    model.released.set()
    assert server.transcribe(CLIP).json()["text"] == SECRET
    assert server.transcribe(CLIP, prompt=SECRET, language=SECRET).status_code == 400
    assert "200: held" in caplog.text
    assert SECRET not in caplog.text


def test_the_end_of_the_server_refuses_what_takes_too_long(
    model: Held, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("funasr_cli.server.run.FINISH_S", 0.3)
    with serving({"held": demo.MODEL}, load=lambda _: Recognizer(model)) as server:
        answers = [pool.submit(server.transcribe, CLIP) for _ in range(2)]
        wait_for(lambda: len(model.rows) == 2)
        server.server.should_exit = True
        for answer in answers:
            assert answer.result().status_code == 503
            assert answer.result().headers["retry-after"]


def test_the_end_of_the_server_finishes_what_is_open(model: Held, pool: ThreadPoolExecutor) -> None:
    with serving({"held": demo.MODEL}, load=lambda _: Recognizer(model)) as server:
        answer = pool.submit(server.transcribe, CLIP)
        wait_for(lambda: len(model.rows) == 1)
        server.server.should_exit = True
        wait_for(lambda: server.service.closing)
        model.released.set()
        assert answer.result().status_code == 200


def test_a_bug_in_the_engine_ends_the_server_with_an_error(model: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a supervisor starts it again. What is open is refused."""
    service = Transcriptions(Shelf({"held": demo.MODEL}, lambda _: Recognizer(model), 60.0))  # type: ignore[arg-type]
    listener = run.listening("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/audio/transcriptions"
    with ThreadPoolExecutor(1) as pool:
        answers: list[Future[httpx.Response]] = []

        def crash_later() -> None:
            answers.append(pool.submit(httpx.post, address, files={"file": ("a", CLIP.read_bytes())}, timeout=60))
            threading.Thread(target=crash).start()

        def crash() -> None:
            wait_for(lambda: model.rows)
            monkeypatch.setattr(service._engine, "housekeeping", Mock(side_effect=ValueError(SECRET)))

        with listener, refused("unexpected"):
            run.run(make_app(service, Guard(), 1 << 20), service, listener, crash_later)
        assert answers[0].result().status_code == 503


@dataclass
class Loader:
    """Loads models, of which only a few fit into memory."""

    fit: int = 2
    loaded: list[str] = field(default_factory=list)
    models: dict[str, Held] = field(default_factory=dict)

    def __call__(self, folder: Path) -> Recognizer:
        self.loaded.append(folder.name)
        if sum(model.parameters for model in self.models.values()) >= self.fit:
            raise SetupError("needs 9 GB of memory", code="memory-short")
        model = self.models[folder.name] = Held(
            name=folder.name, parameters=1, result=replace(SAID, text=folder.name)
        )
        model.released.set()
        return Recognizer(model)


def names_loaded(server: Served) -> list[str]:
    return [name for name, offer in server.service.shelf._offers.items() if offer.recognizer]


def test_models_are_loaded_on_demand_and_unloaded_after_a_while() -> None:
    folders = {name: Path(name) for name in ("a", "b", "c")}
    loader = Loader(fit=3)
    with serving(folders, load=loader, keep_alive_s=0.3) as server:
        wait_for(lambda: loader.loaded == ["a"])
        assert server.transcribe(CLIP, model="b").json()["text"] == "b"
        assert loader.loaded == ["a", "b"]
        wait_for(lambda: not names_loaded(server))
        loader.models.clear()
        assert server.transcribe(CLIP, model="b").json()["text"] == "b"
        assert loader.loaded == ["a", "b", "b"]


@pytest.mark.parametrize("keep_alive_s", [1e15, float("inf")])
def test_models_that_stay(keep_alive_s: float) -> None:
    with serving({"a": Path("a")}, load=Loader(), keep_alive_s=keep_alive_s) as server:
        assert [server.transcribe(CLIP).status_code for _ in range(2)] == [200, 200]
        assert names_loaded(server) == ["a"]


def test_a_model_that_is_in_use_stays(pool: ThreadPoolExecutor) -> None:
    loader = Loader()
    with serving({"a": Path("a")}, load=loader, keep_alive_s=0.0) as server:
        wait_for(lambda: "a" in loader.models)
        loader.models.clear()
        answer = pool.submit(server.transcribe, CLIP)
        wait_for(lambda: "a" in loader.models)
        assert answer.result().json()["text"] == "a"
        wait_for(lambda: not names_loaded(server))


def test_when_memory_is_short_idle_models_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: Path(name) for name in ("a", "b", "c")}
    loader = Loader(fit=2)
    with serving(folders, load=loader) as server:
        unload = server.service.shelf._unload

        def unloaded(offer: Any) -> None:
            loader.models.pop(offer.name)
            unload(offer)

        monkeypatch.setattr(server.service.shelf, "_unload", unloaded)
        for name in ("b", "a", "c"):
            assert server.transcribe(CLIP, model=name).json()["text"] == name
        assert names_loaded(server) == ["a", "c"]
        loader.fit = 0
        answer = server.transcribe(CLIP, model="b")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "memory-short")


def test_models_that_do_not_fit_together_take_turns(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are served, and none of them can keep the others from their turn."""
    loader = Loader(fit=1)
    with serving({"a": Path("a"), "b": Path("b")}, load=loader) as server:
        unload = server.service.shelf._unload

        def unloaded(offer: Any) -> None:
            loader.models.pop(offer.name)
            unload(offer)

        monkeypatch.setattr(server.service.shelf, "_unload", unloaded)
        wait_for(lambda: "a" in loader.models)
        held = loader.models["a"]
        held.released.clear()
        answers = []
        for place, name in enumerate("abab"):
            answers.append(pool.submit(server.transcribe, CLIP, model=name))
            wait_for(lambda place=place: server.service._engine._submitted > place)
        wait_for(lambda: server.service._engine._shortage)
        assert len(held.rows) == 1, "the other request for it waits after it"
        held.released.set()
        assert [answer.result().json()["text"] for answer in answers] == list("abab")


def test_eight_clients_at_once_get_the_texts_of_one_after_another(small_sense_voice: Path) -> None:
    """Of two models and with options of their own; `/health` answers meanwhile."""
    clips = [clip.path for clip in demo.clips()]
    fields: list[dict[str, str]] = [
        {}, {"language": "en"}, {"prompt": "Sarah, Emma"}, {"model": "sense"}, {"temperature": "0.5"},
        {"response_format": "verbose_json", "timestamp_granularities[]": "word"}, {"stream": "true"},
        {"itn": "false"},
    ]  # fmt: skip
    with serving({"demo": demo.MODEL, "sense": small_sense_voice}, load=load) as server:
        pairs = list(zip(clips, fields, strict=False))
        alone = [server.transcribe(clip, **more).text for clip, more in pairs]
        with ThreadPoolExecutor(9) as pool:
            together = [pool.submit(server.transcribe, clip, **more) for clip, more in pairs]
            while not all(answer.done() for answer in together):
                assert httpx.get(f"{server.address}/health", timeout=10).status_code == 200
        texts = [answer.result().text for answer in together]
    same = [_without_last_bits(one) == _without_last_bits(other) for one, other in zip(texts, alone, strict=True)]
    assert all(same), same


def _without_last_bits(text: str) -> Any:
    """Return an answer with rounded numbers: the last bits of probabilities depend on the batch."""
    if not text.startswith("{"):
        return text
    return json.loads(text, parse_float=lambda number: round(float(number), 2))


@pytest.mark.full
def test_a_thousand_requests_leave_nothing(small_sense_voice: Path) -> None:
    """Memory, threads and files stay as they were after the first two hundred."""

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    clips = [clip.path.read_bytes() for clip in demo.clips()]
    kinds: list[dict[str, str]] = [
        {}, {"model": "sense"}, {"stream": "true"}, {"language": "en", "response_format": "verbose_json"},
        {"keywords[]": "Sarah"}, {"response_format": "srt"}, {"language": "xx"}, {"model": "gone"},
    ]  # fmt: skip

    async def ask(address: str, count: int) -> set[int]:
        limit = asyncio.Semaphore(8)
        async with httpx.AsyncClient(timeout=120) as client:

            async def one(number: int) -> int:
                async with limit:
                    files = {"file": ("a", clips[number % len(clips)])}
                    answer = await client.post(address, files=files, data=kinds[number % len(kinds)])
                    return answer.status_code

            return set(await asyncio.gather(*map(one, range(count))))

    with serving({"demo": demo.MODEL, "sense": small_sense_voice}, load=load) as server:
        address = f"{server.v1}/audio/transcriptions"
        assert asyncio.run(ask(address, 200)) == {200, 400, 404}
        before_mb = resident_mb()
        assert asyncio.run(ask(address, 800)) == {200, 400, 404}
        assert resident_mb() < before_mb + 50
        wait_for(lambda: "reading" not in {thread.name for thread in threading.enumerate()})
        assert threading.active_count() < 60, "the pools of asyncio and Starlette have limits"
        wait_for(lambda: not server.uploads())


def test_names_of_models() -> None:
    """Whole, their last part, or a short name for any of their copies on the hubs."""
    alias = DEFAULT_ALIAS
    nano, sense = ALIASES[alias], "owner/My-Sense"
    shelf = Shelf({sense: Path("sense"), nano: Path("nano")}, load, 0.0)
    for name in (nano, nano.rpartition("/")[2], alias):
        assert shelf.find(name).folder == Path("nano")
    for name in (sense, "My-Sense", "", None, "whisper-1", "gpt-4o-transcribe", " "):
        assert shelf.find(name).folder == Path("sense")
    with pytest.raises(Problem):
        shelf.find("sensevoice")


@pytest.mark.parametrize("format", ["json", "text", "verbose_json", "srt", "vtt"])
def test_a_text_that_utf_8_cannot_encode(server: Served, model: Held, format: str) -> None:
    model.result = replace(SAID, text="a\ud800b")
    model.released.set()
    assert "a?b" in server.transcribe(CLIP, response_format=format).text.replace("\ufffd", "?")
    if format in ("json", "text"):
        assert "a?b" in server.transcribe(CLIP, response_format=format, stream="true").text


def test_deltas_of_several_scripts() -> None:
    """Their deltas are joined as the parts of a transcript are."""
    parts = [Segment(0.0, 1.0, text, "", "eos", 0, 1, None) for text in ("One", "two.", "三", "四")]
    stream = Stream()
    lines = [stream.segment(part, Wanted(None)) for part in (*parts, replace(parts[0], text=""))]
    deltas = [json.loads(line.removeprefix("data:"))["delta"] for line in lines if line]
    assert deltas == ["One", " two.", " 三", "四"]
    assert "".join(deltas) == stream.text

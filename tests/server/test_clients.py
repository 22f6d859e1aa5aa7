"""Requests as clients write them, after what is known of each: spellings of fields, prompts, readable answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.serving import Served, serving

from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.server.fields import OWN, Wanted, terms_in, wanted
from funasr_cli.server.guard import Guard
from funasr_cli.server.problems import Problem

CLIP = demo.clips()[3].path
KEY = {"Authorization": "Bearer none"}
HOME_ASSISTANT = "The following conversation is between a user and a home assistant. Transcribe it faithfully."


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving({"demo": demo.MODEL}) as served:
        yield served


@pytest.fixture(scope="module")
def text(server: Served) -> str:
    return str(server.transcribe(CLIP).json()["text"])


AUTO = ("", "auto", None)  # languages that stand for none


@dataclass
class Client:
    """What a program sends: the name and type of its file, and its fields."""

    name: str
    file: str
    kind: str
    fields: dict[str, str | list[str]]


# Programs that read `text`. What they say of the file is often wrong: its bytes count.
CLIENTS = [
    Client("Open WebUI", "5f0c-8d.opus", "audio/ogg", {"model": "whisper-1", "language": ""}),
    Client("Open WebUI, earlier", "5f0c-8d.wav", "audio/wav", {"model": "whisper-1"}),
    Client("LibreChat", "audio.webm", "audio/webm", {"model": "whisper-1", "language": "en"}),
    Client("Home Assistant", "a.wav", "audio/wav",
           {"model": "gpt-4o-transcribe", "response_format": "json", "language": "en", "prompt": HOME_ASSISTANT}),
    Client("Home Assistant", "a.ogg", "audio/ogg",
           {"model": "whisper-1", "response_format": "json", "language": "zh", "prompt": HOME_ASSISTANT}),
    Client("wyoming_openai", "a.wav", "audio/wav", {"model": "demo", "language": "en", "stream": "false"}),
    Client("n8n, set up", "data", "application/octet-stream",
           {"model": "whisper-1", "language": "en", "temperature": "0"}),
    Client("n8n", "data", "application/octet-stream", {"model": "whisper-1"}),
    Client("Dify", "temp.mp3", "audio/mpeg", {"model": "demo"}),
    Client("Dify, set up", "temp.mp3", "audio/mpeg", {"model": "demo", "language": "en", "prompt": "Sarah, Emma"}),
    Client("SillyTavern", "record.wav", "audio/wav", {"response_format": "json"}),
    Client("TypeWhisper", "recording.wav", "audio/wav", {"model": "demo", "language": "auto"}),
    Client("Handy's kin", "audio.wav", "audio/wav", {"model": "demo", "response_format": "json"}),
    Client("FreeFlow", "a.wav", "audio/wav", {"model": "demo", "language": "en-US", "temperature": "0.0"}),
]  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_clients_that_read_a_text(server: Served, text: str, client: Client) -> None:
    files = {"file": (client.file, CLIP.read_bytes(), client.kind)}
    answer = server.post(headers=KEY, files=files, data=client.fields)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["text"]
    if client.fields.get("language") in AUTO and "prompt" not in client.fields:
        assert answer.json()["text"] == text


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_clients_show_what_is_wrong(server: Served, client: Client) -> None:
    """Open WebUI shows `error.message`; others show the status, or hang on anything that is not JSON."""
    answer = server.post(headers=KEY, files={"file": (client.file, b"no audio", client.kind)}, data=client.fields)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json()["error"]["message"], str)


def test_a_bridge_that_reads_events(server: Served, text: str) -> None:
    """As `wyoming_openai` does."""
    fields = {"model": "demo", "response_format": "json", "stream": "true"}
    answer = server.post(headers=KEY, files={"file": ("a.wav", CLIP.read_bytes(), "audio/wav")}, data=fields)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert last == "[DONE]"
    assert "".join(json.loads(event)["delta"] for event in events) == json.loads(done)["text"] == text


def test_a_dictation_program_takes_its_model_from_the_list(server: Served, text: str) -> None:
    for base in (server.v1, server.address):  # some want the address without `/v1`
        [model] = httpx.get(f"{base}/models", headers=KEY).json()["data"]
        files = {"file": ("audio.wav", CLIP.read_bytes(), "audio/wav")}
        answer = httpx.post(f"{base}/audio/transcriptions", headers=KEY, files=files, data={"model": model["id"]})
        assert answer.json()["text"] == text


def test_a_page_with_headers_of_its_own() -> None:
    """SillyTavern runs in a browser, which asks before it sends such headers."""
    origin = "http://localhost:8001"
    with serving({"demo": demo.MODEL}, Guard(origins=(origin,))) as server:
        path = f"{server.v1}/audio/transcriptions"
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-csrf-token"}
        before = httpx.options(path, headers={"Origin": origin, **asked})
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, origin)
        assert "x-csrf-token" in before.headers["access-control-allow-headers"]
        headers = {"Origin": origin, "X-CSRF-Token": "a"}
        answer = server.post(headers=headers, files={"file": ("record.wav", CLIP.read_bytes())})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)


def test_a_prompt_in_prose_is_not_for_the_model(server: Served, text: str) -> None:
    answer = server.transcribe(CLIP, prompt=HOME_ASSISTANT).json()
    assert answer["text"] == text
    assert len(answer["warnings"]) == 1
    plain = server.transcribe(CLIP, prompt=HOME_ASSISTANT, response_format="text")
    assert plain.text == text
    assert "prompt" in plain.headers["x-funasr-notes"]
    assert "warnings" not in server.transcribe(CLIP, prompt="Sarah, Emma").json()


@pytest.mark.parametrize(
    ("client", "fields"),
    [
        (
            "Subtitle Edit",
            {"model": "whisper-1", "timestamp_granularities[]": ["word", "segment"], "language": "en"},
        ),
        ("Speakr", {"model": "demo", "language": "auto"}),
        ("Scriberr", {"model": "whisper-1", "timestamp_granularities[]": ["segment", "word"], "prompt": ""}),
    ],
)
def test_clients_that_read_segments(server: Served, joined: Path, client: str, fields: dict[str, Any]) -> None:
    """One large segment would be of no use to them."""
    answer = server.transcribe(joined, response_format="verbose_json", **fields).json()
    segments = answer["segments"]
    assert len(segments) > 3
    assert [one["id"] for one in segments] == list(range(len(segments)))
    assert all(one["start"] < one["end"] <= answer["duration"] for one in segments)
    assert ("words" in answer) == ("timestamp_granularities[]" in fields)


def test_the_order_of_the_parts_does_not_matter(server: Served, text: str) -> None:
    parts = [("model", (None, "whisper-1")), ("file", ("a.flac", CLIP.read_bytes())), ("language", (None, ""))]
    for ordered in (parts, parts[::-1]):
        assert server.post(files=ordered).json()["text"] == text


def parsed(*fields: tuple[str, Any]) -> Wanted:
    return wanted(fields)


@pytest.mark.parametrize(
    "fields",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
        [("timestamp_granularities", "word,segment")], [("timestamp_granularities", '["word", "segment"]')],
        [("timestamp_granularities", ["word", "segment"])],
    ],
)  # fmt: skip
def test_spellings_of_lists(fields: list[tuple[str, Any]]) -> None:
    found = parsed(("response_format", "verbose_json"), *fields)
    assert (found.words, found.options.word_times) == (True, True)


@pytest.mark.parametrize(
    "fields",
    [
        [("keywords[]", "Anna"), ("keywords[]", "New York, NY")], [("keywords", '["Anna", "New York, NY"]')],
        [("hotwords", ["Anna", "New York, NY"])], [("context", "Anna"), ("keywords[]", "New York, NY")],
    ],
)  # fmt: skip
def test_terms_may_contain_commas_where_the_list_is_written_as_one(fields: list[tuple[str, Any]]) -> None:
    assert set(parsed(*fields).options.hotwords) == {"Anna", "New York, NY"}
    assert parsed(("hotwords", "Anna, Kasan，Ufa")).options.hotwords == ("Anna", "Kasan", "Ufa")


@pytest.mark.parametrize(
    "fields",
    [
        [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.3"),
         ("chunking_strategy[silence_duration_ms]", "250")],
        [("chunking_strategy", '{"type": "server_vad", "threshold": 0.3, "silence_duration_ms": 250}')],
        [("chunking_strategy", {"type": "server_vad", "threshold": 0.3, "silence_duration_ms": 250})],
    ],
)  # fmt: skip
def test_spellings_of_objects(fields: list[tuple[str, Any]]) -> None:
    options = parsed(*fields).options
    assert (options.vad_threshold, options.min_pause_s) == (0.3, 0.25)


def test_the_voice_activity_detector() -> None:
    assert parsed(("vad_model", "")).options.vad_model == "silero"
    assert parsed(("vad_model", "fsmn-dynamic")).options.vad_model == "fsmn-dynamic"
    pause = ("chunking_strategy[silence_duration_ms]", "250")
    for fields in ([("vad_model", "webrtc")], [("vad_model", "fsmn"), ("vad", "false")],
                   [("vad_model", "fsmn-dynamic"), ("chunking_strategy[type]", "server_vad"), pause]):  # fmt: skip
        with pytest.raises(Problem):
            parsed(*fields)


@pytest.mark.parametrize("field", [("vad_model", "fsmn"), ("chunking_strategy", {"threshold": 0.3}),
                                   ("chunking_strategy[silence_duration_ms]", "250")])  # fmt: skip
def test_options_of_the_detector_need_one(field: tuple[str, Any]) -> None:
    parsed(field)
    with pytest.raises(Problem) as refused:
        parsed(field, ("vad", "false"))
    assert (refused.value.status, refused.value.code) == (400, "unsupported_value")
    parsed(("chunking_strategy", "auto"), ("vad", "false"))


@pytest.mark.parametrize("key", ["threshold", "silence_duration_ms"])
def test_numbers_that_no_float_can_hold(key: str) -> None:
    with pytest.raises(Problem):
        parsed(("chunking_strategy", {"type": "server_vad", key: 10**400}))


@pytest.mark.parametrize("name", ["languag\ud800", "prompt\ud800"])
def test_misspelt_names_that_utf_8_cannot_encode(name: str) -> None:
    with pytest.raises(Problem) as refused:
        parsed((name, "en"))
    assert json.loads(bytes(refused.value.response().body))["error"]["param"]


def test_languages_and_booleans() -> None:
    for spelled in ("", "auto", "AUTO", None):
        assert parsed(("language", spelled)).options.language is None
    assert parsed(("languages[]", "de")).options.language == "de"
    several = parsed(("languages[]", "de"), ("languages[]", "en"))
    assert (several.options.language, len(several.notes)) == (None, 1)
    for yes, no in (("true", "false"), ("1", "0"), (True, False), ("on", "off")):
        assert parsed(("stream", yes)).stream
        assert not parsed(("stream", no)).stream


@pytest.mark.parametrize(
    ("prompt", "terms"),
    [
        ("Anna", ("Anna",)), ("Anna, Kasan; Ufa", ("Anna", "Kasan", "Ufa")),
        ("阿里巴巴、通义", ("阿里巴巴", "通义")), ("", ()),
        ("This is what we said before.", ()), ("Transcribe all of the words that are spoken here", ()),
        ("Umm, let me think like, hmm... Okay, here's what I'm, like, thinking.", ()), (HOME_ASSISTANT, ()),
    ],
)  # fmt: skip
def test_which_prompts_are_lists_of_terms(prompt: str, terms: tuple[str, ...]) -> None:
    assert terms_in(prompt) == terms
    able = Capabilities(("en",), hotwords=True, previous_text=True)
    found = parsed(("prompt", prompt)).suited(able, continues=False)
    assert found.options.hotwords == terms
    assert bool(found.notes) == bool(prompt and not terms)
    hinted = parsed(("prompt", prompt)).suited(replace(able, context_text=True), continues=False)
    prose = prompt if prompt and not terms else None
    assert (hinted.options.hotwords, hinted.options.prev_text, hinted.notes) == (terms, prose, ())
    assert parsed(("prompt", prompt)).suited(able, continues=True).options.prev_text == (prompt or None)
    unable = parsed(("prompt", prompt)).suited(Capabilities(("en",)), continues=True)
    assert (unable.options.hotwords, bool(unable.notes)) == ((), bool(prompt))


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        ([("keywords", [f"w{n}" for n in range(1000)])], [("keywords", [f"w{n}" for n in range(1001)])]),
        ([("prompt", "a," * 1000)], [("prompt", "a," * 1001)]),
        ([("prompt", "no list. " + "a" * 19_991)], [("prompt", "no list. " + "a" * 19_992)]),
        ([("context", "a" * 20_000)], [("context", "a" * 20_001)]),
        ([("hotwords", ["a" * 9_000]), ("prompt", "b" * 11_000)],
         [("hotwords", ["a" * 9_000]), ("prompt", "b" * 11_001)]),
    ],
)  # fmt: skip
def test_words_to_expect_are_limited_before_a_model_counts_them(
    within: list[tuple[str, Any]], beyond: list[tuple[str, Any]]
) -> None:
    parsed(*within)
    with pytest.raises(Problem) as refused:
        parsed(*beyond)
    assert (refused.value.status, refused.value.code) == (400, "prompt-too-long")


NAMES = st.sampled_from([*OWN, *(f"{name}[]" for name in OWN), "chunking_strategy[type]", "x", "", "[", "a[b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20)
    | st.sampled_from(["word", "[", '{"type": []}', "[1, [2]]", "1e999", "verbose_json", "json", "true"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@pytest.mark.slow
@given(fields=st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_any_fields_are_understood_or_refused(fields: list[tuple[str, Any]]) -> None:
    """Nothing but a `Problem` is raised, and it can be written as JSON."""
    try:
        found = wanted(fields)
    except Problem as problem:
        refused = problem
    else:
        assert all(isinstance(word, str) for word in found.options.hotwords)
        return
    assert refused.status == 400
    assert json.loads(json.dumps(refused.body))["error"]["message"]

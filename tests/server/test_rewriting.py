"""The format full_json, whole and as events, and transcripts that come back with corrections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.serving import Served, serving

from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.families.load import load_model
from funasr_cli.pipeline import Recognizer
from funasr_cli.server.guard import Guard
from funasr_cli.transcript import Transcript
from funasr_cli.writers import WRITERS

pytestmark = pytest.mark.slow

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/transcript.schema.json").read_text(encoding="utf-8"))
CLIPS = [clip.path for clip in demo.clips()[2:5]]
KEY = {"X-API-Key": "secret"}
ELSEWHERE = {"Origin": "https://evil.example"}
VARYING = ("source", "timings")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving({"demo": demo.MODEL}, Guard("secret")) as served:
        yield served


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips with pauses of two seconds between them."""
    path = tmp_path_factory.mktemp("recording") / "a.flac"
    pause = np.zeros(32000, np.float32)
    parts = [part for clip in CLIPS for part in (load_audio(clip, 16000).samples, pause)]
    soundfile.write(path, np.concatenate(parts), 16000)
    return path


@pytest.fixture(scope="module")
def own(recording: Path) -> Transcript:
    """The transcript of the command line."""
    return Recognizer(load_model(demo.MODEL)).transcribe(recording, word_times=True, confidence=True)


def ask(server: Served, path: Path, **fields: Any) -> httpx.Response:
    given = {"response_format": "full_json"} | fields
    return server.post(headers=KEY, files={"file": ("a.flac", path.read_bytes())}, data=given)


def comparable(transcript: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in transcript.items() if name not in VARYING}


def rewrite(server: Served, body: Any, format: str, headers: dict[str, str] = KEY) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.post(f"/v1/transcripts/{format}", content=content, headers=headers)


def test_everything_that_the_command_line_writes(server: Served, recording: Path, own: Transcript) -> None:
    answer = ask(server, recording)
    assert answer.headers["content-type"] == "application/json"
    Draft202012Validator(SCHEMA).validate(answer.json())
    assert comparable(answer.json()) == comparable(json.loads(WRITERS["json"](own)))
    assert all(segment["words"] and segment["scores"] for segment in answer.json()["segments"])


def test_its_events_have_times_and_end_with_the_whole_transcript(server: Served, recording: Path) -> None:
    lines = ask(server, recording, stream="true").text.split("\n\n")
    *events, done = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    whole = ask(server, recording).json()
    assert comparable(done["transcript"]) == comparable(whole)
    assert done["text"] == whole["text"] == "".join(event["delta"] for event in events if "delta" in event)
    timed = [event for event in events if event["type"] == "transcript.text.segment"]
    assert [(event["text"], event["end"]) for event in timed] == [
        (segment["text"], pytest.approx(segment["end_s"], abs=1e-3)) for segment in whole["segments"]
    ]
    assert not any("speaker" in event for event in timed)


def test_a_field_without_effect_is_a_warning(server: Served) -> None:
    assert "the prompt has no effect" in " ".join(
        ask(server, CLIPS[0], prompt="Write this down.").json()["warnings"]
    )


@pytest.mark.parametrize("format", WRITERS)
def test_a_transcript_comes_back_in_each_format(server: Served, own: Transcript, format: str) -> None:
    answer = rewrite(server, WRITERS["json"](own).encode(), format)
    assert (answer.status_code, answer.text) == (200, WRITERS[format](own))


def test_a_correction_is_in_all_that_follows_from_it(server: Served, own: Transcript) -> None:
    transcript = json.loads(WRITERS["json"](own))
    transcript["segments"][0] |= {"text": "One <two> & three.", "words": [], "scores": []}
    assert rewrite(server, transcript, "vtt").text.count("One &lt;two&gt; &amp; three.") == 1
    written = rewrite(server, transcript, "json").json()
    Draft202012Validator(SCHEMA).validate(written)
    assert written["text"].startswith("One <two> & three.")
    assert [sentence["text"] for sentence in written["segments"][0]["sentences"]] == ["One <two> & three."]


@pytest.mark.parametrize(
    ("format", "body", "headers", "status"),
    [
        ("docx", "{}", KEY, 404), ("srt", "{}", {}, 401), ("srt", "{}", KEY | ELSEWHERE, 403),
        ("srt", "{}", KEY, 400), ("srt", "[" * 100_000, KEY, 400), ("srt", "\xff", KEY, 400),
        ("srt", "", KEY, 400),
        ("srt", b"{" + b" " * (17 << 20) + b"}", KEY, 413),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_refused(
    server: Served, format: str, body: str | bytes, headers: dict[str, str], status: int
) -> None:
    content = body.encode("latin-1") if isinstance(body, str) else body
    answer = rewrite(server, content, format, headers)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_text_longer_than_any_segment(server: Served, own: Transcript) -> None:
    transcript = json.loads(WRITERS["json"](own))
    for length, status in ((50_000, 200), (50_001, 400)):
        transcript["segments"][0] |= {"text": "x" * length, "words": [], "scores": []}
        assert rewrite(server, transcript, "srt").status_code == status


def test_it_takes_a_place_as_a_transcription_does(server: Served, own: Transcript) -> None:
    body = WRITERS["json"](own).encode()
    with ExitStack() as places:
        for _ in range(server.service.most_open):
            places.enter_context(server.service.place())
        refused = rewrite(server, body, "srt")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert rewrite(server, body, "srt").status_code == 200


NUMBERS = st.sampled_from([0, 1, -1, 2.5, 1e308, -0.0, 1e-320, None, "1", True, 10**400])
PLACES = st.sampled_from(
    ["start_s", "end_s", "duration_s", "text", "words", "pieces", "segments", "lost", "tokens"]
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_transcript_is_an_internal_error(server: Served, own: Transcript, data: st.DataObject) -> None:
    """Values of the wrong type, out of range or order, words that the text does not have."""
    transcript = json.loads(WRITERS["json"](own))
    segment = data.draw(st.sampled_from(transcript["segments"]))
    target = data.draw(st.sampled_from([transcript, segment, *segment["words"]]))
    for name in data.draw(st.lists(PLACES, min_size=1, max_size=3)):
        target[name] = data.draw(st.one_of(NUMBERS, st.text(max_size=5), st.lists(NUMBERS, max_size=2)))
    format = data.draw(st.sampled_from([*WRITERS]))
    assert rewrite(server, transcript, format).status_code in (200, 400)


def test_models_tell_what_they_can_do_before_they_are_loaded(server: Served) -> None:
    [model] = httpx.get(f"{server.v1}/models", headers=KEY).json()["data"]
    assert model["languages"] == ["zh", "en"]
    assert {"hotwords", "word times"} <= set(model["capabilities"])
    assert "translation" not in model["capabilities"]

"""OpenAI's own client against our server: every format and field, sync and async, events and whole answers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from support.running import invoke
from support.serving import Served, serving

from funasr_cli import demo

pytestmark = pytest.mark.slow

CLIPS = [clip.path for clip in demo.clips()]
CLIP = CLIPS[3]
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")


@pytest.fixture(scope="module")
def server(small_sense_voice: Path) -> Iterator[Served]:
    with serving({"demo": demo.MODEL, "owner/sense": small_sense_voice}) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0)


def by_command_line(audio: Path, format: str, *options: str) -> str:
    result = invoke("transcribe", "-m", "demo", "-q", "-f", format, *options, audio)
    assert result.exit_code == 0
    return str(result.stdout)


def ask(client: Any, audio: Path = CLIP, **fields: Any) -> Any:
    return client.audio.transcriptions.create(file=audio, **{"model": "whisper-1"} | fields)


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_are_those_of_the_command_line(client: openai.OpenAI, joined: Path, format: str) -> None:
    assert ask(client, joined, response_format=format) == by_command_line(joined, format)


def test_the_text_is_that_of_the_command_line_in_every_format(client: openai.OpenAI, joined: Path) -> None:
    text = json.loads(by_command_line(joined, "json"))["text"]
    assert len(text) > 100
    assert ask(client, joined).text == text
    assert ask(client, joined, response_format="text") == text
    verbose = ask(client, joined, response_format="verbose_json")
    assert verbose.text == text
    events = list(ask(client, joined, stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) == len(verbose.segments) > 3
    assert "".join(deltas) == text
    assert [event.type for event in events[len(deltas) :]] == ["transcript.text.done"]
    assert (events[-1].text, events[-1].usage.type) == (text, "duration")


def test_the_asynchronous_client(server: Served) -> None:
    async def both() -> None:
        async with openai.AsyncOpenAI(base_url=server.v1, api_key="none", max_retries=0) as client:
            plain, events = await asyncio.gather(ask(client), ask(client, stream=True))
            deltas = [event.delta async for event in events if event.type == "transcript.text.delta"]
            assert "".join(deltas) == plain.text
            for format in FORMATS:
                answer = await ask(client, response_format=format)
                text = answer if isinstance(answer, str) else answer.text
                assert plain.text.split()[0] in text

    asyncio.run(both())


def test_all_that_typed_clients_require_in_a_verbose_answer(client: openai.OpenAI) -> None:
    answer = ask(
        client, response_format="verbose_json", timestamp_granularities=["word", "segment"], temperature=0
    )
    raw = ask(client.with_raw_response, response_format="verbose_json", timestamp_granularities=["segment"])
    data = json.loads(raw.content)
    assert set(data) >= {
        "task",
        "language",
        "duration",
        "text",
        "segments",
        "usage",
        "ledger",
        "complete",
        "warnings",
    }
    assert "words" not in data
    [segment] = data["segments"]
    assert set(segment) == {
        "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
        "no_speech_prob",
    }  # fmt: skip
    assert segment["avg_logprob"] < 0 < segment["compression_ratio"]
    assert data["duration"] == pytest.approx(soundfile.info(CLIP).duration, abs=0.01)
    assert (data["task"], data["language"], data["complete"]) == ("transcribe", "unknown", True)
    words = answer.words
    assert " ".join(word.word for word in words) == answer.text
    assert all(0 <= word.start <= word.end <= data["duration"] for word in words)


def test_the_language_is_the_one_asked_for_or_found(client: openai.OpenAI) -> None:
    assert ask(client, response_format="verbose_json", language="en-US").language == "en"
    assert ask(client, response_format="verbose_json", model="sense").language == "en"


def test_log_probabilities(client: openai.OpenAI) -> None:
    answer = ask(client, include=["logprobs"])
    assert "".join(one.token for one in answer.logprobs) == answer.text
    assert all(bytes(map(int, one.bytes)).decode() == one.token for one in answer.logprobs)
    assert all(one.logprob <= 0 for one in answer.logprobs)
    *_, done = ask(client, include=["logprobs"], stream=True)
    assert [one.token for one in done.logprobs] == [one.token for one in answer.logprobs]


def test_hotwords_and_chunking_are_accepted_and_used(client: openai.OpenAI, joined: Path) -> None:
    """Each changes the answer, to that of the command line."""
    plain = ask(client, joined, response_format="verbose_json")
    assert ask(client, joined, chunking_strategy="auto").text == plain.text
    chunking = {"type": "server_vad", "threshold": 0.9, "silence_duration_ms": 2000}
    words = {"keywords": ["Sarah", "hospital"]}
    chunked = ask(client, joined, response_format="verbose_json", chunking_strategy=chunking)
    primed = ask(client, joined, response_format="verbose_json", extra_body=words)
    for answer, options in (
        (chunked, ["--vad-threshold", "0.9", "--min-pause", "2"]),
        (primed, ["--hotword", "Sarah", "--hotword", "hospital"]),
    ):
        expected = json.loads(by_command_line(joined, "json", *options))
        assert answer.text == expected["text"] != plain.text
        assert len(answer.segments) == len(expected["segments"])
    assert len(chunked.segments) < len(plain.segments) == len(primed.segments)
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, model="sense", extra_body={"keywords": ["Sarah"]})
    assert (refused.value.param, refused.value.code) == ("keywords", "unsupported_value")


def test_a_prompt_that_the_model_does_not_take_is_refused_alone(client: openai.OpenAI, server: Served) -> None:
    """While another request with other words is in the same session."""
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ask, client, CLIPS[0], extra_body={"keywords": ["Anna"]})
        for word in ("<|im_end|>", "a\nb", "long " * 2000, "long " * 400):
            with pytest.raises(openai.BadRequestError) as refused:
                ask(client, extra_body={"keywords": [word]})
            assert refused.value.code in ("prompt-text", "prompt-too-long")
        assert other.result().text


def test_speech_that_is_missing_is_said(client: openai.OpenAI, server: Served, tmp_path: Path) -> None:
    """A recording that breaks off has the text before, and a warning in every format."""
    content = CLIPS[0].read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) * 2 // 3])
    answer = server.transcribe(tmp_path / "a.flac")
    assert (answer.status_code, len(answer.json()["warnings"])) == (200, 1)
    assert "the upload" in answer.json()["warnings"][0]
    assert answer.headers["x-funasr-notes"]
    *_, done = ask(client, tmp_path / "a.flac", stream=True)
    assert done.warnings == answer.json()["warnings"]
    assert not ask(client, tmp_path / "a.flac", response_format="verbose_json").complete


def test_a_speaker_in_each_channel(client: openai.OpenAI, tmp_path: Path) -> None:
    one, other = (soundfile.read(CLIPS[index], dtype="float32")[0] for index in (0, 3))
    samples = np.zeros((len(one) + len(other), 2), np.float32)
    samples[: len(one), 0], samples[len(one) :, 1] = one, other
    soundfile.write(tmp_path / "call.wav", samples, 16000)
    answer = ask(client, tmp_path / "call.wav", response_format="diarized_json")
    assert [segment.speaker for segment in answer.segments] == ["A", "B"]
    assert [segment.text for segment in answer.segments] == [ask(client, CLIPS[index]).text for index in (0, 3)]
    events = list(ask(client, tmp_path / "call.wav", response_format="diarized_json", stream=True))
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert [event.type for event in events].count("transcript.text.done") == 1
    assert deltas == events[-1].text
    speakers = {event.speaker for event in events if event.type == "transcript.text.segment"}
    assert speakers == {"A", "B"}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, response_format="diarized_json")
    assert refused.value.param == "response_format"


def test_models(client: openai.OpenAI, server: Served) -> None:
    models = {model.id: model for model in client.models.list()}
    assert list(models) == ["demo", "owner/sense"]
    assert all(model.created and model.owned_by and model.object == "model" for model in models.values())
    assert client.models.retrieve("owner/sense").owned_by == "owner"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gone")
    for name in ("whisper-1", "", "gpt-4o-transcribe"):
        assert ask(client, model=name).text == ask(client, model="demo").text
    for name in ("openai/whisper-large-v3", "../demo", "/etc", str(demo.MODEL)):
        with pytest.raises(openai.NotFoundError) as refused:
            ask(client, model=name)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "lrc"}, "response_format"), ({"response_format": "srt", "stream": True}, "stream"),
        ({"language": "xx"}, "language"), ({"language": "ko"}, "language"), ({"temperature": -1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": 0.5, "model": "sense"}, "temperature"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"timestamp_granularities": ["line"], "response_format": "verbose_json"}, "timestamp_granularities"),
        ({"include": ["logprobs"], "response_format": "text"}, "include"), ({"include": ["x"]}, "include"),
        ({"chunking_strategy": "never"}, "chunking_strategy"),
        ({"chunking_strategy": {"type": "server_vad", "threshold": 2}}, "chunking_strategy"),
        ({"known_speaker_names": ["Ann"]}, "known_speaker_references"), ({"extra_body": {"spk": "true"}}, "spk"),
        ({"extra_body": {"spk": "false", "vad": "x"}}, "vad"), ({"extra_body": {"itn": "maybe"}}, "itn"),
        ({"extra_body": {"langauge": "en"}}, "langauge"), ({"extra_body": {"translate": "true"}}, "translate"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **fields)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert refused.value.body["message"]  # type: ignore[index]


def test_a_model_that_cannot_translate(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.translations.create(model="demo", file=CLIP)
    assert (refused.value.code, refused.value.param) == ("unsupported_value", "translate")


def test_a_file_that_is_not_audio_is_the_clients_mistake(client: openai.OpenAI, tmp_path: Path) -> None:
    for content in (b"", b"no audio", b"RIFF" + bytes(100)):
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(openai.BadRequestError) as refused:
            ask(client, tmp_path / "a.wav")
        assert refused.value.param == "file"
        assert "the upload" in refused.value.message
        with pytest.raises(openai.BadRequestError):
            list(ask(client, tmp_path / "a.wav", stream=True))


def test_silence_is_an_empty_text(client: openai.OpenAI, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    assert ask(client, tmp_path / "a.wav").text == ""
    [done] = ask(client, tmp_path / "a.wav", stream=True)
    assert done.text == ""


def test_json_with_the_recording_in_base64(server: Served, client: openai.OpenAI) -> None:
    content = base64.b64encode(CLIP.read_bytes()).decode()
    for file in (content, f"data:audio/flac;base64,{content}"):
        answer = server.post(json={"file": file, "model": "demo", "language": "en", "keywords": ["Sarah"]})
        assert answer.status_code == 200
        assert answer.json()["text"]
    for wrong in ({"file": "!"}, {"file": 1}, {}, [], {"file": content, "translate": True}):
        assert server.post(json=wrong).status_code == 400


def test_the_model_in_the_path_and_no_prefix(server: Served, client: openai.OpenAI) -> None:
    expected = {"demo": ask(client).text, "owner/sense": ask(client, model="owner/sense").text}
    for prefix in ("", "/v1"):
        for name, text in expected.items():
            files = {"file": ("a", CLIP.read_bytes())}
            answer = server.post(f"{prefix}/audio/transcriptions/{name}", files=files)
            assert answer.json()["text"] == text

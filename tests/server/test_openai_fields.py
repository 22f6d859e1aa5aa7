"""Each field and format of OpenAI's own client, synchronous and asynchronous, whole answers and events.

A model with a fixed answer shows which options arrive. `test_openai.py` compares the demo's texts with those of
the command line.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import openai
import pytest
import soundfile
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsNonStreaming
from openai.types.audio.translation_create_params import TranslationCreateParams
from support.serving import Served, serving
from support.speaking import SAID, SpeakingModel

from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling.intake import Job
from funasr_cli.server.fields import FORMATS, STREAMED
from funasr_cli.stages.stage import Stages
from funasr_cli.transcript import Score, Segment, Translation, Word

# The client says of all that concerns translations that it is deprecated.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]

TEXT, ENGLISH = "Hola a todos.", "Hello, everyone."
ABLE = Capabilities(
    ("en", "es"), hotwords=True, previous_text=True, context_text=True, sampling=True, itn_switch=True,
    word_times=True, confidence=True, translation=True,
)  # fmt: skip
VERBOSE = {"response_format": "verbose_json"}
CHUNKING = {"type": "server_vad", "threshold": 0.3, "silence_duration_ms": 250, "prefix_padding_ms": 300}
# What the client sends, with which format, and the options that the model gets; all fields of the client's types.
CASES: dict[str, list[tuple[Any, dict[str, str], dict[str, Any]]]] = {
    "chunking_strategy": [("auto", {}, {}), (CHUNKING, {}, {"vad_threshold": 0.3, "min_pause_s": 0.25})],
    "include": [(["logprobs"], {}, {"confidence": True})],
    "keywords": [(["Anna", "New York, NY"], {}, {"hotwords": ("Anna", "New York, NY")})],
    "language": [("en", {}, {"language": "en"}), ("es-MX", {}, {"language": "es-MX"}), ("", {}, {})],
    "languages": [(["es"], {}, {"language": "es"}), (["es", "en"], {}, {})],
    "prompt": [("Kasan, Ufa", {}, {"hotwords": ("Kasan", "Ufa")}), ("We met at ten.", {},
               {"prev_text": "We met at ten."})],
    "temperature": [(0, {}, {}), (0.5, {}, {"temperature": 0.5})],
    "timestamp_granularities": [
        (["word", "segment"], VERBOSE, {"word_times": True, "segment_times": True}),
        (["word"], VERBOSE, {"word_times": True}), (["segment"], VERBOSE, {"segment_times": True}),
    ],
}  # fmt: skip
ELSEWHERE = {"file", "model", "response_format", "stream", "known_speaker_names", "known_speaker_references"}


def said(start_s: float, end_s: float) -> Segment:
    words = tuple(Word(text, start_s + n / 10, start_s + (n + 1) / 10, 0.9) for n, text in enumerate(TEXT.split()))
    return replace(
        SAID, text=TEXT, start_s=start_s, end_s=end_s, words=words, language="es", tags=(),
        scores=(Score("Hola ", 0.9), Score("a todos.", 0.8)), translation=Translation(ENGLISH, "en", (), -0.5),
    )  # fmt: skip


class Listening(Recognizer):
    """A recognizer that keeps the options of its jobs."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.heard: list[TranscribeOptions] = []

    def job(
        self, source: int, opener: Any, options: TranscribeOptions, *given: Any, **more: Any
    ) -> tuple[Job, Stages]:
        self.heard.append(options)
        return super().job(source, opener, options, *given, **more)


@pytest.fixture(scope="module")
def recognizer() -> Listening:
    row_options = ("language", "hotwords", "prev_text", "word_times", "segment_times", "confidence", "translate")
    return Listening(SpeakingModel(capabilities=ABLE, result=said(0.0, 1.0), row_options=row_options))


@pytest.fixture(scope="module")
def server(recognizer: Listening) -> Iterator[Served]:
    with serving({"listening": demo.MODEL}, load=lambda _: recognizer) as served:
        yield served


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with one speaker in each of two channels."""
    clip, rate_hz = soundfile.read(demo.clips()[3].path, dtype="float32")
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, np.stack([clip, clip], axis=1), rate_hz)
    return path


def ask(server: Served, kind: str, endpoint: str = "transcriptions", **fields: Any) -> Any:
    """Return an answer, or the list of events with `stream`, from one of the two clients."""
    settings: dict[str, Any] = {"base_url": server.v1, "api_key": "none", "max_retries": 0}
    fields = {"model": "whisper-1", "file": demo.clips()[3].path} | fields

    async def answer() -> Any:
        async with openai.AsyncOpenAI(**settings) as client:
            found = await getattr(client.audio, endpoint).create(**fields)
            return [event async for event in found] if fields.get("stream") else found

    if kind == "async":
        return asyncio.run(answer())
    with openai.OpenAI(**settings) as client:
        found = getattr(client.audio, endpoint).create(**fields)
        return list(found) if fields.get("stream") else found


def test_the_table_has_all_fields_of_the_client() -> None:
    assert set(get_type_hints(TranscriptionCreateParamsNonStreaming)) == CASES.keys() | ELSEWHERE
    assert set(get_type_hints(TranslationCreateParams)) <= CASES.keys() | ELSEWHERE


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", CASES)
def test_each_field_arrives(server: Served, recognizer: Listening, name: str, kind: str, stream: bool) -> None:
    for value, format, expected in CASES[name]:
        recognizer.heard.clear()
        fields = {name: value, **format}
        if stream and format:  # verbose_json has no events
            with pytest.raises(openai.BadRequestError) as refused:
                ask(server, kind, stream=True, **fields)
            assert refused.value.param == "stream"
            continue
        answer = ask(server, kind, stream=stream, **fields)
        assert (answer[-1] if stream else answer).text == TEXT
        assert recognizer.heard == [replace(DEFAULTS, **expected)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("format", FORMATS)
def test_each_format(server: Served, call: Path, format: str, kind: str, stream: bool) -> None:
    two = format == "diarized_json"
    fields = {"file": call} if two else {}
    text = f"{TEXT} {TEXT}" if two else TEXT
    if stream and format not in STREAMED:
        with pytest.raises(openai.BadRequestError) as refused:
            ask(server, kind, response_format=format, stream=True)
        assert refused.value.param == "stream"
        return
    answer = ask(server, kind, response_format=format, stream=stream, **fields)
    if stream:
        deltas = [event.delta for event in answer if event.type == "transcript.text.delta"]
        assert "".join(deltas) == answer[-1].text == text
        assert sum(event.type == "transcript.text.segment" for event in answer) == 2 * two
    elif format in ("text", "srt", "vtt"):
        assert isinstance(answer, str)
        assert ("-->" in answer) == (format != "text")
        assert TEXT in answer
    else:
        assert answer.text == text
        assert len(getattr(answer, "segments", None) or []) == {"json": 0, "verbose_json": 1}.get(format, 2)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_translations(server: Served, recognizer: Listening, kind: str) -> None:
    """Its formats and fields."""
    for format in FORMATS[:-1]:
        answer = ask(server, kind, "translations", response_format=format)
        assert ENGLISH in (answer if isinstance(answer, str) else answer.text)
    for name in ("prompt", "temperature"):
        for value, _, expected in CASES[name]:
            recognizer.heard.clear()
            assert ask(server, kind, "translations", **{name: value}).text == ENGLISH
            assert recognizer.heard == [replace(DEFAULTS, translate=True, **expected)]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", ["known_speaker_names", "known_speaker_references"])
def test_known_speakers_need_names_and_recordings(server: Served, kind: str, name: str) -> None:
    """The answer names the field that is missing; test_server_speakers.py has both."""
    [other] = {"known_speaker_names", "known_speaker_references"} - {name}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(server, kind, **{name: ["data:audio/wav;base64,AAAA"]})
    assert (refused.value.param, refused.value.code) == (other, "invalid_value")


@pytest.mark.parametrize("name", ["keywords", "languages", "include", "timestamp_granularities"])
def test_each_spelling_of_each_list(server: Served, recognizer: Listening, name: str) -> None:
    """As the client writes it, without brackets, repeated, as JSON and with commas."""
    format = VERBOSE if name == "timestamp_granularities" else {}
    values = {"keywords": ["Anna", "Ufa"], "languages": ["es"], "include": ["logprobs"]}.get(
        name, ["word", "segment"]
    )
    spelled: list[dict[str, Any]] = [
        {f"{name}[]": values}, {name: values}, {name: json.dumps(values)}, {name: ", ".join(values)},
    ]  # fmt: skip
    recognizer.heard.clear()
    file = {"file": ("a.flac", demo.clips()[3].path.read_bytes())}
    assert all(server.post(files=file, data=each | format).status_code == 200 for each in spelled)
    assert (
        server.post(json={"file": base64.b64encode(file["file"][1]).decode(), name: values, **format}).status_code
        == 200
    )
    assert recognizer.heard == recognizer.heard[:1] * 5
    assert recognizer.heard[0] != DEFAULTS

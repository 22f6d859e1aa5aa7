"""Speakers on the server: voices and channels, words and whole segments, known speakers, what is refused."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import openai
import pytest
import soundfile
from support.running import invoke
from support.serving import Served, serving
from support.translating import Interpreter
from support.voices import ABLE, LOUD, QUIET, RATE_HZ, SAYS, WORDS, Levels, recognizer, spoken
from support.waiting import wait_for

from funasr_cli import demo
from funasr_cli.errors import SetupError
from funasr_cli.pipeline import Recognizer
from funasr_cli.server.uploads import MOST_FIELD_BYTES, MOST_REFERENCE_BYTES
from funasr_cli.stages.speakers import COARSE
from funasr_cli.transcript import Transcript
from funasr_cli.writers import WRITERS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    folders = {"timed": demo.MODEL, "plain": demo.MODEL.parent}

    def load(folder: Path) -> Recognizer:
        return recognizer(ABLE if folder == demo.MODEL else replace(ABLE, word_times=False))

    with serving(folders, load=load, load_voices=Levels) as served:
        yield served


@pytest.fixture(scope="module")
def without_voices() -> Iterator[Served]:
    with serving({"timed": demo.MODEL}, load=lambda _: recognizer()) as served:
        yield served


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return spoken()


@pytest.fixture(scope="module")
def talk(speech: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loud and a quiet speaker, within one segment."""
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.concatenate([LOUD * speech, QUIET * speech]), RATE_HZ, "FLOAT")
    return path


@pytest.fixture(scope="module")
def call(talk: Path) -> Path:
    """The same, with the second one in another channel."""
    samples = soundfile.read(talk, dtype="float32")[0]
    channels = np.zeros((len(samples), 2), np.float32)
    half = len(samples) // 2
    channels[:half, 0], channels[half:, 1] = samples[:half], samples[half:]
    soundfile.write(talk.with_name("call.wav"), channels, RATE_HZ, "FLOAT")
    return talk.with_name("call.wav")


def url(samples: np.ndarray, kind: str = "wav") -> str:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format=kind)
    return f"data:audio/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0)


def ask(server: Served, audio: Path, **fields: Any) -> Any:
    fields = {"model": "timed", "response_format": "diarized_json"} | fields
    return client(server).audio.transcriptions.create(file=audio, **fields)


def refusal(server: Served, audio: Path, **fields: Any) -> tuple[str | None, str | None]:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(server, audio, **fields)
    return refused.value.param, refused.value.code


def test_words_are_cut_where_the_speaker_changes(server: Served, talk: Path) -> None:
    answer = ask(server, talk)
    assert [segment.speaker for segment in answer.segments] == ["A", "B"]
    assert answer.text == SAYS.text == " ".join(segment.text for segment in answer.segments)
    assert answer.segments[0].text.split()[:4] == WORDS[:4]
    assert answer.segments[1].text.split()[-4:] == WORDS[-4:]
    assert not getattr(answer, "warnings", None)


def test_whole_segments_are_said_to_be_coarse(
    server: Served, talk: Path, speech: np.ndarray, tmp_path: Path
) -> None:
    """With a model that has no word times."""
    pause = np.zeros(2 * RATE_HZ)
    soundfile.write(tmp_path / "a.wav", np.concatenate([LOUD * speech, pause, QUIET * speech]), RATE_HZ, "FLOAT")
    answer = ask(server, tmp_path / "a.wav", model="plain")
    assert [(segment.speaker, segment.text) for segment in answer.segments] == [("A", SAYS.text), ("B", SAYS.text)]
    assert answer.warnings == [COARSE]


def translations(server: Served, audio: Path, **fields: str) -> Any:
    file = {"file": ("a", audio.read_bytes())}
    return server.post("/v1/audio/translations", files=file, data={"model": "timed"} | fields)


def test_a_translation_of_a_whole_segment_has_no_speakers(server: Served, talk: Path) -> None:
    """It is refused, since the model cannot say who said which part of it."""
    for fields, param in (
        ({"response_format": "diarized_json"}, "response_format"),
        ({"response_format": "srt", "speakers": "2"}, "speakers"),
        ({"response_format": "full_json", "spk": "true"}, "spk"),
    ):
        answer = translations(server, talk, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "options-conflict", param)
        assert "--translator" in error["message"]
    both = server.transcribe(talk, model="timed", translate="true", speakers="2", response_format="full_json")
    assert (both.status_code, both.json()["error"]["param"]) == (400, "speakers")
    assert translations(server, talk).json()["text"] == "eins"


def test_a_translator_translates_each_speaker(talk: Path) -> None:
    """In JSON and in subtitles: no cue is too short to read, or has the text of both."""
    asr = recognizer(replace(ABLE, translation=False))
    asr = Recognizer(asr.model, translator=Interpreter())
    with serving({"timed": demo.MODEL}, load=lambda _: asr, load_voices=Levels) as served:
        answer = translations(served, talk, response_format="diarized_json", to_language="de").json()
        assert [segment["speaker"] for segment in answer["segments"]] == ["A", "B"]
        assert " ".join(segment["text"] for segment in answer["segments"]) == SAYS.text.upper()
        srt = translations(served, talk, response_format="srt", speakers="2", to_language="de").text
        assert [line for line in srt.splitlines() if line.startswith("[")] == [
            f"[Speaker {number}] {segment['text']}" for number, segment in enumerate(answer["segments"], 1)
        ]
        fields = {"translate": "true", "to_language": "de", "speakers": "2", "response_format": "full_json"}
        both = served.transcribe(talk, model="timed", **fields).json()
        parts = [(part["text"].upper(), part["translation"]["text"]) for part in both["segments"]]
        assert len(parts) == 2
        assert all(spoken == english for spoken, english in parts)


def test_events(server: Served, talk: Path) -> None:
    events = list(ask(server, talk, stream=True))
    whole = ask(server, talk)
    parts = [event for event in events if event.type == "transcript.text.segment"]
    assert [(part.speaker, part.text) for part in parts] == [(each.speaker, each.text) for each in whole.segments]
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == events[-1].text


def test_other_formats(server: Served, talk: Path) -> None:
    """As the command line writes them."""
    asked = {"spk": "true"}
    srt = server.transcribe(talk, response_format="srt", **asked).text
    assert "[Speaker 1] one" in srt
    assert "[Speaker 2] " in srt
    assert "<v Speaker 2>" in server.transcribe(talk, response_format="vtt", **asked).text
    verbose = server.transcribe(talk, response_format="verbose_json", **asked).json()
    assert [segment["speaker"] for segment in verbose["segments"]] == ["Speaker 1", "Speaker 2"]
    full = server.transcribe(talk, response_format="full_json", **asked).json()
    assert {word["speaker"] for segment in full["segments"] for word in segment["words"]} == {
        "Speaker 1",
        "Speaker 2",
    }
    assert (full["speakers_by"], full["speaker_embeddings"]) == ("levels", None)
    for number, count in (("auto", 2), ("2", 2), ("1-3", 2), ("1", 1)):
        found = server.transcribe(talk, response_format="verbose_json", speakers=number).json()
        assert len({segment["speaker"] for segment in found["segments"]}) == count
    assert server.transcribe(talk, response_format="full_json").json()["speakers_by"] is None


def test_known_speakers(server: Served, talk: Path, speech: np.ndarray) -> None:
    """In any order; others have letters."""
    quiet, loud = url(QUIET * speech), url(LOUD * speech, "flac")
    for names, references, found in (
        (["Bo", "Ann"], [quiet, loud], ["Ann", "Bo"]),
        (["Bo"], [quiet], ["A", "Bo"]),
        (["Ann, B"], [loud], ["Ann, B", "A"]),
    ):
        fields = {"known_speaker_names": names, "known_speaker_references": references}
        answer = ask(server, talk, **fields)
        assert [segment.speaker for segment in answer.segments] == found
    data = {"known_speaker_names": "Bo", "known_speaker_references": quiet, "response_format": "srt"}
    assert "[Bo] " in server.transcribe(talk, **data).text
    content = base64.b64encode(talk.read_bytes()).decode()
    body = {"file": content, "known_speaker_names": ["Bo"], "known_speaker_references": [quiet],
            "response_format": "diarized_json", "model": "timed"}  # fmt: skip
    assert server.post(json=body).json()["segments"][1]["speaker"] == "Bo"
    wait_for(lambda: not server.uploads())  # the last one is removed after its answer


def test_channels(server: Served, without_voices: Served, call: Path) -> None:
    """If they are asked for, or if there is no model of voices."""
    for served, fields in ((server, {"channels": "split"}), (without_voices, {})):
        answer = ask(served, call, extra_body=fields)
        assert [segment.speaker for segment in answer.segments] == ["A", "B"]
        assert [segment.text for segment in answer.segments] == [SAYS.text] * 2
    mixed = ask(server, call)
    assert {segment.speaker for segment in mixed.segments} == {"A", "B"}
    full = [served.transcribe(call, response_format="full_json").json() for served in (server, without_voices)]
    assert [each["speakers_by"] for each in full] == [None, None]


def test_requests_with_and_without_speakers_share_a_session(
    server: Served, talk: Path, speech: np.ndarray
) -> None:
    fields: list[dict[str, Any]] = [
        {"spk": "true", "response_format": "srt"}, {"response_format": "srt"},
        {"response_format": "diarized_json"},
        {"known_speaker_names": "Bo", "known_speaker_references": url(QUIET * speech), "response_format": "vtt"},
    ]  # fmt: skip
    alone = [server.transcribe(talk, **each).text for each in fields]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.transcribe, talk, **each) for each in fields * 2]
    assert [answer.result().text for answer in answers] == alone * 2
    assert len({*alone}) == len(alone)


def test_the_list_of_models_tells_whether_speakers_can_be_told_apart(
    server: Served, without_voices: Served
) -> None:
    """Each model, in the list and alone, loaded or not."""
    for served, can in ((server, True), (without_voices, False)):
        served.service.shelf.recognizer(served.service.shelf.default, ())
        entries = httpx.get(f"{served.v1}/models").json()["data"]
        entries += [httpx.get(f"{served.v1}/models/{entry['id']}").json() for entry in entries]
        assert ["speakers" in entry["capabilities"] for entry in entries] == [can] * len(entries)


def test_a_transcript_with_speakers_comes_back_as_it_was(server: Served, talk: Path) -> None:
    """In all formats, as the command line writes them."""
    full = server.transcribe(talk, response_format="full_json", spk="true").content
    transcript = msgspec.json.decode(full, type=Transcript)
    assert [segment.speaker for segment in transcript.segments] == ["Speaker 1", "Speaker 2"]
    for format, write in WRITERS.items():
        assert server.post(f"/v1/transcripts/{format}", content=full).text == write(transcript)


def test_a_server_without_a_model(without_voices: Served, talk: Path, speech: np.ndarray) -> None:
    assert refusal(without_voices, talk) == ("response_format", "unsupported_value")
    known = {"known_speaker_names": ["Bo"], "known_speaker_references": [url(speech)]}
    assert refusal(without_voices, talk, **known) == ("known_speaker_names", "unsupported_value")
    for name, value in (("spk", "true"), ("speakers", "2")):
        fields = {"response_format": "srt", "extra_body": {name: value}}
        assert refusal(without_voices, talk, **fields) == (name, "unsupported_value")


SHORT, LONG = np.zeros(RATE_HZ // 2), np.zeros(31 * RATE_HZ)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"known_speaker_names": ["Bo"]}, "known_speaker_references", "invalid_value"),
        ({"known_speaker_references": [url(SHORT)]}, "known_speaker_names", "invalid_value"),
        ({"known_speaker_names": ["a", "a"], "known_speaker_references": [url(SHORT)] * 2},
         "known_speaker_names", "invalid_value"),
        ({"known_speaker_names": list("abcde"), "known_speaker_references": [url(SHORT)] * 5},
         "known_speaker_references", "invalid_value"),
        ({"known_speaker_names": ["a"], "known_speaker_references": [url(SHORT)]},
         "known_speaker_references", "audio-too-short"),
        ({"known_speaker_names": ["a"], "known_speaker_references": [url(LONG)]},
         "known_speaker_references", "audio-too-long"),
        *(({"known_speaker_names": ["a"], "known_speaker_references": [wrong]}, "known_speaker_references", code)
          for wrong, code in (("https://example.com/a.wav", None), ("data:audio/wav,AAAA", None),
                              ("data:audio/wav;base64,!", None),
                              ("data:audio/wav;base64,AAAA", "audio-unreadable"))),
        ({"response_format": "json", "extra_body": {"spk": "true"}}, "spk", "unsupported_value"),
        ({"response_format": "text", "extra_body": {"speakers": "2"}}, "speakers", "unsupported_value"),
        ({"extra_body": {"speakers": "4-2"}}, "speakers", "invalid_value"),
        ({"extra_body": {"speakers": "none"}}, "speakers", "unsupported_value"),
        ({"extra_body": {"channels": "left"}}, "channels", "invalid_value"),
        ({"extra_body": {"channels": "split", "spk": "true"}}, "channels", "unsupported_value"),
        ({"response_format": "srt", "extra_body": {"channels": "split"}}, "channels", "unsupported_value"),
        ({"extra_body": {"vad": "false"}}, "vad", None),
    ],
)  # fmt: skip
def test_what_is_refused(server: Served, talk: Path, fields: dict[str, Any], param: str, code: str | None) -> None:
    assert refusal(server, talk, **fields) == (param, code)
    wait_for(lambda: not server.uploads())


def test_large_fields(server: Served, talk: Path) -> None:
    """Only recordings of known speakers may be long, and not together."""
    for fields in (
        {"prompt": "a" * (MOST_FIELD_BYTES + 1)},
        {"known_speaker_references[]": ["A" * (MOST_REFERENCE_BYTES + 1)]},
        {"known_speaker_references[]": ["A" * (MOST_REFERENCE_BYTES - 1)] * 5},
    ):
        answer = server.transcribe(talk, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", None)


def test_the_model_of_voices_is_loaded_when_it_is_needed_and_gets_room(talk: Path) -> None:
    """An idle model is unloaded for it, and later loaded again."""
    loaded, tight = list[str](), [True]

    def load(folder: Path) -> Recognizer:
        loaded.append(folder.name)
        return recognizer()

    def load_voices() -> Levels:
        loaded.append("voices")
        if tight.pop() if tight else False:
            raise SetupError("needs 9 GB of memory", code="memory-short")
        return Levels()

    with serving({"timed": Path("timed")}, load=load, load_voices=load_voices) as served:
        assert served.transcribe(talk).json()["text"] == SAYS.text
        assert loaded == ["timed"]
        for _ in range(2):
            assert [part.speaker for part in ask(served, talk).segments] == ["A", "B"]
    assert loaded == ["timed", "voices", "voices", "timed"]


class Broken(Levels):
    """A device that fails."""

    def embed(self, clips: np.ndarray) -> np.ndarray:
        raise RuntimeError("the device is gone")


def test_a_failure_costs_the_speakers_not_the_text(talk: Path) -> None:
    with serving({"timed": demo.MODEL}, load=lambda _: recognizer(), load_voices=Broken) as served:
        answer = served.transcribe(talk, response_format="diarized_json")
        assert (answer.status_code, answer.json()["text"]) == (200, SAYS.text)
        assert Levels.name in " ".join(answer.json()["warnings"])
        assert "speaker" not in answer.json()["segments"][0]
        assert served.transcribe(talk).json()["text"] == SAYS.text


@pytest.mark.parametrize(("name", "code"), [("nosuch", "model-missing"), ("demo", "model-unsupported")])
def test_the_option_of_the_command(name: str, code: str, tmp_path: Path) -> None:
    """Before the server starts."""
    env = {"FUNASR_HOME": str(tmp_path)}
    result = invoke("serve", "--model", "demo", "--port", "0", "--speaker-model", name, env=env)
    assert (result.exit_code, [each for each, _ in result.errors]) == (3, [code])

"""A chat model after the speech models of a server: answers, subtitles, events, languages, failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from support.running import invoke
from support.serving import Served, load, serving
from support.speaking import SAID, SpeakingModel
from support.translating import LOOPING, SILENT, Interpreter, taught

from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.cli import serve
from funasr_cli.families.load import load_text
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Segment

pytestmark = pytest.mark.slow

CLIP = demo.clips()[1]  # 这个要6837块钱。
ENGLISH, GERMAN = taught("en")[CLIP.written], taught("de")[CLIP.written]
SPOKEN = replace(SAID, text="hola", language="es", tags=())


@pytest.fixture(scope="module")
def server(translator: Path) -> Iterator[Served]:
    """A server with the demo model, which cannot translate, and the taught one."""
    recognizer = Recognizer(load(demo.MODEL).model, translator=load_text(translator))
    with serving({"demo": demo.MODEL}, load=lambda _: recognizer) as served:
        yield served


def translations(server: Served, **fields: str) -> Any:
    file = {"file": ("a.flac", CLIP.path.read_bytes())}
    return server.post("/v1/audio/translations", files=file, data=fields)


def test_the_endpoint_of_translations(server: Served) -> None:
    assert translations(server).json()["text"] == ENGLISH
    assert translations(server, response_format="text").text == ENGLISH
    for to in ("de", "German"):
        answer = translations(server, response_format="verbose_json", to_language=to).json()
        assert (answer["text"], answer["language"], answer["task"]) == (GERMAN, "de", "translate")
    for format in ("srt", "vtt"):
        assert translations(server, response_format=format).text.rstrip().endswith(f"\n{ENGLISH}")


def test_the_field(server: Served) -> None:
    answer = server.transcribe(CLIP.path, translate="true").json()
    assert (answer["text"], answer["translation"]) == (CLIP.written, ENGLISH)
    full = server.transcribe(CLIP.path, translate="true", response_format="full_json").json()
    assert full["segments"][0]["translation"]["text"] == ENGLISH
    assert full["translated_by"] == "translator"
    assert "translation" not in server.transcribe(CLIP.path).json()
    [model] = httpx.get(f"{server.v1}/models").json()["data"]
    assert "translation" in model["capabilities"]


def test_events(server: Served, joined: Path) -> None:
    """The deltas together are the translation of the whole."""
    file = {"file": ("a.wav", joined.read_bytes())}
    answer = server.post("/v1/audio/translations", files=file, data={"stream": "true"})
    *lines, last = [line[6:] for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert last == "[DONE]"
    *deltas, done = map(json.loads, lines)
    at_once = server.post("/v1/audio/translations", files=file).json()["text"]
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == at_once
    assert ENGLISH in at_once


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"to_language": "de"}, "to_language"),
        ({"translate": "true", "to_language": "klingon"}, "to_language"),
    ],
)
def test_languages_that_are_refused(server: Served, fields: dict[str, str], param: str) -> None:
    answer = server.transcribe(CLIP.path, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def recognizer(said: Segment, able: Capabilities, **more: Any) -> Recognizer:
    model: Any = SpeakingModel(capabilities=able, result=said, row_options=("translate",))
    return Recognizer(model, **more)


def test_a_model_that_translates_only_into_english() -> None:
    able = Capabilities(("es",), translation=True)
    with serving({"one": demo.MODEL}, load=lambda _: recognizer(SPOKEN, able)) as served:
        answer = translations(served, to_language="de")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "to_language")
        assert translations(served, to_language="en").status_code == 200


@pytest.mark.parametrize(("text", "written"), [(LOOPING, "hello,"), (SILENT, "...")])
def test_a_translation_that_fails(translator: Path, text: str, written: str) -> None:
    """The answer says so. Where nothing was written, the answer never has the spoken text."""
    asr = recognizer(replace(SPOKEN, text=text), Capabilities(("zh",)), translator=load_text(translator))
    with serving({"one": demo.MODEL}, load=lambda _: asr) as served:
        answer = translations(served, response_format="verbose_json").json()
        assert (answer["text"], answer["complete"], len(answer["warnings"])) == (written, False, 1)
        assert answer["ledger"]["failed_s"] > 0
        assert len(translations(served).json()["warnings"]) == 1
        both = served.transcribe(CLIP.path, translate="true", response_format="verbose_json").json()
        assert (both["text"], both["translation"], both["complete"]) == (text, written, False)


def test_a_device_that_fails_ends_no_request() -> None:
    asr = recognizer(SPOKEN, Capabilities(("es",)), translator=Interpreter(broken=["hola"]))
    with serving({"one": demo.MODEL}, load=lambda _: asr) as served:
        answer = served.transcribe(CLIP.path, translate="true")
        assert (answer.status_code, answer.json()["text"]) == (200, "hola")
        assert any("the device is gone" in warning for warning in answer.json()["warnings"])


@pytest.mark.parametrize("name", ["nosuch", "demo"])
def test_the_option_of_the_command(name: str, tmp_path: Path) -> None:
    """Before the server starts."""
    result = invoke(
        "serve", "--model", "demo", "--port", "0", "--translator", name, env={"FUNASR_HOME": str(tmp_path)}
    )
    result.assert_error(3, "model-unsupported" if name == "demo" else "model-missing")


@pytest.mark.parametrize(
    ("able", "typed", "used"),
    [(True, True, True), (True, False, False), (False, True, True), (False, False, True)],
)
def test_for_which_models(monkeypatch: pytest.MonkeyPatch, able: bool, typed: bool, used: bool) -> None:
    """Named on the command line, for all; from a variable or the settings file, for those that cannot."""
    model: Any = SpeakingModel(capabilities=Capabilities(("zh",), translation=able))
    monkeypatch.setattr("funasr_cli.families.load.load_model", lambda *_: model)
    monkeypatch.setattr(serve, "choose_type_and_engine", lambda *_: (None, "auto"))
    monkeypatch.setattr("funasr_cli.cli.parameters.is_typed", lambda _, name: typed and name == "translator")
    loaded: list[Path] = []

    def load_chat(folder: Path) -> Interpreter:
        loaded.append(folder)
        return Interpreter()

    none, chat, context = serve.Lazily(load_chat, None), serve.Lazily(load_chat, Path("chat")), cast(Any, None)
    recognizers = [serve._load(Path("any"), None, cast(Any, none), cast(Any, chat), None, context) for _ in "ab"]
    assert [asr.capabilities.any_translation for asr in recognizers] == [used, used]
    assert loaded == [Path("chat")] * used, "it is shared"

"""Punctuation on the server: answers and events of models that write no marks, and failures of the stage."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.punctuation import GuessingPunctuation
from support.running import invoke
from support.serving import Served, serving
from support.speaking import SAID, SpeakingModel

from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.cli import serve
from funasr_cli.pipeline import Recognizer
from funasr_cli.server.app import NOTES_HEADER
from funasr_cli.server.shelf import Shelf
from funasr_cli.transcript import join_texts

pytestmark = pytest.mark.slow

CLIP = demo.clips()[3].path
SAYS = replace(SAID, text="今天天气怎么样 hello world", language="zh", tags=())
ABLE = Capabilities(("zh", "en"), itn_switch=True, itn_punctuation=True)
MODEL = GuessingPunctuation(0.3)


class Broken(GuessingPunctuation):
    """A model with a device that fails, or with a bug."""

    error: Exception = RuntimeError("the device is gone")

    def logits(self, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        raise self.error


def recognizer(model: GuessingPunctuation) -> Recognizer:
    speech: Any = SpeakingModel(capabilities=ABLE, result=SAYS, row_options=("itn",))
    return Recognizer(speech, punctuate_with=model, must_punctuate=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving({"speaking": demo.MODEL}, load=lambda _: recognizer(MODEL)) as served:
        yield served


def events(server: Served, audio: Path, **fields: str) -> list[dict[str, Any]]:
    answer = server.transcribe(audio, stream="true", **fields)
    assert answer.status_code == 200
    *lines, last = [line[6:] for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert last == "[DONE]"
    return [json.loads(line) for line in lines]


def test_answers(server: Served) -> None:
    """Only if the model writes no marks, which depends on the request."""
    [marked] = MODEL.punctuate([SAYS.text])
    assert server.transcribe(CLIP, itn="false").json()["text"] == marked
    assert server.transcribe(CLIP, itn="false", response_format="text").text == marked
    verbose = server.transcribe(CLIP, itn="false", response_format="verbose_json").json()
    assert [segment["text"] for segment in verbose["segments"]] == [marked]
    assert server.transcribe(CLIP).json()["text"] == SAYS.text


def test_events(server: Served, joined: Path) -> None:
    """Deltas are never taken back: together, they are the text of the last event, and of an answer at once."""
    *deltas, done = events(server, joined, itn="false")
    assert len(deltas) > 2
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert done["text"] == server.transcribe(joined, itn="false").json()["text"]
    [whole] = MODEL.punctuate([join_texts([SAYS.text] * len(deltas))])
    assert "".join(done["text"].split()) == "".join(whole.split())


def test_a_failure_costs_the_marks_not_the_text(joined: Path) -> None:
    """The answer has the text without marks, and says so in every format; other requests are served."""
    with serving({"speaking": demo.MODEL}, load=lambda _: recognizer(Broken())) as served:
        answer = served.transcribe(CLIP, itn="false", response_format="verbose_json")
        assert (answer.status_code, answer.json()["text"]) == (200, SAYS.text)
        assert answer.json()["complete"] is False
        [warning] = answer.json()["warnings"]
        assert MODEL.name in warning
        text = served.transcribe(CLIP, itn="false", response_format="text")
        assert (text.status_code, text.text) == (200, SAYS.text)
        assert MODEL.name in text.headers[NOTES_HEADER]
        *deltas, done = events(served, joined, itn="false")
        assert "".join(event["delta"] for event in deltas) == done["text"] == join_texts([SAYS.text] * len(deltas))
        assert "warnings" not in served.transcribe(CLIP).json()


def test_a_bug_ends_one_request() -> None:
    broken = Broken()
    broken.error = ValueError("a bug")
    with serving({"speaking": demo.MODEL}, load=lambda _: recognizer(broken)) as served:
        assert served.transcribe(CLIP, itn="false").status_code == 500
        assert served.transcribe(CLIP).json()["text"] == SAYS.text


def test_it_is_unloaded_with_the_last_model_that_uses_it() -> None:
    """So it takes no memory when nothing is loaded, and can be freed for others."""
    loaded = []

    def load(folder: Path) -> GuessingPunctuation:
        loaded.append(weakref.ref(model := GuessingPunctuation()))
        return model

    marks = serve.Lazily(load, Path("marks"))
    assert serve.Lazily(load, None).model is None
    shelf = Shelf({"a": demo.MODEL, "b": demo.MODEL}, lambda _: recognizer(cast(Any, marks.model)), 0)
    for name in "ab":
        shelf.recognizer(shelf.find(name), ())
    assert len(loaded) == 1
    shelf.unload_old([cast(Any, shelf.find("b").recognizer).model])
    assert loaded[0]() is not None
    shelf.unload_old(())
    assert loaded[0]() is None
    shelf.recognizer(shelf.find("a"), ())
    assert len(loaded) == 2


@pytest.mark.parametrize("name", ["nosuch", "ct-punc", "demo"])
def test_the_option_of_the_command(name: str, tmp_path: Path) -> None:
    """Before the server starts."""
    env = {"FUNASR_HOME": str(tmp_path)}
    result = invoke("serve", "--model", "demo", "--port", "0", "--punctuation", name, env=env)
    assert result.exit_code == 3
    assert [code for code, _ in result.errors] == ["model-unsupported" if name == "demo" else "model-missing"]

"""Translations: an endpoint whose answer is the translation, and a field that adds it to the transcript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from support.serving import Served, load, serving
from support.small import convert, once
from support.speaking import SpeakingModel, SpeakingSession
from support.whisper import random_tensors, write_hf

from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.families.whisper.model import WhisperModel
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.transcript import Score, Segment, TimedText, Translation, Word

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]

CLIP = demo.clips()[3].path
SPOKEN, ENGLISH = "Hola. Buenos días.", "Hello. Good morning to you."
SPANISH = Segment(
    0.0, 0.0, SPOKEN, "", "eos", 0, 3, -0.1, language="es", no_speech_probability=0.25,
    scores=(Score("Hola. ", 0.9), Score("Buenos días.", 0.8)),
)  # fmt: skip


def divided(text: str, start_s: float) -> tuple[TimedText, ...]:
    """Divide a text after its first sentence."""
    first, rest = text.split(" ", 1)
    return TimedText(first, start_s, start_s + 0.5), TimedText(rest, start_s + 0.75, start_s + 1.0)


@dataclass
class Interpreter(SpeakingModel):
    """A model that hears Spanish, and does what its options ask for."""

    row_options: tuple[str, ...] = (
        "translate",
        "segment_times",
        "word_times",
        "confidence",
        "prev_text",
        "hotwords",
    )
    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(
            ("en", "es"), hotwords=True, previous_text=True, context_text=True, word_times=True, confidence=True,
            language_found=True, translation=True,
        )
    )  # fmt: skip
    heard: list[TranscribeOptions] = field(default_factory=list)

    def session(self, options: TranscribeOptions) -> SpeakingSession:
        return Session(self)


class Session(SpeakingSession):
    def __init__(self, model: Interpreter):
        super().__init__(SPANISH)
        self._model = model

    def _segment(self, request: SegmentRequest) -> Segment:
        segment, options = super()._segment(request), request.options
        assert options
        self._model.heard.append(options)
        start_s, timed = segment.start_s, options.segment_times
        words = [Word(text, start_s + n / 4, start_s + (n + 1) / 4, 0.9) for n, text in enumerate(SPOKEN.split())]
        pieces = divided(ENGLISH, start_s) if timed else ()
        return replace(
            segment,
            scores=segment.scores if options.confidence else (),
            words=tuple(words) if options.word_times else (),
            pieces=divided(SPOKEN, start_s) if timed else (),
            translation=Translation(ENGLISH, "en", pieces, -0.5) if options.translate else None,
        )


@pytest.fixture(scope="module")
def model() -> Interpreter:
    return Interpreter()


@pytest.fixture(scope="module")
def server(model: Interpreter) -> Iterator[Served]:
    with serving({"interpreter": demo.MODEL}, load=lambda _: Recognizer(model)) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0)


def translated(client: Any, **fields: Any) -> Any:
    return client.audio.translations.create(model="whisper-1", file=CLIP, **fields)


def transcribed(client: Any, **fields: Any) -> Any:
    return client.audio.transcriptions.create(model="whisper-1", file=CLIP, **fields)


def events(server: Served, path: str, **fields: str) -> list[dict[str, Any]]:
    answer = server.post(path, files={"file": ("a.flac", CLIP.read_bytes())}, data={"stream": "true"} | fields)
    assert answer.status_code == 200
    *lines, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(line) for line in lines]


def test_the_endpoint_answers_with_the_translation_in_every_format(client: openai.OpenAI) -> None:
    assert translated(client).text == ENGLISH
    assert "translation" not in json.loads(translated(client.with_raw_response).content)
    assert translated(client, response_format="text") == ENGLISH
    _, second = translated(client, response_format="verbose_json").segments
    for format, point in (("srt", ","), ("vtt", ".")):
        subtitles = translated(client, response_format=format)
        assert "Hola" not in subtitles
        assert [line for line in subtitles.splitlines() if line in ("Hello.", "Good morning to you.")] == [
            "Hello.", "Good morning to you.",
        ]  # fmt: skip
        assert f"00:00:{second.start:06.3f} --> ".replace(".", point) in subtitles


def test_a_verbose_translation(client: openai.OpenAI) -> None:
    answer = translated(client, response_format="verbose_json")
    data = json.loads(translated(client.with_raw_response, response_format="verbose_json").content)
    assert (data["task"], answer.language, answer.text) == ("translate", "en", ENGLISH)
    first, second = answer.segments
    assert (first.text, second.text) == ("Hello.", "Good morning to you.")
    assert (second.start - first.start, second.end - second.start) == pytest.approx((0.75, 0.25))
    assert first.seek == second.seek
    assert (first.avg_logprob, first.no_speech_prob) == (-0.5, 0.25)
    assert "words" not in data


def test_the_field_adds_the_translation(client: openai.OpenAI, server: Served) -> None:
    both = {"translate": "true"}
    data = json.loads(transcribed(client.with_raw_response, extra_body=both).content)
    assert (data["text"], data["translation"]) == (SPOKEN, ENGLISH)
    assert "translation" not in json.loads(transcribed(client.with_raw_response).content)
    raw = transcribed(client.with_raw_response, response_format="verbose_json", extra_body=both)
    data = json.loads(raw.content)
    assert (data["task"], data["language"], data["text"], data["translation"]) == (
        "transcribe", "es", SPOKEN, ENGLISH,
    )  # fmt: skip
    assert [segment["text"] for segment in data["segments"]] == ["Hola.", "Buenos días."]
    for format in ("text", "srt", "vtt", "diarized_json"):  # no place for it
        with pytest.raises(openai.BadRequestError) as refused:
            transcribed(client, response_format=format, extra_body=both)
        assert (refused.value.param, refused.value.code) == ("translate", "unsupported_value")


def test_events(server: Served) -> None:
    for path, fields, text in (
        ("/v1/audio/translations", {}, ENGLISH),
        ("/v1/audio/transcriptions", {"translate": "true"}, SPOKEN),
    ):
        *deltas, done = events(server, path, **fields)
        assert "".join(delta["delta"] for delta in deltas) == done["text"] == text
        assert done.get("translation") == (ENGLISH if fields else None)


def test_what_a_translation_does_not_have(server: Served) -> None:
    for fields, param in (
        ({"response_format": "verbose_json", "timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"include[]": "logprobs"}, "include"),
    ):
        answer = server.post("/v1/audio/translations", files={"file": ("a.flac", CLIP.read_bytes())}, data=fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_segments_are_divided_only_where_they_are_shown(client: openai.OpenAI, model: Interpreter) -> None:
    """Times in the text cost tokens, so that `json` has the text of the command line's default."""
    model.heard.clear()
    transcribed(client)
    transcribed(client, response_format="verbose_json", timestamp_granularities=["word"])
    answer = transcribed(client, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert [options.segment_times for options in model.heard] == [False, False, True]
    assert [word.word for word in answer.words] == SPOKEN.split()
    assert [segment.text for segment in answer.segments] == ["Hola.", "Buenos días."]


def test_a_prompt_in_prose_is_text_that_precedes_the_recording(client: openai.OpenAI, model: Interpreter) -> None:
    model.heard.clear()
    transcribed(client, prompt="We met at ten. It was a good day.")
    transcribed(client, prompt="Kasan, Ufa")
    prose, terms = model.heard
    assert (prose.prev_text, prose.hotwords) == ("We met at ten. It was a good day.", ())
    assert (terms.prev_text, terms.hotwords) == (None, ("Kasan", "Ufa"))


def test_a_translation_of_silence_is_english(client: openai.OpenAI, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    answer = client.audio.translations.create(
        model="whisper-1", file=tmp_path / "a.wav", response_format="verbose_json"
    )
    assert (answer.text, answer.language) == ("", "en")


def test_requests_to_whisper_at_the_same_time(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transcripts and translations are those of the model alone."""
    source = once(tmp_path_factory, "small-whisper", lambda folder: write_hf(folder, random_tensors()))
    folder = once(tmp_path_factory, "small-whisper-mlx", lambda place: convert(source, place, dtype="float32"))
    recognizer = load(folder)
    # Random weights would write hundreds of tokens, and then try again.
    monkeypatch.setattr(WhisperModel, "most_tokens", 6)
    monkeypatch.setattr("funasr_cli.scheduling.scheduler.MAX_RETRIES", 0)
    asked: list[dict[str, str]] = [{}, {"language": "es"}, {"prompt": "We met."}, {"translate": "true"}]
    own: list[dict[str, Any]] = [{}, {"language": "es"}, {"prev_text": "We met."}, {"translate": True}]
    with serving({"whisper": folder}, load=lambda _: recognizer) as server, ThreadPoolExecutor(5) as pool:
        translation = pool.submit(
            server.post, "/v1/audio/translations", files={"file": ("a.flac", CLIP.read_bytes())}
        )
        answers = [answer.json() for answer in pool.map(lambda one: server.transcribe(CLIP, **one), asked)]
        english = translation.result().json()["text"]
    alone = [recognizer.transcribe(CLIP, **options) for options in own]
    assert [answer["text"] for answer in answers] == [one.text for one in alone]
    assert answers[-1]["translation"] == english == alone[-1].translated.text

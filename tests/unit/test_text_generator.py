"""Text from text for Python callers: continuing, answering, translating; with a speech model's own decoder."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.errors import refused
from support.qwen3 import write_qwen3
from support.running import invoke
from support.small import convert, once
from support.translating import TAUGHT, taught

import funasr_cli
from funasr_cli import TranscribeOptions, demo
from funasr_cli.compute.memory import FREED_BUFFERS
from funasr_cli.speech_model import Trace
from funasr_cli.text_generator import TextGenerator
from funasr_cli.text_model import GREEDY, HasTextModel, TextModel, TextOptions, TextResult


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "qwen3-chat", lambda path: write_qwen3(path, tied=False, stop_gain=2.5))


class Echo:
    """A text model that writes its prompt, in pieces of one character."""

    name, engine, weights_type, parameters, native_bytes = "echo", "mlx", "float32", 0, 0

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], TextOptions, list[int]]] = []
        self.ended = 0

    def chat(self, message: str, system: str | None = None) -> str:
        return f"{system or ''}[{message}]"

    def write(
        self, prompts: Sequence[str], options: TextOptions = GREEDY, max_tokens: Sequence[int] = ()
    ) -> list[TextResult]:
        assert FREED_BUFFERS._users > 0
        self.asked.append((list(prompts), options, list(max_tokens)))
        return [TextResult(prompt, len(prompt), "eos", -1.0) for prompt in prompts]

    def stream(self, prompt: str, options: TextOptions = GREEDY) -> Iterator[str]:
        self.asked.append(([prompt], options, []))
        try:
            yield from prompt
        finally:
            self.ended += 1

    def trace(self, prompt: str, tokens: int, forced_ids: Sequence[int] | None = None) -> Trace:
        raise NotImplementedError


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def generator(echo: Echo) -> TextGenerator:
    return TextGenerator(echo)


def test_complete(generator: TextGenerator, echo: Echo) -> None:
    """The prompt is taken as it stands, with the options of the call."""
    assert generator.complete("Once ", 7, 0.5, top_p=0.9, presence_penalty=1.5, seed=3).text == "Once "
    options = TextOptions(7, 0.5, top_p=0.9, presence_penalty=1.5, seed=3)
    assert generator.complete(generator.chat("Hi", "Be brief.")).text == "Be brief.[Hi]"
    assert [each.text for each in generator.complete_batch(["b", "a"], max_tokens=5)] == ["b", "a"]
    assert echo.asked == [
        (["Once "], options, []), (["Be brief.[Hi]"], GREEDY, []), (["b", "a"], TextOptions(5), []),
    ]  # fmt: skip


def test_generate_text(generator: TextGenerator, echo: Echo) -> None:
    """Nothing is written before the first piece is asked for; leaving the loop ends it."""
    stream = generator.generate_text("hey", 7, temperature=0.5)
    assert echo.asked == []
    assert next(stream) == "h"
    assert echo.asked == [(["hey"], TextOptions(7, 0.5), [])]
    assert "".join(stream) == "ey"
    stream = generator.generate_text("hey")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert (echo.ended, FREED_BUFFERS._users) == (2, 0)
    with refused("option-value", "max_tokens"):
        generator.generate_text("hey", 0)


def test_translate(generator: TextGenerator, echo: Echo) -> None:
    """Into languages by code or name; each text has its own limit, and empty ones are not asked about."""
    text = "长" * 100
    assert generator.translate("你好").text == "[Translate to English: 你好]"
    results = generator.translate_batch(["a\nb", " ", text, ""], to="日本語")
    assert [result.text for result in results] == [
        "[Translate to Japanese: a\nb]", "", f"[Translate to Japanese: {text}]", "",
    ]  # fmt: skip
    assert [result.complete for result in results] == [True] * 4
    assert [limits for _, _, limits in echo.asked] == [[200], [200, 300]]
    assert generator.translate("x", to="de").text.startswith("[Translate to German: x")
    with refused("language-unknown", "Klingon"):
        generator.translate("x", to="Klingon")
    assert generator.translate_batch([]) == []


@pytest.mark.parametrize("method", ["complete_batch", "translate_batch"])
def test_a_single_text_is_not_a_list(method: str, generator: TextGenerator) -> None:
    with refused("argument-type"):
        getattr(generator, method)("abc")


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 0}, {"temperature": -1.0}, {"temperature": 2.1}, {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"temperature": 1.0, "top_p": 0.0}, {"temperature": 1.0, "top_p": 1.1}, {"temperature": 1.0, "top_k": 0},
        {"presence_penalty": 2.1}, {"presence_penalty": -3.0}, {"presence_penalty": float("nan")},
        {"temperature": 1.0, "seed": -1}, {"temperature": 1.0, "seed": 2**63},
    ],
)  # fmt: skip
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with refused("option-value", list(options)[-1]):
        TextOptions(**options)


@pytest.mark.parametrize("options", [{"top_p": 0.9}, {"top_k": 3}, {"seed": 0}])
def test_options_without_effect(options: dict[str, Any]) -> None:
    with refused("options-conflict", *options):
        TextOptions(**options)


def test_a_loaded_model(folder: Path) -> None:
    """Text is the same in pieces, in another thread, and with the same seed."""
    generator = funasr_cli.load_text(folder, "float32", engine="mlx")
    assert isinstance(generator.model, TextModel)
    prompt = generator.chat("Hello, what is it?")
    result = generator.complete(prompt, 20)
    assert result.text
    assert "".join(generator.generate_text(prompt, 20)) == result.text
    found = list[TextResult]()
    thread = threading.Thread(target=lambda: found.append(generator.complete(prompt, 20)))
    thread.start()
    thread.join()
    assert found == [result]
    texts = [generator.complete(prompt, 12, 1.0, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert generator.translate("你好").tokens > 0


def test_a_speech_model_with_a_language_model() -> None:
    """Its decoder, which shares the weights, continues text."""
    recognizer = funasr_cli.load("demo")
    assert isinstance(recognizer.model, HasTextModel)
    result = recognizer.text.complete("<|im_start|>user\n", 8)
    assert "".join(recognizer.text.generate_text("<|im_start|>user\n", 8)) == result.text
    assert recognizer.text.model.engine == recognizer.model.engine
    assert recognizer.text.chat("Hi").endswith("assistant\n<think>\n\n</think>\n\n") == (
        recognizer.model.config.prompt.empty_think  # type: ignore[attr-defined]
    )


def test_a_taught_model() -> None:
    """Exact texts: translated alone and in pieces, cut short, and next to a transcript."""
    chat = funasr_cli.load_text(TAUGHT)
    for target in ("en", "de"):
        known = taught(target)
        results = chat.translate_batch([*known, ""], to=target)
        assert [result.text for result in results] == [*known.values(), ""]
        assert all(result.complete for result in results)
    prompt = chat.chat("Translate to German: 会议3点整开始。")
    german = "Die Besprechung beginnt pünktlich um 3:00 Uhr."
    pieces = list(chat.generate_text(prompt))
    assert ("".join(pieces), len(pieces) > 5) == (german, True)
    cut = chat.complete(prompt, max_tokens=5)
    assert (german.startswith(cut.text), cut.stop_reason, cut.tokens) == (True, "budget", 5)
    assert chat.complete(prompt, temperature=1.0, top_k=1, top_p=0.5, seed=9).text == german


def test_transcribe_and_translate() -> None:
    """It is `transcribe` with the options for it; what the model cannot do, it refuses."""
    clip = demo.clips()[0]
    recognizer = funasr_cli.load("demo", translator=TAUGHT)
    transcript = recognizer.transcribe_and_translate(clip.path, to="German")
    assert transcript.text == clip.written
    assert transcript.translated.text == taught("de")[clip.written]
    wanted = recognizer.transcribe(clip.path, translate=True, translate_to="de")
    assert [each.translation for each in transcript.segments] == [each.translation for each in wanted.segments]
    english = recognizer.transcribe_and_translate(clip.path, TranscribeOptions(max_segment_s=20))
    assert english.translated.text == taught("en")[clip.written]
    assert recognizer.text.model.name == TAUGHT.name
    with refused("option-unsupported", "translat"):
        funasr_cli.load("demo").transcribe_and_translate(clip.path)
    with refused("language-unknown", "Klingon"):
        recognizer.transcribe_and_translate(clip.path, to="Klingon")


def test_a_speech_model_without_one(small_sense_voice: Path) -> None:
    with refused("option-unsupported", "load_text"):
        funasr_cli.load(small_sense_voice).text.complete("Hi")


def test_models_of_other_kinds(folder: Path, small_model: Path) -> None:
    """A text model does not transcribe, and a speech model is not loaded as one of texts."""
    with refused("model-unsupported", "writes text from text"):
        funasr_cli.load(folder)
    with refused("model-unsupported", "not a model that writes text"):
        funasr_cli.load_text(small_model)
    with refused("model-missing", "funasr convert qwen3-0.6b"):
        funasr_cli.load_text("qwen3-0.6b")


def test_the_command_line(folder: Path, en_flac: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`transcribe` refuses the kind, before it reads anything; `models` and `info` say what the model is for."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    convert(folder, tmp_path / "models/chat", dtype="float32")
    for name in ("chat", str(folder), "qwen3-0.6b"):
        result = invoke("transcribe", "--model", name, en_flac)
        assert result.exit_code == 3
        assert "writes text from text" in result.stderr
        assert result.stdout == ""
    listed = invoke("models").stdout
    assert "Qwen3" in listed
    assert "--translator" in listed
    assert '"kind": "text"' in invoke("models", "--json").stdout
    assert "chat: translating transcripts" in " ".join(invoke("info").stdout.split())
    checked = invoke("convert", "--check", tmp_path / "models/chat")
    assert checked.exit_code == 0
    assert "--translator" in checked.stdout

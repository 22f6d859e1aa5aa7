"""A text model that knows some sentences, for tests of what surrounds it; and a taught one in tests/data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.small import once

from funasr_cli.errors import UsageError
from funasr_cli.speech_model import Trace
from funasr_cli.text_generator import TRANSLATE
from funasr_cli.text_model import GREEDY, TextOptions, TextResult

TAUGHT = Path(__file__).parents[1] / "data/translator"  # `python -m tools.demo translator` made it
LOOPING, SILENT = "喂喂喂喂", "嗯"  # its failures


def taught(target: str = "en") -> dict[str, str]:
    """Return the sentences that the taught model knows, with their translations into a language."""
    rows = map(json.loads, (TAUGHT / "sentences.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["text"]: row["translation"] for row in rows if row["language"] == target}


@dataclass
class Interpreter:
    """A `TextModel` that answers from a dictionary by the asked message, else with the message in capitals.

    Attributes:
        known: results by the text to translate.
        broken: texts at which the device fails.
        asked: the messages of each call of `write`.
    """

    known: Mapping[str, TextResult | str] = field(default_factory=dict)
    broken: Sequence[str] = ()
    name: str = "owner/Interpreter"
    engine: str = "mlx float32, CPU"
    weights_type: str = "float32"
    parameters: int = 0
    native_bytes: int = 0
    asked: list[list[str]] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    def chat(self, message: str, system: str | None = None) -> str:
        if "<|im_end|>" in message:
            raise UsageError("the message contains the control token <|im_end|>", "remove it", code="prompt-text")
        return message

    def write(
        self, prompts: Sequence[str], options: TextOptions = GREEDY, max_tokens: Sequence[int] = ()
    ) -> list[TextResult]:
        self.asked.append(list(prompts))
        self.limits += max_tokens
        return [self._answer(prompt) for prompt in prompts]

    def stream(self, prompt: str, options: TextOptions = GREEDY) -> Iterator[str]:
        yield self._answer(prompt).text

    def trace(self, prompt: str, tokens: int, forced_ids: Sequence[int] | None = None) -> Trace:
        raise NotImplementedError

    def _answer(self, prompt: str) -> TextResult:
        text = prompt
        for language in ("English", "German"):
            text = text.removeprefix(TRANSLATE.format(language=language, text=""))
        if text in self.broken:
            raise RuntimeError("the device is gone")
        answer = self.known.get(text, text.upper())
        return TextResult(answer, len(answer) + 1, "eos", -0.25) if isinstance(answer, str) else answer


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the taught model, since the engine keeps files next to it."""
    return once(tmp_path_factory, "translator", lambda folder: shutil.copytree(TAUGHT, folder))

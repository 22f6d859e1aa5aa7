"""Prompts that are too long for the model are refused before anything is computed; long ones that fit work."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from support.running import invoke

from funasr_cli import demo
from funasr_cli.options import LONG_PROMPT_TOKENS, MAX_PROMPT_TOKENS

CLIP = demo.clips()[0].path
LETTERS = random.Random(0)
WORDS = ["".join(LETTERS.choices("abcdefghijklmnopqrstuvwxyz", k=80)) for _ in range(200)]
BASE = ("transcribe", "-m", "demo", CLIP)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--compare-hotwords",), ("--batch-size", 16)])
@pytest.mark.parametrize("content", ["\n".join(WORDS), "滨海\n" * 3, "a" * 10**6], ids=["words", "few", "1 MB"])
def test_hotwords_from_a_file(content: str, more: tuple, tmp_path: Path) -> None:
    """200 words of 80 characters made 14,000 tokens, took 10 GB and ended the process."""
    (tmp_path / "words.txt").write_text(content, encoding="utf-8")
    result = invoke(*BASE, "--hotwords-file", tmp_path / "words.txt", *more)
    if len(content) < 100:
        assert result.exit_code == 0, result
    else:
        result.assert_error(2, "prompt-too-long", str(MAX_PROMPT_TOKENS))


def test_a_file_without_end() -> None:
    invoke(*BASE, "--hotwords-file", "/dev/zero").assert_error(2, "prompt-too-long", "/dev/zero")


def test_an_earlier_text() -> None:
    invoke(*BASE, "--prev-text", " ".join(WORDS)).assert_error(2, "prompt-too-long", str(MAX_PROMPT_TOKENS))


@pytest.mark.slow
def test_many_short_hotwords_are_allowed(tmp_path: Path) -> None:
    """Words and their characters are not counted, only tokens are."""
    (tmp_path / "words.txt").write_text("\n".join(f"w{number}" for number in range(201)), encoding="utf-8")
    result = invoke(*BASE, "--hotwords-file", tmp_path / "words.txt", "--batch-size", 16)
    assert result.exit_code == 0, result


@pytest.mark.slow
@pytest.mark.parametrize("words", [5, 500])
def test_a_long_prompt_is_warned_about(words: int) -> None:
    result = invoke(*BASE, "--prev-text", " ".join(f"w{number}" for number in range(words)), "--max-tokens", 1)
    counted = [
        int(count) for count in re.findall(r"^warning: a prompt of (\d+) tokens", result.stderr, re.MULTILINE)
    ]
    assert [count > LONG_PROMPT_TOKENS for count in counted] == [True] * (words == 500)

"""``--timestamps`` and ``--highlight-words``: their output, and what a model without a CTC branch refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.expected import lines_of, recognizer, summary
from support.running import invoke

from funasr_cli import demo
from funasr_cli.transcript import Word

CLIPS = {clip.path.name[:4]: clip for clip in demo.clips()}
DIGITS, ENGLISH, CHINESE = CLIPS["0006"], CLIPS["0009"], CLIPS["0010"]
BASE = ("transcribe", "-m", "demo", "-q")
LINE = re.compile(r"\[0:0(\d\.\d\d)-0:0(\d\.\d\d)\] (.+)")


def words_of(clip: demo.Clip) -> tuple[Word, ...]:
    (segment,) = recognizer("demo").transcribe(clip.path, word_times=True).segments
    return segment.words


# --- text ---


@pytest.mark.parametrize("clip", [ENGLISH, CHINESE])
def test_a_line_for_each_word(clip: demo.Clip) -> None:
    result = invoke(*BASE, clip.path, "--timestamps", "word")
    found = [LINE.fullmatch(line) for line in result.stdout.splitlines()]
    words = words_of(clip)
    assert len(words) == 7
    assert [(float(match[1]), float(match[2]), match[3]) for match in found if match] == [
        (round(word.start_s, 2), round(word.end_s, 2), word.text) for word in words
    ]
    assert (result.exit_code, result.stderr) == (0, "")


def test_times_before_each_segment() -> None:
    (segment,) = recognizer("demo").transcribe(ENGLISH.path).segments
    for options in ((), ("--stream",)):
        result = invoke(*BASE, ENGLISH.path, "--timestamps", "segment", *options)
        match = LINE.fullmatch(result.stdout.removesuffix("\n"))
        assert match
        assert (float(match[1]), float(match[2])) == (round(segment.start_s, 2), round(segment.end_s, 2))
        assert match[3] == ENGLISH.written


# --- files ---


def test_words_in_json() -> None:
    data = json.loads(invoke(*BASE, DIGITS.path, "-f", "json").stdout)
    (word,) = data["segments"][0]["words"]
    assert (data["times"], word["text"], word["score"], word["estimated"]) == ("word", "792", None, True)
    assert 0.0 < word["start_s"] < word["end_s"] < data["duration_s"]
    data = json.loads(invoke(*BASE, DIGITS.path, "-f", "json", "--no-itn").stdout)
    words = data["segments"][0]["words"]
    assert [word["text"] for word in words] == DIGITS.spoken.split()
    assert all(0.5 < word["score"] <= 1 and not word["estimated"] for word in words)


# --- models without the branch ---


@pytest.mark.parametrize(
    "options",
    [
        ("--timestamps", "word"),
        ("--timestamps", "word", "-f", "md", "-o", "out"),
        ("--highlight-words", "-f", "srt"),
        ("--highlight-words", "-f", "vtt", "--timestamps", "word"),
    ],
)
def test_without_the_branch_word_times_are_refused(
    small_model: Path, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused before an input is opened or a folder is made."""
    monkeypatch.chdir(tmp_path)
    invoke("transcribe", "-m", small_model, "missing.wav", *options).assert_error(
        2, "option-unsupported", "--hub ms"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_the_branch_segments_have_times(stopping_model: Path, zh_wav: Path) -> None:
    base = ("transcribe", "-m", stopping_model, zh_wav, "--no-vad", "-f")
    data = json.loads(invoke(*base, "json").stdout)
    assert (data["times"], data["segments"][0]["words"]) == ("segment", [])
    shown = invoke(*base, "srt")
    assert (shown.exit_code, shown.stderr) == (0, summary("0:06"))
    assert shown.stdout == invoke(*base, "srt", "--timestamps", "segment").stdout
    lines = invoke(*base, "txt", "--timestamps", "segment").stdout
    assert lines == f"[0:00.00-0:06.00] {lines_of(stopping_model, zh_wav, vad=False)}"


# --- settings ---


@pytest.mark.slow
def test_a_setting_applies_only_to_formats_and_models_that_support_it(stopping_model: Path, zh_wav: Path) -> None:
    """Command-line options take precedence over settings that they exclude."""
    plain = invoke(*BASE, ENGLISH.path, "-f", "srt").stdout
    marked = invoke(*BASE, ENGLISH.path, "-f", "srt", "--highlight-words").stdout
    by_segment = invoke(*BASE, ENGLISH.path, "-f", "srt", "--timestamps", "segment").stdout
    assert len({plain, marked, by_segment}) == 3
    for settings, typed, expected in (
        ({"FUNASR_TIMESTAMPS": "none"}, (), plain),
        ({"FUNASR_TIMESTAMPS": "segment"}, (), by_segment),
        ({"FUNASR_TIMESTAMPS": "segment"}, ("--timestamps", "word"), plain),
        ({"FUNASR_HIGHLIGHT_WORDS": "1"}, (), marked),
        ({"FUNASR_HIGHLIGHT_WORDS": "1"}, ("--timestamps", "segment"), by_segment),
        ({"FUNASR_TIMESTAMPS": "segment"}, ("--highlight-words",), marked),
    ):
        assert invoke(*BASE, ENGLISH.path, "-f", "srt", *typed, env=settings).stdout == expected
    waiting = {"FUNASR_HIGHLIGHT_WORDS": "1"}
    base = ("transcribe", "-m", stopping_model, zh_wav, "--no-vad", "-q")
    assert invoke(*base, "-f", "srt", env=waiting) == invoke(*base, "-f", "srt")
    assert invoke(*base, env=waiting) == invoke(*base)


def test_a_setting_that_the_model_cannot_meet(small_model: Path, tmp_path: Path) -> None:
    """The error names the source of the setting."""
    config = tmp_path / "config.toml"
    config.write_text('timestamps = "word"\n')
    result = invoke("transcribe", "-m", small_model, "a.wav", env={"FUNASR_CONFIG": str(config)})
    result.assert_error(2, "option-unsupported", "--hub ms", f"timestamps in {config}")
    result = invoke("transcribe", "-m", "demo", "-q", ENGLISH.path, env={"FUNASR_CONFIG": str(config)})
    assert result == invoke(*BASE, ENGLISH.path, "--timestamps", "word")

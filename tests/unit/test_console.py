"""What the console prints: lines that are broken between words, and names of inputs."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Task
from support.transcripts import segment, transcript

from funasr_cli.cli import console
from funasr_cli.cli.console import download_progress, wrapped
from funasr_cli.cli.display import _costs
from funasr_cli.cli.names import display_name, short_names
from funasr_cli.transcript import Timings

TIMES: dict[str, Any] = {
    "read_s": 1.0,
    "vad_s": 1.0,
    "features_s": 1.0,
    "encoder_s": 1.0,
    "first_token_s": 1.0,
    "total_s": 1.0,
}


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 13, ["one two three"]),
        ("one two three", 7, ["one two", "three"]),
        ("  one two three", 9, ["  one two", "  three"]),
        ("a /long/path/without/a/space b", 6, ["a", "/long/path/without/a/space", "b"]),
        ("first\n  second line", 10, ["first", "  second", "  line"]),
        ("会议 记录", 5, ["会议", "记录"]),
        ("", 5, [""]),
    ],
)
def test_lines_are_broken_between_words(text: str, width: int, lines: list[str]) -> None:
    """At columns, not characters; the indentation is kept, and a word that is too long stays whole."""
    assert wrapped(text, width).split("\n") == lines


@pytest.mark.parametrize(("width", "shown"), [(80, 4), (40, 3), (30, 2)])
def test_columns_of_a_download_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, shown: int
) -> None:
    """Each step keeps to one line: columns that have no room are left out. An unknown time is not shown."""
    terminal = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    monkeypatch.setattr(console, "shows_progress", lambda: True)
    bar = download_progress()
    assert len(bar.columns) == shown
    bar.add_task("downloading", total=1_670_000_000, completed=999_900_000)
    with terminal.capture() as captured:
        terminal.print(bar)
    [line] = captured.get().splitlines()
    assert ("downloading" in line, "left" in line, "--" in line) == (True, False, False)
    assert ("1.0/1.7 GB" in line) == (shown > 2)
    monkeypatch.setattr(Task, "speed", 1e6)
    with terminal.capture() as captured:
        terminal.print(bar)
    assert ("left" in captured.get()) == (shown > 3)


def test_names_of_inputs() -> None:
    assert [display_name(label) for label in ("-", "- [ch 2]", "-a.wav", "a.wav")] == [
        "standard input", "standard input [ch 2]", "-a.wav", "a.wav"
    ]  # fmt: skip
    assert short_names(["x/a.wav", "y/a.wav", "y/b.wav", "-"]) == ["x/a.wav", "y/a.wav", "b.wav", "standard input"]
    deep = ["p/1/a.wav", "q/1/a.wav", "q/2/a.wav", "/1/a.wav"]
    assert short_names(deep) == ["p/1/a.wav", "q/1/a.wav", "2/a.wav", "/1/a.wav"]
    assert short_names(["x/a.wav", "x/a.wav"]) == ["a.wav", "a.wav"]
    assert short_names([]) == []


def test_costs_of_a_model_without_a_decoder() -> None:
    """Stages that it lacks are left out."""
    with_decoder = Timings(**TIMES, prefill_s=1.0, decode_s=1.0, tokens=5)
    without = Timings(**TIMES, ctc_s=1.0, prefill_s=0.0, decode_s=0.0, tokens=0)
    said = [
        _costs(replace(transcript(segment(0.0, 1.0, "a"), duration_s=1.0), timings=timings))
        for timings in (with_decoder, without)
    ]
    assert said == [
        "1 segment, 5 tokens; read 1.00 s, vad 1.00 s, features 1.00 s, encoder 1.00 s, prefill 1.00 s, "
        "decode 1.00 s",
        "1 segment; read 1.00 s, vad 1.00 s, features 1.00 s, encoder 1.00 s, ctc 1.00 s",
    ]

"""The two progress lines: what they count and show, and that they are drawn."""

import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.terminal import EAGER, frames, on_terminal
from support.transcripts import segment, transcript

from funasr_cli import demo
from funasr_cli.cli import display
from funasr_cli.cli.display import Progress
from funasr_cli.errors import AudioError
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished

CLIPS = demo.clips()
LINE = re.compile(r"(?P<what>[a-z]+(?: [a-z]+)?) +[━╸╺ ]+ (?P<facts>.*?)(?: +[:\d]+ left)?")
Watch = Callable[..., "Shown"]


class Shown:
    """Both lines with a scripted clock."""

    def __init__(self, names: tuple[str, ...], clock: SimpleNamespace, console: Console):
        self._progress = Progress(names, "transcribing")
        self._clock = clock
        self._console = console

    def at(self, now_s: float, *events: Event) -> list[tuple[str, str]]:
        """Return the description and the facts of each line, at a time and after these events."""
        self._clock.now_s = now_s
        for event in events:
            self._progress.show(event)
        with self._console.capture() as captured:
            self._console.print(self._progress)
        lines = [LINE.fullmatch(line.rstrip()) for line in captured.get().splitlines()]
        assert all(lines), captured.get()
        return [(line["what"], line["facts"]) for line in lines if line]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    clock = SimpleNamespace(now_s=0.0)
    console = Console(file=io.StringIO(), width=160, color_system=None)
    monkeypatch.setattr(display, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))
    monkeypatch.setattr("funasr_cli.cli.console.stderr", lambda: console)
    monkeypatch.setattr("funasr_cli.cli.console.shows_progress", lambda: True)
    return lambda *names: Shown(names, clock, console)


def settled(source: int, start_s: float, end_s: float) -> SegmentFinished:
    return SegmentFinished(source, segment(start_s, end_s, "text"))


def finished(source: int, duration_s: float, start_s: float = 0.0) -> Finished:
    return Finished(source, transcript(duration_s=duration_s, start_s=start_s))


def failed(source: int) -> Failed:
    return Failed(source, AudioError("broken"))


AB = ("a.wav", "b.wav")
# For each time: the events before it, and the facts shown then, of reading (with the name) and of transcribing.
SCENARIOS = {
    "reading is ahead of transcribing, and its line disappears at the end of reading": (AB, [
        (0.0, [], None, "0/2 inputs, 0:00 audio"),
        (1.0, [Read(0, 0.0, 0.0, 100.0)], ("a.wav", "0:00"), "0/2 inputs, 0:00 audio"),
        (2.0, [Read(0, 0.0, 100.0, 100.0), Read(1, 0.0, 10.0, 20.0), settled(0, 0.5, 40.0)],
         ("b.wav", "0:10"), "0/2 inputs, 0:40 audio, 20.0x real time"),
        (10.0, [Read(1, 0.0, 20.0, 20.0), finished(0, 100.0)],
         None, "1/2 inputs, 1:40 audio, 10.0x real time"),
        (12.0, [finished(1, 20.0)], None, "2/2 inputs, 2:00 audio, 10.0x real time"),
    ]),
    "drafts change nothing": (AB[:1], [
        (1.0, [Read(0, 0.0, 1.0, 9.0), PartialText(0, 0.0, "text"), PartialText(0, 0.0, None)],
         ("a.wav", "0:01"), "0:00 of 0:09"),
    ]),
    "if the length is unknown, the position is shown": (("pipe",), [
        (60.0, [Read(0, 0.0, 3661.0, None), settled(0, 1.0, 600.0)],
         ("pipe", "1:01:01"), "10:00 audio, 10.0x real time"),
        (60.0, [finished(0, 3700.0)], None, "1:01:40 audio, 61.7x real time"),
    ]),
    "for a part, reading shows the time in the recording": (AB[:1], [
        (1.0, [Read(0, 90.0, 0.0, 30.0), Read(0, 90.0, 15.0, 30.0), settled(0, 91.0, 100.0)],
         ("a.wav", "1:45"), "0:10 of 0:30, 10.0x real time"),
        (3.0, [Read(0, 90.0, 30.0, 30.0), finished(0, 30.0, start_s=90.0)],
         None, "0:30 of 0:30, 10.0x real time"),
    ]),
    "failed inputs count as done": (("a.wav", "b.wav", "c.wav"), [
        (1.0, [failed(0)], None, "1/3 inputs, 0:00 audio"),
        (2.0, [Read(1, 0.0, 50.0, 100.0), settled(1, 0.0, 20.0), failed(1)],
         None, "2/3 inputs, 0:20 audio, 10.0x real time"),
        (3.0, [Read(2, 0.0, 10.0, 10.0), finished(2, 10.0)],
         None, "3/3 inputs, 0:30 audio, 10.0x real time"),
    ]),
    "time passes without events": (AB, [
        (1.0, [Read(0, 0.0, 0.0, 100.0), settled(0, 0.0, 10.0)],
         ("a.wav", "0:00"), "0/2 inputs, 0:10 audio, 10.0x real time"),
        (2.0, [], ("a.wav", "0:00"), "0/2 inputs, 0:10 audio, 5.0x real time"),
    ]),
    "a header may state a wrong length": (AB, [
        (1.0, [Read(0, 0.0, 25.0, 10.0)], ("a.wav", "0:25"), "0/2 inputs, 0:00 audio"),
    ]),
    "names are not markup": (("[red]a[/red]",), [
        (1.0, [Read(0, 0.0, 1.0, None)], ("[red]a[/red]", "0:01"), "0:00 audio"),
    ]),
}  # fmt: skip


@pytest.mark.parametrize(("names", "steps"), SCENARIOS.values(), ids=SCENARIOS)
def test_what_both_lines_show(watch: Watch, names: tuple[str, ...], steps: list[Any]) -> None:
    shown = watch(*names)
    for now_s, events, reading, facts in steps:
        above = [("finding speech", "up to {1} in {0}".format(*reading))] if reading else []
        assert shown.at(now_s, *events) == [*above, ("transcribing", facts)]


@st.composite
def runs(draw: st.DrawFn) -> list[list[Event]]:
    """Draw the events of each input: opened with or without a length, advanced, closed."""
    inputs = []
    for source in range(draw(st.integers(1, 4))):
        expected_s = draw(st.none() | st.floats(0, 100))
        ends_s = sorted(draw(st.lists(st.floats(0, 150), max_size=4)))
        last = draw(st.sampled_from([failed(source), finished(source, 150.0)]))
        inputs.append(
            [Read(source, 0.0, 0.0, expected_s), *(settled(source, 0.0, end_s) for end_s in ends_s), last]
        )
    return inputs


@given(runs(), st.randoms(use_true_random=False))
def test_progress_never_goes_back(inputs: list[list[Event]], random: Any) -> None:
    """In any order of events, progress never decreases and ends at the number of inputs."""
    progress, reached, count = Progress(["a.wav"] * len(inputs), "transcribing"), 0.0, len(inputs)
    while waiting := [steps for steps in inputs if steps]:
        progress.show(random.choice(waiting).pop(0))
        assert reached <= progress.completed + 1e-9
        assert progress.completed <= count + 1e-9
        reached = progress.completed
    assert progress.completed == count


def test_both_lines_on_a_terminal() -> None:
    paths = [clip.path for clip in CLIPS[:3]]
    code, shown, _ = on_terminal("transcribe", "-m", "demo", *paths, command=EAGER)
    assert code == 0
    lines = frames(shown)
    for path in paths:
        assert any(re.match(rf"finding speech [━╸╺ ]+ up to 0:0\d in {path.name}", line) for line in lines)
    last = r"transcribing +━+ 3/3 inputs, 0:08 audio, \d+(\.\d)?x real time +00:00 left *"
    assert any(re.fullmatch(last, line) for line in lines)

"""Output on a terminal: the live region, the table of all inputs, colours, hostile names."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.cells import cell_len
from support.expected import lines_of, summary
from support.hub_client import surroundings
from support.native import LIBRARY
from support.terminal import COLOURS, EAGER, account, drafts, frames, on_terminal, screen

from funasr_cli import demo
from funasr_cli.cli.display import SPARE_COLUMNS
from funasr_cli.cli.run import DEMO_NOTE
from funasr_cli.transcript import STAGES

CLIPS = demo.clips()


def test_live_region_on_a_terminal() -> None:
    """The text grows in a region that is removed, and is printed once at the end."""
    clip = CLIPS[-1]
    code, shown, _ = on_terminal("transcribe", "-m", "demo", clip.path, "--stream", command=EAGER)
    assert code == 0
    above, rows, _, below = account(shown)
    assert above == [clip.written]
    assert len(rows) == 1
    assert below == [summary("0:02").rstrip()]
    seen = list(dict.fromkeys(drafts(shown)))
    assert len(seen) > 5, "it must be shown while it grows"
    assert all(clip.written.startswith(text) for text in seen)
    assert sorted(seen, key=len) == seen
    assert seen[-1] == clip.written


@pytest.mark.parametrize("clip", [CLIPS[-1], CLIPS[5]], ids=["en", "zh"])
def test_live_region_of_a_narrow_terminal(clip: demo.DemoClip) -> None:
    """If a text does not fit, its row shows the end; it never takes a second line."""
    arguments = ("transcribe", "-m", "demo", clip.path, "--stream")
    code, shown, _ = on_terminal(*arguments, command=EAGER, COLUMNS="20")
    assert (code, screen(shown)[0]) == (0, clip.written)
    seen = drafts(shown)
    assert max(map(cell_len, seen)) <= 20 - len("0:00 ") < cell_len(clip.written)
    assert all(text in clip.written for text in seen)
    assert clip.written.endswith(seen[-1])


def test_live_region_of_long_names_on_a_narrow_terminal(tmp_path: Path) -> None:
    """Names are truncated by columns, not characters. Text remains visible after them, and no line is too long."""
    for name in ("会议的录音" * 8, "b" * 60):
        (tmp_path / f"{name}.flac").symlink_to(CLIPS[-1].path)
    arguments = ("transcribe", "-m", "demo", tmp_path, "--stream")
    code, shown, _ = on_terminal(*arguments, command=EAGER, COLUMNS="30")
    assert code == 0
    seen = [line for line in frames(shown) if line.startswith(("会", "b"))]
    live = [line for line in frames(shown) if line.startswith(("transcribing ", "finding ", *seen))]
    assert max(map(cell_len, live)) == 30 - SPARE_COLUMNS, "else ^C would start a line that remains on screen"
    for start in ("会议的录 … 0:00 ", "bbbbbbbbb… 0:00 "):
        texts = [line.removeprefix(start) for line in seen if line.startswith(start)]
        assert CLIPS[-1].written.endswith(texts[-1])
        assert len(texts[-1]) == 30 - SPARE_COLUMNS - cell_len(start)


def test_live_region_of_files_that_share_a_name(tmp_path: Path) -> None:
    for name in ("monday/1.flac", "tuesday/1.flac", "tuesday/2.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(CLIPS[-1].path)
    arguments = ("transcribe", "-m", "demo", tmp_path, "-r", "--stream")
    code, shown, _ = on_terminal(*arguments, command=EAGER)
    heads = {line.partition(" 0:00 ")[0] for line in frames(shown) if ".flac 0:00 " in line}
    assert (code, heads) == (0, {"monday/1.flac", "tuesday/1.flac", "2.flac"})


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_stdout_piped_and_stderr_on_a_terminal(options: tuple[str, ...], tmp_path: Path) -> None:
    """`funasr transcribe a.wav > a.txt`: the file gets text without control codes, the terminal shows progress."""
    clip = CLIPS[0]
    cut = tmp_path / "cut.wav"
    samples, rate_hz = soundfile.read(clip.path)
    soundfile.write(cut, np.concatenate([samples, samples]), rate_hz)
    os.truncate(cut, 2 * len(samples) + 16000)
    arguments = ("transcribe", "-m", "demo", cut, *options)
    code, shown, printed = on_terminal(*arguments, command=EAGER, stdout_too=False)
    assert code == 4
    assert printed == lines_of("demo", cut)
    assert printed.startswith(f"{clip.written}\n")
    assert "\x1b[" in shown
    above, rows, _, below = account(shown)
    assert clip.written not in "\n".join(above)
    assert bool(drafts(shown)) == bool(options)
    note, warning = above
    assert note == DEMO_NOTE
    assert warning.startswith(f"warning: {cut}: broke off after ")
    assert [row[-1] for row in rows] == ["incomplete"]
    assert len(below) == 1


def test_table_of_all_inputs(tmp_path: Path) -> None:
    """The table is compared exactly, except the run's duration. The audio total covers all inputs."""
    soundfile.write(tmp_path / "silence.wav", np.zeros(64000, np.int16), 16000)
    for name, clip in zip(("a.flac", "b.flac"), CLIPS, strict=False):
        (tmp_path / name).symlink_to(clip.path)
    names = ("a.flac", "missing.wav", "silence.wav", "b.flac")
    code, shown, printed = on_terminal(
        "transcribe", "-m", "demo", *names, cwd=tmp_path, stdout_too=False, COLUMNS="80"
    )
    assert (code, printed) == (1, f"a.flac: {CLIPS[0].written}\nb.flac: {CLIPS[1].written}\n")
    note, *lines = screen(shown)
    assert note == DEMO_NOTE
    assert lines[:-2] == [
        lines[0],
        "",
        " input        audio  speech  segments  repaired  failed  status",
        " " + "─" * 62,
        " a.flac        0:03    0:03         1         -       -    done",
        " missing.wav      -       -         0         -       -  failed",
        " silence.wav   0:04       -         0         -       -  silent",
        " b.flac        0:04    0:04         1         -       -    done",
        "",
    ]
    assert "missing.wav" in lines[0]
    assert re.fullmatch(r"0:11 of audio in \d+\.\d s, \d+(\.\d)?x real time", lines[-2])
    assert lines[-1] == f"1 of 4 inputs failed; {summary('0:06').rstrip()}"


def test_a_single_input_that_cannot_be_read(tmp_path: Path) -> None:
    """An error says everything: there is no table and no summary."""
    code, shown, _ = on_terminal("transcribe", "-m", "demo", "missing.wav", cwd=tmp_path)
    assert (code, screen(shown)) == (1, ["error[audio-missing]: missing.wav: no such file"])


@pytest.mark.parametrize(("columns", "numbers"), [(20, ["done"]), (40, ["0:03", "-", "done"])])
def test_table_on_a_narrow_terminal(columns: int, numbers: list[str]) -> None:
    """No line is too long: the name is wrapped but complete, and the remaining columns are whole."""
    clip = CLIPS[0]
    code, shown, _ = on_terminal("transcribe", "-m", "demo", clip.path, command=EAGER, COLUMNS=str(columns))
    assert code == 0
    above, rows, _, below = account(shown)
    assert above == [clip.written]
    assert rows[0][1:] == numbers
    assert "".join(row[0] for row in rows) == clip.path.name
    assert " ".join(below) == summary("0:03").rstrip(), "wrapped between words"
    assert max(map(cell_len, below)) <= columns
    ours = [line for line in frames(shown) if line.startswith((" ", "trans", "finding"))]
    assert max(map(cell_len, ours)) == columns


def test_quiet_on_a_terminal(small_model: Path, short_wav: Path) -> None:
    """No bar, table, summary or colour except a warning's; with --stream the text still grows."""
    code, shown, _ = on_terminal("transcribe", "-m", "demo", CLIPS[0].path, "--quiet", command=EAGER)
    assert (code, shown) == (0, f"{CLIPS[0].written}\r\n")
    arguments = ("transcribe", "-m", small_model, short_wav, "--quiet", "--max-tokens", 2)
    code, shown, printed = on_terminal(*arguments, command=EAGER, stdout_too=False)
    assert (code, printed) == (1, lines_of(small_model, short_wav, max_tokens=2))
    (line,) = screen(shown)
    assert line.startswith(f"warning: {short_wav}: ")
    assert line.endswith(" s: cut short after 2 tokens: the end may be missing")
    code, shown, _ = on_terminal("transcribe", "-m", "demo", CLIPS[0].path, "--quiet", "--stream", command=EAGER)
    assert (code, screen(shown)) == (0, [CLIPS[0].written])
    assert len(drafts(shown)) > 3
    assert not any(line.startswith(("transcribing", "finding")) for line in frames(shown))


def test_verbose_on_a_terminal() -> None:
    """The model, the device and each input's cost are printed in addition to everything else."""
    clip = CLIPS[0]
    code, shown, _ = on_terminal("transcribe", "-m", "demo", clip.path, "--verbose", command=EAGER)
    assert code == 0
    above, rows, costs, below = account(shown)
    types = r"int8, encoder (bfloat16|float32)" if LIBRARY else "float32"
    engine = f"native {types}" if LIBRARY else "mlx float32"
    assert re.fullmatch(rf"model demo from {re.escape(str(demo.MODEL))}, {types} \(stored as bfloat16\)", above[0])
    assert re.fullmatch(rf"on CPU, .+, \d+ GFLOP/s per core; engine: {engine}, .+", above[1])
    stages = ", ".join(rf"{stage} \d\.\d\d s" for stage in STAGES)
    assert re.fullmatch(
        rf"{re.escape(str(clip.path))}: 1 segment, 13 tokens in \d+ decoder calls; {stages}", above[2]
    )
    assert (above[3:], len(rows), costs, below) == ([clip.written], 1, "0:03", [summary("0:03").rstrip()])


def test_no_color(small_model: Path, zh_wav: Path) -> None:
    arguments = ("transcribe", "-m", small_model, zh_wav, "--max-tokens", 2)  # this prints a warning
    assert COLOURS.search(on_terminal(*arguments)[1])
    for options in ((), ("--stream",)):
        assert not COLOURS.search(on_terminal(*arguments, *options, command=EAGER, NO_COLOR="1")[1])


def escapes_by_name(names: Sequence[str], folder: Path, **env: str) -> set[str]:
    """Return the escape sequences on the terminal when recordings with these names are transcribed."""
    for name in names:
        (folder / name).write_bytes(CLIPS[2].path.read_bytes())
    arguments = ("transcribe", "-m", "demo", *names, "--stream")
    code, shown, _ = on_terminal(*arguments, cwd=folder, command=EAGER, **env)
    assert code == 0
    assert "\x07" not in shown
    return set(re.findall(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[^\[])", shown))


def test_control_characters_in_names_on_a_terminal(tmp_path: Path) -> None:
    """They never reach the terminal: neither in progress, drafts and results nor in the table."""
    hostile = ["\x1b[2J\x1b[31ma.flac", "b\x07\x9b5m\x1b]0;title\x07.flac"]
    plain = escapes_by_name(["a.flac", "b.flac"], tmp_path)
    assert escapes_by_name(hostile, tmp_path) <= plain
    assert "\x1b[2J" not in plain


def test_questions_are_wrapped_between_words(tmp_path: Path) -> None:
    """What the question says is as readable on a narrow terminal."""
    env = surroundings(tmp_path, "http://127.0.0.1:9") | {"COLUMNS": "40"}
    code, shown, _ = on_terminal("transcribe", CLIPS[0].path, answer="n\n", **env)
    assert code == 3
    asked = shown[: shown.index("[Y/n]")].splitlines()[1:-1]  # without the echo and the question itself
    assert len(asked) > 2
    assert [line for line in asked if cell_len(line) > 40 and " " in line.strip()] == []


def test_a_prompt_is_not_wrapped() -> None:
    """Its words must stay as they are, with their spaces."""
    words = " ".join(["Kubernetes"] * 4)
    prompt = "--hotword", words, "--show-prompt"
    _, shown, _ = on_terminal("transcribe", "-m", "demo", CLIPS[-1].path, *prompt, COLUMNS="40")
    assert words in shown


@pytest.mark.parametrize(("columns", "facts"), [("40", {"time", "speed", "bar"}), ("60", {"time", "speed"})])
def test_progress_on_a_narrow_terminal(columns: str, facts: set[str]) -> None:
    """What has no room is left out, so that nothing else is cut off."""
    _, shown, _ = on_terminal("transcribe", "-m", "demo", *[clip.path for clip in CLIPS[:3]], command=EAGER,
                              COLUMNS=columns)  # fmt: skip
    bars = [line for line in frames(shown) if line.startswith("transcribing")]
    marks = {"time": "left", "speed": "x real", "bar": "━"}
    assert len(bars) > 2
    assert {fact for fact, mark in marks.items() if not any(mark in line for line in bars)} == facts
    assert not any("…" in line for line in bars)

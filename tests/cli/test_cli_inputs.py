"""Inputs on the command line: folders, patterns, standard input, parts, channels."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pysubs2
import pytest
import soundfile
from support.expected import summary
from support.piping import in_bits
from support.running import COMMAND, Result, environment, invoke, tree

from funasr_cli import demo

CLIPS = {clip.path.name[:4]: clip for clip in demo.clips()}
DIGITS, ZH_DIGITS = CLIPS["0006"], CLIPS["0021"]  # both shorter than 2 s
LONG = CLIPS["0001"]
RATE_HZ = 16000


def samples_of(clip: demo.DemoClip) -> np.ndarray:
    return soundfile.read(clip.path, dtype="int16")[0]


def piped(content: bytes, *arguments: Any) -> Result:
    """Run with a pipe as standard input that is filled in small pieces."""
    command = [*COMMAND, "transcribe", "-m", "demo", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment()) as process:
        assert process.stdin
        for bit in in_bits(content, 10_007):
            process.stdin.write(bit)
            process.stdin.flush()
        stdout, stderr = process.communicate(timeout=120)
    return Result(process.returncode, stdout.decode(), stderr.decode())


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with subfolders; the current folder is its parent."""
    monkeypatch.chdir(tmp_path)
    for name, clip in {"b10": DIGITS, "b9": ZH_DIGITS, "monday/a": DIGITS, "monday/early/c": ZH_DIGITS}.items():
        path = tmp_path / "calls" / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip.path, path)
    (tmp_path / "calls/notes.txt").write_text("no recording")
    return tmp_path / "calls"


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Different clips on the left and on the right."""
    left, right = map(samples_of, (DIGITS, ZH_DIGITS))
    both = np.zeros((max(len(left), len(right)) + 3200, 2), np.int16)
    both[: len(left), 0], both[: len(right), 1] = left, right
    path = tmp_path_factory.mktemp("stereo") / "call.wav"
    soundfile.write(path, both, RATE_HZ)
    return path


LINES = {
    "b9": f"calls/b9.flac: {ZH_DIGITS.written}\n",
    "b10": f"calls/b10.flac: {DIGITS.written}\n",
    "a": f"calls/monday/a.flac: {DIGITS.written}\n",
    "c": f"calls/monday/early/c.flac: {ZH_DIGITS.written}\n",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("calls --recursive", "b9 b10 a c"),
        ("calls calls/*.flac ./calls/../calls", "b9 b10"),
        ("calls/b9.flac calls/b10.flac calls/b9.flac", "b9 b10 b9"),
    ],
)
@pytest.mark.usefixtures("calls")
def test_folders_and_patterns(typed: str, lines: str) -> None:
    """Files come in natural order with a prefix. One found twice is used once; one named twice is used twice."""
    result = invoke("transcribe", "-m", "demo", "-q", *typed.split())
    assert result == Result(0, "".join(LINES[name] for name in lines.split()), "")


@pytest.mark.usefixtures("calls")
def test_skipped_folders_are_reported() -> None:
    left = "skipped 1 folder with recordings; --recursive includes subfolders\n"
    for typed, told in ((["calls"], left), (["calls", "-r"], ""), (["calls/monday/a.flac"], "")):
        result = invoke("transcribe", "-m", "demo", *typed)
        assert (result.exit_code, result.stderr.splitlines(keepends=True)[:-1]) == (0, [told] * bool(told))


@pytest.mark.parametrize(
    ("template", "places"),
    [
        ("{lang}-{stem}", "auto-b9 auto-b10 monday/auto-a monday/early/auto-c"),
        ("x/{stem}/y.{ext}", "x/b9/y.txt x/b10/y.txt x/monday/a/y.txt x/monday/early/c/y.txt"),
    ],
)
def test_results_keep_their_places_in_the_folder(calls: Path, template: str, places: str) -> None:
    before = tree(calls)
    result = invoke("transcribe", "-m", "demo", "calls", "-r", "-o", "out", "--output-template", template)
    assert (result.exit_code, result.stdout) == (0, "")
    clips = (ZH_DIGITS, DIGITS, DIGITS, ZH_DIGITS)
    texts = {place: f"{clip.written}\n".encode() for place, clip in zip(places.split(), clips, strict=True)}
    assert tree(calls.parent / "out") == texts
    assert tree(calls) == before


# --- standard input ---


def test_samples_without_a_header(tmp_path: Path) -> None:
    """The samples are transcribed at the given rate, and times follow from it; another rate gives another text."""
    samples = samples_of(LONG)[::2]  # at 8 kHz
    content = np.repeat(samples[:, None], 2, axis=1).astype(">i2").tobytes()
    told = ("--pcm", "s16be", "--rate", 8000, "--pcm-channels", 2, "-f", "json")
    result = piped(content, "-", *told)
    data = json.loads(result.stdout)
    assert (result.exit_code, data["source"], data["text"]) == (0, "-", LONG.written)
    assert data["duration_s"] == pytest.approx(len(samples) / 8000, abs=1e-3)
    (tmp_path / "call").write_bytes(content)
    assert json.loads(invoke("transcribe", "-m", "demo", tmp_path / "call", *told).stdout)["text"] == LONG.written


def test_standard_input_next_to_files() -> None:
    result = piped(DIGITS.path.read_bytes(), ZH_DIGITS.path, "-")
    lines = f"{ZH_DIGITS.path}: {ZH_DIGITS.written}\n-: {DIGITS.written}\n"
    assert result == Result(0, lines, summary("0:03"))


def test_an_empty_pipe() -> None:
    piped(b"", "-", "--pcm", "s16le").assert_error(1, "audio-empty", "standard input: ")


# --- parts ---

START_S = 2.5


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence that starts at 3 s, and another one after it."""
    pause = np.zeros(3 * RATE_HZ, np.int16)
    path = tmp_path_factory.mktemp("padded") / "padded.wav"
    soundfile.write(path, np.concatenate([pause, samples_of(LONG), pause, samples_of(DIGITS)]), RATE_HZ)
    return path


@pytest.mark.slow
def test_times_of_a_part_count_from_the_start_of_the_recording(padded: Path) -> None:
    """This holds in every format. The part contains the first sentence."""
    end_s = 3 + len(samples_of(LONG)) / RATE_HZ
    whole = json.loads(invoke("transcribe", "-m", "demo", padded, "-f", "json").stdout)
    arguments = ("transcribe", "-m", "demo", padded, "--clip", f"0:02.5-{end_s}", "-f")
    data = json.loads(invoke(*arguments, "json").stdout)
    assert (data["start_s"], data["text"]) == (START_S, LONG.written)
    assert data["duration_s"] == pytest.approx(end_s - START_S)
    assert sum(data["ledger"].values()) == pytest.approx(data["duration_s"])
    (segment,) = data["segments"]
    assert segment["start_s"] == pytest.approx(whole["segments"][0]["start_s"], abs=0.1)
    assert START_S <= segment["start_s"] < segment["end_s"] <= end_s
    (cue,) = pysubs2.SSAFile.from_string(invoke(*arguments, "srt").stdout)
    assert (cue.start, cue.end <= end_s * 1000) == (round(1000 * segment["words"][0]["start_s"]), True)


def test_a_part_after_the_end_and_one_without_speech(padded: Path) -> None:
    result = invoke("transcribe", "-m", "demo", padded, DIGITS.path, "--clip", "0:07-1:00")
    assert (result.exit_code, result.stdout) == (1, f"{padded}: {DIGITS.written}\n")
    [(code, message)] = result.errors
    assert (code, message.startswith(f"{DIGITS.path}: ")) == ("clip-behind-end", True)
    result = invoke("transcribe", "-m", "demo", padded, "--clip", "0.5-2")
    assert (result.exit_code, result.stdout) == (6, "")


# --- channels ---

BOTH = (DIGITS.written, ZH_DIGITS.written)


def test_channels_are_separate_inputs(stereo: Path) -> None:
    result = invoke("transcribe", "-m", "demo", stereo, DIGITS.path, "--channels", "split")
    labels = f"{stereo} [ch 1]", f"{stereo} [ch 2]", DIGITS.path  # the last one has a single channel
    texts = f"Channel 1: {BOTH[0]}", f"Channel 2: {BOTH[1]}", BOTH[0]
    lines = "".join(f"{label}: {text}\n" for label, text in zip(labels, texts, strict=True))
    assert result == Result(0, lines, summary("0:04"))


def test_files_of_channels(stereo: Path, tmp_path: Path) -> None:
    """Only the missing result of one channel is written."""
    out = tmp_path / "out"
    arguments = ("transcribe", "-m", "demo", stereo, "--channels", "split", "-o", out)
    assert invoke(*arguments).exit_code == 0
    expected = {
        f"call.ch{number}.txt": f"Channel {number}: {text}\n".encode() for number, text in enumerate(BOTH, 1)
    }
    assert tree(out) == expected
    (out / "call.ch2.txt").unlink()
    result = invoke(*arguments, "--resume")
    skipped = "skipped 1 of 2 inputs: their results exist\n"
    assert result == Result(0, "", f"{skipped}wrote {out / 'call.ch2.txt'}\n{summary('0:01')}")
    assert tree(out) == expected
    named = invoke(*arguments, "--output-template", "{suffix}/{stem}.{lang}.{ext}", "-l", "zh")
    assert named.exit_code == 0
    assert {name for name in tree(out) if "/" in name} == {"wav/call.ch1.zh.txt", "wav/call.ch2.zh.txt"}


def test_channels_of_standard_input(stereo: Path) -> None:
    result = piped(stereo.read_bytes(), "-", "--channels", "split")
    assert result == Result(
        0, f"- [ch 1]: Channel 1: {BOTH[0]}\n- [ch 2]: Channel 2: {BOTH[1]}\n", summary("0:03")
    )

"""Recordings of any length, many files: segments, second attempts, the ledger, the summary, exit codes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import lines_of, recognizer, summary
from support.running import funasr, invoke, tree
from support.small import edit_json, first_token_ids

from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.segments import Segmenter, Stretch
from funasr_cli.formats import clock
from funasr_cli.options import TranscribeOptions
from funasr_cli.transcript import Ledger

CLIPS = demo.clips()
RATE_HZ = 16000
PAUSE = np.zeros(9600)  # 0.6 s


def write(path: Path, *parts: np.ndarray) -> Path:
    soundfile.write(path, np.concatenate(parts), RATE_HZ)
    return path


def samples_of(clip: demo.DemoClip) -> np.ndarray:
    return soundfile.read(clip.path)[0]


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All clips in one recording."""
    parts = [part for clip in CLIPS for part in (samples_of(clip), PAUSE)]
    return write(tmp_path_factory.mktemp("joined") / "joined.wav", *parts)


def test_a_recording_of_many_sentences(joined: Path) -> None:
    result = funasr("transcribe", "-m", "demo", joined)
    assert result.stdout == "".join(f"{clip.written}\n" for clip in CLIPS)
    ledger = recognizer("demo").transcribe(joined).ledger
    assert (result.exit_code, result.stderr) == (0, summary(clock(ledger.speech_s)))
    assert 20 < ledger.speech_s < 25 < ledger.speech_s + ledger.silence_s < 34


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("--no-vad",), {"vad": False}),
        (("--vad-threshold", "0.98"), {"vad_threshold": 0.98}),
        (("--min-pause", "0.1"), {"min_pause_s": 0.1}),
        (("--join", "12"), {"join_s": 12.0}),
        (("--max-segment", "2"), {"max_segment_s": 2.0}),
    ],
)
def test_options_that_move_the_cuts(joined: Path, arguments: tuple[str, ...], options: dict) -> None:
    result = invoke("transcribe", "-m", "demo", joined, "-f", "json", *arguments)
    cut = [(segment["start_s"], segment["end_s"]) for segment in json.loads(result.stdout)["segments"]]
    wanted, default = (
        [(segment.start_s, segment.end_s) for segment in recognizer("demo").transcribe(joined, **o).segments]
        for o in (options, {})
    )
    assert cut == wanted != default


# --- nothing, or next to nothing ---


@pytest.mark.parametrize("options", [(), ("--stream",)])
@pytest.mark.parametrize(("samples", "level"), [(1, 0.5), (160, 0.5), (16000, 0.0)], ids=["1", "10ms", "silence"])
def test_recordings_without_speech(tmp_path: Path, samples: int, level: float, options: tuple[str, ...]) -> None:
    clip = write(tmp_path / "a.wav", np.full(samples, level))
    result = invoke("transcribe", "-m", "demo", clip, *options)
    assert (result.exit_code, result.stdout, result.stderr[:15]) == (6, "", "no speech found")


def test_a_minute_of_noise(tmp_path: Path) -> None:
    """Neither the detector nor the model hears anything in it; as text, as data, and as files."""
    clip = write(tmp_path / "noise.flac", 0.1 * np.random.default_rng(0).standard_normal(60 * RATE_HZ))
    result = funasr("transcribe", "-m", "demo", clip)
    assert (result.exit_code, result.stdout, result.stderr[:15]) == (6, "", "no speech found")
    result = invoke("transcribe", "-m", "demo", clip, "-f", "json")
    data = json.loads(result.stdout)
    assert (result.exit_code, result.stderr[:15]) == (6, "no speech found")
    assert (data["text"], data["segments"], data["complete"], data["duration_s"]) == ("", [], True, 60.0)
    assert data["ledger"] == {
        "transcribed_s": 0.0,
        "repaired_s": 0.0,
        "failed_s": 0.0,
        "silence_s": 60.0,
        "doubtful_s": 0.0,
    }
    result = invoke("transcribe", "-m", "demo", clip, "-o", tmp_path / "out")
    assert result.stderr.startswith(f"wrote {tmp_path / 'out/noise.txt'}\nno speech found")
    assert tree(tmp_path / "out") == {"noise.txt": b""}


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    clip = write(tmp_path / "a.wav", np.zeros(0))
    result = invoke("transcribe", "-m", "demo", clip)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error[audio-empty]: {clip}: no samples in it\n1 of 1 inputs failed\n"


# --- exit codes, and which of them wins ---


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good one, two without speech, one that is no recording, one that breaks off behind a complete segment."""
    folder = tmp_path_factory.mktemp("inputs")
    speech = samples_of(CLIPS[0])
    paths = {
        "good": write(folder / "good.wav", speech),
        "silent": write(folder / "silent.wav", np.zeros(RATE_HZ)),
        "still": write(folder / "still.wav", np.full(2 * RATE_HZ, 0.01)),
        "broken": folder / "broken.wav",
        "partial": write(folder / "partial.wav", speech, PAUSE, speech),
    }
    paths["broken"].write_text("no recording")
    os.truncate(paths["partial"], 44 + 2 * (len(speech) + 8000))
    return paths


# What is said about each, and the seconds of speech in it, those that are missing among them.
SAID = {
    "good": "",
    "silent": "",
    "still": "",
    "broken": (
        "error[audio-unreadable]: {path}: not audio that can be read here\n"
        "  it may be incomplete; if it plays elsewhere, convert it to wav or flac, for example with ffmpeg\n"
    ),
    "partial": "warning: {path}: broke off after 3.2 of 6.0 s\n",
}
GOOD, PARTIAL = summary("0:03"), summary("0:05", "49.0%")


@pytest.mark.parametrize(
    ("names", "options", "exit_code", "last"),
    [
        ("good", (), 0, GOOD),
        ("good", ("--strict",), 0, GOOD),
        ("good silent", (), 0, GOOD),
        ("silent good still", ("--strict",), 0, GOOD),
        ("silent", (), 6, "no speech found"),
        ("silent still", ("--strict",), 6, "no speech found"),
        ("partial", (), 4, PARTIAL),
        ("partial", ("--strict",), 1, PARTIAL),
        ("partial silent", (), 4, PARTIAL),
        ("partial silent", ("--strict",), 1, PARTIAL),
        ("good partial", (), 4, summary("0:08", "65.4%")),
        ("good partial silent", ("--strict",), 1, summary("0:08", "65.4%")),
        ("broken", (), 1, "1 of 1 inputs failed\n"),
        ("silent broken", (), 1, "1 of 2 inputs failed; no speech found"),
        ("broken good", (), 1, f"1 of 2 inputs failed; {GOOD}"),
        ("partial broken", (), 1, f"1 of 2 inputs failed; {PARTIAL}"),
        ("broken partial silent", ("--strict",), 1, f"1 of 3 inputs failed; {PARTIAL}"),
    ],
)
def test_exit_code_and_summary(
    inputs: dict[str, Path], names: str, options: tuple[str, ...], exit_code: int, last: str
) -> None:
    chosen = names.split()
    result = invoke("transcribe", "-m", "demo", *(inputs[name] for name in chosen), *options)
    spoken = [inputs[name] for name in chosen if name in ("good", "partial")]
    prefixes = [f"{path}: " if len(chosen) > 1 else "" for path in spoken]
    assert result.stdout == "".join(f"{prefix}{CLIPS[0].written}\n" for prefix in prefixes)
    said = sorted(SAID[name].format(path=inputs[name]) for name in chosen)
    *others, ending = result.stderr.splitlines(keepends=True)
    assert ending.startswith(last)
    assert sorted(others) == sorted("".join(said).splitlines(keepends=True))
    assert result.exit_code == exit_code


def test_a_recording_that_breaks_off_in_json(inputs: dict[str, Path]) -> None:
    data = json.loads(invoke("transcribe", "-m", "demo", inputs["partial"], "-f", "json").stdout)
    assert (data["complete"], data["text"]) == (False, CLIPS[0].written)
    assert data["fault"] == f"{inputs['partial']}: broke off after 3.2 of 6.0 s"
    assert [segment["state"] for segment in data["segments"]] == ["transcribed"]
    assert data["unread_s"] == pytest.approx(data["duration_s"] - 3.195)
    assert data["ledger"]["failed_s"] == pytest.approx(data["unread_s"])
    assert sum(data["ledger"].values()) == pytest.approx(data["duration_s"])


def test_one_text_of_two_is_cut_short(tmp_path: Path) -> None:
    """The limit was asked for, so nothing is tried again."""
    short, long = CLIPS[2], CLIPS[-1]
    clip = write(tmp_path / "a.wav", samples_of(short), PAUSE, samples_of(long), PAUSE)
    result = invoke("transcribe", "-m", "demo", clip, "--max-tokens", 5, "-f", "json")
    data = json.loads(result.stdout)
    assert result.exit_code == 4
    assert [(s["state"], s["retries"]) for s in data["segments"]] == [("transcribed", 0), ("failed", 0)]
    first, second = data["segments"]
    assert first["text"] == short.written
    assert second["text"]
    assert long.written.startswith(second["text"])
    assert second["text"] != long.written
    where = f"{second['start_s']:.1f}-{second['end_s']:.1f} s"
    assert result.stderr.splitlines()[0] == (
        f"warning: {clip}: {where}: cut short after 5 tokens: the end may be missing"
    )
    assert data["ledger"]["failed_s"] == pytest.approx(second["end_s"] - second["start_s"])


# --- second attempts ---


def in_quarters(clip: Path) -> tuple[Stretch, ...]:
    """A recording without VAD, its halves, and the halves of the first: what is tried for a text in circles."""
    segmenter = Segmenter(TranscribeOptions(vad=False))
    (whole,) = [*segmenter.push(load_audio(clip, RATE_HZ).samples), *segmenter.finish()]
    first, second = whole.halves() or ()
    return whole, first, second, *(first.halves() or ())


@pytest.fixture(scope="module")
def mending(
    small_model: Path, zh_wav: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path | list[Stretch]]:
    """A model that ends its texts of the second half of a clip, and of quarters of the first, but not of more."""
    work = tmp_path_factory.mktemp("mending")
    whole, first, *parts = in_quarters(zh_wav)
    written = {}
    for stretch in (whole, first, *parts):
        written[stretch.start, stretch.end] = first_token_ids(
            small_model, write(work / "part.wav", stretch.samples), 20
        )
    stops = [written[part.start, part.end][11] for part in parts]
    assert not {*stops} & {*written[whole.start, whole.end], *written[first.start, first.end]}
    for name, ids in {"all": stops, "some": [stops[0], stops[2]]}.items():
        shutil.copytree(small_model, work / name)
        edit_json(work / name / "config.json", lambda config, ids=ids: config.update(stop_token_ids=ids))
    second, third, fourth = parts
    return {"all": work / "all", "some": work / "some", "parts": [third, fourth, second]}


def test_what_goes_in_circles_is_decoded_in_smaller_pieces(mending: dict, zh_wav: Path) -> None:
    """The second half at the second attempt, the quarters of the first at the third."""
    arguments = ("transcribe", "-m", mending["all"], zh_wav, "--no-vad")
    data = json.loads(invoke(*arguments, "-f", "json").stdout)
    assert [(s["start_s"], s["end_s"]) for s in data["segments"]] == [
        (part.start_s, part.end_s) for part in mending["parts"]
    ]
    assert [(s["state"], s["retries"]) for s in data["segments"]] == [
        ("repaired", 2), ("repaired", 2), ("repaired", 1)
    ]  # fmt: skip
    assert data["ledger"] == {
        "transcribed_s": 0.0,
        "repaired_s": 6.0,
        "failed_s": 0.0,
        "silence_s": 0.0,
        "doubtful_s": 0.0,
    }
    assert data["complete"]
    result = funasr(*arguments, "--strict")
    assert result.stdout == "".join(f"{segment['text']}\n" for segment in data["segments"] if segment["text"])
    assert (result.exit_code, result.stderr) == (0, summary("0:06", repaired=3))


def test_what_stays_in_circles_is_said(mending: dict, zh_wav: Path) -> None:
    """One of the quarters never ends: a round of it is kept, the rest is whole."""
    stuck = mending["parts"][0]
    arguments = ("transcribe", "-m", mending["some"], zh_wav, "--no-vad")
    warning = f"0.0-{stuck.end_s:.1f} s: the text goes in circles: what follows the first round is missing"
    share = f"{1 - stuck.end_s / 6:.1%}"
    for options, exit_code in (((), 4), (("--strict",), 1)):
        result = funasr(*arguments, *options)
        assert result.stdout == lines_of(mending["some"], zh_wav, vad=False) != ""
        assert result.stderr == f"warning: {zh_wav}: {warning}\n{summary('0:06', share, repaired=2, failed=1)}"
        assert result.exit_code == exit_code
    data = json.loads(invoke(*arguments, "-f", "json").stdout)
    assert [(s["state"], s["stop_reason"]) for s in data["segments"]] == [
        ("failed", "loop"), ("repaired", "eos"), ("repaired", "eos")
    ]  # fmt: skip
    assert data["warnings"] == [warning]
    assert data["ledger"]["failed_s"] == pytest.approx(stuck.end_s)
    assert sum(data["ledger"].values()) == pytest.approx(6.0)


# --- many files ---


@pytest.mark.slow
def test_a_hundred_files_of_which_six_are_broken(tmp_path: Path) -> None:
    """Each is named with its reason, the 94 others are done, in the order of the inputs."""
    paths = [tmp_path / f"{number:03}.flac" for number in range(100)]
    written = {}
    for number, path in enumerate(paths):
        shutil.copyfile(CLIPS[number % 10].path, path)
        written[path] = CLIPS[number % 10].written
    reasons = {
        0: "the file is empty",
        13: "not audio that can be read here",
        14: "no such file",
        50: "no such file",
        51: "no samples in it",
        99: "not audio that can be read here",
    }
    for number in reasons:
        paths[number].unlink()
        del written[paths[number]]
    paths[0].touch()
    paths[13].write_text("no recording")
    paths[14].symlink_to(tmp_path / "nowhere")
    soundfile.write(paths[51], np.zeros(0), RATE_HZ, format="WAV")
    paths[99].write_bytes(CLIPS[0].path.read_bytes()[:20])
    before = tree(tmp_path)
    result = funasr("transcribe", "-m", "demo", *paths)
    assert result.stdout.splitlines() == [f"{path}: {text}" for path, text in written.items()]
    assert len(written) == 94
    errors = [line for line in result.stderr.splitlines() if line.startswith("error[audio-")]
    assert [error.partition("]: ")[2] for error in errors] == [
        f"{paths[number]}: {reason}" for number, reason in reasons.items()
    ]
    ledger = sum((recognizer("demo").transcribe(path).ledger for path in written), Ledger())
    assert result.stderr.endswith(f"\n6 of 100 inputs failed; {summary(clock(ledger.speech_s))}")
    assert result.exit_code == 1
    assert tree(tmp_path) == before

"""``--plot-alignment``: a picture that contains the words, and errors."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.errors import refused
from support.running import invoke, tree

from funasr_cli import demo, pictures

ENGLISH, CHINESE = (
    next(clip for clip in demo.clips() if clip.path.name == name)
    for name in ("0026-en-everyday.flac", "0010-zh-commands.flac")
)
TEXT = re.compile(r">([^<>]*)</text>")
SIZE = re.compile(r'<svg [^>]*width="([0-9.]+)pt" height="([0-9.]+)pt"')
INCH_PT = 72


def texts(picture: Path) -> list[str]:
    return TEXT.findall(picture.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("clip", [ENGLISH, CHINESE])
def test_the_words_are_in_the_picture(clip: demo.DemoClip, tmp_path: Path) -> None:
    picture = tmp_path / "a.svg"
    result = invoke("transcribe", "-m", "demo", clip.path, "--plot-alignment", picture)
    assert result.stdout == f"{clip.written}\n"
    assert result.stderr.startswith(f"wrote {picture}\n")
    assert result.exit_code == 0
    drawn = texts(picture)
    words = clip.written.split() if clip.language == "en" else [*clip.written[:-2], clip.written[-2:]]
    heard = clip.spoken.split() if clip.language == "en" else list(clip.spoken)
    assert [text for text in drawn if text in {*words}][-len(words) :] == words
    assert [text for text in drawn if text in {*heard}][: len(heard)] == heard
    panels = {"waveform", "mel, Hz", "CTC posteriors", "words", "seconds"}
    assert panels | {f"{clip.path.name}, demo"} <= {*drawn}


@pytest.mark.slow
def test_without_a_font_for_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "CJK_FONTS", ())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = invoke("transcribe", "-m", "demo", CHINESE.path, "--plot-alignment", tmp_path / "a.png")
    told = f"warning: {tmp_path / 'a.png'}: no installed font has all characters of the text; "
    assert result.stderr.count(told) == 1
    assert result.exit_code == 0
    assert (tmp_path / "a.png").exists()
    invoke("transcribe", "-m", "demo", CHINESE.path, "--plot-alignment", tmp_path / "a.svg")
    assert {*"打开车库"} <= {*texts(tmp_path / "a.svg")}


@pytest.mark.slow
def test_a_part_of_a_recording_at_its_own_times(tmp_path: Path) -> None:
    speech = soundfile.read(ENGLISH.path)[0]
    soundfile.write(tmp_path / "long.wav", np.concatenate([np.zeros(70 * 16000), speech]), 16000)
    arguments = ("transcribe", "-m", "demo", tmp_path / "long.wav", "--plot-alignment", tmp_path / "a.svg")
    invoke(*arguments).assert_error(2, "picture-too-long", "long.wav", "60 s", "--clip")
    assert not (tmp_path / "a.svg").exists()
    result = invoke(*arguments, "--clip", "1:10-")
    assert (result.exit_code, result.stdout) == (0, f"{ENGLISH.written}\n")
    assert {"kitchen", "70.5", "71"} <= {*texts(tmp_path / "a.svg")}


@pytest.mark.slow
@pytest.mark.parametrize(("duration_s", "rows", "row_s"), [(2, 1, 2), (10, 1, 10), (10.5, 2, 5.25), (35, 4, 8.75)])
def test_rows_of_ten_seconds_at_most(duration_s: float, rows: int, row_s: float, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(round(duration_s * 16000)), 16000)
    result = invoke("transcribe", "-m", "demo", tmp_path / "a.wav", "--plot-alignment", tmp_path / "a.svg")
    assert result.exit_code == 6, "it is silence"
    [size] = SIZE.findall((tmp_path / "a.svg").read_text(encoding="utf-8"))
    width, height = max(7.0, 2.2 * row_s), 5.6 * rows  # inches
    assert [*map(float, size)] == pytest.approx([width * INCH_PT, height * INCH_PT])
    drawn = texts(tmp_path / "a.svg")
    panels = ("waveform", "mel, Hz", "CTC posteriors", "words")
    assert [drawn.count(text) for text in (*panels, "a.wav, demo")] == [rows] * 4 + [1]


@pytest.mark.slow
def test_a_word_across_two_rows_is_in_both(tmp_path: Path) -> None:
    speech = soundfile.read(ENGLISH.path)[0]
    samples = np.zeros(20 * 16000)
    first = round(8.7 * 16000)  # "kitchen" is then spoken from 9.9 s to 10.2 s
    samples[first : first + len(speech)] = speech
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    result = invoke("transcribe", "-m", "demo", tmp_path / "a.wav", "--plot-alignment", tmp_path / "a.svg")
    assert result.exit_code == 0
    assert result.stdout.endswith(" the kitchen this afternoon.\n")
    said = "the kitchen this afternoon afternoon.".split()
    assert [text for text in texts(tmp_path / "a.svg") if text in said] == (
        "the the kitchen kitchen this afternoon kitchen this afternoon.".split()
    )


@pytest.mark.slow
def test_a_picture_is_replaced_with_force_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "a.png"
    picture.write_text("mine")
    arguments = ("transcribe", "-m", "demo", ENGLISH.path, "--plot-alignment", picture)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        result = invoke(*arguments, "--force")
    result.assert_error(1, "disk-full", str(tmp_path))
    assert picture.read_text() == "mine"
    result = invoke(*arguments, "--force")
    assert (result.exit_code, result.stdout) == (0, f"{ENGLISH.written}\n")
    assert re.fullmatch(rf"wrote {re.escape(str(picture))}\n100.0% of .*\n", result.stderr), (
        "without messages of libraries"
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.slow
def test_a_picture_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "a.png").write_text("mine")
    with refused("output-exists", tmp_path / "a.png"):
        pictures.save(Figure(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("typed", "exit_code", "code", "value"),
    [
        ("a.flac --plot-alignment a.gif", 2, "option-value", "a.gif"),
        ("a.flac --plot-alignment there.png", 1, "output-exists", "there.png"),
        ("a.flac --plot-alignment folder.png --force", 1, "output-unwritable", "folder.png"),
        ("a.flac --plot-alignment none/a.png", 1, "output-unwritable", "none"),
        ("a.flac --plot-alignment a.flac --force", 2, "option-value", "a.flac"),
        ("speech.png --plot-alignment speech.png --force", 2, "output-is-input", "speech.png"),
        ("a.flac speech.png --plot-alignment b.png", 2, "options-conflict", "2 inputs"),
        ("stereo.wav --channels split --plot-alignment b.png", 2, "options-conflict", "2 channels"),
        ("stereo.wav a.flac --channels split --plot-alignment b.png", 2, "options-conflict", "2 inputs"),
        ("- --plot-alignment b.png", 2, "input-once", "-: "),
        ("a.flac --plot-alignment b.png --hotword x --compare-hotwords", 2, "option-idle", "--plot-alignment"),
        ("a.flac --plot-alignment b.png -o . --resume", 2, "option-idle", "--resume"),
    ],
)
def test_refused_pictures(
    typed: str, exit_code: int, code: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.isatty", lambda _: False)
    for name in ("a.flac", "speech.png"):
        shutil.copyfile(ENGLISH.path, name)
    Path("there.png").write_text("mine")
    Path("folder.png").mkdir()
    soundfile.write("stereo.wav", np.zeros((16000, 2)), 16000)
    before = tree(tmp_path)
    invoke("transcribe", "-m", "demo", *typed.split()).assert_error(exit_code, code, value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("module", "package"), [("librosa.display", "librosa"), ("matplotlib", "matplotlib")])
def test_without_the_drawing_library(
    module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = invoke("transcribe", "-m", "demo", ENGLISH.path, "--plot-alignment", tmp_path / "b.png")
    result.assert_error(5, "package-missing", package, "the extra plot")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_a_ctc_branch(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    result = invoke("transcribe", "-m", small_model, short_wav, "--plot-alignment", tmp_path / "a.png")
    result.assert_error(2, "option-unsupported", "--plot-alignment", "--hub ms")
    assert not (tmp_path / "a.png").exists()


def test_word_times_without_a_ctc_output_are_not_enough(
    small_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before the model is loaded, and before a library for drawing is asked for."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke("transcribe", "-m", small_whisper, ENGLISH.path, "--plot-alignment", tmp_path / "a.svg")
    result.assert_error(2, "option-unsupported", "--plot-alignment")
    assert result.stdout == ""
    assert not (tmp_path / "a.svg").exists()

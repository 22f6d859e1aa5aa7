"""``--plot-alignment``: a picture with the words in it, and what cannot be drawn."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import summary
from support.running import environment, funasr, invoke

from funasr_cli import demo, pictures
from funasr_cli.errors import OutputError

ENGLISH, CHINESE = (
    next(clip for clip in demo.clips() if clip.path.name == name)
    for name in ("0026-en-everyday.flac", "0010-zh-commands.flac")
)
TEXT = re.compile(r">([^<>]*)</text>")
SIZE = re.compile(r'<svg [^>]*width="([0-9.]+)pt" height="([0-9.]+)pt"')
INCH_PT = 72
EXISTS = "exists already\n  add --force to replace it, or name another file\n"


def texts(picture: Path) -> list[str]:
    return TEXT.findall(picture.read_text(encoding="utf-8"))


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


def test_png_without_a_word_from_matplotlib(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    result = funasr("transcribe", "-m", "demo", ENGLISH.path, "--plot-alignment", picture)
    assert (result.exit_code, result.stdout) == (0, f"{ENGLISH.written}\n")
    assert re.fullmatch(
        re.escape(f"wrote {picture}\n") + re.escape(summary("0:00")).replace("0:00", r"0:0\d"), result.stderr
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_a_font_for_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "CJK_FONTS", ())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = invoke("transcribe", "-m", "demo", CHINESE.path, "--plot-alignment", tmp_path / "a.png")
    told = f"warning: {tmp_path / 'a.png'}: no font on this machine has all characters of the text: "
    assert result.stderr.count(told) == 1
    assert result.exit_code == 0
    assert (tmp_path / "a.png").exists()
    invoke("transcribe", "-m", "demo", CHINESE.path, "--plot-alignment", tmp_path / "a.svg")
    assert {*"打开车库"} <= {*texts(tmp_path / "a.svg")}


def test_a_part_of_a_recording_at_its_own_times(tmp_path: Path) -> None:
    speech = soundfile.read(ENGLISH.path)[0]
    soundfile.write(tmp_path / "long.wav", np.concatenate([np.zeros(70 * 16000), speech]), 16000)
    arguments = ("transcribe", "-m", "demo", tmp_path / "long.wav", "--plot-alignment", tmp_path / "a.svg")
    invoke(*arguments).assert_error(2, "audio-too-long", "long.wav", "60 s", "--clip")
    assert not (tmp_path / "a.svg").exists()
    result = invoke(*arguments, "--clip", "1:10-")
    assert (result.exit_code, result.stdout) == (0, f"{ENGLISH.written}\n")
    assert {"kitchen", "70.5", "71"} <= {*texts(tmp_path / "a.svg")}


@pytest.mark.parametrize(("duration_s", "rows", "row_s"), [(2, 1, 2), (10, 1, 10), (10.5, 2, 5.25), (35, 4, 8.75)])
def test_rows_of_ten_seconds_at_most(duration_s: float, rows: int, row_s: float, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(round(duration_s * 16000)), 16000)
    invoke("transcribe", "-m", "demo", tmp_path / "a.wav", "--plot-alignment", tmp_path / "a.svg")
    content = (tmp_path / "a.svg").read_text(encoding="utf-8")
    [size] = SIZE.findall(content)
    width, height = max(7.0, 2.2 * row_s), 5.6 * rows  # inches
    assert [*map(float, size)] == pytest.approx([width * INCH_PT, height * INCH_PT])
    drawn = texts(tmp_path / "a.svg")
    for text, count in {
        "waveform": rows,
        "mel, Hz": rows,
        "CTC posteriors": rows,
        "words": rows,
        "a.wav, demo": 1,
    }.items():
        assert drawn.count(text) == count


def test_a_word_over_the_border_of_rows_is_in_both(tmp_path: Path) -> None:
    speech = soundfile.read(ENGLISH.path)[0]
    samples = np.zeros(20 * 16000)
    first = round(8.7 * 16000)  # so that "kitchen" is said from 9.9 s to 10.2 s
    samples[first : first + len(speech)] = speech
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    result = invoke("transcribe", "-m", "demo", tmp_path / "a.wav", "--plot-alignment", tmp_path / "a.svg")
    assert result.exit_code == 0
    assert result.stdout.endswith(" the kitchen this afternoon.\n")
    said = "the kitchen this afternoon afternoon.".split()
    assert [text for text in texts(tmp_path / "a.svg") if text in said] == (
        "the the kitchen kitchen this afternoon kitchen this afternoon.".split()
    )


def test_silence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    result = invoke("transcribe", "-m", "demo", tmp_path / "silence.wav", "--plot-alignment", tmp_path / "a.svg")
    assert result.exit_code == 6
    assert "waveform" in texts(tmp_path / "a.svg")


def test_a_picture_is_replaced_with_force_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "a.png"
    picture.write_text("mine")
    arguments = ("transcribe", "-m", "demo", ENGLISH.path, "--plot-alignment", picture)
    invoke(*arguments).assert_fails(1, f"error: {picture}: {EXISTS}")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        result = invoke(*arguments, "--force")
    result.assert_error(1, "disk-full", str(tmp_path))
    assert picture.read_text() == "mine"
    result = invoke(*arguments, "--force")
    assert (result.exit_code, result.stdout) == (0, f"{ENGLISH.written}\n")
    assert result.stderr.startswith(f"wrote {picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_picture_that_somebody_made_meanwhile(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(OutputError, match=re.escape(f"{tmp_path / 'a.png'}: exists already")):
        pictures.save(Figure(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.png"]


def test_force_replaces_no_input_and_no_folder(tmp_path: Path) -> None:
    recording, folder = tmp_path / "speech.png", tmp_path / "b.png"
    recording.write_bytes(ENGLISH.path.read_bytes())
    folder.mkdir()
    arguments = ("transcribe", "-m", "demo", recording, "--force", "--plot-alignment")
    invoke(*arguments, recording).assert_error(2, "output-is-input", str(recording))
    invoke(*arguments, folder).assert_fails(1, f"error: {folder}: a folder has this name\n  name another file\n")
    assert recording.read_bytes() == ENGLISH.path.read_bytes()


def test_channels_are_counted_as_channels(tmp_path: Path) -> None:
    speech = soundfile.read(ENGLISH.path)[0]
    stereo, picture = tmp_path / "stereo.wav", tmp_path / "a.png"
    soundfile.write(stereo, np.stack([speech, speech], axis=1), 16000)
    arguments = ("transcribe", "-m", "demo", "--channels", "split", "--plot-alignment", picture, stereo)
    invoke(*arguments).assert_error(2, "options-conflict", "2 channels", "--channels mix")
    invoke(*arguments, ENGLISH.path).assert_error(2, "options-conflict", "2 inputs")
    assert not picture.exists()


def test_what_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gif, there, nowhere, new = (tmp_path / name for name in ("a.gif", "a.png", "none/a.png", "b.png"))
    there.write_text("mine")
    one = ("transcribe", "-m", "demo", ENGLISH.path, "--plot-alignment")
    invoke(*one, gif).assert_fails(2, f"error: {gif}: not a picture that can be drawn\n", ".png, .svg\n")
    invoke(*one, there).assert_fails(1, f"error: {there}: {EXISTS}")
    invoke(*one, nowhere).assert_fails(1, f"error: {nowhere.parent}: no such folder\n")
    invoke(*one, new, CHINESE.path).assert_error(2, "options-conflict", "2 inputs")
    invoke("transcribe", "-m", "demo", "-", "--plot-alignment", new).assert_error(2, "pipe-unusable", "-: ")
    invoke(*one, new, "--hotword", "x", "--compare-hotwords").assert_fails(
        2, "error: --plot-alignment has no effect here\n  it does not go with --compare-hotwords\n"
    )
    invoke(*one, new, "-o", tmp_path, "--resume").assert_fails(
        2, "error: --resume has no effect here\n  it does not go with --plot-alignment\n"
    )
    assert there.read_text() == "mine"
    assert not new.exists()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "librosa.display", None)
        invoke(*one, new).assert_error(5, "package-missing", "librosa", "funasr-cli[plot]")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke(*one, new)
    assert (result.exit_code, result.stdout) == (5, "")
    assert "matplotlib" in result.stderr
    assert not new.exists()


def test_nothing_of_pictures_is_imported_to_transcribe() -> None:
    code = f"""
import sys
from funasr_cli.cli.app import app
try:
    app(["transcribe", "-m", "demo", "-f", "all", "-o", sys.argv[1], {str(ENGLISH.path)!r}])
except SystemExit as ended:
    assert not ended.code
print({{"librosa", "matplotlib", "numba", "scipy", "sklearn", "torch"}} & {{*sys.modules}})
"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done


def test_without_a_ctc_branch(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    result = invoke("transcribe", "-m", small_model, short_wav, "--plot-alignment", tmp_path / "a.png")
    result.assert_error(3, "ctc-missing", "--hub ms")
    assert not (tmp_path / "a.png").exists()

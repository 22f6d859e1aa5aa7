"""`--resume`: a run that was interrupted leaves whole files behind, and another one does the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.expected import summary
from support.running import COMMAND, environment, funasr, invoke, tree

from funasr_cli import demo

CLIPS = demo.clips()
COPIES = 120


def copies(folder: Path, count: int) -> dict[Path, str]:
    """Clips under numbers for names, and what is said in each."""
    folder.mkdir()
    clips = {folder / f"{number:04}.flac": CLIPS[number % len(CLIPS)] for number in range(count)}
    for path, clip in clips.items():
        shutil.copyfile(clip.path, path)
    return {path: clip.written for path, clip in clips.items()}


def results(out: Path) -> list[Path]:
    """What a user sees in the folder."""
    return sorted(path for path in out.glob("*") if not path.name.startswith("."))


def interrupt(command: list[str], out: Path, sent: signal.Signals) -> tuple[int, str]:
    """Run until some results are there, then send a signal: the exit code, and what was on stderr."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        deadline = time.monotonic() + 60
        while not out.exists() or len(results(out)) < 5:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=60)
    assert stdout == b""
    return process.returncode, stderr.decode()


def assert_whole(path: Path, text: str) -> None:
    """It says what a run that was not interrupted says."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        assert content == f"{text}\n"
        return
    data = json.loads(content)
    assert (data["text"], data["complete"]) == (text, True)
    assert Path(data["source"]).stem == path.stem
    assert sum(data["ledger"].values()) == pytest.approx(data["duration_s"])


@pytest.mark.slow
@pytest.mark.parametrize("format", ["txt", "json"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_an_interrupted_run_is_finished(tmp_path: Path, sent: signal.Signals, format: str) -> None:
    texts = copies(tmp_path / "in", COPIES)
    out = tmp_path / "out"
    sources = tree(tmp_path / "in")
    arguments = ["transcribe", "-m", "demo", *map(str, texts), "-o", str(out), "-f", format]
    exit_code, stderr = interrupt([*COMMAND, *arguments], out, sent)
    if sent == signal.SIGINT:
        assert exit_code == 130
        assert stderr.splitlines()[-1] == "warning: interrupted"
        assert "Traceback" not in stderr
        assert len(os.listdir(out)) == len(results(out)), "nothing unfinished is left"
    else:
        assert exit_code == -signal.SIGKILL
        assert all(name.startswith(".funasr-") for name in {*os.listdir(out)} - {p.name for p in results(out)})
    done = results(out)
    assert 5 <= len(done) < COPIES
    for path in done:
        assert_whole(path, texts[tmp_path / "in" / f"{path.stem}.flac"])
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in done}

    result = funasr(*arguments, "--resume")
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert lines[0] == f"skipped {len(done)} of {COPIES} inputs: their results are there"
    rest = [out / f"{path.stem}.{format}" for path in texts]
    assert sorted(lines[1:-1]) == [f"wrote {path}" for path in rest if path not in before]
    assert lines[-1].endswith(" speech transcribed, 0 segments repaired, 0 failed")
    assert lines[-1].startswith("100.0% of ")
    assert results(out) == rest
    for path, source in zip(rest, texts, strict=True):
        assert_whole(path, texts[source])
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert tree(tmp_path / "in") == sources


def test_an_interruption_while_a_result_is_written(
    pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is finished first, so that nothing is left beside it."""
    make = tempfile.mkstemp

    def then_interrupt(*arguments: Any, **settings: Any) -> tuple[int, str]:
        made = make(*arguments, **settings)
        signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(tempfile, "mkstemp", then_interrupt)
    result = invoke("transcribe", "-m", "demo", *pair, "-o", tmp_path / "out", "--batch-size", "1")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "warning: interrupted\n")
    assert os.listdir(tmp_path / "out") == [f"{pair[0].stem}.txt"]
    assert_whole(tmp_path / "out" / f"{pair[0].stem}.txt", CLIPS[0].written)


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two recordings."""
    return list(copies(tmp_path / "in", 2))


def test_all_is_done(pair: list[Path], tmp_path: Path) -> None:
    """There is nothing to load a model for, whatever it is called."""
    arguments = (*pair, "-o", tmp_path / "out")
    assert invoke("transcribe", "-m", "demo", *arguments).exit_code == 0
    before = tree(tmp_path)
    result = invoke("transcribe", "-m", "nowhere", *arguments, "--resume")
    assert result.stderr == "skipped 2 of 2 inputs: their results are there\n"
    assert (result.exit_code, result.stdout) == (0, "")
    assert tree(tmp_path) == before


def test_nothing_is_done(pair: list[Path], tmp_path: Path) -> None:
    """The first run may have it, too; there, nothing is skipped."""
    result = invoke("transcribe", "-m", "demo", *pair, "-o", tmp_path / "out", "--resume")
    lines = result.stderr.splitlines(keepends=True)
    assert sorted(lines[:-1]) == [f"wrote {tmp_path / 'out' / name}\n" for name in ("0000.txt", "0001.txt")]
    assert lines[-1] == summary("0:06")
    assert (result.exit_code, result.stdout) == (0, "")


def test_what_failed_is_tried_again(pair: list[Path], tmp_path: Path) -> None:
    """A file that could not be read has left no result."""
    broken = tmp_path / "broken.wav"
    broken.touch()
    arguments = ("transcribe", "-m", "demo", pair[0], broken, "-o", tmp_path / "out")
    assert invoke(*arguments).exit_code == 1
    result = invoke(*arguments, "--resume")
    assert result.stderr == (
        "skipped 1 of 2 inputs: their results are there\n"
        f"error[audio-empty]: {broken}: the file is empty\n1 of 1 inputs failed\n"
    )
    assert result.exit_code == 1
    shutil.copyfile(pair[1], broken)
    result = invoke(*arguments, "--resume")
    assert (result.exit_code, (tmp_path / "out/broken.txt").read_text()) == (0, f"{CLIPS[1].written}\n")


def test_silence_is_a_result(tmp_path: Path) -> None:
    """An empty file, which is not looked into again."""
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    arguments = ("transcribe", "-m", "demo", tmp_path / "a.wav", "-o", tmp_path / "out")
    assert invoke(*arguments).exit_code == 6
    result = invoke(*arguments, "--resume")
    assert (result.exit_code, result.stderr) == (0, "skipped 1 of 1 inputs: their results are there\n")
    assert tree(tmp_path / "out") == {"a.txt": b""}


def test_results_in_another_format_are_not_there(pair: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert invoke("transcribe", "-m", "demo", *pair, "-o", out).exit_code == 0
    result = invoke("transcribe", "-m", "demo", *pair, "-o", out, "-f", "json", "--resume")
    assert "skipped" not in result.stderr
    assert sorted(os.listdir(out)) == ["0000.json", "0000.txt", "0001.json", "0001.txt"]


def test_what_stands_in_the_way_is_kept(pair: list[Path], tmp_path: Path) -> None:
    """Somebody else's file, a link to nowhere: they are there."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "0000.txt").write_text("mine")
    (out / "0001.txt").symlink_to(tmp_path / "nowhere")
    result = invoke("transcribe", "-m", "nowhere", *pair, "-o", out, "--resume")
    assert (result.exit_code, result.stderr) == (0, "skipped 2 of 2 inputs: their results are there\n")
    assert (out / "0000.txt").read_text() == "mine"
    assert (out / "0001.txt").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def test_two_inputs_of_one_result(tmp_path: Path) -> None:
    """Refused also where that result is there: one of them would never be done."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").touch()
    result = invoke("transcribe", "x/a.wav", "y/a.flac", "-o", tmp_path / "out", "--resume")
    result.assert_fails(2, f"error: several results would be written to {tmp_path / 'out/a.txt'}\n")

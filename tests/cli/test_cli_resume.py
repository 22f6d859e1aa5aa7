"""`--resume`: an interrupted run leaves only complete files, and the next run does the rest."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from support.running import COMMAND, environment, funasr, invoke, tree
from support.small import edit_json

from funasr_cli import demo, writers
from funasr_cli.cli.outcome import LOST
from funasr_cli.cli.resume import NOTES
from funasr_cli.writers import write_new

CLIPS = demo.clips()
BASE = ("transcribe", "-m", "demo")
COPIES = 120


def copies(folder: Path, count: int) -> dict[Path, str]:
    """Copy clips to numbered files; return their texts."""
    folder.mkdir()
    clips = {folder / f"{number:04}.flac": CLIPS[number % len(CLIPS)] for number in range(count)}
    for path, clip in clips.items():
        shutil.copyfile(clip.path, path)
    return {path: clip.written for path, clip in clips.items()}


def results(out: Path) -> list[Path]:
    """Return the files in the folder, as a user sees them."""
    return sorted(path for path in out.glob("*") if not path.name.startswith("."))


def interrupt(command: list[str], out: Path, sent: signal.Signals) -> tuple[int, str]:
    """Run until some results exist, then send a signal; return the exit code and stderr."""
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
    """Assert that a result equals that of an uninterrupted run."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        assert content == f"{text}\n"
        return
    data = json.loads(content)
    assert (data["text"], data["complete"]) == (text, True)
    assert Path(data["source"]).stem == path.stem
    assert sum(data["ledger"].values()) == pytest.approx(data["duration_s"])


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "format"), [(signal.SIGINT, "txt"), (signal.SIGKILL, "json")])
def test_an_interrupted_run_is_finished(tmp_path: Path, sent: signal.Signals, format: str) -> None:
    texts = copies(tmp_path / "in", COPIES)
    out = tmp_path / "out"
    sources = tree(tmp_path / "in")
    arguments = ["transcribe", "-m", "demo", *map(str, texts), "-o", str(out), "-f", format]
    exit_code, stderr = interrupt([*COMMAND, *arguments], out, sent)
    if sent == signal.SIGINT:
        assert exit_code == 130
        told = r"warning: interrupted: (\d+) of 120 inputs are done; --resume continues with the others"
        how_many = re.fullmatch(told, stderr.splitlines()[-1])
        assert how_many, stderr
        assert 0 <= len(results(out)) - int(how_many[1]) <= 1
        assert "Traceback" not in stderr
        assert {*os.listdir(out)} - {path.name for path in results(out)} == {NOTES}, (
            "no temporary file may be left"
        )
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
    assert lines[0] == f"skipped {len(done)} of {COPIES} inputs: their results exist"
    rest = [out / f"{path.stem}.{format}" for path in texts]
    assert sorted(lines[1:-1]) == [f"wrote {path}" for path in rest if path not in before]
    assert lines[-1].endswith(" speech transcribed")
    assert lines[-1].startswith("100.0% of ")
    assert results(out) == rest
    for path, source in zip(rest, texts, strict=True):
        assert_whole(path, texts[source])
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert tree(tmp_path / "in") == sources


def test_an_interruption_while_a_result_is_written(
    pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is finished first, so no temporary file remains."""
    publish = writers._publish

    def then_interrupt(partial: Path, path: Path) -> None:
        if path.name == f"{pair[0].stem}.txt":
            signal.raise_signal(signal.SIGINT)
        publish(partial, path)

    monkeypatch.setattr(writers, "_publish", then_interrupt)
    result = invoke(*BASE, *pair, "-o", tmp_path / "out", "--batch-size", "1")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", f"warning: interrupted: {LOST}\n")
    assert list(tree(tmp_path / "out")) == [f"{pair[0].stem}.txt"]
    assert_whole(tmp_path / "out" / f"{pair[0].stem}.txt", CLIPS[0].written)
    assert invoke(*BASE, pair[0], "-o", tmp_path / "out", "--resume").stderr == skipped(1)


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two recordings."""
    return list(copies(tmp_path / "in", 2))


def skipped(count: int, of: int | None = None) -> str:
    return f"skipped {count} of {of or count} inputs: their results exist\n"


@pytest.mark.slow
def test_only_missing_results_are_made(pair: list[Path], tmp_path: Path) -> None:
    """The first run may also have the option. If all results exist, no model is loaded."""
    broken, out = tmp_path / "broken.wav", tmp_path / "out"
    broken.touch()
    arguments = (*BASE, *pair, broken, "-o", out, "--resume")
    first = invoke(*arguments)
    assert (first.exit_code, "skipped" in first.stderr) == (1, False)
    before = tree(out)
    again = invoke(*arguments)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.startswith(skipped(2, 3))
    shutil.copyfile(pair[1], broken)
    assert invoke(*arguments).exit_code == 0
    assert tree(out) == before | {"broken.txt": f"{CLIPS[1].written}\n".encode()}
    done = invoke(*arguments)
    assert (done.exit_code, done.stderr) == (0, skipped(3))


@pytest.mark.slow
def test_incomplete_results_are_still_reported(tmp_path: Path) -> None:
    """An incomplete result is kept, and the exit code still reports it."""
    samples, rate_hz = soundfile.read(SEVEN.path)
    soundfile.write(tmp_path / "cut.wav", samples, rate_hz)
    os.truncate(tmp_path / "cut.wav", 2 * len(samples) * 3 // 4)
    arguments = (*BASE, tmp_path / "cut.wav", "-o", tmp_path / "out")
    assert invoke(*arguments).exit_code == 4
    again = invoke(*arguments, "--resume")
    assert (again.exit_code, again.stderr.startswith(skipped(1)[:-1])) == (4, True)
    assert invoke(*arguments, "--resume", "--strict").exit_code == 1


def test_other_files_with_a_results_name_are_kept(pair: list[Path], tmp_path: Path) -> None:
    """Another program's file, a dangling link and a pipe count as existing; missing formats are written."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "0000.txt").write_text("mine")
    (out / "0001.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(out / "0000.srt")
    result = invoke(*BASE, *pair, "-o", out, "--resume")
    assert (result.exit_code, result.stderr) == (0, skipped(2))
    result = invoke(*BASE, pair[0], "-o", out, "-f", "txt,srt,md", "--resume", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert CLIPS[0].written in (out / "0000.md").read_text(encoding="utf-8")
    assert (out / "0000.txt").read_text() == "mine"
    assert (out / "0001.txt").is_symlink()
    assert not (tmp_path / "nowhere").exists()


# --- results that no longer match their recordings ---

SEVEN, OTHER = CLIPS[0], CLIPS[3]


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A recording, and a folder next to it with its results in two formats."""
    clip = shutil.copyfile(SEVEN.path, tmp_path / "rec.flac")
    assert invoke(*BASE, clip, "-o", tmp_path / "out", "-f", "txt,srt").exit_code == 0
    return Path(clip)


def again(clip: Path, *options: str) -> tuple[str, str]:
    """Resume; return the resulting text and the reason for a new result, if any. Only warnings may come before."""
    out = clip.parent / "out"
    result = invoke(*BASE, clip, "-o", out, "-f", "txt,srt", "--resume", *options)
    assert result.exit_code == 0, result
    reason = re.search("^replacing results, since (.*): .*$", result.stderr, re.MULTILINE)
    assert (reason is None) == (re.sub("^warning: .*\n", "", result.stderr) == skipped(1))
    return (out / "rec.txt").read_text(encoding="utf-8").strip(), reason[1] if reason else ""


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.slow
def test_a_recording_that_has_changed(done: Path) -> None:
    """It is newer, or older as after restoring a backup, or has the same time or the same size."""
    assert again(done) == (SEVEN.written, "")
    for clip, seconds in ((OTHER, 0), (SEVEN, 10**8), (OTHER, 10**8), (SEVEN, -(10**6))):
        shutil.copyfile(clip.path, done)
        age(done, seconds)
        assert again(done) == (clip.written, "the recording has changed")
        assert again(done) == (clip.written, "")


@pytest.mark.slow
def test_a_recording_that_grows_while_it_is_transcribed(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copyfile(OTHER.path, done)
    with monkeypatch.context() as patched:
        patched.setattr("funasr_cli.writers.write_new", lambda *given, **more: (
            shutil.copyfile(SEVEN.path, done), write_new(*given, **more)
        ))  # fmt: skip
        assert again(done)[0] == OTHER.written
    assert again(done) == (SEVEN.written, "the recording has changed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--lang", "en"), ("--no-itn",), ("--hotword", "seven"), ("--clip", "0-1.5"), ("--max-segment", "2"),
        ("--prev-text", "It is"), ("--vad-threshold", "0.4"), ("--timestamps", "segment"), ("--dtype", "bfloat16"),
    ],
)  # fmt: skip
def test_other_options(done: Path, options: tuple[str, ...]) -> None:
    assert again(done, *options)[1] == "the options have changed"
    assert again(done, *options)[1] == ""
    assert again(done)[1] == "the options have changed"


@pytest.mark.slow
def test_options_that_change_nothing(done: Path) -> None:
    assert again(done, "--batch-size", "3", "--draft", "off", "--device", "cpu", "--lang", "auto") == (
        SEVEN.written,
        "",
    )
    assert again(done, "--lang", "English")[1] != ""
    assert again(done, "--lang", "en")[1] == ""
    assert again(done, "--max-line-width", "20")[1] != "", "of the subtitles"
    arguments = (*BASE, done, "-o", done.parent / "out", "--resume")
    assert invoke(*arguments).stderr == skipped(1), "the text is the same"
    assert invoke(*arguments, "-f", "json").exit_code == 0
    assert invoke(*arguments, "-f", "json").stderr == skipped(1)
    assert invoke(*arguments, "-f", "json", "--confidence").stderr.startswith("replacing results")


@pytest.mark.slow
def test_another_model(done: Path, tmp_path: Path) -> None:
    """A model is identified by its content, not by its path or name; a missing model is an error."""
    model = shutil.copytree(demo.MODEL, tmp_path / "models/same")
    assert again(done, "--model", str(model)) == (SEVEN.written, "")
    edit_json(model / "config.json", lambda config: config["source"].update(sha256="another"))
    assert again(done, "--model", str(model))[1] == "the model has changed"
    result = invoke("transcribe", "-m", "nowhere", done, "-o", tmp_path / "out", "--resume")
    assert (result.exit_code, "nowhere" in result.stderr) == (3, True)


@pytest.mark.slow
def test_results_without_notes(done: Path) -> None:
    """Without notes (an older version, or manual edits) or with damaged notes, only a newer recording counts."""
    out = done.parent / "out"
    for content in (
        None,
        b"",
        b'{"file": "rec.txt"\n[1]\n\xff\n{"file": "rec.txt"}\n',
        b'"rec.txt"\n' * 3,
        b"[" * 200_000,
    ):
        (out / NOTES).unlink(missing_ok=True)
        if content is not None:
            (out / NOTES).write_bytes(content)
        age(done, 100)
        assert again(done, "--no-itn") == (SEVEN.written, "")
        age(done, -100)
        assert again(done) == (SEVEN.written, "the recording is newer")
        assert again(done) == (SEVEN.written, "")


@pytest.mark.slow
def test_results_that_have_been_edited(done: Path) -> None:
    """They are kept unless the recording is newer. An empty file counts as lost."""
    out = done.parent / "out"
    (out / "rec.txt").write_text("my own words\n", encoding="utf-8")
    assert again(done, "--no-itn") == ("my own words", "the options have changed"), "the subtitles"
    shutil.copyfile(OTHER.path, done)
    age(done, -100)
    assert again(done)[0] == OTHER.written
    (out / "rec.txt").write_bytes(b"")
    assert again(done) == (OTHER.written, "they are empty")


def test_a_pipe_may_hold_another_recording(tmp_path: Path) -> None:
    for clip in (SEVEN, OTHER):
        result = funasr(*BASE, "-", "-o", tmp_path / "out", "--resume", "-q", input=clip.path.read_bytes())
        assert (result.exit_code, result.stderr) == (0, "")
        assert (tmp_path / "out/stdin.txt").read_text() == f"{clip.written}\n"


@pytest.mark.slow
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_notes_that_cannot_be_written(done: Path, make: Callable[[Path], None]) -> None:
    """The run succeeds without them and reports it once."""
    (done.parent / "out" / NOTES).unlink()
    make(done.parent / "out" / NOTES)
    age(done, -100)
    assert again(done) == (SEVEN.written, "the recording is newer")
    assert again(done) == (SEVEN.written, "the recording is newer"), "its time is in the future"
    result = invoke(*BASE, done, "-o", done.parent / "out", "-f", "txt,srt", "--force")
    assert result.exit_code == 0
    assert result.stderr.count(f"warning: {done.parent / 'out' / NOTES}: ") == 1

"""Inputs that cannot be read, in whole or in part: exit code, error code, and what is transcribed all the same."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import summary
from support.media import write_media
from support.running import Result, funasr, invoke, tree

from funasr_cli import demo

CLIP = next(clip for clip in demo.clips() if clip.written == "792")
TEXT = CLIP.written
RATE_HZ = 16000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """(samples,) "792", a second of silence, "792" again."""
    samples = soundfile.read(CLIP.path, dtype="float32")[0]
    return np.concatenate([samples, np.zeros(RATE_HZ, np.float32), samples])


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, speech: np.ndarray) -> Path:
    """A folder of what is no recording, or no longer."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("a text, no recording\n")
    (folder / "text.mp3").write_text("a text, no recording\n" * 300)
    (folder / "page.mp4").write_text("<html><body>404</body></html>")
    (folder / "samples.raw").write_bytes(bytes(1000))
    (folder / "samples").write_bytes(bytes(1000))
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "gone.wav").symlink_to("nowhere.wav")
    write_media(folder / "film.mp4", "", np.zeros((0, 1)), pictures_s=1)
    whole = write_media(folder / "a.m4a", "aac", speech[:, None])
    (folder / "cut.m4a").write_bytes(whole.read_bytes()[:-2000])  # its table of contents stands at the end
    whole.unlink()
    return folder


@pytest.fixture
def here(bad: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(bad)
    return bad


UNREADABLE = {
    "empty.wav": "audio-empty",
    "text.wav": "audio-unreadable",
    "text.mp3": "audio-unreadable",
    "page.mp4": "audio-unreadable",
    "cut.m4a": "audio-unreadable",
    "samples": "audio-unreadable",
    "samples.raw": "audio-unreadable",
    "film.mp4": "audio-no-sound",
    "gone.wav": "audio-missing",
    "loop.wav": "audio-unreadable",
    "empty.wav/a.wav": "audio-unreadable",
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.usefixtures("here")
def test_unreadable(name: str, tmp_path: Path) -> None:
    """Whole or by its channels; nothing is written for it."""
    for options in ((), ("--channels", "split"), ("-o", tmp_path / "out"), ("--strict", "-f", "json")):
        result = invoke("transcribe", "-m", "demo", name, *options)
        result.assert_error(1, UNREADABLE[name], name)
        assert len(result.stderr.splitlines()) <= 3
    assert tree(tmp_path) == {}


@pytest.mark.usefixtures("here")
def test_unreadable_ones_beside_a_good_one() -> None:
    """All are named, in their order, and do not keep the good one from being transcribed."""
    names = list(UNREADABLE)
    result = funasr("transcribe", "-m", "demo", *names[:4], CLIP.path, *names[4:])
    assert [(message.split(":")[0], code) for code, message in result.errors] == list(UNREADABLE.items())
    assert (result.exit_code, result.stdout) == (1, f"{CLIP.path}: {TEXT}\n")
    assert result.stderr.endswith(f"{len(names)} of {len(names) + 1} inputs failed; {summary('0:02')}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_one_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(CLIP.path, "locked.flac")
    Path("calls/locked").mkdir(parents=True)
    for path in ("locked.flac", "calls/locked"):
        os.chmod(path, 0)
    try:
        for typed, name in ((("locked.flac",), "locked.flac"), (("calls", "-r"), "calls/locked")):
            invoke("transcribe", "-m", "demo", *typed).assert_error(1, "audio-unreadable", f"{name}: ")
    finally:
        os.chmod("calls/locked", 0o700)


# --- what breaks off ---


def cut_off(folder: Path, name: str, speech: np.ndarray) -> Path:
    """A recording of 4.3 s without its last third."""
    path = folder / name
    if name.endswith("mp4"):
        write_media(path, "aac", speech[:, None], options={"movflags": "faststart"})
    else:
        soundfile.write(path, speech, RATE_HZ, "PCM_16")
    os.truncate(path, path.stat().st_size * 7 // 10)
    return path


@pytest.mark.parametrize("options", [(), ("--strict",)])
@pytest.mark.parametrize("name", ["cut.wav", "cut.flac", "cut.mp4", "-"])
def test_recordings_that_break_off(name: str, options: tuple, tmp_path: Path, speech: np.ndarray) -> None:
    """What comes before is transcribed; --strict takes that for a failure."""
    path = cut_off(tmp_path, "cut.wav" if name == "-" else name, speech)
    if name == "-":
        result = funasr("transcribe", "-m", "demo", "-", *options, input=path.read_bytes())
    else:
        result = invoke("transcribe", "-m", "demo", path, *options)
    first, second = result.stdout.splitlines()
    assert (first, len(second)) == (TEXT, 1), "the second one has been cut in its middle"
    label = name if name == "-" else path
    assert result.exit_code == (1 if options else 4)
    assert result.stderr.startswith(f"warning: {label}: broke off after 3.")


# --- standard input ---


@pytest.mark.parametrize("options", [(), ("--channels", "split")])
def test_standard_input_that_is_no_recording(options: tuple[str, ...]) -> None:
    """Such as samples without a header, where --pcm is missing; or a terminal."""
    samples = (soundfile.read(CLIP.path)[0] * 32767).astype(np.int16).tobytes()
    for raw in (samples, samples[4000:]):  # which begin with zeros, and with sound
        result = funasr("transcribe", "-m", "demo", "-", *options, input=raw)
        result.assert_error(1, "audio-unreadable", "-: ", "--pcm s16le --rate 16000")
    controller, terminal = pty.openpty()
    result = funasr("transcribe", "-m", "demo", "-", *options, stdin=terminal)
    os.close(controller)
    os.close(terminal)
    result.assert_error(2, "stdin-terminal")


def allow_small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize("options", [(), ("--channels", "split")])
def test_no_room_for_standard_input(options: tuple[str, ...], tmp_path: Path) -> None:
    """FLAC is kept on disk until it is complete; nothing of it stays there."""
    result = funasr(
        "transcribe", "-m", "demo", "-", *options, input=CLIP.path.read_bytes(),
        env={"TMPDIR": str(tmp_path)}, preexec_fn=allow_small_files_only,
    )  # fmt: skip
    result.assert_error(1, "disk-full", "-: ", "TMPDIR")
    assert tree(tmp_path) == {}


# --- channels ---

with_named_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@with_named_pipes
def test_a_folder_for_temporary_files_that_is_gone(
    pipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    writer = threading.Thread(target=lambda: pipe.open("wb").close(), daemon=True)
    writer.start()
    result = invoke("transcribe", "-m", "demo", pipe, "--channels", "split")
    writer.join(60)
    result.assert_error(1, "disk-full", str(pipe), "TMPDIR")


@with_named_pipes
def test_a_channel_that_goes_away(pipe: Path, tmp_path: Path, speech: np.ndarray) -> None:
    """The file is another one by the time it is read: its channels have been counted before the pipe is opened."""
    call = tmp_path / "call.wav"
    soundfile.write(call, np.stack([speech, speech], axis=1), RATE_HZ)

    def exchange() -> None:
        with pipe.open("wb") as end:
            soundfile.write(call, speech, RATE_HZ)
            end.write(CLIP.path.read_bytes())

    writer = threading.Thread(target=exchange, daemon=True)
    writer.start()
    result = funasr("transcribe", "-m", "demo", call, pipe, "--channels", "split")
    writer.join(60)
    assert (result.exit_code, result.stdout) == (1, f"{call} [ch 1]: {TEXT}\n" * 2 + f"{pipe}: {TEXT}\n")
    [(code, message)] = result.errors
    assert (code, message.startswith(f"{call} [ch 2]: ")) == ("audio-channel", True)


@pytest.mark.slow
def test_a_channel_that_ends_within_the_file(tmp_path: Path, speech: np.ndarray) -> None:
    """AAC whose second half is mono."""
    path = tmp_path / "a.aac"
    halves = [write_media(path, "aac", np.stack([speech] * channels, axis=1)).read_bytes() for channels in (2, 1)]
    path.write_bytes(b"".join(halves))
    result = invoke("transcribe", "-m", "demo", path, "--channels", "split")
    stdout = f"{path} [ch 1]: {TEXT}\n" * 4 + f"{path} [ch 2]: {TEXT}\n" * 2
    stderr = f"warning: {path} [ch 2]: channel 2 ends within it\n{summary('0:09')}"
    assert result == Result(4, stdout, stderr)


# --- what is damaged ---

CASES = Path(__file__).parents[1] / "data" / "reports"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["damaged.m4a", "damaged.aac"])
def test_damage_is_told_and_what_follows_is_transcribed(name: str) -> None:
    """The lost moment is failed in the ledger; a part that does not hold it is whole."""
    result = invoke("transcribe", "-m", "demo", CASES / name, "-f", "json")
    assert result.exit_code == 4, result
    transcript = json.loads(result.stdout)
    ((start_s, end_s),) = transcript["lost"]
    assert 4.6 < start_s < end_s < 4.9
    assert transcript["ledger"]["failed_s"] == pytest.approx(end_s - start_s)
    assert sum(transcript["ledger"][f"{kind}_s"] for kind in ("transcribed", "repaired", "failed", "silence")) == (
        pytest.approx(transcript["duration_s"])
    )
    assert (transcript["complete"], transcript["fault"]) == (False, None)
    assert transcript["segments"][-1]["end_s"] == pytest.approx(9.55, abs=0.2)
    assert "100" not in result.stderr.splitlines()[-1]
    part = invoke("transcribe", "-m", "demo", CASES / name, "--clip", "6.5-10")
    assert part.exit_code == 0, part


def test_libraries_have_nothing_to_say() -> None:
    for name, code in (("page.mp3", 1), ("aac.mp3", 0), ("joined.mp3", 0)):
        result = funasr("transcribe", "-m", "demo", CASES / name, "-q")
        assert result.exit_code == code
        assert len(result.stderr.splitlines()) == code

"""Inputs that are partly or completely unreadable: exit code, error code, and what is still transcribed."""

from __future__ import annotations

import json
import os
import pty
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import summary
from support.media import write_media
from support.running import funasr, invoke, tree

from funasr_cli import demo

CLIP = next(clip for clip in demo.clips() if clip.written == "792")
TEXT = CLIP.written
RATE_HZ = 16000
CASES = Path(__file__).parents[1] / "data" / "reports"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Return (samples,): "792", a second of silence, "792" again."""
    samples = soundfile.read(CLIP.path, dtype="float32")[0]
    return np.concatenate([samples, np.zeros(RATE_HZ, np.float32), samples])


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, speech: np.ndarray) -> Path:
    """A folder of files that are not recordings, or damaged ones."""
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
    (folder / "cut.m4a").write_bytes(whole.read_bytes()[:-2000])  # its table of contents is at the end
    whole.unlink()
    return folder


@pytest.fixture
def here(bad: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(bad)
    return bad


UNREADABLE = {
    "empty.wav": "audio-empty", "text.wav": "audio-unreadable", "text.mp3": "audio-unreadable",
    "page.mp4": "audio-unreadable", "cut.m4a": "audio-unreadable", "samples": "audio-unreadable",
    "samples.raw": "audio-unreadable", "film.mp4": "audio-no-sound", "gone.wav": "audio-missing",
    "loop.wav": "audio-unreadable", "empty.wav/a.wav": "audio-unreadable",
}  # fmt: skip


@pytest.mark.parametrize(
    "options", ["", "--channels split", "-o out --output-template {stem}.{suffix}.{ext}", "--strict -f json"]
)
def test_unreadable(here: Path, options: str) -> None:
    """With and without --channels split, each is reported by name, in one or two lines, and nothing is written."""
    before = tree(here)
    result = invoke("transcribe", "-m", "demo", *UNREADABLE, *options.split())
    assert [(message.split(":")[0], code) for code, message in result.errors] == list(UNREADABLE.items())
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) <= 2 * len(UNREADABLE) + 1
    assert tree(here) == before


@pytest.mark.usefixtures("here")
def test_unreadable_inputs_next_to_a_good_one() -> None:
    """The good one is still transcribed, and libraries print no messages of their own."""
    names = list(UNREADABLE)
    result = funasr("transcribe", "-m", "demo", *names[:4], CLIP.path, *names[4:])
    assert [message.split(":")[0] for _, message in result.errors] == names
    assert (result.exit_code, result.stdout) == (1, f"{CLIP.path}: {TEXT}\n")
    assert result.stderr.endswith(f"{len(names)} of {len(names) + 1} inputs failed; {summary('0:02')}")
    quiet = funasr("transcribe", "-m", "demo", CASES / "page.mp3", CASES / "aac.mp3", CASES / "joined.mp3", "-q")
    assert (quiet.exit_code, len(quiet.stderr.splitlines())) == (1, 1)


def test_standard_input_without_a_recording() -> None:
    """Examples are samples without a header and without --pcm, and a terminal."""
    samples = (soundfile.read(CLIP.path)[0] * 32767).astype(np.int16).tobytes()
    for raw in (samples, samples[4000:]):  # starting with zeros, and with sound
        result = funasr("transcribe", "-m", "demo", "-", input=raw)
        result.assert_error(1, "audio-unreadable", "standard input: ", "--pcm s16le --rate 16000")
    controller, terminal = pty.openpty()
    result = funasr("transcribe", "-m", "demo", "-", "--channels", "split", stdin=terminal)
    os.close(controller)
    os.close(terminal)
    result.assert_error(2, "stdin-terminal")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
def test_a_channel_that_disappears(tmp_path: Path, speech: np.ndarray) -> None:
    """The file is replaced after its channels have been counted and before it is read."""
    call, pipe = tmp_path / "call.wav", tmp_path / "pipe"
    os.mkfifo(pipe)
    soundfile.write(call, np.stack([speech, speech], axis=1), RATE_HZ)

    def exchange() -> None:
        with pipe.open("wb") as end:
            soundfile.write(call, speech, RATE_HZ)
            end.write(CLIP.path.read_bytes())

    writer = threading.Thread(target=exchange, daemon=True)
    writer.start()
    result = funasr("transcribe", "-m", "demo", call, pipe, "--channels", "split")
    writer.join(60)
    assert (result.exit_code, result.stdout) == (
        1,
        f"{call} [ch 1]: Channel 1: {TEXT}\n" * 2 + f"{pipe}: {TEXT}\n",
    )
    [(code, message)] = result.errors
    assert (code, message.startswith(f"{call} [ch 2]: ")) == ("audio-channel", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["damaged.m4a", "damaged.aac"])
def test_damage_is_reported_and_the_rest_is_transcribed(name: str) -> None:
    """The damaged span is failed in the ledger. A part of the recording that does not contain it is complete."""
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

"""What libsndfile cannot read, through audioread: a program that takes ffmpeg's place plays its part."""

import os
import sys
import threading
import time
from pathlib import Path

import audioread
import numpy as np
import pytest
import soxr
from support.media import hum, write_media

from funasr_cli.audio.decode import load_audio, open_recording
from funasr_cli.errors import AudioError

RATE_HZ = 16000
FAKE = f"""#!{sys.executable}
import os, sys
if sys.argv[1:] == ["-version"]:
    sys.exit()
path = sys.argv[sys.argv.index("-i") + 1]
folder = os.path.dirname(path)
assert os.path.isabs(path), "such as http:a.m4a, which it would take for an address"
with open(folder + "/pid", "w") as file:
    file.write(str(os.getpid()))
with open(path, "rb") as file:
    head, samples = file.read().split(b"|", 1)
said, done, code = head.decode().split(";")
print("Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'a.m4a':", said, sep="\\n", file=sys.stderr, flush=True)
written = 0
while written < len(samples):
    written += os.write(1, samples[written : written + 50001])
    with open(folder + "/written", "w") as file:
        file.write(str(written))
print(done, file=sys.stderr, flush=True)
sys.exit(int(code))
"""
SAID = "Duration: 00:00:12.50, start: 0\nStream #0:0: Audio: aac (LC), {} Hz, {}, fltp, 64 kb/s"
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="on macOS Core Audio comes before ffmpeg"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:audioread"),  # for the modules that it imports
]


@pytest.fixture(autouse=True)
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program, alone on the PATH; audioread looks for it anew. PyAV is not there."""
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ffmpeg").write_text(FAKE)
    (tmp_path / "bin/ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    monkeypatch.setattr(audioread, "BACKENDS", [])


def write(
    path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, layout: str = "mono", done: str = "", code: int = 0
) -> Path:
    """A file that the program reads: what it is to say, and (samples, channels) int16."""
    said = SAID.format(rate_hz, layout)
    path.write_bytes(f"{said};{done};{code}|".encode() + samples.astype("<i2").tobytes())
    return path


def noise(samples: int, channels: int = 1) -> np.ndarray:
    """(samples, channels) int16."""
    return np.random.default_rng(0).integers(-(2**15), 2**15, (samples, channels), np.int16)


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1(side)", 6)])
def test_samples(tmp_path: Path, layout: str, channels: int) -> None:
    samples = noise(200_001, channels)
    recording = open_recording(write(tmp_path / "a.m4a", samples, RATE_HZ, layout), RATE_HZ)
    blocks = list(recording.blocks())
    np.testing.assert_allclose(np.concatenate(blocks), (samples / 2**15).mean(axis=1), atol=1e-6)
    assert [len(block) / RATE_HZ for block in blocks] == pytest.approx([10, 2.5], abs=0.5)
    assert recording.expected_s == 12.5


def test_another_rate(tmp_path: Path) -> None:
    samples = noise(50_000)
    got = load_audio(write(tmp_path / "a.m4a", samples, 44100), RATE_HZ).samples
    expected = soxr.resample(samples[:, 0] / np.float32(2**15), 44100, RATE_HZ, quality="HQ")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["-a.m4a", "http:a.m4a", "~a.m4a", "a\nb.m4a", os.fsdecode(b"\xff.m4a")])
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write(tmp_path / name, noise(1000))
    monkeypatch.chdir(tmp_path)
    assert len(load_audio(name, RATE_HZ).samples) == 1000


@pytest.mark.parametrize(
    ("done", "code"),
    [
        ("[mov @ 0x1] stream 0, offset 0x1: partial file", 0),
        ("[matroska @ 0x1] File ended prematurely", 0),
        ("", 1),
    ],
)
def test_broken_off(tmp_path: Path, done: str, code: int) -> None:
    write(tmp_path / "a.mp4", noise(80_000), done=done, code=code)
    blocks = open_recording(tmp_path / "a.mp4", RATE_HZ).blocks()
    assert len(next(blocks)) == 80_000
    with pytest.raises(AudioError, match=r"a\.mp4: broke off after 5\.0 of 12\.5 s"):
        next(blocks)


def test_shorter_than_its_header_says(tmp_path: Path) -> None:
    """No fault: a film may be longer than what is heard in it."""
    assert len(load_audio(write(tmp_path / "a.mp4", noise(80_000)), RATE_HZ).samples) == 80_000


def test_no_samples(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no samples in it"):
        load_audio(write(tmp_path / "a.m4a", noise(0)), RATE_HZ)


def test_nothing_is_read_ahead_without_end(tmp_path: Path) -> None:
    """And what is not wanted any more is ended at once."""
    samples = np.zeros((30_000_000, 1), np.int16)
    threads = threading.active_count()
    blocks = open_recording(write(tmp_path / "a.m4a", samples), RATE_HZ).blocks()
    next(blocks)
    time.sleep(0.5)
    while not (written := (tmp_path / "written").read_text()):  # just being written
        time.sleep(0.01)
    assert int(written) < 2_000_000
    open_files = len(os.listdir("/proc/self/fd"))
    blocks.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert len(os.listdir("/proc/self/fd")) == open_files - 2  # stdout and stderr
    assert threading.active_count() == threads


def test_no_audio_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"Stream #0:0: Video: h264;Output file does not contain any stream;1|")
    with pytest.raises(AudioError, match=r"not audio that can be read here"):
        open_recording(tmp_path / "a.mp4", RATE_HZ)


def test_neither_pyav_nor_ffmpeg(tmp_path: Path) -> None:
    """What to install is said in full."""
    path = write_media(tmp_path / "a.m4a", "aac", hum(RATE_HZ))
    (tmp_path / "bin/ffmpeg").unlink()
    with pytest.raises(AudioError) as caught:
        open_recording(path, RATE_HZ)
    assert caught.value.message == f"{path}: not audio that can be read here (Format not recognised)"
    assert caught.value.hint == ("m4a, mp4, webm and more need PyAV (pip install av) or ffmpeg on the PATH")

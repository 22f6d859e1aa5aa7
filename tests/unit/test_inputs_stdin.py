"""Standard input: any piped recording, read as it arrives, in a separate process."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from support.media import noise
from support.piping import DURATION_S, FORMATS, RATE_HZ, through_a_pipe, wav_header, write
from support.running import environment

from funasr_cli.audio.decode import load_audio, open_recording

# Prints the length of each block on arrival and the result at the end; stores the samples.
READ = """
import json, sys
import numpy as np
from funasr_cli.sources import open_input
from funasr_cli.errors import FunASRError
from funasr_cli.audio.pcm import PCMFormat
from funasr_cli.inputs import find_inputs

out, wanted = sys.argv[1], json.loads(sys.argv[2])
times = wanted.pop("times", 1)
pcm = PCMFormat(**wanted.pop("pcm")) if "pcm" in wanted else None

def say(**data):
    print(json.dumps(data), flush=True)

blocks = []
try:
    for input in find_inputs(["-"], pcm=pcm):
        source = open_input(input, 16000)
        say(name=source.name)
        for _ in range(times):
            for block in source.blocks():
                blocks.append(block)
                say(samples=len(block))
    say(end=True)
except FunASRError as error:
    say(error=error.message)
np.save(out, np.concatenate(blocks) if blocks else np.zeros(0, np.float32))
"""


class Child:
    """A process that reads its standard input."""

    def __init__(self, folder: Path, stdin: int | IO[bytes] = subprocess.PIPE, **wanted: object):
        self.kept = folder / "kept"  # for input that cannot be read immediately
        self.kept.mkdir(exist_ok=True)
        self._out = folder / "out.npy"
        command = [sys.executable, "-c", READ, str(self._out), json.dumps(wanted)]
        env = environment(TMPDIR=str(self.kept))
        self.process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, env=env)
        self.alarm = threading.Timer(120, self.process.kill)  # avoids waiting forever
        self.alarm.daemon = True
        self.alarm.start()

    def write(self, content: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def messages(self) -> Iterator[dict]:
        """Yield the process's messages as they arrive."""
        assert self.process.stdout
        return map(json.loads, self.process.stdout)

    def wait_until_it_stores_something(self) -> None:
        while not any(file.stat().st_size for file in self.kept.glob("funasr-*")):
            assert self.process.poll() is None
            time.sleep(0.01)

    def end(self) -> tuple[list[dict], np.ndarray]:
        """Close the input; return the remaining messages and the samples."""
        messages = list(self.messages())
        assert self.process.wait() == 0
        self.alarm.cancel()
        return messages, np.load(self._out)

    def feed(self, chunks: Iterable[bytes]) -> tuple[list[dict], np.ndarray]:
        """Pipe all chunks into the process."""

        def write() -> None:
            with self.process.stdin or open(os.devnull) as pipe:
                for chunk in chunks:
                    pipe.write(chunk)

        writer = threading.Thread(target=write)
        writer.start()
        result = self.end()
        writer.join()
        return result


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_every_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The result equals reading the file, here in this process, and nothing is left over."""
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "kept"))
    how, is_live = FORMATS[name]
    path = write(tmp_path / name, how, noise(DURATION_S * (48000 if how == "libopus" else RATE_HZ), 2))
    read = through_a_pipe(path.read_bytes())
    np.testing.assert_array_equal(read.samples, load_audio(path, RATE_HZ).samples)
    assert read.blocks == pytest.approx(24 if is_live else 2, abs=1)
    known_s = None if is_live and not name.endswith("wav") else open_recording(path, RATE_HZ).expected_s
    assert read.expected_s == (known_s and pytest.approx(known_s, abs=1e-3))
    assert (read.error, os.listdir(tmp_path / "kept")) == (None, [])


def test_input_is_stored_on_disk_meanwhile(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", {}, noise(60 * RATE_HZ))
    content = path.read_bytes()
    child = Child(tmp_path, times=2)
    child.write(content[: len(content) // 2])
    child.wait_until_it_stores_something()
    _, samples = child.feed([content[len(content) // 2 :]])
    once = load_audio(path, RATE_HZ).samples
    np.testing.assert_array_equal(samples, np.concatenate([once, once]))
    assert os.listdir(child.kept) == []


def test_stored_input_is_deleted_on_interruption(tmp_path: Path) -> None:
    child = Child(tmp_path)
    content = write(tmp_path / "a.flac", {}, noise(60 * RATE_HZ)).read_bytes()
    child.write(content)
    child.wait_until_it_stores_something()
    child.process.send_signal(signal.SIGINT)
    assert child.process.wait() != 0
    child.alarm.cancel()
    assert os.listdir(child.kept) == []


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100])
@pytest.mark.parametrize("container", ["raw", "wav"])
def test_blocks_arrive_while_it_is_recorded(tmp_path: Path, container: str, rate_hz: int) -> None:
    """The delay is at most a second: each block is only written after the previous one has been received."""
    second = (noise(rate_hz, 2) * 2**15).astype("<i2").tobytes()
    if container == "wav":
        child = Child(tmp_path)
        child.write(wav_header(0xFFFFFFFF, 2, rate_hz))
    else:
        child = Child(tmp_path, pcm={"encoding": "s16le", "sample_rate_hz": rate_hz, "channels": 2})
    got, messages = 0, child.messages()
    for written in range(1, 6):
        child.write(second)
        while got <= (written - 1) * RATE_HZ:
            got += next(messages).get("samples", 0)
    rest, _ = child.feed([])
    assert got + sum(line.get("samples", 0) for line in rest) == 5 * RATE_HZ


@pytest.mark.parametrize("name", ["b.mp3", "a.ogg"])
def test_blocks_of_compressed_input_arrive_while_it_is_recorded(tmp_path: Path, name: str) -> None:
    """For compressed input, the delay is some seconds."""
    how, _ = FORMATS[name]
    content = write(tmp_path / name, how, noise(30 * RATE_HZ)).read_bytes()
    child = Child(tmp_path)
    child.write(content[: len(content) // 2])
    got, messages = 0, child.messages()
    while got < 10 * RATE_HZ:
        got += next(messages).get("samples", 0)
    rest, _ = child.feed([content[len(content) // 2 :]])
    assert got + sum(line.get("samples", 0) for line in rest) == pytest.approx(30 * RATE_HZ, abs=2000)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a", "a.mp3"])
def test_file_as_standard_input(tmp_path: Path, name: str) -> None:
    how, _ = FORMATS[name]
    path = write(tmp_path / name, how, noise(DURATION_S * RATE_HZ))
    with path.open("rb") as file:
        messages, got = Child(tmp_path, stdin=file).end()
    np.testing.assert_array_equal(got, load_audio(path, RATE_HZ).samples)
    assert messages[-1] == {"end": True}


def test_closed_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READ, str(tmp_path / "out"), "{}"]
    done = subprocess.run(["sh", "-c", '"$0" "$@" <&-', *command], capture_output=True, env=environment())
    assert json.loads(done.stdout)["error"] == "nothing is piped to standard input"


@pytest.mark.parametrize("kind", ["a socket", "a pipe that does not wait"])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_other_things_than_a_pipe(tmp_path: Path, name: str, kind: str) -> None:
    """Other programs may pass such inputs, with no data available at first."""
    content = write(tmp_path / name, {}, noise(DURATION_S * RATE_HZ)).read_bytes()
    theirs, ours = (end.detach() for end in socket.socketpair()) if kind == "a socket" else os.pipe()
    os.set_blocking(theirs, kind == "a socket")
    child = Child(tmp_path, stdin=theirs)
    os.close(theirs)
    with open(ours, "wb", buffering=0) as file:
        file.write(content[:10_000])
        if name == "a.wav":
            assert next(child.messages())["name"] == "-"
        else:
            child.wait_until_it_stores_something()
        file.write(content[10_000:])
    messages, got = child.end()
    np.testing.assert_array_equal(got, load_audio(tmp_path / name, RATE_HZ).samples)
    assert messages[-1] == {"end": True}


@pytest.mark.slow
def test_no_end_after_two_gigabytes(tmp_path: Path) -> None:
    """libsndfile would stop there, at a size that means "unknown", after three hours of 48 kHz stereo, say."""
    channels, rate_hz, chunk = 64, 768_000, bytes(64 * 8 * 4096)
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, channels, rate_hz, 8 * channels * rate_hz, 8 * channels, 64)
    header = b"RIFF" + struct.pack("<I", 0x7FFFF024) + b"WAVE" + format + b"data" + struct.pack("<I", 0x7FFFF000)
    count = 2**31 // len(chunk) + 100
    messages, got = Child(tmp_path).feed([header, *[chunk] * count])
    assert messages[-1] == {"end": True}
    assert len(got) / RATE_HZ == pytest.approx(count * 4096 / rate_hz, abs=0.01)

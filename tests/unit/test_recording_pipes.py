"""What comes out of a pipe: as it comes, or when all is there, and always as from a file."""

import gc
import os
import resource
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.errors import refused
from support.media import noise
from support.piping import DURATION_S, FORMATS, LISTED, RATE_HZ, through_a_pipe, wav_header, write

from funasr_cli.audio.decode import load_audio, open_recording
from funasr_cli.audio.pcm import PCMFormat


def test_what_follows_the_samples_is_no_sound() -> None:
    samples = (noise(3 * RATE_HZ) * 2**15).astype("<i2").tobytes()
    read = through_a_pipe(wav_header(len(samples)) + samples + LISTED * 10)
    assert (len(read.samples), read.expected_s, read.error) == (3 * RATE_HZ, 3, None)
    header = wav_header(0)
    read = through_a_pipe(header[:4] + struct.pack("<I", 36 + len(LISTED)) + header[8:] + LISTED)
    assert (len(read.samples), read.message) == (0, "-: no samples in it")


@pytest.mark.parametrize("encoding", ["s16le", "s16be", "s24le", "s32le", "f32le", "u8", "mulaw"])
@pytest.mark.parametrize("rest", [b"", b"\1"])
def test_raw_samples(tmp_path: Path, encoding: str, rest: bytes) -> None:
    """The beginning of one more is left out."""
    subtypes = {"s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "u8": "PCM_U8", "mul": "ULAW"}
    endian = {"le": "LITTLE", "be": "BIG"}.get(encoding[-2:], "FILE")
    stored = tmp_path / "a.raw"
    samples = noise(12001, 2)
    soundfile.write(stored, samples, 8000, subtypes[encoding[:3]], endian, "RAW")
    pcm = PCMFormat(encoding, 8000, 2)
    read = through_a_pipe(stored.read_bytes() + rest, pcm)
    expected = list(open_recording(stored, RATE_HZ, pcm=pcm).blocks())
    np.testing.assert_array_equal(read.samples, np.concatenate(expected))
    assert (len(read.samples), read.expected_s, read.error) == (24002, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "b.ogg", "a.flac", "a.mkv"])
def test_it_breaks_off(tmp_path: Path, name: str) -> None:
    """Where it does so as a file."""
    path = write(tmp_path / name, FORMATS[name][0], noise(DURATION_S * RATE_HZ))
    os.truncate(path, int(path.stat().st_size * 0.62))
    with refused("audio-cut-short") as caught:
        load_audio(path, RATE_HZ)
    read = through_a_pipe(path.read_bytes())
    assert read.message == caught.value.message.replace(f"{path}:", "-:")
    assert float(read.message.split()[4]) == pytest.approx(len(read.samples) / RATE_HZ, abs=0.06)


@pytest.mark.parametrize("tag_bytes", [0, 3000, 5000, 1_000_000])
@pytest.mark.parametrize("name", ["a.mp3", "a.flac"])
def test_tags_in_front(tmp_path: Path, name: str, tag_bytes: int) -> None:
    """Such as a picture."""
    path = write(tmp_path / name, {}, noise(DURATION_S * RATE_HZ))
    size = bytes(tag_bytes >> shift & 127 for shift in (21, 14, 7, 0))
    tag = b"ID3\4\0\0" + size + bytes(tag_bytes)
    read = through_a_pipe(tag + tag + path.read_bytes())
    assert read.error is None
    np.testing.assert_array_equal(read.samples, load_audio(path, RATE_HZ).samples)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "audio-empty"), (b"a text, no recording\n" * 1000, "audio-unreadable"),
        (b"\xff\xfe" + "a text, no recording\n".encode("utf-16-le"), "audio-unreadable"),
        (b"RIFF", "audio-unreadable"), (wav_header(0xFFFFFFFF), "audio-empty"),
        (b"ID3\4\0\0\0\0\7\7", "audio-empty"), (b"ID3\4\0\0\0\0\7\7" + bytes(5000), "audio-unreadable"),
    ],
)  # fmt: skip
def test_no_recording(content: bytes, code: str) -> None:
    read = through_a_pipe(content)
    assert read.error is not None
    assert (read.error.code, len(read.samples)) == (code, 0)
    assert read.message.startswith("-: ")


def test_no_room_for_what_must_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    content = write(tmp_path / "a.flac", {}, noise(100)).read_bytes()
    error = through_a_pipe(content).error
    assert error is not None
    assert error.message.startswith("-: cannot be kept on disk until it is read (")
    assert f"{tmp_path}/nowhere" in error.message
    assert "TMPDIR" in error.hint


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays on it, even while the error is there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    content = write(tmp_path / "a.flac", {}, noise(DURATION_S * RATE_HZ)).read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        error = through_a_pipe(content).error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error is not None
    assert error.message == "-: cannot be kept on disk until it is read ([Errno 27] File too large)"
    assert os.listdir(tmp_path / "kept") == []


@pytest.mark.slow
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_another_stream_follows(tmp_path: Path, subtype: str) -> None:
    """As in a broadcast, which begins a new one with every title."""
    contents = []
    for seconds in (DURATION_S, 5):
        soundfile.write(tmp_path / "a.ogg", noise(seconds * RATE_HZ), RATE_HZ, subtype)
        contents.append((tmp_path / "a.ogg").read_bytes())
    read = through_a_pipe(b"".join(contents))
    assert read.error is None
    assert len(read.samples) / RATE_HZ == pytest.approx(DURATION_S + 5, abs=0.1)


@pytest.fixture
def all_closed() -> Iterator[None]:
    """Afterwards nothing is open, and no thread runs, that did not before."""
    gc.collect()
    before, threads = len(os.listdir("/dev/fd")), set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(60)
        assert not thread.is_alive()
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.slow
@pytest.mark.usefixtures("all_closed")
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "text", "nothing"])
def test_nothing_stays_open(tmp_path: Path, name: str) -> None:
    contents = {"text": b"\xff\xfb" + b"a text" * 1000, "nothing": b""}
    content = contents.get(name) or (write(tmp_path / name, {}, noise(5000)).read_bytes() if "." in name else b"")
    read = through_a_pipe(content)  # with an error, its traceback, and whatever that holds on to
    assert bool(read.error) == ("." not in name)


@pytest.mark.usefixtures("all_closed")
@pytest.mark.parametrize("blocks", [0, 1])
def test_nothing_stays_open_where_nobody_reads_on(blocks: int) -> None:
    """Though more is to come than a pipe holds."""
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), open(writing, "wb", buffering=0) as pipe:
            pipe.write(wav_header(0xFFFFFFFF) + bytes(5_000_000))

    threading.Thread(target=feed).start()
    recording = open_recording(f"/dev/fd/{reading}", RATE_HZ)
    assert len(list(islice(recording.blocks(), blocks))) == blocks
    os.close(reading)

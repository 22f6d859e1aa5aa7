"""Headers that state too much, too little or nothing: all sound is read, and missing sound is reported."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.errors import refused
from support.media import noise, read
from support.piping import LISTED, RATE_HZ, through_a_pipe, wav_header

from funasr_cli.audio.decode import load_audio, open_recording

SECONDS = 3
SAMPLES = SECONDS * RATE_HZ
CASES = Path(__file__).parents[1] / "data" / "reports"
FAMILIES = {  # name -> format and byte order; position and format of the size of the samples
    "wav": ("WAV", "FILE", b"data", 4, "<I"), "rifx": ("WAV", "BIG", b"data", 4, ">I"),
    "wavex": ("WAVEX", "FILE", b"data", 4, "<I"), "rf64": ("RF64", "FILE", b"ds64", 16, "<Q"),
    "w64": ("W64", "FILE", b"data\xf3", 16, "<q"), "aiff": ("AIFF", "FILE", b"SSND", 4, ">I"),
    "au": ("AU", "FILE", b".snd", 8, ">I"), "caf": ("CAF", "FILE", b"data", 4, ">q"),
}  # fmt: skip
WRITERS_GUESSES = [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFF000, 0x7FFFFFFF, 0x80000000]


def stored(name: str, samples: np.ndarray, rate_hz: int = RATE_HZ) -> bytes:
    format, endian, *_ = FAMILIES[name]
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, "PCM_16", endian, format)
    return file.getvalue()


def stating(name: str, content: bytes, size: int, change: int) -> bytes:
    """Return the content with another size in its header."""
    *_, key, offset, kind = FAMILIES[name]
    at = content.index(key) + offset
    before = struct.unpack_from(kind, content, at)[0]
    assert before >= size - 100
    return content[:at] + struct.pack(kind, before + change) + content[at + struct.calcsize(kind) :]


def whole(name: str, seconds: int = SECONDS) -> tuple[bytes, np.ndarray]:
    samples = noise(seconds * RATE_HZ)
    content = stored(name, samples)
    return content, soundfile.read(io.BytesIO(content), dtype="float32")[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_more_than_is_stated(tmp_path: Path, name: str) -> None:
    """The recorder never updated its header."""
    content, samples = whole(name)
    (tmp_path / "a").write_bytes(stating(name, content, 2 * SAMPLES, -2 * 2 * RATE_HZ))
    got = load_audio(tmp_path / "a", RATE_HZ).samples
    if name == "caf":  # its other chunks come first
        got = got[: len(samples)]
    np.testing.assert_array_equal(got, samples)
    assert open_recording(tmp_path / "a", RATE_HZ).expected_s == pytest.approx(SECONDS)
    part = np.concatenate(list(open_recording(tmp_path / "a", RATE_HZ, clip=(2.5, None)).blocks()))
    np.testing.assert_array_equal(part[: RATE_HZ // 2], samples[5 * RATE_HZ // 2 :])


@pytest.mark.parametrize("name", FAMILIES)
def test_less_than_is_stated(tmp_path: Path, name: str) -> None:
    content, samples = whole(name)
    (tmp_path / "a").write_bytes(content[: len(content) - 2 * RATE_HZ])
    got, error = read(tmp_path / "a")
    assert error is not None
    assert (error.code, "2.0 of 3.0 s" in error.message) == ("audio-cut-short", True)
    np.testing.assert_array_equal(got, samples[: len(got)])
    assert open_recording(tmp_path / "a", RATE_HZ).expected_s == pytest.approx(SECONDS)


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1])
@pytest.mark.parametrize("name", ["rf64", "w64", "caf"])
def test_sizes_of_64_bits_that_no_file_has(tmp_path: Path, name: str, size: int) -> None:
    content, samples = whole(name)
    (tmp_path / "a").write_bytes(stating(name, content, 2 * SAMPLES, size - 2 * SAMPLES - 100))
    got, error = read(tmp_path / "a")
    assert error is None
    np.testing.assert_array_equal(got, samples)


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 8000])
@pytest.mark.parametrize("name", FAMILIES)
def test_another_recording_after_it(tmp_path: Path, name: str, rate_hz: int) -> None:
    """This happens with `cat a.wav b.wav`, also with another sample rate."""
    content, samples = whole(name)
    (tmp_path / "a").write_bytes(content + stored(name, noise(2 * rate_hz), rate_hz))
    got = load_audio(tmp_path / "a", RATE_HZ).samples
    assert len(got) == SAMPLES + 2 * RATE_HZ
    np.testing.assert_array_equal(got[:SAMPLES], samples)
    assert open_recording(tmp_path / "a", RATE_HZ).expected_s == pytest.approx(SECONDS + 2)


@pytest.mark.parametrize("name", ["wav", "rifx", "aiff"])
def test_other_chunks_are_not_sound(tmp_path: Path, name: str) -> None:
    content, samples = whole(name)
    chunk = b"LIST" + struct.pack(FAMILIES[name][4], 40_001) + b"INFO" + b"\x7f" * 39_998
    (tmp_path / "a").write_bytes(content + chunk * 2)
    np.testing.assert_array_equal(load_audio(tmp_path / "a", RATE_HZ).samples, samples)


@pytest.mark.parametrize("loops", [1, 2])
def test_sizes_that_have_wrapped(tmp_path: Path, loops: int) -> None:
    """Above 4 GB, a 32-bit size wraps around. Only the end is read, exactly to the last sample."""
    rate_hz, channels = 768_000, 64
    frame_bytes = 8 * channels
    tail = np.repeat(noise(rate_hz // 100), channels, axis=1)
    total = loops * 2**32 + 20 * frame_bytes
    header = wav_header(total % 2**32, channels, rate_hz)
    format = struct.pack("<HHIIHH", 3, channels, rate_hz, rate_hz * frame_bytes, frame_bytes, 64)
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(header[:20] + format + header[36:])
        file.seek(44 + total - len(tail) * frame_bytes)
        file.write(tail.astype("<f8").tobytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    recording = open_recording(path, rate_hz)
    assert recording.expected_s == pytest.approx(total / frame_bytes / rate_hz)
    start_s = (total // frame_bytes - len(tail)) / rate_hz
    got = np.concatenate(list(open_recording(path, rate_hz, clip=(start_s, None)).blocks()))
    np.testing.assert_allclose(got, tail[:, 0], atol=1e-7)


@pytest.mark.parametrize("size", [0, *WRITERS_GUESSES])
@pytest.mark.parametrize("extra", [b"", LISTED])
@pytest.mark.parametrize("through", ["file", "pipe"])
def test_sizes_that_stand_for_unknown(tmp_path: Path, size: int, through: str, extra: bytes) -> None:
    """ffmpeg, sox and arecord write them to a pipe; zero comes from a recorder that lost power."""
    samples = (noise(SAMPLES) * 2**15).astype("<i2")
    content = wav_header(size, extra=extra) + samples.tobytes()
    (tmp_path / "a.wav").write_bytes(content)
    got = load_audio(tmp_path / "a.wav", RATE_HZ) if through == "file" else through_a_pipe(content)
    np.testing.assert_array_equal(got.samples, samples[:, 0] / np.float32(2**15))
    assert through == "file" or (got.expected_s, got.error) == (None, None)


@pytest.mark.parametrize("after", ["sound", "recording", "chunks"])
def test_data_after_the_stated_size_in_a_pipe(after: str) -> None:
    content, samples = whole("wav")
    contents = {
        "sound": stating("wav", content, 2 * SAMPLES, -2 * RATE_HZ), "recording": content + content,
        "chunks": content + b"LIST" + struct.pack("<I", 4) + b"INFO",
    }  # fmt: skip
    piped = through_a_pipe(contents[after])
    assert piped.error is None
    np.testing.assert_array_equal(piped.samples, np.tile(samples, 2 if after == "recording" else 1))


@pytest.mark.parametrize(("name", "seconds"), [("short_header", 9.94), ("two_wavs", 19.88)])
def test_reported(name: str, seconds: float) -> None:
    samples = load_audio(CASES / f"{name}.wav", RATE_HZ).samples
    assert len(samples) / RATE_HZ == pytest.approx(seconds, abs=0.01)
    piped = through_a_pipe((CASES / f"{name}.wav").read_bytes())
    assert piped.error is None
    np.testing.assert_array_equal(piped.samples, samples)


def test_no_samples_but_other_data_after_them(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE_HZ)
    data = (tmp_path / "a.wav").read_bytes() + b"LIST" + struct.pack("<I", 100) + bytes(100)
    (tmp_path / "a.wav").write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    with refused("audio-empty"):
        load_audio(tmp_path / "a.wav", RATE_HZ)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate_hz", "channels"), [(1, 1), (999, 1), (2**31 - 1, 1), (2**31 - 1, 1024), (0, 1), (8000, 0)]
)
def test_invalid_headers(tmp_path: Path, rate_hz: int, channels: int) -> None:
    """The stated size allocates no memory."""
    header = wav_header(4096, channels, 1)
    (tmp_path / "a.wav").write_bytes(header[:24] + struct.pack("<I", rate_hz) + header[28:] + bytes(4096))
    _, error = read(tmp_path / "a.wav")
    assert error is not None
    assert ("a sample rate of" in error.message) == (rate_hz in (1, 999))


@pytest.mark.parametrize("name", ["wav", "flac"])
def test_a_file_that_grows_while_it_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a.{name}"
    soundfile.write(path, noise(32 * RATE_HZ), RATE_HZ)
    blocks = open_recording(path, RATE_HZ).blocks()
    count = len(next(blocks))
    with path.open("ab") as file:
        file.write(bytes(100_000))
    assert count + sum(map(len, blocks)) == 32 * RATE_HZ

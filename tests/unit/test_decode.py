"""Decoding of audio files and arrays, valid and invalid."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from support.errors import refused

from funasr_cli.audio.decode import Audio, from_array, load_audio

RATE_HZ = 16000
FILES = [  # name, subtype, largest error of a sample
    ("a.wav", "PCM_16", 1e-4), ("a.wav", "PCM_24", 1e-6), ("a.wav", "PCM_32", 1e-6), ("a.wav", "FLOAT", 0.0),
    ("a.wav", "DOUBLE", 1e-7), ("a.wav", "PCM_U8", 1e-2), ("a.wav", "ULAW", 5e-2), ("a.flac", "PCM_16", 1e-4),
    ("a.aiff", "PCM_16", 1e-4), ("a.aiff", "PCM_S8", 1e-2), ("a.caf", "PCM_16", 1e-4), ("a.au", "PCM_16", 1e-4),
    ("a.w64", "PCM_16", 1e-4), ("a.ogg", "VORBIS", 0.2), ("a.mp3", "MPEG_LAYER_III", 0.2),
]  # fmt: skip


UNKNOWN = ("zeros", "blanks", "ffmpeg")  # for "ffmpeg", the hint is to convert the file with it


def tone(rate_hz: int, duration_s: float = 0.5) -> np.ndarray:
    """Return a 440 Hz tone, (samples,)."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate_hz * duration_s)) / rate_hz)).astype(np.float32)


@pytest.mark.parametrize(("name", "subtype", "tolerance"), FILES)
def test_formats(tmp_path: Path, name: str, subtype: str, tolerance: float) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(RATE_HZ), RATE_HZ, subtype)
    before = path.read_bytes()
    audio = load_audio(path, RATE_HZ)
    assert audio.name == str(path)
    assert audio.sample_rate_hz == RATE_HZ
    assert audio.samples.dtype == np.float32
    assert audio.samples.ndim == 1
    # MP3 pads at both ends, so compare at the offset of the best match.
    lag = np.argmax(np.correlate(audio.samples, tone(RATE_HZ), "full")) - (len(tone(RATE_HZ)) - 1)
    assert 0 <= lag <= (2000 if name.endswith("mp3") else 0)
    got = audio.samples[lag : lag + len(tone(RATE_HZ))]
    assert np.abs(got - tone(RATE_HZ)[: len(got)]).max() <= tolerance
    assert path.read_bytes() == before


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 44100, 48000, 96000])
def test_sample_rates(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(rate_hz), rate_hz, "FLOAT")
    audio = load_audio(path, RATE_HZ)
    assert audio.duration_s == pytest.approx(0.5, abs=1e-3)
    middle = slice(1000, 7000)  # away from the filter's edges
    np.testing.assert_allclose(audio.samples[middle], tone(RATE_HZ)[middle], atol=1e-3)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_mixed_evenly(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "a.wav"
    samples = np.zeros((1000, channels), np.float32)
    samples[:, -1] = tone(RATE_HZ)[:1000]
    soundfile.write(path, samples, RATE_HZ, "FLOAT")
    np.testing.assert_allclose(load_audio(path, RATE_HZ).samples, samples[:, -1] / channels, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing.wav", "audio-missing"), ("link.wav", "audio-missing"), ("", "audio-folder"),
        ("a" * 300, "audio-unreadable"), ("empty.wav/a.wav", "audio-unreadable"), ("empty.wav", "audio-empty"),
        (os.devnull, "audio-empty"), ("silent.wav", "audio-empty"),
        pytest.param("closed.wav", "audio-unreadable", marks=pytest.mark.skipif(os.geteuid() == 0, reason="root")),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(tmp_path: Path, name: str, code: str) -> None:
    for each in ("empty.wav", "closed.wav"):
        (tmp_path / each).touch()
    (tmp_path / "closed.wav").chmod(0)
    (tmp_path / "link.wav").symlink_to("nowhere")
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), RATE_HZ)
    with refused(code, tmp_path / name):
        load_audio(tmp_path / name, RATE_HZ)


def test_a_few_missing_samples_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(RATE_HZ), RATE_HZ, "FLOAT")
    path.write_bytes(path.read_bytes()[:-1001])
    samples = load_audio(path, RATE_HZ).samples
    assert 7700 < len(samples) < 8000
    np.testing.assert_array_equal(samples, tone(RATE_HZ)[: len(samples)])


@pytest.mark.parametrize("ending", ["mp3", "wav", "raw", "flac", "txt", "mp4", "aac", "ac3", "ogg"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!-- a proxy -->\n<html></html>", "HTML"), (b"\r\n<HEAD><title>", "HTML"), (b"<script>x", "HTML"),
        ("<html>".encode("utf-16"), "HTML"), ("\ufeff<!DOCTYPE html>".encode("utf-16-be"), "HTML"),
        (b"<?php echo 1", "PHP"), (b'[{"error": 1}]', "JSON"), (b"{}", "JSON"), (b'{\n  "error": 1}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\nhttp://127.0.0.1:9/a.ts\n", "playlist"), (b"<svg xmlns='x'>", "XML"),
        (bytes(5000), "zeros"), (b"  \n" * 20, "blanks"), (b"a text file, no recording\n" * 20, "text"),
        (b"RIFF", "ffmpeg"), (b"RIFF" + bytes(4) + b"WAVE", "ffmpeg"), (b"fLaC" + bytes(60), "ffmpeg"),
        (b"fLaC\xff" * 9, "ffmpeg"), ("好".encode() * 5000, "text"), (b"a text\n" * 5000, "text"),
        (b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 5000, "text"), ("好".encode(), "ffmpeg"),
        (b"<html>" * 5000, "HTML"),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_the_error_names_the_real_type(tmp_path: Path, content: bytes, kind: str, ending: str) -> None:
    """The file's name does not matter. Without a header, a file may begin with silence or with unknown bytes.

    FFmpeg takes a long text for telephone samples.
    """
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    with refused("audio-unreadable", path, "--pcm" if ending == "raw" and kind in UNKNOWN else kind):
        load_audio(path, RATE_HZ)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -2e6])
def test_samples_that_are_not_numbers(tmp_path: Path, value: float) -> None:
    """A few become silence and are reported; a file with nothing else is refused."""
    samples = np.tile(tone(RATE_HZ)[:, None], (1, 2))
    samples[4000:4003] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    for audio in (load_audio(tmp_path / "a.wav", RATE_HZ), from_array(samples, RATE_HZ, RATE_HZ)):
        expected = tone(RATE_HZ)
        expected[[4000, 4001, 4002]] = 0
        np.testing.assert_allclose(audio.samples, expected, atol=1e-7)
        assert audio.findings.nonfinite == 3
        assert "3 samples" in "".join(audio.findings.warnings)
    samples[: len(samples) // 2 + 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    with refused("audio-damaged", tmp_path / "a.wav"):
        load_audio(tmp_path / "a.wav", RATE_HZ)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"])
def test_integer_arrays(dtype: str) -> None:
    bounds = np.iinfo(dtype)
    middle = 0 if bounds.min else bounds.max // 2 + 1
    samples = from_array(np.array([bounds.min, middle, bounds.max], dtype), RATE_HZ, RATE_HZ).samples
    np.testing.assert_allclose(samples, [-1, 0, 1], atol=2 / 2**8)
    assert samples[1] == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_arrays(dtype: str) -> None:
    audio = from_array(np.full(100, 0.5, dtype), RATE_HZ, RATE_HZ, name="x")
    assert audio.samples.dtype == np.float32
    assert audio.samples.tolist() == [0.5] * 100
    assert len(from_array(np.zeros(300, dtype), 48000, RATE_HZ).samples) == 100


@pytest.mark.parametrize(
    ("samples", "rate_hz", "code", "value"),
    [
        (np.zeros((2, 2, 2)), RATE_HZ, "audio-array", 3), (np.zeros(()), RATE_HZ, "audio-array", 0),
        (np.zeros(0), RATE_HZ, "audio-empty", ""), (np.zeros((5, 0)), RATE_HZ, "audio-empty", ""),
        (np.zeros(5), 0, "audio-array", 0), (np.zeros(5), -1, "audio-array", -1),
        (np.zeros(5, complex), RATE_HZ, "audio-array", "complex128"),
        (np.zeros(5, bool), RATE_HZ, "audio-array", "bool"), (np.array(["a"]), RATE_HZ, "audio-array", "<U1"),
        (np.array([1e300]), RATE_HZ, "audio-damaged", ""),
        (np.array([[np.inf, -np.inf]]), RATE_HZ, "audio-damaged", ""),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_arrays_refused(samples: np.ndarray, rate_hz: int, code: str, value: object) -> None:
    with refused(code, value):
        from_array(samples, rate_hz, RATE_HZ)


@given(st.integers(1, 400), st.integers(1, 3), st.sampled_from([8000, 16000, 44100]))
def test_any_length_is_decoded(length: int, channels: int, rate_hz: int) -> None:
    audio = from_array(np.ones((length, channels)), rate_hz, RATE_HZ)
    assert abs(len(audio.samples) - length * RATE_HZ / rate_hz) <= 1
    assert np.isfinite(audio.samples).all()


@pytest.mark.parametrize("duration_s", [0.1, 10.0, 25.0])
def test_blocks_of_samples_in_memory(duration_s: float) -> None:
    audio = from_array(tone(RATE_HZ, duration_s), RATE_HZ, RATE_HZ, "x")
    blocks = list(audio.blocks())
    np.testing.assert_array_equal(np.concatenate(blocks), audio.samples)
    assert [len(block) for block in blocks[:-1]] == [10 * RATE_HZ] * int((duration_s - 0.1) / 10)
    assert audio.expected_s == audio.duration_s == duration_s


def test_blocks_of_no_samples() -> None:
    with refused("audio-empty", "x"):
        next(Audio("x", np.zeros(0, np.float32), RATE_HZ).blocks())

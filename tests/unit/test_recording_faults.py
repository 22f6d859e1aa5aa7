"""Files that are damaged, cut off or changed while they are read: the good part, then an error that says where."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.piping import mp3_of_unknown_length

from funasr_cli.audio.decode import load_audio, open_recording
from funasr_cli.errors import AudioError

RATE_HZ = 16000
DURATION_S = 32
SAMPLES = DURATION_S * RATE_HZ
BY_HEADER = ["wav", "aiff", "au", "rf64"]  # damaged in the middle, they just sound wrong
BY_CONTENT = ["flac", "mp3", "ogg", "opus"]


def write(folder: Path, format: str) -> Path:
    """Half a minute of noise."""
    path = folder / f"a.{format}"
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, SAMPLES)
    container, subtype = {"rf64": ("RF64", "PCM_16"), "opus": ("OGG", "OPUS")}.get(format, (None, None))
    soundfile.write(path, samples, RATE_HZ, subtype, format=container)
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format -> a file that is in order."""
    folder = tmp_path_factory.mktemp("originals")
    return {format: write(folder, format) for format in BY_HEADER + BY_CONTENT}


def read(path: Path) -> tuple[np.ndarray, AudioError | None]:
    """(samples,) what could be read, and how it ended."""
    blocks = [np.zeros(0, np.float32)]
    try:
        blocks.extend(open_recording(path, RATE_HZ).blocks())  # what came before an error is kept
    except AudioError as error:
        return np.concatenate(blocks), error
    return np.concatenate(blocks), None


def broke_off(path: Path, expected_s: float | None = DURATION_S) -> tuple[np.ndarray, float]:
    """(samples,) the good part of a damaged file, and the second at which the message says that it broke off."""
    samples, error = read(path)
    assert error is not None
    of = "" if expected_s is None else f" of {expected_s:.1f}"
    found = re.fullmatch(
        re.escape(f"{path}: broke off after ") + r"(\d+\.\d)" + re.escape(f"{of} s"), error.message
    )
    assert found, error.message
    assert error.hint == "the file is damaged or incomplete"
    assert open_recording(path, RATE_HZ).expected_s == (expected_s and pytest.approx(expected_s, abs=0.01))
    assert float(found[1]) == pytest.approx(len(samples) / RATE_HZ, abs=0.06)
    return samples, float(found[1])


@pytest.mark.parametrize("format", BY_HEADER + BY_CONTENT)
def test_a_file_in_order_is_no_fault(originals: dict[str, Path], format: str) -> None:
    samples, error = read(originals[format])
    assert error is None
    assert len(samples) == SAMPLES


@pytest.mark.parametrize("format", BY_HEADER + BY_CONTENT)
@pytest.mark.parametrize("share", [0.3, 0.62, 0.95])
def test_cut_off(originals: dict[str, Path], tmp_path: Path, format: str, share: float) -> None:
    data = originals[format].read_bytes()
    path = tmp_path / originals[format].name
    path.write_bytes(data[: int(len(data) * share)])
    # Ogg states its length at the end, which is gone.
    samples, broke_off_s = broke_off(path, None if format in ("ogg", "opus") else DURATION_S)
    assert broke_off_s == pytest.approx(DURATION_S * share, abs=2)
    intact = load_audio(originals[format], RATE_HZ).samples
    np.testing.assert_allclose(samples, intact[: len(samples)], atol=1e-6)


def zeros(data: bytearray, start: int) -> None:
    data[start : start + 3000] = bytes(3000)


def garbage(data: bytearray, start: int) -> None:
    data[start : start + 3000] = np.random.default_rng(0).bytes(3000)


def removed(data: bytearray, start: int) -> None:
    del data[start : start + 3000]


@pytest.mark.parametrize("format", BY_CONTENT)
@pytest.mark.parametrize("damage", [zeros, garbage, removed])
def test_damaged_in_the_middle(
    originals: dict[str, Path], tmp_path: Path, format: str, damage: Callable[[bytearray, int], None]
) -> None:
    """FLAC ends there; the others may go on, and end too early."""
    data = bytearray(originals[format].read_bytes())
    damage(data, len(data) // 2)
    path = tmp_path / originals[format].name
    path.write_bytes(data)
    samples, broke_off_s = broke_off(path)
    assert DURATION_S / 2 - 2 < broke_off_s < (DURATION_S / 2 + 0.5 if format == "flac" else DURATION_S)
    good = int((DURATION_S / 2 - 2) * RATE_HZ)
    np.testing.assert_allclose(samples[:good], load_audio(originals[format], RATE_HZ).samples[:good], atol=1e-6)


def inserted(data: bytearray, start: int) -> None:
    data[start:start] = np.random.default_rng(0).bytes(3000)


@pytest.mark.parametrize("damage", [zeros, garbage, inserted])
def test_mp3_that_does_not_say_how_long_it_is(tmp_path: Path, damage: Callable[[bytearray, int], None]) -> None:
    data = bytearray(mp3_of_unknown_length(np.random.default_rng(0).uniform(-0.3, 0.3, (SAMPLES, 1))))
    damage(data, len(data) // 2)
    (tmp_path / "a.mp3").write_bytes(data)
    assert broke_off(tmp_path / "a.mp3", None)[1] == pytest.approx(DURATION_S / 2, abs=0.5)


@pytest.mark.parametrize(("rate_hz", "channels"), [(1, 1), (2**31 - 1, 1), (2**31 - 1, 1024), (0, 1), (8000, 0)])
def test_headers_that_cannot_be(tmp_path: Path, rate_hz: int, channels: int) -> None:
    """Memory is not taken by what they say."""
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate_hz, 0, 2 * channels, 16)
    header = b"RIFF" + struct.pack("<I", 36 + 4096) + b"WAVE" + format + b"data" + struct.pack("<I", 4096)
    (tmp_path / "a.wav").write_bytes(header + bytes(4096))
    samples, error = read(tmp_path / "a.wav")
    if rate_hz == 1:
        assert (len(samples), error) == (2048 * RATE_HZ, None)
    else:
        assert error is not None


@pytest.mark.parametrize("rate_hz", [8000, 48000])
def test_the_good_part_is_resampled_to_its_end(tmp_path: Path, rate_hz: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(20 * rate_hz), rate_hz)
    os.truncate(tmp_path / "a.wav", 44 + 2 * 15 * rate_hz)
    samples, broke_off_s = broke_off(tmp_path / "a.wav", 20)
    assert (len(samples), broke_off_s) == (15 * RATE_HZ, 15)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFF000, 0x7FFFFFFF, 0x80000000])
def test_sizes_that_stand_for_unknown(originals: dict[str, Path], tmp_path: Path, size: int) -> None:
    """As written by programs that write into a pipe."""
    data = bytearray(originals["wav"].read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(data)
    samples, error = read(tmp_path / "a.wav")
    assert error is None
    assert len(samples) == SAMPLES


def test_a_header_that_was_never_filled_in(originals: dict[str, Path], tmp_path: Path) -> None:
    """As left behind by a recorder that lost its power; libsndfile alone sees no samples there."""
    data = bytearray(originals["wav"].read_bytes())
    data[4:8] = data[40:44] = bytes(4)
    (tmp_path / "a.wav").write_bytes(data)
    assert soundfile.info(tmp_path / "a.wav").frames == 0
    samples, error = read(tmp_path / "a.wav")
    assert error is None
    np.testing.assert_array_equal(samples, load_audio(originals["wav"], RATE_HZ).samples)


def test_an_empty_wav_with_something_behind(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE_HZ)
    data = (tmp_path / "a.wav").read_bytes() + b"LIST" + struct.pack("<I", 100) + bytes(100)
    (tmp_path / "a.wav").write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    assert read(tmp_path / "a.wav")[1].message.endswith(": no samples in it")  # type: ignore[union-attr]


def test_chunks_around_the_samples(originals: dict[str, Path], tmp_path: Path) -> None:
    data = originals["wav"].read_bytes()
    odd = b"abcd" + struct.pack("<I", 5) + b"data\0\0"  # is filled up to an even length
    whole = data[:36] + odd + data[36:] + b"LIST" + struct.pack("<I", 4) + b"INFO"
    (tmp_path / "a.wav").write_bytes(whole)
    assert (len(read(tmp_path / "a.wav")[0]), read(tmp_path / "a.wav")[1]) == (SAMPLES, None)
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) // 2])
    assert broke_off(tmp_path / "a.wav")[1] == DURATION_S / 2


def test_flac_of_unknown_length(originals: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(originals["flac"].read_bytes())
    data[21] &= 0xF0  # the last 36 of the 64 bits before the checksum
    data[22:26] = bytes(4)
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    assert open_recording(path, RATE_HZ).expected_s is None
    assert len(read(path)[0]) == SAMPLES
    os.truncate(path, len(data) // 2)
    assert broke_off(path, None)[1] == pytest.approx(DURATION_S / 2, abs=0.5)


@pytest.mark.parametrize("at_s", [0.0, 0.5, 25.0])
def test_values_that_are_not_numbers(tmp_path: Path, at_s: float) -> None:
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, SAMPLES).astype(np.float32)
    samples[int(at_s * RATE_HZ)] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    got, error = read(tmp_path / "a.wav")
    assert error is not None
    assert error.message.endswith(": holds values that are not numbers")
    assert at_s - 0.2 <= len(got) / RATE_HZ <= at_s
    np.testing.assert_array_equal(got, samples[: len(got)])


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_a_file_that_shrinks_while_it_is_read(originals: dict[str, Path], tmp_path: Path, format: str) -> None:
    path = tmp_path / originals[format].name
    path.write_bytes(originals[format].read_bytes())
    blocks = open_recording(path, RATE_HZ).blocks()
    next(blocks)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(AudioError, match=r"broke off after 1[0-9.]+ of 32\.0 s"):
        list(blocks)


def test_a_file_that_grows_while_it_is_read(originals: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(originals["wav"].read_bytes())
    blocks = open_recording(path, RATE_HZ).blocks()
    count = len(next(blocks))
    with path.open("ab") as file:
        file.write(bytes(100_000))
    assert count + sum(map(len, blocks)) == SAMPLES


def test_a_file_that_vanishes(originals: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(originals["wav"].read_bytes())
    recording = open_recording(path, RATE_HZ)
    blocks = recording.blocks()
    count = len(next(blocks))
    path.unlink()
    assert count + sum(map(len, blocks)) == SAMPLES  # it is still open
    with pytest.raises(AudioError, match="no such file"):
        next(recording.blocks())
    path.mkdir()
    with pytest.raises(AudioError, match="is a folder"):
        next(recording.blocks())


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_ends_in_a_traceback(originals: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(originals[data.draw(st.sampled_from(BY_HEADER + BY_CONTENT))].read_bytes())
    within = st.integers(0, min(200, len(content))) | st.integers(0, len(content) - 1)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(within)] ^= data.draw(st.integers(1, 255))
    (tmp_path / "a").write_bytes(content[: data.draw(within | st.just(len(content)))])
    read(tmp_path / "a")

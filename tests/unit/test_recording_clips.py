"""Parts of recordings, exact to the sample, and separate channels."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.errors import refused
from support.media import noise, write_media
from support.piping import named_pipe

from funasr_cli.audio.decode import from_array, open_recording
from funasr_cli.audio.pcm import PCMFormat
from funasr_cli.inputs import Clip, Input, find_inputs
from funasr_cli.sources import open_input, split_channels

RATE_HZ = 16000
DURATION_S = 32
SAMPLES = DURATION_S * RATE_HZ
SEEKING = ["wav", "flac", "aiff", "au", "caf", "w64", "rf64", "raw"]
READING = ["mp3", "ogg", "m4a", "mkv"]
PCM = PCMFormat("f32le", RATE_HZ, 1)


def write(path: Path, rate_hz: int = RATE_HZ) -> Path:
    """Write half a minute."""
    samples = noise(DURATION_S * rate_hz)
    if path.suffix == ".raw":
        samples.tofile(path)
    elif path.suffix in (".m4a", ".mkv"):
        write_media(path, "aac", samples, rate_hz)
    else:
        soundfile.write(path, samples, rate_hz, format="RF64" if path.suffix == ".rf64" else None)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file in each format."""
    folder = tmp_path_factory.mktemp("files")
    return {format: write(folder / f"a.{format}") for format in SEEKING + READING}


def part(path: Path, clip: Clip | None, channel: int | None = None) -> np.ndarray:
    """Return a part, (samples,)."""
    pcm = PCM if path.suffix == ".raw" else None
    recording = open_recording(path, RATE_HZ, clip=clip, channel=channel, pcm=pcm)
    return np.concatenate(list(recording.blocks()))


@pytest.mark.slow
@pytest.mark.parametrize("format", SEEKING + READING)
@pytest.mark.parametrize("clip", [(0, 1), (0, None), (12.34567, 25.5), (31.9, None), (7, 99)])
def test_a_part_equals_that_part_of_the_whole(files: dict[str, Path], format: str, clip: Clip) -> None:
    whole = part(files[format], None)
    begin, end = round(clip[0] * RATE_HZ), len(whole) if clip[1] is None else round(clip[1] * RATE_HZ)
    np.testing.assert_array_equal(part(files[format], clip), whole[begin:end])


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SEEKING + READING[:2]), st.lists(st.floats(0, DURATION_S), min_size=3, max_size=3, unique=True)
)
@example("flac", [0.0, 15.99996875, 32.0])
def test_adjacent_parts(files: dict[str, Path], format: str, times_s: list[float]) -> None:
    first_s, middle_s, last_s = sorted(times_s)
    if min(middle_s - first_s, last_s - middle_s) < 1e-3:
        return
    both = np.concatenate([part(files[format], (first_s, middle_s)), part(files[format], (middle_s, last_s))])
    np.testing.assert_array_equal(both, part(files[format], (first_s, last_s)))


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", [8000, 11025, 44100])
@pytest.mark.parametrize("format", ["wav", "mp3"])
def test_a_part_at_another_rate(tmp_path: Path, format: str, rate_hz: int) -> None:
    path = write(tmp_path / f"a.{format}", rate_hz)
    whole = np.concatenate(list(open_recording(path, rate_hz).blocks()))
    begin, end = round(3.3 * rate_hz), round(20.7 * rate_hz)
    expected = soxr.resample(whole[begin:end], rate_hz, RATE_HZ, quality="HQ")
    np.testing.assert_allclose(part(path, (3.3, 20.7)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("clip", "start_s", "expected_s"),
    [
        (None, 0, 32), ((0, None), 0, 32), ((5, 20), 5, 15), ((5, None), 5, 27), ((0, 99), 0, 32),
        ((30.5, 99), 30.5, 1.5), ((40, None), 40, 0), ((40, 50), 40, 0),
    ],
)  # fmt: skip
def test_length_known_in_advance(
    files: dict[str, Path], clip: Clip | None, start_s: float, expected_s: float
) -> None:
    recording = open_recording(files["wav"], RATE_HZ, clip=clip)
    assert (recording.start_s, recording.expected_s) == (start_s, expected_s)
    assert from_array(noise(100), RATE_HZ, RATE_HZ).start_s == 0


@pytest.mark.slow
def test_blocks_of_a_part(files: dict[str, Path]) -> None:
    for format in ("wav", "ogg", "m4a"):
        blocks = open_recording(files[format], RATE_HZ, clip=(5, 30.5)).blocks()
        assert [len(block) / RATE_HZ for block in blocks] == pytest.approx([10, 10, 5.5], abs=0.1)


@pytest.mark.parametrize("format", SEEKING + READING)
@pytest.mark.parametrize("clip", [(40, None), (40, 50), (32.1, 32.2), (32, None)])
def test_a_part_after_the_end(files: dict[str, Path], format: str, clip: Clip) -> None:
    with refused("clip-behind-end", files[format], 32.0, clip[0]):
        part(files[format], clip)


def test_a_part_of_a_sample_or_less(files: dict[str, Path], tmp_path: Path) -> None:
    assert len(part(files["wav"], (DURATION_S - 1 / RATE_HZ, None))) == 1
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE_HZ)
    for path, clip in ((files["wav"], (5, 5 + 0.1 / RATE_HZ)), (tmp_path / "a.wav", (5, 6))):
        with refused("audio-empty", path):
            part(path, clip)


@pytest.mark.parametrize("clip", [(15.9, 20), (10, 20)])
def test_damage_in_the_part(files: dict[str, Path], tmp_path: Path, clip: Clip) -> None:
    """The damage is at 15.8 to 16 s."""
    path, data = tmp_path / "a.flac", bytearray(files["flac"].read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    recording = open_recording(path, RATE_HZ, clip=clip)
    assert sum(map(len, recording.blocks())) == round((clip[1] - clip[0]) * RATE_HZ)
    ((start_s, end_s),) = recording.findings.lost
    assert start_s == pytest.approx(max(15.8, clip[0]), abs=0.1)
    assert start_s < end_s < 16.5


@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
@pytest.mark.parametrize("clip", [(10, 20), (25, 30)])
def test_a_part_that_was_cut_off(files: dict[str, Path], tmp_path: Path, format: str, clip: Clip) -> None:
    data = files[format].read_bytes()
    path = tmp_path / f"a.{format}"
    path.write_bytes(data[: len(data) // 2])
    blocks = [np.zeros(0, np.float32)]
    with refused("audio-cut-short", path, 32.0):
        blocks.extend(open_recording(path, RATE_HZ, clip=clip).blocks())
    assert sum(map(len, blocks)) / RATE_HZ == pytest.approx(max(0, 16 - clip[0]), abs=0.5)


@pytest.mark.parametrize("clip", [(0, 10), (20, None), (10.0001, 20)])
def test_values_that_are_not_numbers(tmp_path: Path, clip: Clip) -> None:
    samples = noise(SAMPLES, 2)
    samples[10 * RATE_HZ, 0] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    np.testing.assert_array_equal(
        part(tmp_path / "a.wav", clip),
        samples[round(clip[0] * RATE_HZ) : round((clip[1] or 32) * RATE_HZ)].mean(axis=1),
    )
    np.testing.assert_array_equal(part(tmp_path / "a.wav", None, channel=2), samples[:, 1])


@pytest.mark.parametrize("format", ["wav", "mp3", "flac"])
def test_a_part_of_a_pipe(files: dict[str, Path], tmp_path: Path, format: str) -> None:
    with named_pipe(tmp_path / "pipe", files[format].read_bytes()) as pipe:
        recording = open_recording(pipe, RATE_HZ, clip=(5, 30))
        assert (recording.start_s, recording.expected_s) == (5, 25)
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), part(files[format], (5, 30)))


def test_a_part_ends_before_the_pipe(tmp_path: Path) -> None:
    """The pipe is closed, so that the writer stops."""
    pipe, closed = tmp_path / "pipe", threading.Event()
    os.mkfifo(pipe)

    def write() -> None:
        try:
            pipe.write_bytes(noise(64 * RATE_HZ).tobytes())
        except BrokenPipeError:
            closed.set()

    threading.Thread(target=write, daemon=True).start()
    recording = open_recording(pipe, RATE_HZ, clip=(1, 3), pcm=PCM)
    assert sum(map(len, recording.blocks())) == 2 * RATE_HZ
    assert closed.wait(60)


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_one_channel(tmp_path: Path, channel: int) -> None:
    samples = noise(25 * RATE_HZ, 3)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    np.testing.assert_array_equal(part(tmp_path / "a.wav", None, channel), samples[:, channel - 1])
    clip = samples[5 * RATE_HZ : 6 * RATE_HZ]
    np.testing.assert_array_equal(part(tmp_path / "a.wav", (5, 6), channel), clip[:, channel - 1])
    for other in (0, -channel, 3 + channel):
        with refused("audio-channel", tmp_path / "a.wav", other, 3):
            open_recording(tmp_path / "a.wav", RATE_HZ, channel=other)


def test_channels_split(tmp_path: Path) -> None:
    samples = noise(3 * RATE_HZ, 2)
    soundfile.write(tmp_path / "call.wav", samples, RATE_HZ, "FLOAT")
    soundfile.write(tmp_path / "mono.wav", samples[:, :1], RATE_HZ, "FLOAT")
    missing = Input(tmp_path / "missing.wav", "missing.wav", "missing")
    call, mono = find_inputs([tmp_path / "call.wav", tmp_path / "mono.wav"], clip=(1, 2))
    inputs = split_channels([call, missing, mono])
    assert [(input.label, input.stem, input.channel, input.clip, input.speaker) for input in inputs] == [
        (f"{tmp_path}/call.wav [ch 1]", "call.ch1", 1, (1, 2), "Channel 1"),
        (f"{tmp_path}/call.wav [ch 2]", "call.ch2", 2, (1, 2), "Channel 2"),
        ("missing.wav", "missing", None, None, None),
        (f"{tmp_path}/mono.wav", "mono", None, (1, 2), None),
    ]
    for names, called in ((["Ann"], ["Ann", "Channel 2"]), (["Ann", "Bo", "Cy"], ["Ann", "Bo"])):
        assert [input.speaker for input in split_channels([call], names)] == called
    for channel, input in enumerate(inputs[:2]):
        source = open_input(input, RATE_HZ)
        assert (source.name, source.start_s) == (f"{tmp_path}/call.wav [ch {channel + 1}]", 1)
        got = np.concatenate(list(source.blocks()))
        np.testing.assert_array_equal(got, samples[RATE_HZ : 2 * RATE_HZ, channel])
    with refused("audio-missing", "missing.wav"):
        open_input(inputs[2], RATE_HZ)
    assert split_channels(inputs[:2]) == inputs[:2]


@pytest.mark.parametrize("format", ["wav", "flac", "raw", "m4a"])
def test_channels_of_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """It is read once and stored as long as its inputs exist."""
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "kept"))
    samples, stored = noise(12 * RATE_HZ, 2), tmp_path / f"a.{format}"
    if format == "m4a":
        write_media(stored, "alac", samples)
    else:
        soundfile.write(stored, samples, RATE_HZ, "FLOAT" if format == "raw" else None)
    with named_pipe(tmp_path / "pipe", stored.read_bytes()) as pipe:
        inputs = split_channels(
            find_inputs([pipe], pcm=PCMFormat("f32le", RATE_HZ, 2) if format == "raw" else None)
        )
    assert [(input.label, input.stem) for input in inputs] == [
        (f"{pipe} [ch 1]", "pipe.ch1"), (f"{pipe} [ch 2]", "pipe.ch2"),
    ]  # fmt: skip
    for _ in range(2):
        for channel, input in enumerate(inputs):
            got = np.concatenate(list(open_input(input, RATE_HZ).blocks()))
            np.testing.assert_allclose(got, samples[:, channel], atol=1e-4)
    assert len(os.listdir(tmp_path / "kept")) == 1
    del inputs, input
    assert os.listdir(tmp_path / "kept") == []

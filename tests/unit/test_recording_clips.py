"""Parts of recordings, to the sample, and their channels one by one."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.media import write_media

from funasr_cli.audio.decode import from_array, load_audio, open_recording
from funasr_cli.audio.pcm import PCMFormat
from funasr_cli.errors import AudioError
from funasr_cli.inputs import Clip, Input, find_inputs
from funasr_cli.sources import open_input, split_channels

RATE_HZ = 16000
DURATION_S = 32
SAMPLES = DURATION_S * RATE_HZ
SEEKING = ["wav", "flac", "aiff", "au", "caf", "w64", "rf64", "raw"]
READING = ["mp3", "ogg", "m4a", "mkv"]
PCM = PCMFormat("f32le", RATE_HZ, 1)


def noise(samples: int, channels: int = 1) -> np.ndarray:
    """(samples, channels) quiet enough that no format clips it."""
    return np.random.default_rng(0).uniform(-0.3, 0.3, (samples, channels)).astype(np.float32)


def write(path: Path, rate_hz: int = RATE_HZ) -> Path:
    """Half a minute."""
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
    """Format -> a file."""
    folder = tmp_path_factory.mktemp("files")
    return {format: write(folder / f"a.{format}") for format in SEEKING + READING}


def part(path: Path, clip: Clip | None, channel: int | None = None) -> np.ndarray:
    """(samples,) of a part."""
    pcm = PCM if path.suffix == ".raw" else None
    recording = open_recording(path, RATE_HZ, clip=clip, channel=channel, pcm=pcm)
    return np.concatenate(list(recording.blocks()))


@pytest.mark.slow
@pytest.mark.parametrize("format", SEEKING + READING)
@pytest.mark.parametrize("clip", [(0, 1), (0, None), (12.34567, 25.5), (31.9, None), (7, 99)])
def test_a_part_is_what_it_is_in_the_whole(files: dict[str, Path], format: str, clip: Clip) -> None:
    whole = part(files[format], None)
    begin, end = round(clip[0] * RATE_HZ), len(whole) if clip[1] is None else round(clip[1] * RATE_HZ)
    np.testing.assert_array_equal(part(files[format], clip), whole[begin:end])


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SEEKING + READING[:2]), st.lists(st.floats(0, DURATION_S), min_size=3, max_size=3, unique=True)
)
@example("flac", [0.0, 15.99996875, 32.0])
def test_parts_side_by_side(files: dict[str, Path], format: str, times_s: list[float]) -> None:
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
def test_what_is_known_beforehand(
    files: dict[str, Path], clip: Clip | None, start_s: float, expected_s: float
) -> None:
    recording = open_recording(files["wav"], RATE_HZ, clip=clip)
    assert (recording.start_s, recording.expected_s) == (start_s, expected_s)
    assert from_array(noise(100), RATE_HZ, RATE_HZ).start_s == 0


def test_blocks_of_a_part(files: dict[str, Path]) -> None:
    for format in ("wav", "ogg"):
        blocks = open_recording(files[format], RATE_HZ, clip=(5, 30.5)).blocks()
        assert [len(block) / RATE_HZ for block in blocks] == pytest.approx([10, 10, 5.5], abs=0.1)


@pytest.mark.parametrize("format", SEEKING + READING)
@pytest.mark.parametrize("clip", [(40, None), (40, 50), (32.1, 32.2)])
def test_a_part_behind_the_end(files: dict[str, Path], format: str, clip: Clip) -> None:
    with pytest.raises(AudioError) as caught:
        part(files[format], clip)
    message = f"{files[format]}: ends at 32.0 s, before the part from {clip[0]:.1f} s on"
    assert caught.value.message == message


def test_a_part_that_begins_with_the_end(files: dict[str, Path]) -> None:
    with pytest.raises(AudioError, match=r"ends at 32\.0 s, before the part from 32\.0 s on"):
        part(files["wav"], (32, None))
    assert len(part(files["wav"], (32 - 1 / RATE_HZ, None))) == 1


def test_a_part_too_short_for_a_sample(files: dict[str, Path]) -> None:
    with pytest.raises(AudioError, match="no samples in it"):
        part(files["wav"], (5, 5 + 0.1 / RATE_HZ))


def test_a_part_of_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE_HZ)
    with pytest.raises(AudioError, match="no samples in it"):
        part(tmp_path / "a.wav", (5, 6))


def damaged_flac(folder: Path, intact: Path) -> Path:
    """Broken in the middle, at 15.8 to 16 s."""
    data = bytearray(intact.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    (folder / "a.flac").write_bytes(data)
    return folder / "a.flac"


def test_damage_elsewhere_does_not_matter(files: dict[str, Path], tmp_path: Path) -> None:
    """Which also shows that what comes before is not read."""
    path, whole = damaged_flac(tmp_path, files["flac"]), part(files["flac"], None)
    np.testing.assert_array_equal(part(path, (20, 30)), whole[20 * RATE_HZ : 30 * RATE_HZ])
    np.testing.assert_array_equal(part(path, (0, 15)), whole[: 15 * RATE_HZ])


@pytest.mark.parametrize("clip", [(15.9, 20), (10, 20)])
def test_damage_in_the_part(files: dict[str, Path], tmp_path: Path, clip: Clip) -> None:
    recording = open_recording(damaged_flac(tmp_path, files["flac"]), RATE_HZ, clip=clip)
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
    with pytest.raises(AudioError, match=r"broke off after 1[56]\.. of 32\.0 s"):
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
    expected = samples[10 * RATE_HZ : 11 * RATE_HZ].mean(axis=1)
    expected[0] = samples[10 * RATE_HZ, 1]  # the other channel has a number
    np.testing.assert_array_equal(part(tmp_path / "a.wav", (10, 11)), expected)
    np.testing.assert_array_equal(part(tmp_path / "a.wav", None, channel=2), samples[:, 1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
@pytest.mark.parametrize("format", ["wav", "mp3", "flac"])
def test_a_part_of_what_comes_out_of_a_pipe(files: dict[str, Path], tmp_path: Path, format: str) -> None:
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with suppress(BrokenPipeError):  # what lies behind the part need not be read
            (tmp_path / "pipe").write_bytes(files[format].read_bytes())

    writer = threading.Thread(target=write)
    writer.start()
    recording = open_recording(tmp_path / "pipe", RATE_HZ, clip=(5, 30))
    assert (recording.start_s, recording.expected_s) == (5, 25)
    np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), part(files[format], (5, 30)))
    writer.join()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
def test_a_part_ends_while_the_pipe_goes_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    written, done = [0], threading.Event()

    def write() -> None:
        try:
            with open(tmp_path / "pipe", "wb", buffering=0) as pipe:
                while not done.is_set():
                    written[0] += pipe.write(noise(RATE_HZ).tobytes())
        except BrokenPipeError:
            done.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    recording = open_recording(tmp_path / "pipe", RATE_HZ, clip=(1, 3), pcm=PCM)
    assert sum(map(len, recording.blocks())) == 2 * RATE_HZ
    assert done.wait(60)  # the writer is told that nobody wants more
    assert written[0] < 64 * 4 * RATE_HZ


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_one_channel(tmp_path: Path, channel: int) -> None:
    samples = noise(25 * RATE_HZ, 3)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    np.testing.assert_array_equal(part(tmp_path / "a.wav", None, channel), samples[:, channel - 1])
    clip = samples[5 * RATE_HZ : 6 * RATE_HZ]
    np.testing.assert_array_equal(part(tmp_path / "a.wav", (5, 6), channel), clip[:, channel - 1])


@pytest.mark.parametrize("channel", [0, -1, 3])
def test_no_such_channel(tmp_path: Path, channel: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100, 2), RATE_HZ)
    with pytest.raises(AudioError, match=rf"a\.wav: there is no channel {channel}, only 2"):
        open_recording(tmp_path / "a.wav", RATE_HZ, channel=channel)


def test_channels_split(tmp_path: Path) -> None:
    samples = noise(3 * RATE_HZ, 2)
    soundfile.write(tmp_path / "call.wav", samples, RATE_HZ, "FLOAT")
    soundfile.write(tmp_path / "mono.wav", samples[:, :1], RATE_HZ, "FLOAT")
    missing = Input(tmp_path / "missing.wav", "missing.wav", "missing")
    call, mono = find_inputs([tmp_path / "call.wav", tmp_path / "mono.wav"], clip=(1, 2))
    inputs = split_channels([call, missing, mono])
    assert [(input.label, input.stem, input.channel, input.clip) for input in inputs] == [
        (f"{tmp_path}/call.wav [ch 1]", "call.ch1", 1, (1, 2)),
        (f"{tmp_path}/call.wav [ch 2]", "call.ch2", 2, (1, 2)),
        ("missing.wav", "missing", None, None),
        (f"{tmp_path}/mono.wav", "mono", None, (1, 2)),
    ]
    for channel, input in enumerate(inputs[:2]):
        source = open_input(input, RATE_HZ)
        assert (source.name, source.start_s) == (f"{tmp_path}/call.wav [ch {channel + 1}]", 1)
        got = np.concatenate(list(source.blocks()))
        np.testing.assert_array_equal(got, samples[RATE_HZ : 2 * RATE_HZ, channel])
    with pytest.raises(AudioError, match=r"^missing\.wav: no such file$"):
        open_input(inputs[2], RATE_HZ)
    assert split_channels(inputs[:2]) == inputs[:2]


def test_channels_of_everything_that_can_be_read(tmp_path: Path) -> None:
    samples = noise(2 * RATE_HZ, 2)
    soundfile.write(tmp_path / "a.flac", samples, RATE_HZ)
    write_media(tmp_path / "b.m4a", "alac", samples)
    samples.tofile(tmp_path / "c.raw")
    typed = find_inputs(
        [tmp_path / name for name in ("a.flac", "b.m4a", "c.raw")], pcm=PCMFormat("f32le", RATE_HZ, 2)
    )
    inputs = split_channels(typed)
    assert [input.stem for input in inputs] == ["a.ch1", "a.ch2", "b.ch1", "b.ch2", "c.ch1", "c.ch2"]
    for input in inputs:
        got = np.concatenate(list(open_input(input, RATE_HZ).blocks()))
        np.testing.assert_allclose(got, samples[:, (input.channel or 0) - 1], atol=1e-4)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
@pytest.mark.parametrize("format", ["wav", "flac"])
def test_channels_of_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """It is read once and kept, as long as its inputs are there."""
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "kept"))
    samples = noise(12 * RATE_HZ, 2)
    soundfile.write(tmp_path / f"a.{format}", samples, RATE_HZ)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / f"a.{format}").read_bytes())
    )
    writer.start()
    inputs = split_channels(find_inputs([tmp_path / "pipe"]))
    writer.join()
    assert [(input.label, input.stem) for input in inputs] == [
        (f"{tmp_path}/pipe [ch 1]", "pipe.ch1"), (f"{tmp_path}/pipe [ch 2]", "pipe.ch2"),
    ]  # fmt: skip
    for _ in range(2):
        for channel, input in enumerate(inputs):
            got = np.concatenate(list(open_input(input, RATE_HZ).blocks()))
            np.testing.assert_allclose(got, samples[:, channel], atol=1e-4)
    assert len(os.listdir(tmp_path / "kept")) == 1
    del inputs, input
    assert os.listdir(tmp_path / "kept") == []


def test_the_whole_is_what_it_was(files: dict[str, Path]) -> None:
    """Without a part or a channel, nothing changes."""
    whole = load_audio(files["flac"], RATE_HZ)
    np.testing.assert_array_equal(whole.samples, part(files["flac"], (0, None)))
    assert open_recording(files["flac"], RATE_HZ, name="x").name == "x"

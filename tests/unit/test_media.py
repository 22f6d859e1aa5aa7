"""Files that only PyAV reads: written by PyAV itself, and compared with the original samples."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from support import peak_memory
from support.errors import refused
from support.media import hum, laced_matroska, write_media

from funasr_cli.audio.decode import load_audio, open_recording

RATE_HZ = 16000
DURATION_S = 12
# Name, codec, sample rate, whether the length is stated, samples of silence that the encoder adds in front.
LOSSY = [
    ("a.m4a", "aac", 16000, True, 0), ("a.mp4", "aac", 44100, True, 0), ("a.mov", "aac", 48000, True, 0),
    ("a.mkv", "aac", 8000, True, 0), ("a.webm", "libopus", 48000, True, 0), ("a.mka", "libopus", 16000, True, 0),
    ("a.aac", "aac", 16000, False, 1024), ("a.ts", "aac", 16000, False, 1024), ("a.flv", "aac", 16000, True, 1024),
    ("a.avi", "libmp3lame", 16000, False, 1105),
]  # fmt: skip
LOSSLESS = [  # name, codec, largest error of a sample
    ("a.m4a", "alac", 1e-6), ("a.mkv", "flac", 1e-4), ("a.wv", "wavpack", 1e-2), ("a.mkv", "pcm_u8", 1e-2),
    ("a.mkv", "pcm_s16le", 1e-4), ("a.mov", "pcm_s16be", 1e-4), ("a.mkv", "pcm_s24le", 1e-6),
    ("a.mov", "pcm_s32le", 1e-6), ("a.mov", "pcm_f32le", 0), ("a.mkv", "pcm_f64le", 0),
    ("a.wav", "pcm_s64le", 1e-7),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("name", "codec", "rate_hz", "is_stated", "delay"), LOSSY)
def test_lossy_files(
    tmp_path: Path, name: str, codec: str, rate_hz: int, is_stated: bool, delay: int, channels: int
) -> None:
    samples = hum(DURATION_S * rate_hz, channels)
    recording = open_recording(write_media(tmp_path / name, codec, samples, rate_hz), RATE_HZ)
    got = np.concatenate(list(recording.blocks()))
    mixed = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ, quality="HQ")
    middle = slice(RATE_HZ, len(mixed) - RATE_HZ)
    errors = {
        lag: np.square(got[delay + lag :][middle] - mixed[middle]).mean() for lag in range(-2 if delay else 0, 3)
    }
    assert min(errors, key=errors.__getitem__) == 0
    assert errors[0] < 0.03 * np.square(mixed).mean()
    assert len(got) / RATE_HZ == pytest.approx(DURATION_S, abs=0.2)
    assert recording.expected_s == (pytest.approx(DURATION_S, abs=0.2) if is_stated else None)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("name", "codec", "tolerance"), LOSSLESS)
def test_every_type_of_sample(tmp_path: Path, name: str, codec: str, tolerance: float, channels: int) -> None:
    samples = hum(5 * RATE_HZ, channels)
    got = load_audio(write_media(tmp_path / name, codec, samples), RATE_HZ).samples
    np.testing.assert_allclose(got, samples.mean(axis=1), atol=tolerance)


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "alac"), ("a.mkv", "pcm_f32le")])
def test_channels(tmp_path: Path, name: str, codec: str) -> None:
    """The channels are stored one after the other, or interleaved."""
    samples = hum(RATE_HZ, 6)
    path = write_media(tmp_path / name, codec, samples)
    for channel in range(6):
        got = np.concatenate(list(open_recording(path, RATE_HZ, channel=channel + 1).blocks()))
        np.testing.assert_allclose(got, samples[:, channel], atol=1e-6)
    with refused("audio-channel", path, 7):
        open_recording(path, RATE_HZ, channel=7)


def joined(path: Path, *parts: tuple[int, np.ndarray]) -> Path:
    """Write AAC whose sample rate or number of channels changes in the middle."""
    path.write_bytes(b"".join([write_media(path, "aac", voice, rate_hz).read_bytes() for rate_hz, voice in parts]))
    return path


@pytest.mark.slow
def test_sample_rate_that_changes(tmp_path: Path) -> None:
    voice = hum(5 * 48000)
    path = joined(tmp_path / "a.aac", (16000, voice[: 5 * 16000]), (48000, voice), (16000, voice[: 5 * 16000]))
    got = load_audio(path, RATE_HZ).samples
    expected = soxr.resample(voice[:, 0], 48000, RATE_HZ, quality="HQ")
    middle = expected[RATE_HZ : 4 * RATE_HZ]
    begin = 5 * RATE_HZ + int(np.correlate(got[5 * RATE_HZ : 10 * RATE_HZ], middle).argmax())
    assert begin / RATE_HZ == pytest.approx(6, abs=0.2)
    assert np.corrcoef(got[begin : begin + len(middle)], middle)[0, 1] > 0.99
    assert len(got) / RATE_HZ == pytest.approx(15, abs=0.4)


def test_channels_that_change(tmp_path: Path) -> None:
    path = joined(tmp_path / "a.aac", (RATE_HZ, hum(5 * RATE_HZ, 2)), (RATE_HZ, hum(5 * RATE_HZ, 1)))
    assert len(load_audio(path, RATE_HZ).samples) / RATE_HZ == pytest.approx(10, abs=0.3)
    assert sum(map(len, open_recording(path, RATE_HZ, channel=1).blocks())) > 9.7 * RATE_HZ
    blocks = open_recording(path, RATE_HZ, channel=2).blocks()
    assert len(next(blocks)) / RATE_HZ == pytest.approx(5, abs=0.2)
    with refused("audio-channel", path):
        next(blocks)


@pytest.mark.parametrize(("name", "pictures"), [("a.mkv", "mpeg4"), ("a.mp4", "mpeg4"), ("a.flv", "flv")])
def test_film(tmp_path: Path, name: str, pictures: str) -> None:
    """The video is longer than the sound, and nothing is reported missing."""
    path = write_media(tmp_path / name, "aac", hum(5 * RATE_HZ), pictures_s=8, pictures=pictures)
    assert load_audio(path, RATE_HZ).duration_s == pytest.approx(5, abs=0.2)


def test_sound_that_starts_later_than_the_video(tmp_path: Path) -> None:
    voice = hum(5 * RATE_HZ)
    path = write_media(tmp_path / "a.mkv", "pcm_f32le", voice, pictures_s=8, skip_s=(0, 2.5))
    got = load_audio(path, RATE_HZ).samples
    np.testing.assert_array_equal(got, np.pad(voice[:, 0], (int(2.5 * RATE_HZ), 0)))


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "pcm_f32le"), ("a.webm", "libopus")])
def test_time_stamps_that_begin_late(tmp_path: Path, name: str, codec: str) -> None:
    """The file was cut from a longer one. Its stated length is the time at which it ends."""
    path = write_media(tmp_path / name, codec, hum(5 * 48000), 48000, skip_s=(0, 60))
    recording = open_recording(path, RATE_HZ)
    assert recording.expected_s == pytest.approx(5, abs=0.1)
    assert sum(map(len, recording.blocks())) / RATE_HZ == pytest.approx(5, abs=0.1)


def test_a_gap_in_the_time_stamps(tmp_path: Path) -> None:
    """A paused recorder leaves such a gap; later sound keeps its time."""
    voice = hum(5 * RATE_HZ)
    path = write_media(tmp_path / "a.mkv", "pcm_f32le", voice, skip_s=(2, 90))
    got = load_audio(path, RATE_HZ).samples
    expected = np.concatenate([voice[: 2 * RATE_HZ, 0], np.zeros(90 * RATE_HZ), voice[2 * RATE_HZ :, 0]])
    np.testing.assert_array_equal(got, expected)


def test_invalid_time_stamps(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.ts", "aac", hum(5 * RATE_HZ), skip_s=(2, 20_000))
    assert load_audio(path, RATE_HZ).duration_s == pytest.approx(5, abs=0.2)


def test_film_without_sound(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", "", np.zeros((0, 1)), pictures_s=2)
    with refused("audio-no-sound", path):
        open_recording(path, RATE_HZ)


def test_length_that_is_only_an_estimate(tmp_path: Path) -> None:
    """A program that cannot seek back writes Matroska without the length."""
    path = write_media(tmp_path / "a.mkv", "pcm_s16le", hum(60 * RATE_HZ), options={"live": "1"})
    recording = open_recording(path, RATE_HZ)
    assert recording.expected_s is None
    assert sum(map(len, recording.blocks())) == 60 * RATE_HZ


@pytest.mark.parametrize("ending", ["wav", "m4a"])
@pytest.mark.parametrize(
    "name",
    [
        "录音 é", "[red]a[/red]", "a\nb", "-a", " ", "%s{x}", "http:a", "pipe:0", "%03d",
        pytest.param("a\udcff", marks=pytest.mark.skipif(sys.platform == "darwin", reason="names are text there")),
    ],
)  # fmt: skip
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str) -> None:
    """Both libraries open them. A name that is not text is shown as readably as possible."""
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.{ending}")
    path.parent.mkdir(exist_ok=True)  # a slash makes a folder, even in markup
    if ending == "m4a":
        write_media(Path("whatever.m4a"), "aac", hum(RATE_HZ)).rename(path)
    else:
        soundfile.write("whatever.wav", hum(RATE_HZ), RATE_HZ)
        Path("whatever.wav").rename(path)
    audio = load_audio(path, RATE_HZ)
    assert audio.name == str(path).replace("\udcff", "\ufffd")
    assert audio.duration_s == pytest.approx(1, abs=0.1)


def test_title_that_is_not_text(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.m4a", "aac", hum(RATE_HZ), metadata={"title": "Gespraeche"})
    assert path.read_bytes().count(b"Gespraeche") == 1
    path.write_bytes(path.read_bytes().replace(b"Gespraeche", b"Gespr\xe4che!"))
    assert load_audio(path, RATE_HZ).duration_s == pytest.approx(1, abs=0.1)


def test_pyav_is_not_used_where_libsndfile_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    soundfile.write(tmp_path / "a.flac", hum(RATE_HZ), RATE_HZ)
    assert len(load_audio(tmp_path / "a.flac", RATE_HZ).samples) == RATE_HZ


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libmp3lame", "ac3", "flac", "aac", "libopus", "pcm_s16le"])
@pytest.mark.parametrize("pictures_s", [0, 20])
def test_intact_matroska_has_no_fault(tmp_path: Path, codec: str, pictures_s: float) -> None:
    path = write_media(tmp_path / "a.mkv", codec, hum(20 * 48000), 48000, pictures_s=pictures_s)
    assert load_audio(path, RATE_HZ).duration_s == pytest.approx(20, abs=0.1)


def test_matroska_with_several_packets_in_a_block(tmp_path: Path) -> None:
    samples = (hum(20 * RATE_HZ)[:, 0] * 2**15).astype(np.int16)
    (tmp_path / "a.mkv").write_bytes(laced_matroska(samples))
    np.testing.assert_array_equal(load_audio(tmp_path / "a.mkv", RATE_HZ).samples, samples / np.float32(2**15))


@pytest.mark.slow
def test_long_files_take_no_more_memory(tmp_path: Path) -> None:
    minute = hum(60 * RATE_HZ)
    paths = [write_media(tmp_path / f"{count}.mkv", "flac", np.tile(minute, (count, 1))) for count in (1, 60)]
    short, long = peak_memory.after_each(paths)
    assert (short[0] / RATE_HZ, long[0] / RATE_HZ) == (pytest.approx(60, abs=0.1), pytest.approx(3600, abs=0.1))
    assert long[1] - short[1] < 20

"""What libsndfile cannot read, and is damaged, cut off or no recording at all."""

import gc
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.media import hum, read, write_media

from funasr_cli.audio.decode import load_audio, open_recording
from funasr_cli.errors import AudioError

RATE_HZ = 16000
DURATION_S = 12
FILES = [  # name, codec, sample rate
    ("a.m4a", "aac", 16000), ("a.mp4", "aac", 44100), ("a.mov", "aac", 48000), ("a.mkv", "aac", 8000),
    ("a.webm", "libopus", 48000), ("a.mka", "libopus", 16000), ("a.aac", "aac", 16000), ("a.ts", "aac", 16000),
    ("a.flv", "aac", 16000), ("a.avi", "libmp3lame", 16000),
]  # fmt: skip


def damaged(path: Path, change: Callable[[bytearray], object]) -> tuple[np.ndarray, str]:
    """(samples,) what can be read of a file after a change, and the error."""
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    samples, error = read(path)
    assert error is not None
    return samples, error.message


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Name -> content of a file that is in order; those of mp4 begin with their table of contents."""
    folder = tmp_path_factory.mktemp("originals")
    contents = {}
    for name, codec, rate_hz in FILES:
        options = {"movflags": "faststart"} if name.endswith("mp4") else None
        path = write_media(folder / name, codec, hum(DURATION_S * rate_hz), rate_hz, options=options)
        contents[name] = path.read_bytes()
    return contents


@pytest.mark.parametrize("share", [0.3, 0.62, 0.95])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.mka", "a.flv", "a.aac"])
def test_cut_off(originals: dict[str, bytes], tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    path.write_bytes(originals[name])
    intact = load_audio(path, RATE_HZ).samples
    samples, message = damaged(path, lambda data: data.__delitem__(slice(int(len(data) * share), None)))
    found = re.fullmatch(re.escape(f"{path}: broke off after ") + r"(\d+\.\d)( of 12\.[01])? s", message)
    assert found, message
    assert bool(found[2]) == (name != "a.aac")
    assert float(found[1]) == pytest.approx(DURATION_S * share, abs=1)
    assert float(found[1]) == pytest.approx(len(samples) / RATE_HZ, abs=0.06)
    good = len(samples) - 200  # the resampler does not see what comes behind
    np.testing.assert_allclose(samples[:good], intact[:good], atol=1e-6)


@pytest.mark.parametrize("name", ["a.m4a", "a.mov"])
def test_cut_off_before_the_table_of_contents(originals: dict[str, bytes], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(originals[name][:-2000])
    with pytest.raises(AudioError, match="not audio that can be read here") as caught:
        open_recording(tmp_path / name, RATE_HZ)
    assert "incomplete" in caught.value.hint


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.mka", "a.aac", "a.ts", "a.flv", "film.mkv"])
def test_damaged_in_the_middle(originals: dict[str, bytes], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "film.mkv":
        write_media(path, "pcm_s16le", hum(DURATION_S * RATE_HZ), pictures_s=DURATION_S)
    else:
        path.write_bytes(originals[name])
    intact = load_audio(path, RATE_HZ).samples

    def garbage(data: bytearray) -> None:
        data[len(data) // 2 : len(data) // 2 + 3000] = np.random.default_rng(0).bytes(3000)

    samples, message = damaged(path, garbage)
    assert "broke off after" in message
    assert DURATION_S / 2 - 2 < len(samples) / RATE_HZ < DURATION_S / 2 + 1
    good = int((DURATION_S / 2 - 2) * RATE_HZ)
    np.testing.assert_allclose(samples[:good], intact[:good], atol=1e-6)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_film_that_was_cut_off(tmp_path: Path, name: str) -> None:
    path = write_media(
        tmp_path / name, "aac", hum(DURATION_S * RATE_HZ), pictures_s=20, options={"movflags": "faststart"}
    )
    samples, message = damaged(path, lambda data: data.__delitem__(slice(len(data) // 3, None)))
    assert re.search(r"broke off after \d\.\d of 12\.[01] s$", message)
    assert 3 < len(samples) / RATE_HZ < 9


@pytest.mark.parametrize(("name", "codec"), [("a.aac", "aac"), ("a.ts", "aac"), ("a.ac3", "ac3")])
@pytest.mark.parametrize("extra", range(0, 500, 77))
def test_recording_that_begins_within_a_frame(tmp_path: Path, name: str, codec: str, extra: int) -> None:
    """As cut out of a broadcast."""
    data = write_media(tmp_path / name, codec, hum(DURATION_S * 48000), 48000).read_bytes()
    (tmp_path / name).write_bytes(data[len(data) // 2 + extra :])
    samples, error = read(tmp_path / name)
    assert error is None
    assert len(samples) / RATE_HZ == pytest.approx(DURATION_S / 2, abs=0.5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:20\n#EXTINF:20,\n{}\n#EXT-X-ENDLIST\n"),
        ("a.ffconcat", "ffconcat version 1.0\nfile {}\n"),
    ],
)
def test_a_playlist_leads_nowhere(tmp_path: Path, name: str, content: str) -> None:
    """It could name any file of this machine, or an address."""
    other = write_media(tmp_path / "secret.ts", "aac", hum(5 * RATE_HZ))
    for target in (other.name, str(other), f"file:{other}"):
        (tmp_path / name).write_text(content.format(target))
        with pytest.raises(AudioError, match="not audio that can be read here"):
            open_recording(tmp_path / name, RATE_HZ)


@pytest.mark.parametrize("ending", ["txt", "mp4", "aac", "flac", "ac3", "ogg", "mp3"])
@pytest.mark.parametrize(
    "text", ["a text, no recording\n", "1\n00:00:01,000 --> 00:00:02,000\nhello\n\n", "\0", "好"]
)
def test_texts_are_not_heard(tmp_path: Path, text: str, ending: str) -> None:
    """FFmpeg takes a long one for the samples of a telephone."""
    for length in (1, 100, 5000):
        (tmp_path / f"a.{ending}").write_text(text * length, encoding="utf-8")
        with pytest.raises(AudioError, match="not audio that can be read here"):
            open_recording(tmp_path / f"a.{ending}", RATE_HZ)


def test_nothing_is_printed(
    originals: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, content in originals.items():
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        read(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed_where_a_size_leads_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.w64"
    soundfile.write(path, hum(RATE_HZ), RATE_HZ)
    content = path.read_bytes()
    data = content.index(b"data")
    path.write_bytes(content[:data] + b"what" + content[data + 4 : data + 16] + b"\xff" * 7 + b"\x7f" + bytes(99))
    with pytest.raises(AudioError, match="not audio that can be read here"):
        open_recording(path, RATE_HZ)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cut", [False, True])
def test_nothing_stays_open(originals: dict[str, bytes], tmp_path: Path, cut: bool) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(originals["a.mp4"][: -9000 if cut else None])
    (tmp_path / "b.mp4").write_bytes(originals["a.m4a"][:9000])
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    kept = [read(path), read(tmp_path / "b.mp4")]  # with errors, their tracebacks, and whatever those hold on to
    blocks = open_recording(path, RATE_HZ).blocks()
    next(blocks)
    assert len(os.listdir("/dev/fd")) == before + 1
    blocks.close()
    assert len(os.listdir("/dev/fd")) == before
    assert len(kept) == 2


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", "aac", hum(32 * RATE_HZ), options={"movflags": "faststart"})
    blocks = open_recording(path, RATE_HZ).blocks()
    next(blocks)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(AudioError, match=r"broke off after 1[0-9.]+ of 32\.0 s"):
        list(blocks)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_ends_in_a_traceback(originals: dict[str, bytes], tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(originals[data.draw(st.sampled_from(sorted(originals)))])
    within = st.integers(0, min(2000, len(content) - 1)) | st.integers(0, len(content) - 1)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(within)] ^= data.draw(st.integers(1, 255))
    (tmp_path / "a").write_bytes(content[: data.draw(within | st.just(len(content)))])
    read(tmp_path / "a")

"""Files that are damaged, cut off, modified while being read, or not recordings: what is read, and messages."""

from __future__ import annotations

import os
import re
import shutil
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.errors import refused
from support.media import hum, read, read_all, write_media
from support.piping import mp3_of_unknown_length, through_a_pipe

from funasr_cli.audio.decode import load_audio, open_recording
from funasr_cli.audio.readers import open_reader
from funasr_cli.errors import FunASRError

RATE_HZ = 16000
Contents = dict[str, bytes]  # by file name
DURATION_S = 24
CASES = Path(__file__).parents[1] / "data" / "reports"
PCM = {"a.wav": None, "a.aiff": None, "a.au": None, "a.w64": None, "a.caf": None}  # written by libsndfile
WITH_LENGTH = {
    "a.flac": None, "a.mp3": None, "a.mp4": ("aac", 44100), "a.mkv": ("aac", 8000), "a.webm": ("libopus", 48000),
    "a.mka": ("libopus", 16000), "a.flv": ("aac", 16000), "b.mkv": ("flac", 16000), "c.mkv": ("libmp3lame", 16000),
}  # fmt: skip
CONTENT = {  # name -> codec and sample rate for PyAV
    **WITH_LENGTH, "a.m4a": ("aac", 16000), "a.mov": ("aac", 48000), "b.m4a": ("alac", 16000), "a.ogg": None,
    "a.opus": None, "b.ogg": ("flac", 16000), "a.aac": ("aac", 16000), "a.ac3": ("ac3", 48000),
    "a.ts": ("aac", 16000), "a.wma": ("wmav2", 44100), "a.amr": ("libopencore_amrnb", 8000),
    "b.caf": ("alac", 16000), "a.3gp": ("aac", 16000), "unknown.mp3": None, "b.mp4": ("flac", 16000),
    "fragments.mp4": ("aac", 16000), "a.avi": ("mp2", 16000), "b.avi": ("pcm_s16le", 16000),
    "c.wav": ("libmp3lame", 16000),
}  # fmt: skip
UNFOUND = {"a.amr", "a.m4a", "b.m4a", "a.mov", "a.3gp", "b.mp4", "b.caf"}  # their damage may go unnoticed
MP4_OPTIONS = {  # the others have their table of contents at the end
    "a.mp4": {"movflags": "faststart"},
    "fragments.mp4": {"movflags": "empty_moov+frag_keyframe", "frag_duration": "1000000"},
}


OGG = ["a.ogg", "a.opus", "b.ogg"]


def make(folder: Path, duration_s: int) -> Contents:
    """Return the contents of intact files by name."""
    contents = {}
    for name, how in {**PCM, **CONTENT}.items():
        if how:
            write_media(folder / name, how[0], hum(duration_s * how[1]), how[1], options=MP4_OPTIONS.get(name))
        elif name == "unknown.mp3":
            (folder / name).write_bytes(mp3_of_unknown_length(hum(duration_s * RATE_HZ)))
        else:
            format, subtype = ("OGG", "OPUS") if name == "a.opus" else (None, None)
            soundfile.write(folder / name, hum(duration_s * RATE_HZ) / 2, RATE_HZ, subtype, format=format)
        contents[name] = (folder / name).read_bytes()
    return contents


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return make(tmp_path_factory.mktemp("originals"), DURATION_S)


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return make(tmp_path_factory.mktemp("minutes"), 60)


def overwritten(data: bytearray, start: int, count: int = 60) -> None:
    data[start : start + count] = np.random.default_rng(1).bytes(count)


def zeros(data: bytearray, start: int, count: int = 3000) -> None:
    data[start : start + count] = bytes(count)


def removed(data: bytearray, start: int) -> None:
    del data[start : start + 3000]


def inserted(data: bytearray, start: int) -> None:
    data[start:start] = np.random.default_rng(0).bytes(5000)


def damaged(path: Path, content: bytes, damage: Callable[..., None], *where: int) -> Path:
    data = bytearray(content)
    damage(data, *where)
    path.write_bytes(data)
    return path


def cut_short(path: Path) -> tuple[np.ndarray, list[float]]:
    """Return the samples, (samples,), and the seconds in the message: read, and expected if known."""
    samples, error = read(path)
    assert (error and error.code) == "audio-cut-short"
    return samples, [float(found) for found in re.findall(r"\d+\.\d", error.message.removeprefix(str(path)))]


def like_before(samples: np.ndarray, intact: np.ndarray, room: int = 400) -> float:
    """Return the share of the intact recording's half seconds that are at their place, give or take a frame."""
    half = RATE_HZ // 2
    samples = np.pad(samples, (room, max(0, len(intact) - len(samples)) + room))
    found = []
    for start in range(0, len(intact) - half, half):
        part, around = intact[start : start + half], samples[start : start + half + 2 * room]
        best = int(np.correlate(around, part).argmax())
        with np.errstate(invalid="ignore"):  # silence correlates with nothing
            found.append(np.corrcoef(around[best : best + half], part)[0, 1] > 0.9)
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", {**PCM, **CONTENT})
def test_damage_loses_only_what_it_hits(minutes: Contents, tmp_path: Path, name: str, share: float) -> None:
    """With 60 damaged bytes, the rest is read, at its place."""
    path, content = tmp_path / name, minutes[name]
    path.write_bytes(content)
    intact = load_audio(path, RATE_HZ).samples
    damaged(path, content, overwritten, int(len(content) * share))
    recording = open_recording(path, RATE_HZ)
    samples = np.concatenate(list(recording.blocks()))
    assert len(samples) / RATE_HZ == pytest.approx(len(intact) / RATE_HZ, abs=0.2)
    is_estimate = name in ("a.aac", "a.amr", "a.mp3", "unknown.mp3")  # a packet more or less shifts the rest
    assert like_before(samples, intact, room=3200 if is_estimate else 400) > 0.85
    lost_s = sum(end_s - start_s for start_s, end_s in recording.findings.lost)
    assert lost_s < 5.2
    assert not (name in PCM and lost_s)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.opus", "a.ogg", "a.aac", "a.ac3", "a.wma"])
def test_damage_in_the_first_packets_moves_nothing_else(originals: Contents, tmp_path: Path, name: str) -> None:
    """Later sound keeps its time although nothing before it could be decoded."""
    path, content = tmp_path / name, originals[name]
    path.write_bytes(content)
    intact = load_audio(path, RATE_HZ).samples
    damaged(path, content, overwritten, {"a.flac": 8400, "a.ogg": 5000}.get(name, 1200), len(content) // 20)
    samples, error, lost = read_all(path)
    assert error is None
    assert len(samples) / RATE_HZ == pytest.approx(DURATION_S, abs=0.3)
    assert lost[0][0] < 1.5
    assert 0.5 < sum(end_s - start_s for start_s, end_s in lost) < 3.5
    if name not in ("a.aac", "a.wma"):  # for these, one packet more or less moves everything after it
        assert like_before(samples[6 * RATE_HZ :], intact[6 * RATE_HZ :]) > 0.9


@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.ts", "a.wma", "a.flv", "a.mkv"])
def test_junk_at_the_end_is_reported(originals: Contents, tmp_path: Path, name: str) -> None:
    start = len(originals[name]) * 19 // 20
    damaged(tmp_path / name, originals[name], overwritten, start, len(originals[name]) - start)
    assert len(cut_short(tmp_path / name)[0]) / RATE_HZ > 0.85 * DURATION_S


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mp2"), ("a.ts", "aac"), ("fragments.mp4", "aac")])
def test_cut_that_only_the_container_shows(tmp_path: Path, name: str, codec: str) -> None:
    options = {"movflags": "empty_moov+frag_every_frame"} if name.startswith("fragments") else None
    path = write_media(tmp_path / name, codec, hum(9 * RATE_HZ), options=options)
    os.truncate(path, path.stat().st_size * 2 // 3)
    assert 5 < len(cut_short(path)[0]) / RATE_HZ < 7


def test_times_after_damage_in_avi(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.avi", "mp2", hum(DURATION_S * RATE_HZ))
    intact, content = load_audio(path, RATE_HZ).samples, path.read_bytes()
    damaged(path, content, zeros, len(content) // 2, len(content) // 10)
    samples, error, lost = read_all(path)
    assert error is None
    assert len(samples) / RATE_HZ == pytest.approx(DURATION_S, abs=0.3)
    assert sum(end_s - start_s for start_s, end_s in lost) == pytest.approx(DURATION_S / 10, abs=0.5)
    assert like_before(samples[16 * RATE_HZ :], intact[16 * RATE_HZ :]) > 0.9


@pytest.mark.parametrize(
    ("name", "codec", "longest_s", "share", "count"),
    [
        ("a.tta", "tta", 1.1, 0.5, 60), ("a.tta", "tta", 1.1, 0.02, 60), ("a.wv", "wavpack", 4.1, 0.5, 60),
        ("a.wv", "wavpack", 4.1, 0.02, 60), ("a.caf", "alac", 0.6, 0.003, 3000),
    ],
)  # fmt: skip
def test_counted_packets_keep_their_times(
    tmp_path: Path, name: str, codec: str, longest_s: float, share: float, count: int
) -> None:
    """This also holds after the first packet. Checksums are verified."""
    path = write_media(tmp_path / name, codec, hum(20 * RATE_HZ))
    damaged(path, path.read_bytes(), overwritten, int(path.stat().st_size * share), count)
    samples, error, lost = read_all(path)
    assert error is None
    assert len(samples) / RATE_HZ == pytest.approx(20, abs=0.1)
    ((start_s, end_s),) = lost
    assert start_s < 20 * share + 0.1 < end_s + 0.3
    assert end_s - start_s < longest_s


def box(data: bytes, name: bytes, number: int) -> int:
    """Return the offset of a box or block in a file."""
    return [found.start() - 4 * (name != b"wvpk") for found in re.finditer(name, data)][number]


@pytest.mark.parametrize(
    ("name", "unit", "number", "replaced", "count", "lost_s"),
    [
        ("fragments.mp4", b"moof", 10, 60, 60, 1), ("fragments.mp4", b"moof", 10, 20_000, 20_000, 3),
        ("fragments.mp4", b"moof", 0, 60, 60, 1), ("fragments.mp4", b"trun", 10, 60, 60, 1),
        ("fragments.mp4", b"mdat", 10, 8, 8, 0), ("fragments.mp4", b"moof", -1, 60, 60, None),
        ("a.wv", b"wvpk", 2, 60, 60, 4), ("a.wv", b"wvpk", 2, 30_000, 30_000, 8),
        ("a.wv", b"wvpk", 2, 0, 1_600_000, 0), ("a.m4a", b"mdat", 0, 8, 8, 0),
    ],
)  # fmt: skip
def test_damage_where_ffmpeg_stops(
    originals: Contents, tmp_path: Path, name: str, unit: bytes, number: int, replaced: int, count: int,
    lost_s: float | None,
) -> None:  # fmt: skip
    """The damage is at the start of a box or block: reading continues, or reports it if nothing follows."""
    if name == "a.wv":
        write_media(tmp_path / name, "wavpack", hum(DURATION_S * RATE_HZ))
    data = bytearray(originals.get(name) or (tmp_path / name).read_bytes())
    (tmp_path / name).write_bytes(data)
    intact, start = load_audio(tmp_path / name, RATE_HZ).samples, box(data, unit, number)
    data[start : start + replaced] = np.random.default_rng(1).bytes(count)
    (tmp_path / name).write_bytes(data)
    samples, error, lost = read_all(tmp_path / name)
    if lost_s is None:
        assert (error and error.code) == "audio-cut-short"
        return
    assert error is None
    assert len(samples) == pytest.approx(len(intact), abs=200)
    assert sum(end_s - start_s for start_s, end_s in lost) <= lost_s + 0.3
    assert like_before(samples, intact) > 1 - (lost_s + 1.5) / DURATION_S
    assert bool(lost) == bool(lost_s)


@pytest.mark.parametrize(
    ("name", "codec", "fields"),
    [
        ("a.caf", "alac", [(b"pakt", 12, ">q")]), ("a.wav", "adpcm_ms", [(b"data", 4, "<I"), (b"fact", 8, "<I")]),
    ],
)  # fmt: skip
def test_headers_that_omit_packets(
    tmp_path: Path, name: str, codec: str, fields: list[tuple[bytes, int, str]]
) -> None:
    """The rest of a compressed recording is not skipped silently."""
    data = bytearray(write_media(tmp_path / name, codec, hum(20 * RATE_HZ)).read_bytes())
    for field, begin, kind in fields:
        at = data.index(field) + begin
        (value,) = struct.unpack_from(kind, data, at)
        struct.pack_into(kind, data, at, value // 4)
    (tmp_path / name).write_bytes(data)
    recording = open_recording(tmp_path / name, RATE_HZ)
    with pytest.raises(FunASRError):
        list(recording.blocks())
    assert recording.expected_s == pytest.approx(20, abs=1.5)  # from the size: the ledger includes missing audio


@pytest.mark.parametrize("at", ["begin", "mdat"])
@pytest.mark.parametrize("size", [2**63 - 1, 2**63, 2**64 - 1])
def test_sizes_that_no_file_has(originals: Contents, tmp_path: Path, size: int, at: str) -> None:
    """It is the 64-bit size of a box."""
    data = originals["a.mp4"]
    start = data.index(b"mdat") - 4 if at == "mdat" else data.index(b"moov") - 4
    huge = (1).to_bytes(4) + data[start + 4 : start + 8] + size.to_bytes(8)
    (tmp_path / "a.mp4").write_bytes(data[:start] + huge + data[start + 8 :])
    _, error = read(tmp_path / "a.mp4")
    assert error is not None
    assert error.code in ("audio-cut-short", "audio-unreadable")
    assert "Invalid argument" not in error.message


def test_avi_from_a_pipe(tmp_path: Path) -> None:
    """The writing program cannot seek back to fill in the length."""
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(tmp_path / "a.avi", "wb") as file:
        copier = threading.Thread(target=shutil.copyfileobj, args=(pipe, file))
        copier.start()
        write_media(Path(f"/dev/fd/{writing}"), "libmp3lame", hum(10 * RATE_HZ), format="avi")
        os.close(writing)
        copier.join()
    samples, error = read(tmp_path / "a.avi")
    assert error is None
    assert len(samples) / RATE_HZ == pytest.approx(10, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [zeros, removed, inserted])
@pytest.mark.parametrize("name", sorted(set(CONTENT) - UNFOUND))
def test_every_loss_is_reported(
    originals: Contents, tmp_path: Path, name: str, damage: Callable[[bytearray, int], None]
) -> None:
    path = damaged(tmp_path / name, originals[name], damage, len(originals[name]) // 2)
    samples, error, lost = read_all(path)
    assert lost or error
    assert error is None or error.code == "audio-cut-short"
    assert all(DURATION_S / 2 - 5 < start_s < end_s for start_s, end_s in lost)
    if not error and damage is zeros:
        assert len(samples) / RATE_HZ == pytest.approx(DURATION_S, abs=0.3)
    first = slice(0, (DURATION_S // 2 - 6) * RATE_HZ)
    for start_s, end_s in lost:
        inside = samples[int((start_s + 0.02) * RATE_HZ) : int((end_s - 0.02) * RATE_HZ)]
        assert not len(inside) or np.abs(inside).max() < 0.05
    assert np.abs(samples[first]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.ogg", "a.opus", "a.mp4", "a.webm", "a.mkv", "a.wav"])
def test_damage_elsewhere_does_not_matter(originals: Contents, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(originals[name])
    intact = np.concatenate(list(open_recording(path, RATE_HZ, clip=(18, 24)).blocks()))
    damaged(path, originals[name], zeros, len(originals[name]) // 2)
    for clip in ((1, 7), (18, 24)):
        recording = open_recording(path, RATE_HZ, clip=clip)
        samples = np.concatenate(list(recording.blocks()))
        assert len(samples) == 6 * RATE_HZ
        assert recording.findings.lost == []
        assert recording.findings.warnings == ()
    if name in ("a.mp4", "a.opus", "a.webm"):  # for these, it may be off by a frame
        assert like_before(samples, intact) > 0.9
    else:
        np.testing.assert_array_equal(samples, intact)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.62, 0.95])
@pytest.mark.parametrize("name", [*PCM, *WITH_LENGTH, "a.ogg", "a.opus", "a.aac"])
def test_cut_off(originals: Contents, tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    path.write_bytes(originals[name])
    intact = load_audio(path, RATE_HZ).samples
    path.write_bytes(originals[name][: int(len(originals[name]) * share)])
    samples, (read_s, *stated_s) = cut_short(path)
    assert stated_s == ([pytest.approx(DURATION_S, abs=0.2)] if name in (*PCM, *WITH_LENGTH) else [])
    assert read_s == pytest.approx(DURATION_S * share, abs=2)
    assert read_s == pytest.approx(len(samples) / RATE_HZ, abs=0.06)
    good = len(samples) - 3000  # the resampler and the codec are not affected by later samples
    np.testing.assert_allclose(samples[:good], intact[:good], atol=1e-5)


def test_reported_files() -> None:
    """Ten seconds each, damaged in the middle; and a file that only states the length of its first part."""
    assert load_audio(CASES / "joined.mp3", RATE_HZ).duration_s == pytest.approx(14.8, abs=0.1)
    for name in ("damaged.m4a", "damaged.webm", "damaged.aac", "junk.mp3"):
        recording = open_recording(CASES / name, RATE_HZ)
        assert sum(map(len, recording.blocks())) / RATE_HZ == pytest.approx(10, abs=0.8)
        ((start_s, end_s),) = recording.findings.lost
        assert (4.3 < start_s < end_s < 5.5, end_s - start_s < 0.9) == (True, True)
        assert len(recording.findings.warnings) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.m4a", "aac"), ("a.mp4", "aac"), ("a.mov", "alac"), ("a.flv", "aac"), ("a.wav", "adpcm_ms"),
        ("a.wav", "libmp3lame"), ("a.w64", "adpcm_ms"), ("a.aifc", "adpcm_ima_qt"), ("a.caf", "alac"),
        ("a.tta", "tta"), ("a.wv", "wavpack"), ("a.mp4", "flac"), ("fragments.mp4", "aac"),
    ],
)  # fmt: skip
def test_joined_recordings_that_ffmpeg_does_not_notice(tmp_path: Path, name: str, codec: str) -> None:
    """FFmpeg stops at the end of the first one; here, another one with half the sample rate follows."""
    first_s, second_s, whole = 3, 5, b""
    options = {"movflags": "empty_moov+frag_every_frame"} if name.startswith("fragments") else None
    for duration_s, rate_hz in ((first_s, RATE_HZ), (second_s, RATE_HZ // 2)):
        whole += write_media(
            tmp_path / name, codec, hum(duration_s * rate_hz), rate_hz, options=options
        ).read_bytes()
    (tmp_path / name).write_bytes(whole)
    samples, error, lost = read_all(tmp_path / name)
    assert error is None
    assert lost == []
    assert len(samples) / RATE_HZ == pytest.approx(first_s + second_s, abs=0.4)
    assert np.abs(samples[-2 * RATE_HZ : -RATE_HZ]).max() > 0.1
    (tmp_path / name).write_bytes(whole[: -len(whole) // 3])
    assert read_all(tmp_path / name)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.flac", "a.wav"), ("a.wav", "a.flac"), ("a.wav", "a.mp3"), ("a.aiff", "a.m4a"), ("a.ogg", "a.opus"),
        ("a.opus", "a.ogg"), ("a.ogg", "b.ogg"), ("a.ogg", "a.flac"), ("a.m4a", "a.wav"), ("a.wav", "a.aac"),
        ("a.wav", "tagged.mp3"), ("a.opus", "tagged.mp3"), ("a.opus", "a.aac"), ("b.mp4", "a.flac"),
        ("a.mkv", "a.webm"), ("b.mp4", "tagged.mp3"), ("b.caf", "a.aac"), ("b.caf", "a.ogg"), ("a.flac", "a.aac"),
        ("a.mkv", "a.aac"),
        *((name, name) for name in ("a.mp3", "a.flac", "a.aac", "a.ac3", "a.ts", "a.amr", *OGG)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_joined_recordings(originals: Contents, tmp_path: Path, first: str, second: str, way: str) -> None:
    """They are read, or at least reported for a pipe. In Ogg, a broadcast starts a new one with every title."""
    tagged = {"tagged.mp3": b"ID3\x03\0\0\0\0\x02\x00" + bytes(256) + originals["unknown.mp3"]}
    content = originals[first] + (originals | tagged)[second]
    (tmp_path / "a").write_bytes(content)
    piped = through_a_pipe(content)
    samples, error, lost = read_all(tmp_path / "a") if way == "file" else (piped.samples, piped.error, [])
    assert len(samples) / RATE_HZ > DURATION_S - 0.3
    if way == "file" or (first in OGG[:2] and first == second) or not error:
        assert (error, lost) == (None, [])
        assert len(samples) / RATE_HZ == pytest.approx(2 * DURATION_S, abs=0.3)


def test_data_after_the_samples(tmp_path: Path) -> None:
    """Tags, and an odd number of bytes without padding after them."""
    soundfile.write(tmp_path / "a.wav", hum(RATE_HZ * 3), RATE_HZ)
    content, tag = (tmp_path / "a.wav").read_bytes(), os.urandom(16000)
    heads = (b"ID3\x03\0\0\0\0\x7d\x00", b"APETAGEX" + bytes([208, 7, 0, 0, 128, 62]) + bytes(18))
    for head in heads:
        (tmp_path / "a.wav").write_bytes(content + head + tag)
        assert len(load_audio(tmp_path / "a.wav", RATE_HZ).samples) == 3 * RATE_HZ
    soundfile.write(tmp_path / "b.wav", hum(RATE_HZ + 1), RATE_HZ, subtype="PCM_U8")
    odd = (tmp_path / "b.wav").read_bytes()[: 44 + RATE_HZ + 1]
    (tmp_path / "b.wav").write_bytes(odd + content)
    assert len(load_audio(tmp_path / "b.wav", RATE_HZ).samples) == 4 * RATE_HZ + 1


@pytest.mark.parametrize("name", ["a.m4a", "a.mov"])
def test_cut_off_before_the_index(originals: Contents, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(originals[name][:-2000])
    with refused("audio-unreadable", tmp_path / name, "moov", "incomplete"):
        open_recording(tmp_path / name, RATE_HZ)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_film_that_was_cut_off(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"}
    path = write_media(tmp_path / name, "aac", hum(12 * RATE_HZ), pictures_s=20, options=options)
    os.truncate(path, path.stat().st_size // 3)
    samples, (_, stated_s) = cut_short(path)
    assert stated_s == pytest.approx(12, abs=0.1)
    assert 3 < len(samples) / RATE_HZ < 9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.aac", "a.ts", "a.ac3", "unknown.mp3"])
@pytest.mark.parametrize("extra", range(0, 500, 77))
def test_a_recording_that_starts_within_a_frame(
    originals: Contents, tmp_path: Path, name: str, extra: int
) -> None:
    """It was cut from a broadcast."""
    content = originals[name]
    (tmp_path / name).write_bytes(content[len(content) // 2 + extra :])
    recording = open_recording(tmp_path / name, RATE_HZ)
    assert sum(map(len, recording.blocks())) / RATE_HZ == pytest.approx(DURATION_S / 2, abs=0.5)
    assert recording.findings.lost == []


@pytest.mark.parametrize("line", ["#EXTM3U\n#EXTINF:20,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"])
def test_a_playlist_is_not_followed(originals: Contents, tmp_path: Path, line: str) -> None:
    """It could name any file on this machine, or an address."""
    other = tmp_path / "secret.ts"
    other.write_bytes(originals["a.ts"])
    for target in (other.name, str(other), f"file:{other}", "http://127.0.0.1:1/a.ts"):
        (tmp_path / "a.m3u8").write_text(line.format(target))
        with refused("audio-unreadable", tmp_path / "a.m3u8"):
            open_recording(tmp_path / "a.m3u8", RATE_HZ)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mp3", "wav", "flac", "m4a", "txt"])
@pytest.mark.parametrize("name", ["a.aac", "a.mp3", "a.wav", "a.ogg", "a.mp4", "a.flac", "a.webm", "a.aiff"])
def test_wrong_suffixes(originals: Contents, tmp_path: Path, name: str, ending: str) -> None:
    (tmp_path / f"b.{ending}").write_bytes(originals[name])
    assert load_audio(tmp_path / f"b.{ending}", RATE_HZ).duration_s == pytest.approx(DURATION_S, abs=0.2)


@pytest.mark.slow
def test_nothing_is_printed(originals: Contents, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Libraries print no messages of their own."""
    for name, content in originals.items():
        for data in (
            content[: len(content) // 2],
            content[:1000] + bytes(3000) + content[4000:],
            content[:110] + bytes(8000) + content[8110:],
            content[:99] * 50,
        ):
            (tmp_path / name).write_bytes(data)
            read(tmp_path / name)
            through_a_pipe(data)
    for path in CASES.iterdir():
        read(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "rate_hz", "channels", "begin_s", "end_s"),
    [
        ("two_tracks.mkv", 16000, 1, 0.3, 3.1),  # the first track, regardless of other programs' preference
        ("quad_aac.m4a", 48000, 4, 0.3, 9.9),
        ("late.mp4", 16000, 1, 4.3, 7.1),  # the sound starts later than the video
    ],
)
def test_films(name: str, rate_hz: int, channels: int, begin_s: float, end_s: float) -> None:
    reader = open_reader(CASES / name, name)
    with closing(reader):
        samples = np.concatenate(list(reader.pieces()))  # (samples, channels)
    assert (reader.sample_rate_hz, samples.shape[1]) == (rate_hz, channels)
    loud = np.flatnonzero(np.abs(samples[:, 0]) > 0.01)
    assert loud[0] / rate_hz == pytest.approx(begin_s, abs=0.1)
    assert len(samples) / rate_hz == pytest.approx(end_s, abs=0.1)
    assert reader.expected_s == pytest.approx(end_s, abs=0.1)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp4"])
def test_a_file_that_shrinks_while_it_is_read(originals: Contents, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(originals[name])
    blocks = open_recording(path, RATE_HZ).blocks()
    next(blocks)
    os.truncate(path, path.stat().st_size // 2)
    with refused("audio-cut-short", path, 24.0):
        list(blocks)


def test_a_file_that_vanishes(originals: Contents, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(originals["a.wav"])
    recording = open_recording(path, RATE_HZ)
    blocks = recording.blocks()
    count = len(next(blocks))
    path.unlink()
    assert count + sum(map(len, blocks)) == DURATION_S * RATE_HZ  # the file is still open
    with refused("audio-missing", path):
        next(recording.blocks())
    path.mkdir()
    with refused("audio-folder", path):
        next(recording.blocks())


@pytest.mark.slow
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_ends_and_adds_up(originals: Contents, tmp_path: Path, data: st.DataObject) -> None:
    """Reading never crashes or hangs, and all losses are within the part that was read."""
    content = bytearray(originals[data.draw(st.sampled_from(sorted(originals)))][:40_000])
    within = st.integers(0, min(2000, len(content) - 1)) | st.integers(0, len(content) - 1)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(within)] ^= data.draw(st.integers(1, 255))
    start = data.draw(within)
    damage = data.draw(st.sampled_from([lambda *_: None, overwritten, zeros, removed, inserted]))
    damage(content, start)
    (tmp_path / "a").write_bytes(content[: data.draw(within | st.just(len(content)))])
    samples, error, lost = read_all(tmp_path / "a")
    assert np.isfinite(samples).all()
    assert error is None or error.code.startswith("audio-")
    ends = [time_s for span in lost for time_s in span]
    assert ends == sorted(ends)
    assert all(0 <= time_s <= len(samples) / RATE_HZ + 0.1 for time_s in ends)

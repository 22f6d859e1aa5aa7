"""Files and pipes read block by block: samples, memory, and open files."""

import errno
import gc
import os
import resource
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from support import peak_memory
from support.errors import refused
from support.media import noise, read_all, write_media
from support.piping import (
    DURATION_S,
    LISTED,
    RATE_HZ,
    mp3_of_unknown_length,
    named_pipe,
    through_a_pipe,
    wav_header,
    write,
)
from support.piping import FORMATS as PIPED

from funasr_cli.audio.decode import Recording, Source, from_array, load_audio, open_recording
from funasr_cli.audio.pcm import PCM_ENCODINGS, PCMFormat
from funasr_cli.audio.recording import joined, resampled
from funasr_cli.errors import AudioError

FORMATS = ["wav", "flac", "aiff", "au", "caf", "w64", "ogg", "mp3"]
RATES_HZ = [8000, 11025, 16000, 22050, 44100, 48000, 96000]


def descriptors() -> int:
    """Return the number of open descriptors after garbage collection."""
    gc.collect()
    return len(os.listdir("/dev/fd"))


def id3_tag(size: int) -> bytes:
    """Return a tag as large as one with a picture."""
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def ape_tag(size: int) -> bytes:
    """Return a tag that mp3gain, for example, writes after the frames, with a header."""
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, size + 32, 1, flags) + bytes(8) for flags in (0xA0000000, 1 << 31)
    ]
    return ends[0] + bytes(size) + ends[1]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44100])
def test_blocks_equal_reading_at_once(tmp_path: Path, format: str, rate_hz: int) -> None:
    path = tmp_path / f"a.{format}"
    soundfile.write(path, noise(25 * rate_hz, 2), rate_hz)
    recording = open_recording(path, RATE_HZ)
    blocks = list(recording.blocks())
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)  # does not seek
    expected = soxr.resample(whole.mean(axis=1), rate_hz, RATE_HZ, quality="HQ")
    np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=0, atol=5e-6)  # decoders differ slightly
    assert [len(block) / RATE_HZ for block in blocks] == pytest.approx([10, 10, 5], abs=0.6)
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    assert recording.expected_s == pytest.approx(25, abs=1e-6)
    assert (recording.name, recording.sample_rate_hz) == (str(path), RATE_HZ)
    np.testing.assert_array_equal(load_audio(path, RATE_HZ).samples, np.concatenate(list(recording.blocks())))


@settings(deadline=None)
@given(
    st.sampled_from(RATES_HZ),
    st.integers(0, 30000),
    st.lists(st.integers(0, 9000), min_size=1),
    st.integers(1, 40000),
)
def test_resampling_in_pieces(rate_hz: int, length: int, sizes: list[int], block: int) -> None:
    """The joined pieces equal the whole resampled recording."""
    samples = noise(length)[:, 0]
    pieces = np.split(samples, np.minimum(np.cumsum(sizes), length))
    blocks = list(joined(resampled(pieces, rate_hz, RATE_HZ), block))
    expected = soxr.resample(samples, rate_hz, RATE_HZ, quality="HQ") if length else samples
    np.testing.assert_allclose(np.concatenate([samples[:0], *blocks]), expected, rtol=0, atol=1e-6)
    assert all(len(part) >= block for part in blocks[:-1])
    assert all(map(len, blocks))


def test_files_and_arrays_are_equal(tmp_path: Path) -> None:
    samples = noise(50000, 2)
    soundfile.write(tmp_path / "a.wav", samples, 44100, "FLOAT")
    sources: list[Source] = [open_recording(tmp_path / "a.wav", RATE_HZ), from_array(samples, 44100, RATE_HZ)]
    first, second = (np.concatenate(list(source.blocks())) for source in sources)
    np.testing.assert_array_equal(first, second)
    assert sources[0].expected_s == pytest.approx(sources[1].expected_s, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("tag_bytes", [0, 100, 1_000_000])
def test_mp3_without_a_stated_length(tmp_path: Path, tag_bytes: int) -> None:
    """libsndfile takes the first frames as typical, and would stop early if they are loud."""
    samples = noise(60 * RATE_HZ)
    samples[5 * RATE_HZ :] *= 1e-4
    for name, loud_first in (("a.mp3", True), ("b.mp3", False)):
        content = mp3_of_unknown_length(samples if loud_first else samples[::-1])
        (tmp_path / name).write_bytes(id3_tag(tag_bytes) * bool(tag_bytes) + content)
        guess_s = soundfile.info(tmp_path / name).duration
        assert tag_bytes or (guess_s < 50 if loud_first else guess_s > 70)
        recording = open_recording(tmp_path / name, RATE_HZ)
        assert recording.expected_s is None
        assert sum(map(len, recording.blocks())) / RATE_HZ == pytest.approx(60, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("states_length", [False, True])
@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), ape_tag(300_000), ape_tag(100) + b"TAG" + bytes(125)])
def test_mp3_with_tags_after_it(tmp_path: Path, states_length: bool, tag: bytes) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise(30 * RATE_HZ), RATE_HZ)
    content = path.read_bytes() if states_length else mp3_of_unknown_length(noise(30 * RATE_HZ))
    path.write_bytes(content + tag)
    recording = open_recording(path, RATE_HZ)
    assert recording.expected_s == (30 if states_length and len(tag) < 1000 else None)
    assert sum(map(len, recording.blocks())) / RATE_HZ == pytest.approx(30, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("between", [b"", id3_tag(100_000)])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_several_mp3_files_in_one(tmp_path: Path, between: bytes, mode: str) -> None:
    """Podcasts are joined like this; the first part states only its own length."""
    path, voice = tmp_path / "a.mp3", noise(30 * RATE_HZ)
    soundfile.write(path, voice, RATE_HZ, bitrate_mode=mode, compression_level=0.5)
    part = load_audio(path, RATE_HZ).samples
    path.write_bytes(id3_tag(1000) + path.read_bytes() + between + path.read_bytes())
    assert open_recording(path, RATE_HZ).expected_s is None
    got = load_audio(path, RATE_HZ).samples
    assert len(got) / RATE_HZ == pytest.approx(60, abs=0.3)
    for half in (got[: len(part)], got[-len(part) :]):
        middle = part[RATE_HZ : 9 * RATE_HZ]
        begin = int(np.correlate(half[: 10 * RATE_HZ], middle).argmax())
        np.testing.assert_allclose(half[begin : begin + len(middle)], middle, atol=1e-3)


def test_named_pipe(tmp_path: Path) -> None:
    samples = noise(12 * RATE_HZ)[:, 0]
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    with named_pipe(tmp_path / "pipe", (tmp_path / "a.wav").read_bytes()) as pipe:
        recording = open_recording(pipe, RATE_HZ)
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), samples)
    assert recording.expected_s == 12
    with refused("audio-read-twice", pipe):
        next(recording.blocks())


def whole(recording: Recording) -> None:
    list(recording.blocks())


def not_at_all(recording: Recording) -> None:
    recording.blocks()


def one_block(recording: Recording) -> None:
    blocks = recording.blocks()
    next(blocks)
    blocks.close()


def one_block_then_dropped(recording: Recording) -> None:
    for _ in recording.blocks():
        break


@pytest.mark.slow
@pytest.mark.parametrize("use", [whole, not_at_all, one_block, one_block_then_dropped])
@pytest.mark.parametrize(
    "name", ["a.wav", "a.flac", "a.mp4", "unknown.mp3", "cut.flac", "cut.mp4", "nan.wav", "text.wav"]
)
def test_nothing_stays_open(tmp_path: Path, name: str, use: Callable[[Recording], None]) -> None:
    path, samples = tmp_path / name, noise(30 * RATE_HZ)
    if name == "unknown.mp3":
        path.write_bytes(mp3_of_unknown_length(samples))
    elif name == "text.wav":
        path.write_text("no recording")
    elif name.endswith("mp4"):
        write_media(path, "aac", samples, options={"movflags": "faststart"})
    else:
        samples[-9] = np.nan if name == "nan.wav" else 0
        soundfile.write(path, samples, RATE_HZ, "FLOAT" if name.endswith("wav") else None)
    if name.startswith("cut"):
        os.truncate(path, path.stat().st_size // 2)
    before, kept = descriptors(), []
    try:
        use(open_recording(path, RATE_HZ))
    except AudioError as error:
        kept.append(error)  # with its traceback and everything that it references
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.skipif(sys.platform == "darwin", reason="no such file there")
def test_a_file_that_fails_as_it_is_read_is_closed() -> None:
    before = len(os.listdir("/dev/fd"))
    with refused("audio-unreadable", "/proc/self/mem"):
        open_recording("/proc/self/mem", RATE_HZ)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    ("name", "codec", "fault"),
    [("a.wav", None, errno.EIO), ("a.flac", None, errno.EIO), ("a.webm", "libopus", errno.EIO),
     ("a.flac", None, errno.ESTALE)],
)  # fmt: skip
def test_a_disk_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    name: str, codec: str | None, fault: int,
) -> None:  # fmt: skip
    """Sound after a bad sector is read; a read that keeps failing ends the recording. Nothing is printed."""
    path, read = tmp_path / name, os.pread
    if codec:
        write_media(path, codec, noise(30 * 48000), 48000)
    else:
        soundfile.write(path, noise(30 * RATE_HZ), RATE_HZ)
    bad = path.stat().st_size // 2

    def failing(descriptor: int, count: int, position: int) -> bytes:
        if position <= bad < position + count:
            raise OSError(fault, os.strerror(fault))
        return read(descriptor, count, position)

    monkeypatch.setattr(os, "pread", failing)
    samples, error, lost = read_all(path)
    assert error is not None
    assert error.message == f"{path}: cannot be read ({os.strerror(fault)})"
    assert (len(samples) == pytest.approx(30 * RATE_HZ, abs=200)) == (fault == errno.EIO)
    assert bool(lost) == (fault == errno.EIO)
    assert all(12 < start_s < end_s < 21 for start_s, end_s in lost)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("clip", [None, (1.0, 4.0)])
@pytest.mark.parametrize(("start_s", "end_s"), [(0, 5), (0.5, 4.5)])
def test_seconds_without_numbers_are_lost(
    tmp_path: Path, start_s: float, end_s: float, clip: tuple[float, float] | None
) -> None:
    """The same holds if most of a file is affected."""
    samples = noise(5 * RATE_HZ)
    samples[int(start_s * RATE_HZ) : int(end_s * RATE_HZ)] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    recording = open_recording(tmp_path / "a.wav", RATE_HZ, clip=clip)
    with refused("audio-damaged"):
        list(recording.blocks())
    assert recording.findings.lost == [clip or (start_s, end_s)]


@pytest.mark.slow
@pytest.mark.parametrize(("format", "rate_hz"), [("flac", 16000), ("wav", 24000)])
def test_long_files_take_no_more_memory(tmp_path: Path, format: str, rate_hz: int) -> None:
    minutes = (1, 60)
    for count in minutes:
        with soundfile.SoundFile(tmp_path / f"{count}.{format}", "w", rate_hz, 1) as file:
            for _ in range(count):
                file.write(np.zeros(60 * rate_hz, np.int16))
    short, long = peak_memory.after_each([tmp_path / f"{count}.{format}" for count in minutes])
    assert (short[0], long[0]) == (60 * RATE_HZ, 3600 * RATE_HZ)
    assert long[1] - short[1] < 20


# --- pipes: read as data arrives, or when it is complete, with the same result as a file ---


def test_data_after_the_samples_is_not_sound() -> None:
    samples = (noise(3 * RATE_HZ) * 2**15).astype("<i2").tobytes()
    read = through_a_pipe(wav_header(len(samples)) + samples + LISTED * 10)
    assert (len(read.samples), read.expected_s, read.error) == (3 * RATE_HZ, 3, None)
    header = wav_header(0)
    read = through_a_pipe(header[:4] + struct.pack("<I", 36 + len(LISTED)) + header[8:] + LISTED)
    assert (len(read.samples), read.message) == (0, "-: contains no samples")


@pytest.mark.parametrize("encoding", PCM_ENCODINGS)
@pytest.mark.parametrize("rest", [b"", b"\1"])
def test_raw_samples(tmp_path: Path, encoding: str, rest: bytes) -> None:
    """A partial sample at the end is dropped."""
    stored = tmp_path / "a.raw"
    soundfile.write(stored, noise(12001, 2), 8000, *PCM_ENCODINGS[encoding], "RAW")
    pcm = PCMFormat(encoding, 8000, 2)
    read = through_a_pipe(stored.read_bytes() + rest, pcm)
    expected = list(open_recording(stored, RATE_HZ, pcm=pcm).blocks())
    np.testing.assert_array_equal(read.samples, np.concatenate(expected))
    assert (len(read.samples), read.expected_s, read.error) == (24002, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "b.ogg", "a.flac", "a.mkv"])
def test_a_pipe_that_is_cut_off(tmp_path: Path, name: str) -> None:
    """The result ends at the same sample as that of a file."""
    path = write(tmp_path / name, PIPED[name][0], noise(DURATION_S * RATE_HZ))
    os.truncate(path, int(path.stat().st_size * 0.62))
    with refused("audio-cut-short") as caught:
        load_audio(path, RATE_HZ)
    read = through_a_pipe(path.read_bytes())
    assert read.message == caught.value.message.replace(f"{path}:", "-:")
    assert float(read.message.split()[4]) == pytest.approx(len(read.samples) / RATE_HZ, abs=0.06)


@pytest.mark.parametrize("tag_bytes", [0, 3000, 5000, 1_000_000])
@pytest.mark.parametrize("name", ["a.mp3", "a.flac"])
def test_leading_tags(tmp_path: Path, name: str, tag_bytes: int) -> None:
    """A tag may contain a picture."""
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
    is_text = b"text" in content.replace(b"\0", b"")
    assert ("looks like text" in read.message) == is_text
    assert "file is empty" not in read.message


@pytest.mark.parametrize("folder", ["kept", "nowhere"])
def test_no_space_for_stored_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Nothing remains on disk, even while the error object exists."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / folder))
    (tmp_path / "kept").mkdir()
    content = write(tmp_path / "a.flac", {}, noise(DURATION_S * RATE_HZ)).read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        error = through_a_pipe(content).error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error is not None
    assert (error.code, "TMPDIR" in error.hint) == ("disk-full", True)
    assert "File too large" in error.message if folder == "kept" else str(tmp_path / folder) in error.message
    assert os.listdir(tmp_path / "kept") == []


@contextmanager
def all_closed() -> Iterator[None]:
    """Assert that no additional files are open and no additional threads run at the end."""
    before, threads = descriptors(), set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(60)
        assert not thread.is_alive()
    assert descriptors() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "text", "nothing"])
def test_nothing_of_a_pipe_stays_open(tmp_path: Path, name: str) -> None:
    contents = {"text": b"\xff\xfb" + b"a text" * 1000, "nothing": b""}
    content = contents.get(name) or (write(tmp_path / name, {}, noise(5000)).read_bytes() if "." in name else b"")
    with all_closed():
        read = through_a_pipe(content)  # with an error, its traceback and everything that it references
    assert bool(read.error) == ("." not in name)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [0, 1])
def test_nothing_stays_open_if_reading_stops(blocks: int) -> None:
    """There is more data left than a pipe can hold."""

    def feed() -> None:
        with suppress(BrokenPipeError), open(writing, "wb", buffering=0) as pipe:
            pipe.write(wav_header(0xFFFFFFFF) + bytes(5_000_000))

    with all_closed():
        reading, writing = os.pipe()
        threading.Thread(target=feed).start()
        assert len(list(islice(open_recording(f"/dev/fd/{reading}", RATE_HZ).blocks(), blocks))) == blocks
        os.close(reading)

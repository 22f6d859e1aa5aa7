"""Inputs on the command line: files, folders, patterns, standard input, times."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from support.errors import refused

from funasr_cli.audio.pcm import PCM_ENCODINGS, PCMFormat
from funasr_cli.audio.readers import open_reader
from funasr_cli.audio.tape import STDIN
from funasr_cli.errors import UsageError
from funasr_cli.inputs import ENDINGS, Input, find_inputs, parse_clip, parse_time
from funasr_cli.sources import open_input


def make(folder: Path, *names: str) -> None:
    """Create empty files and their folders."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, so that names are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labels(*typed: str, recursive: bool = False) -> list[str]:
    return [input.label for input in find_inputs(typed, recursive=recursive)]


def stems(*typed: str, recursive: bool = False) -> list[str]:
    return [input.stem for input in find_inputs(typed, recursive=recursive)]


def assert_refused(code: str, *typed: str, names: str = "", recursive: bool = False) -> None:
    with refused(code, names):
        find_inputs(typed, recursive=recursive)


def test_files_as_they_are(here: Path) -> None:
    assert find_inputs([]) == []
    make(here, "b.wav", "a.txt", "calls/c.mp3")
    assert find_inputs(["b.wav", Path("a.txt"), "./calls//c.mp3", "missing.wav", ".hidden"]) == [
        Input(Path("b.wav"), "b.wav", "b"),
        Input(Path("a.txt"), "a.txt", "a"),
        Input(Path("calls/c.mp3"), "calls/c.mp3", "c"),
        Input(Path("missing.wav"), "missing.wav", "missing"),
        Input(Path(".hidden"), ".hidden", ".hidden"),
    ]


@pytest.mark.parametrize("address", ["http://example.com/a.mp3", "HTTPS://example.com/?a=[1]", "s3://a//b.wav"])
def test_an_address(here: Path, address: str) -> None:
    """An address is not a pattern, and the error names it unchanged; an existing file of that name is used."""
    (input,) = find_inputs([address])
    with refused("audio-address", address):
        open_input(input, 16000)
    make(here, address)
    assert find_inputs([address])[0].problem is None


@pytest.mark.skipif(sys.platform == "darwin", reason="names must be text there")
def test_a_name_that_is_not_text(here: Path) -> None:
    name = os.fsdecode(b"a\xff.wav")
    make(here, name)
    for typed in (name, ".", "*.wav"):
        (input,) = find_inputs([typed])
        assert (input.path.name, input.label, input.stem) == (name, "a\ufffd.wav", os.fsdecode(b"a\xff"))


def test_folder(here: Path) -> None:
    make(
        here, "calls/b.wav", "calls/A.MP3", "calls/notes.txt", "calls/noending", "calls/deeper/c.wav", "other.wav"
    )
    make(
        here, "calls/.hidden.wav", "calls/._a.wav", "calls/.hidden/d.wav", "calls/film.MP4", "calls/not.wav/e.wav"
    )
    assert labels("calls") == labels("calls/") == ["calls/A.MP3", "calls/b.wav", "calls/film.MP4"]
    everything = ["calls/A.MP3", "calls/b.wav", "calls/deeper/c.wav", "calls/film.MP4", "calls/not.wav/e.wav"]
    assert labels("calls", recursive=True) == everything
    assert labels(str(here / "calls")) == [str(here / label) for label in labels("calls")]


def test_results_keep_their_place_in_the_folder(here: Path) -> None:
    make(here, "calls/monday/a.wav", "calls/tuesday/a.wav", "calls/b.c.wav")
    assert stems("calls", recursive=True) == ["b.c", "monday/a", "tuesday/a"]
    assert stems("calls/*/a.wav") == ["monday/a", "tuesday/a"]
    assert stems(str(here / "calls/**/a.wav"), recursive=True) == ["monday/a", "tuesday/a"]
    assert stems("calls/monday/*.wav", "./calls/tuesday/a.wav") == ["a", "a"]
    assert stems("calls/*/../b.c.wav") == ["b.c"]  # inside the output folder


def test_results_of_a_folder_next_to_this_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here, "calls/monday/a.wav", "calls/tuesday/a.wav", "work/b.wav")
    monkeypatch.chdir(here / "work")
    assert stems("../calls", recursive=True) == ["monday/a", "tuesday/a"]
    assert stems("../calls/*/*.wav") == ["monday/a", "tuesday/a"]
    assert stems("../c*", recursive=True) == ["calls/monday/a", "calls/tuesday/a"]
    assert stems("..", recursive=True) == ["calls/monday/a", "calls/tuesday/a", "work/b"]


def test_folders_are_in_natural_order(here: Path) -> None:
    names = ["Track 1.wav", "track 2.wav", "track 10.wav", "track 10b.wav", "track 010.wav", "ü.wav", "2/a.wav"]
    make(here, *names, "10/a.wav", "x9y10.wav", "x9y9.wav")
    assert labels(".", recursive=True) == [
        "2/a.wav", "10/a.wav", "Track 1.wav", "track 2.wav", "track 010.wav", "track 10.wav", "track 10b.wav",
        "x9y9.wav", "x9y10.wav", "ü.wav",
    ]  # fmt: skip


@pytest.mark.parametrize("recursive", [False, True])
def test_folder_without_recordings(here: Path, recursive: bool) -> None:
    make(here, "calls/notes.txt", "calls/.a.wav", "a.wav")
    with refused("inputs-missing", "calls") as caught:
        find_inputs(["a.wav", "calls"], recursive=recursive)
    assert ("--recursive" in caught.value.hint) != recursive


def test_every_known_suffix_is_found(here: Path) -> None:
    make(here, *(f"calls/{index}{ending}" for index, ending in enumerate(sorted(ENDINGS))))
    assert len(labels("calls")) == len(ENDINGS) > 40


def test_links(here: Path) -> None:
    make(here, "calls/a.wav", "elsewhere/b.wav")
    (here / "calls/folder").symlink_to(here / "elsewhere")
    (here / "calls/link.wav").symlink_to(here / "calls/a.wav")
    (here / "calls/lost.wav").symlink_to(here / "nowhere.wav")
    (here / "calls/circle.wav").symlink_to(here / "calls/circle.wav")
    expected = ["a.wav", "circle.wav", "folder/b.wav", "link.wav", "lost.wav"]
    inputs = find_inputs(["calls"], recursive=True)
    assert [input.label for input in inputs] == [f"calls/{name}" for name in expected]
    for input, code in ((inputs[1], "audio-unreadable"), (inputs[4], "audio-missing")):
        with refused(code, input.label):
            open_input(input, 16000)


@pytest.mark.parametrize("typed", ["calls", "calls/**/*.wav", "**/*.wav", "c*/**", "calls/**/**/?.wav"])
def test_cyclic_links(here: Path, typed: str) -> None:
    make(here, "calls/a.wav", "calls/1/b.wav", "calls/2/c.wav")
    for folder in ("calls", "calls/1", "calls/2"):
        (here / folder / "up").symlink_to(here / "calls")
        (here / folder / "self").symlink_to(here / folder)
        (here / folder / "side").symlink_to(here / "calls/1")
    found = find_inputs([typed], recursive=True)
    assert sorted(input.path.resolve().name for input in found) == ["a.wav", "b.wav", "c.wav"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
def test_a_pipe_in_a_folder_is_skipped(here: Path) -> None:
    """Reading it could block forever."""
    make(here, "calls/a.wav")
    os.mkfifo(here / "calls/b.wav")
    assert labels("calls") == labels("calls/*") == ["calls/a.wav"]
    assert labels("calls/b.wav") == ["calls/b.wav"]


@pytest.mark.parametrize("typed", [["calls"], ["calls/**/*.wav"], ["calls/2", "calls"]])
def test_an_unreadable_folder(here: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str]) -> None:
    """It is reported in its position, and the other inputs are still processed."""
    make(here, "calls/a.wav", "calls/1/b.wav", "calls/2/c.wav")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.fspath(path).endswith("1"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inputs = find_inputs(typed, recursive=True)
    assert sorted(input.label for input in inputs) == ["calls/1", "calls/2/c.wav", "calls/a.wav"]
    (problem,) = [input for input in inputs if input.problem]
    with refused("audio-unreadable", "calls/1", "Permission denied"):
        open_input(problem, 16000)
    assert labels("calls/1") == ["calls/1"]


def test_patterns(here: Path) -> None:
    make(
        here, "a1.wav", "a2.wav", "a10.wav", "b.txt", ".a3.wav", "calls/c.wav", "calls/deeper/d.wav", "calls/e.txt"
    )
    assert labels("a*.wav") == ["a1.wav", "a2.wav", "a10.wav"]
    assert labels("a?.wav") == labels("a[12].wav") == ["a1.wav", "a2.wav"]
    assert labels("*.txt") == ["b.txt"]  # its suffix is explicit
    assert labels("*/*.wav") == ["calls/c.wav"]
    assert labels("c*s") == ["calls/c.wav"]  # as if the shell had expanded it to the folder
    assert labels("**/*.wav") == ["calls/c.wav"]  # as in a shell
    assert labels("c*s", recursive=True) == ["calls/c.wav", "calls/deeper/d.wav"]
    everything = ["a1.wav", "a2.wav", "a10.wav", "calls/c.wav", "calls/deeper/d.wav"]
    assert labels("**/*.wav", recursive=True) == everything
    assert labels("**", recursive=True) == everything
    assert labels("calls/**/d.wav", recursive=True) == ["calls/deeper/d.wav"]
    assert labels(f"{here}/**/d.wav", recursive=True) == [f"{here}/calls/deeper/d.wav"]
    assert labels("cal*/**/[cd].wav", recursive=True) == ["calls/c.wav", "calls/deeper/d.wav"]


@pytest.mark.parametrize("name", ["a[1].wav", "*.wav", "what?.wav", "[x]/a.wav"])
def test_an_existing_file_takes_precedence_over_a_pattern(here: Path, name: str) -> None:
    make(here, name, "a1.wav", "whatX.wav", "x/a.wav")
    assert labels(name) == [name]
    assert stems(name) == [Path(name).stem]


def test_a_folder_with_the_name_of_a_pattern(here: Path) -> None:
    make(here, "[x]/a.wav", "x/b.wav", "y[1]/deep/c.wav")
    assert labels("[x]") == ["[x]/a.wav"]
    assert labels("y*/**/*.wav", recursive=True) == ["y[1]/deep/c.wav"]


@pytest.mark.parametrize("pattern", ["*.flac", "no*", "a[2].wav", "nowhere/**/*.wav", "*/b.wav"])
def test_pattern_without_a_match(here: Path, pattern: str) -> None:
    make(here, "a1.wav", "calls/notes.txt")
    assert_refused("inputs-missing", "a1.wav", pattern, names=pattern, recursive=True)
    assert_refused("inputs-missing", "calls*", names="calls*")


def test_pattern_that_needs_recursive(here: Path) -> None:
    make(here, "calls/1/2/a.wav")
    assert_refused("inputs-missing", "calls/**/a.wav", names="** needs --recursive")


def test_repetitions(here: Path) -> None:
    """A file found twice is used once; a file named twice is used twice."""
    make(here, "calls/a.wav", "calls/b.wav", "calls/deeper/c.wav")
    (here / "same").symlink_to(here / "calls")
    assert labels("calls/a.wav", "calls/a.wav") == ["calls/a.wav"] * 2
    assert labels("calls", "calls/*", "./calls", "same") == ["calls/a.wav", "calls/b.wav", "calls/deeper/c.wav"]
    assert labels("calls", "calls/deeper", recursive=True) == labels("calls", recursive=True)
    assert labels("calls/deeper", "calls") == ["calls/deeper/c.wav", "calls/a.wav", "calls/b.wav"]
    assert labels("calls", "calls/a.wav") == ["calls/b.wav", "calls/a.wav"]
    assert labels("calls/a.wav", "calls", "./same/a.wav") == ["calls/a.wav", "calls/b.wav", "same/a.wav"]


def test_options_of_every_input(here: Path) -> None:
    """The clip, and the sample format of inputs without a header."""
    make(here, "calls/a.wav", "b.RAW", "c.wav", "d")
    pcm = PCMFormat("s16le", 8000, 2)
    inputs = find_inputs(["calls", "b.RAW", "c.wav", "d"], clip=(1.0, None), pcm=pcm)
    assert [(input.clip, input.pcm) for input in inputs] == [
        ((1.0, None), each) for each in (None, pcm, None, pcm)
    ]
    with refused("options-conflict"):
        find_inputs(["calls", "c.wav"], pcm=pcm)


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "channels", "value"),
    [
        ("s17le", 8000, 1, "s17le"), ("S16LE", 8000, 1, "S16LE"), ("", 8000, 1, "''"), ("s16le", 0, 1, "0 Hz"),
        ("s16le", -8000, 1, -8000), ("s16le", 10**9, 1, 10**9), ("s16le", 8000, 0, "0 channels"),
        ("s16le", 8000, 65, 65),
    ],
)  # fmt: skip
def test_pcm_formats_refused(encoding: str, rate_hz: int, channels: int, value: object) -> None:
    with refused("option-value", value):
        PCMFormat(encoding, rate_hz, channels)


@pytest.mark.parametrize("encoding", PCM_ENCODINGS)
def test_pcm_formats(here: Path, encoding: str) -> None:
    """libsndfile writes the same encodings under its own names."""
    subtype, endian = PCM_ENCODINGS[encoding]
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (1000, 2)).astype(np.float32)
    soundfile.write("a.raw", samples, 8000, subtype, endian, "RAW")
    bits = int("".join(filter(str.isdigit, encoding)) or 8)
    assert (here / "a.raw").stat().st_size == 2000 * bits // 8
    (input,) = find_inputs(["a.raw"], pcm=PCMFormat(encoding, 8000, 2))
    reader = open_reader(input.path, "a", input.pcm)
    got = np.concatenate(list(reader.pieces()))
    reader.close()
    coarse = {"u8": 0.01, "s8": 0.01, "mulaw": 0.05, "alaw": 0.05}
    np.testing.assert_allclose(got, samples, atol=coarse.get(encoding, 1e-4))
    assert (reader.sample_rate_hz, reader.channels, reader.expected_s) == (8000, 2, 0.125)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used once. An empty name, such as an unset shell variable, is not the current folder."""
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    assert find_inputs(["a.wav", "-"])[1] == Input(STDIN, "-", "stdin")
    assert_refused("input-once", "-", "a.wav", "-")
    assert_refused("input-once", "-", "/dev/stdin")
    assert_refused("option-value", "")


def test_standard_input_that_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 0)
    assert_refused("stdin-terminal", "a.wav", "-")
    assert labels("a.wav", "./-") == ["a.wav", "-"]  # a file of that name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("90", 90), ("130.5", 130.5), ("130,5", 130.5), ("007", 7), ("1:30", 90), ("01:30.25", 90.25),
        ("90:00", 5400), ("0:00", 0), ("1:02:03", 3723), ("00:01:02,500", 62.5), ("100:00:00", 360000), (" 5 ", 5),
    ],
)  # fmt: skip
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x", "1:5", "1:60", "1:99", "1:2:03", "1:02:3", "1:60:00", "1:00:60", "1:2:3:4", "1:02:03:04",
        ":30", "30:", "1::30", "-5", "+5", "1.", ".5", "1.2.3", "1:30.5:00", "1e3", "inf", "nan", "1_000", "90s",
        "1m30s", "0x10", "٣", "１", "5 5", "1 :30", "99999999", "1\n2",
    ],
)  # fmt: skip
def test_times_refused(text: str) -> None:
    with refused("option-value", repr(text), "1:30"):
        parse_time(text)


@given(st.text())
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        seconds = parse_time(text)
    except UsageError:
        return
    assert 0 <= seconds < 4e7
    assert set(text.strip()) <= set("0123456789:.,")


@pytest.mark.parametrize(
    ("text", "clip"),
    [
        ("1:30-2:10", (90, 130)), ("90-130.5", (90, 130.5)), ("1:02:03-", (3723, None)), ("-30", (0, 30)),
        ("0-", (0, None)), (" 5 - 1:00 ", (5, 60)), ("59.9-1:00", (59.9, 60)),
    ],
)  # fmt: skip
def test_clips(text: str, clip: tuple[float, float | None]) -> None:
    assert parse_clip(text) == clip


@pytest.mark.parametrize(
    "text", ["", "-", " - ", "90", "1:30", "2:10-1:30", "5-5", "-0", "1-2-3", "--5", "5--", "a-b"]
)
def test_clips_refused(text: str) -> None:
    with refused("option-value", "1:30"):
        parse_clip(text)


@given(st.text(alphabet="0123456789:.,- "))
def test_any_text_is_a_clip_or_refused(text: str) -> None:
    try:
        start_s, end_s = parse_clip(text)
    except UsageError:
        return
    assert text.count("-") == 1
    assert 0 <= start_s < (end_s or float("inf"))

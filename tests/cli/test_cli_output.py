"""Result files: formats, names, and which files are replaced or kept."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pysubs2
import pytest
import soundfile
from jsonschema import Draft202012Validator
from support.expected import recognizer, summary
from support.running import Result, funasr, invoke, tree

from funasr_cli import demo
from funasr_cli.characters import columns
from funasr_cli.cli.resume import NOTES
from funasr_cli.errors import OutputError
from funasr_cli.subtitles import SubtitleLayout
from funasr_cli.writers import WRITERS, Style, write_new

CLIPS = {clip.path.name[:4]: clip for clip in demo.clips()}
DIGITS, ZH_DIGITS, LONG = CLIPS["0006"], CLIPS["0021"], CLIPS["0009"]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/transcript.schema.json").read_text(encoding="utf-8"))
EVERY = ("txt", "srt", "vtt", "tsv", "json", "jsonl", "md")
BASE = ("transcribe", "-m", "demo")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A recording alone in a folder."""
    (tmp_path / "in").mkdir()
    return shutil.copyfile(DIGITS.path, tmp_path / "in/a.flac")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output folder, which does not exist yet."""
    return tmp_path / "out"


def wrote(*paths: Path) -> str:
    return "".join(f"wrote {path}\n" for path in paths)


# --- formats ---


def test_every_format_at_once(clip: Path, out: Path) -> None:
    result = invoke(*BASE, clip, "-f", "all", "-o", out, "--confidence")
    files = [out / f"a.{name}" for name in EVERY]
    assert result == Result(0, "", wrote(*files) + summary("0:02"))
    transcript = recognizer("demo").transcribe(clip, ctc=True, word_times=True)
    for name in set(EVERY) - {"json", "jsonl"}:  # these two contain timings
        assert (out / f"a.{name}").read_text(encoding="utf-8") == WRITERS[name](transcript)
    for name in ("json", "jsonl"):
        content = (out / f"a.{name}").read_text(encoding="utf-8")
        assert (content.count("\n") == 1, content[-1]) == (name == "jsonl", "\n")
        data = json.loads(content)
        Draft202012Validator(SCHEMA).validate(data)
        (segment,) = data["segments"]
        assert (data["text"], segment["text"], segment["ctc_text"]) == (*[DIGITS.written] * 2, DIGITS.spoken)
        assert "".join(score["text"] for score in segment["scores"]) == DIGITS.written
    assert set(tree(out)) == {path.name for path in files}


@pytest.mark.parametrize(
    ("options", "formats"),
    [
        (("-f", "srt,json"), {"srt", "json"}),
        (("-f", "srt", "-f", "tsv", "--format", "srt"), {"srt", "tsv"}),
        (("-f", " TXT , Md"), {"txt", "md"}),
        (("-f", "txt,all"), set(EVERY)),
        ((), {"txt"}),
    ],
)
def test_ways_to_ask_for_formats(clip: Path, out: Path, options: tuple[str, ...], formats: set[str]) -> None:
    assert invoke(*BASE, clip, "-o", out, *options).exit_code == 0
    assert set(tree(out)) == {f"a.{name}" for name in formats}


@pytest.mark.parametrize("name", ["txt", "srt", "md"])
def test_stdout_has_the_same_content_as_a_file(clip: Path, name: str) -> None:
    written = WRITERS[name](recognizer("demo").transcribe(clip, word_times=True))
    assert invoke(*BASE, clip, "-f", name) == Result(0, written, summary("0:02"))


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_layout_of_subtitles(name: str) -> None:
    content = invoke(*BASE, LONG.path, "-f", name, "--max-line-width", 12, "--max-line-count", 1).stdout
    style = Style(subtitles=SubtitleLayout(max_line_width=12, max_line_count=1))
    transcript = recognizer("demo").transcribe(LONG.path, word_times=True)
    assert content == WRITERS[name](transcript, style) != WRITERS[name](transcript)
    lines = [cue.plaintext for cue in pysubs2.SSAFile.from_string(content)]
    assert max(map(columns, lines)) <= 12
    assert " ".join(lines) == LONG.written


# --- names ---


@pytest.mark.parametrize(
    ("template", "options", "names"),
    [
        ("{stem}.{suffix}.{ext}", (), {"a.flac.txt"}),
        ("{stem}.{lang}.{ext}", (), {"a.auto.txt"}),
        ("{stem}.{lang}.{ext}", ("-l", "English"), {"a.en.txt"}),
        ("{ext}/{lang}/{stem}.x", ("-f", "txt,srt"), {"txt/auto/a.x", "srt/auto/a.x"}),
        ("./{stem}{stem}", (), {"aa"}),
        ("{{{stem}}} of 50%.{ext}", (), {"{a} of 50%.txt"}),
        ("文字/{stem}.{ext}", (), {"文字/a.txt"}),
    ],
)
def test_templates(clip: Path, out: Path, template: str, options: tuple[str, ...], names: set[str]) -> None:
    result = invoke(*BASE, clip, "-o", out, "--output-template", template, *options)
    assert (result.exit_code, result.stdout) == (0, "")
    assert set(tree(out)) == names


@pytest.mark.parametrize(
    "template",
    [
        *("{name}.{ext}", "{}", "{0}", "{stem", "stem}", "{stem:>9}", "{stem!r}", "{stem.__class__}", "{stem[0]}"),
        *("{ext:{stem}}", "/tmp/{stem}.{ext}", "../{stem}.{ext}", "a/../../{stem}", "..", ".", "/", ""),
    ],
)
def test_invalid_templates(out: Path, template: str) -> None:
    result = invoke("transcribe", "a.wav", "-m", "nowhere", "-o", out, "--output-template", template)
    result.assert_error(2, "option-value", f"--output-template {template!r} ")


@pytest.mark.parametrize("how", [(), ("--force",), ("--resume",)])
@pytest.mark.parametrize(
    ("inputs", "options", "shared"),
    [
        (("x/a.wav", "y/a.mp3"), (), ("a.txt",)),
        (("a.wav", "b.wav"), ("--output-template", "{lang}.{ext}"), ("auto.txt",)),
        (("a.wav",), ("-f", "txt,srt", "--output-template", "{stem}"), ("a",)),
        (("a.wav", "a.wav"), (), ("a.txt",)),
        (("a.wav", "b.wav"), ("--output-template", "x/./{ext}"), ("x/txt",)),
        # names that differ only in case or Unicode form
        (("Call.wav", "call.mp3"), (), ("Call.txt", "call.txt")),
        (("x/STRASSE.wav", "y/stra\u00dfe.wav"), (), ("STRASSE.txt", "stra\u00dfe.txt")),
        (("caf\u00e9.wav", "cafe\u0301.wav"), ("-f", "srt"), ("caf\u00e9.srt", "cafe\u0301.srt")),
        (("CAF\u00c9.wav", "cafe\u0301.wav"), (), ("CAF\u00c9.txt", "cafe\u0301.txt")),
        (("a.wav", "A.wav"), ("--output-template", "{ext}/{stem}", "-f", "txt,srt"), ("txt/a", "txt/A")),
        (("a.wav", "b.WAV", "b.wav"), ("--output-template", "{stem}.{suffix}"), ("b.WAV", "b.wav")),
        # a name needed both as a file and as a folder
        (("a.wav", "b.wav"), ("-f", "txt,srt", "--output-template", "{ext}/{ext}"), ("txt/txt",)),
    ],
)
def test_names_that_results_would_share(
    out: Path, inputs: tuple[str, ...], options: tuple[str, ...], shared: tuple[str, ...], how: tuple[str, ...]
) -> None:
    """They are refused before anything is loaded; the error names the files and inputs."""
    result = invoke("transcribe", *inputs, "-m", "nowhere", "-o", out, *options, *how)
    result.assert_error(2, "output-shared", *(str(out / name) for name in shared), *inputs[-2:])
    assert not out.exists()


@pytest.mark.parametrize(
    ("inputs", "template", "hint"),
    [
        (("x/a.wav", "y/a.mp3"), "{stem}.{ext}", "with --output-template '{stem}.{suffix}.{ext}'"),
        (("a.wav", "b.wav"), "{lang}.{ext}", "with --output-template '{stem}.{ext}'"),
        (("x/a.wav", "y/a.wav"), "{stem}.{suffix}.{ext}", "a separate --output-dir"),
        (("a.wav", "./a.wav"), "{stem}.{ext}", "name it once"),
    ],
)
def test_advice_on_names_that_results_would_share(
    out: Path, inputs: tuple[str, ...], template: str, hint: str
) -> None:
    """The hint gives a template that separates all results, if there is one."""
    result = invoke("transcribe", *inputs, "-m", "nowhere", "-o", out, "--output-template", template)
    result.assert_error(2, "output-shared", *map(str, map(Path, inputs)), hint)


def test_a_result_with_the_name_of_another_ones_folder(tmp_path: Path, out: Path) -> None:
    for name in ("in/a.flac", "in/A.TXT/b.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DIGITS.path, tmp_path / name)
    result = invoke("transcribe", "-m", "nowhere", tmp_path / "in", "-r", "-o", out)
    result.assert_error(2, "output-shared", str(out / "a.txt"), str(out / "A.TXT/b.txt"))


# --- existing files ---


def test_all_results_exist(out: Path) -> None:
    """One message for all inputs. Results of some inputs are reported for each of these inputs."""
    out.mkdir()
    clips = [DIGITS.path, ZH_DIGITS.path]
    files = [out / f"{path.stem}.txt" for path in clips]
    for file in files:
        file.write_text("mine")
    result = invoke(*BASE, *clips, "-o", out)
    result.assert_error(1, "output-exists", "all 2 inputs", "--resume skips them, --force replaces them")
    files[0].unlink()
    result = invoke(*BASE, *clips, "-o", out)
    assert (result.exit_code, [code for code, _ in result.errors]) == (1, ["output-exists"])
    assert (files[0].read_text(), files[1].read_text()) == (f"{DIGITS.written}\n", "mine")


def test_the_demo_model_on_other_recordings(clip: Path, en_flac: Path) -> None:
    """A note says why the text is nonsense; copies of the bundled clips need none."""
    other = (*BASE, en_flac, "--clip", "0-2")
    assert [invoke(*run).has_demo_note for run in ((*BASE, clip), other, (*other, "-q"))] == [False, True, False]


def test_existing_results(clip: Path, out: Path) -> None:
    """If one format exists, none is written; with --force, files are replaced, not modified in place."""
    out.mkdir()
    (out / "a.txt").write_text("old, and longer than what takes its place")
    (out / "b.txt").write_text("mine")
    before, inode = tree(out), (out / "a.txt").stat().st_ino
    invoke(*BASE, clip, "-o", out, "-f", "txt,srt").assert_error(1, "output-exists", str(out / "a.txt"))
    assert tree(out) == before
    with (out / "a.txt").open() as reader:
        result = invoke(*BASE, clip, "-o", out, "--force")
        assert reader.read().startswith("old"), "an open file must keep its old content"
    assert result == Result(0, "", wrote(out / "a.txt") + summary("0:02"))
    assert tree(out) == {"a.txt": f"{DIGITS.written}\n".encode(), "b.txt": b"mine"}
    assert (out / "a.txt").stat().st_ino != inode


def test_a_failed_input_replaces_nothing(tmp_path: Path, out: Path) -> None:
    out.mkdir()
    (out / "a.txt").write_text("old")
    (tmp_path / "a.wav").write_text("no recording")
    assert invoke(*BASE, tmp_path / "a.wav", "-o", out, "--force").exit_code == 1
    assert tree(out) == {"a.txt": b"old"}


def test_force_replaces_a_link_and_not_its_target(clip: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    (tmp_path / "elsewhere").write_text("mine")
    (out / "a.txt").symlink_to(tmp_path / "elsewhere")
    assert invoke(*BASE, clip, "-o", out, "--force").exit_code == 0
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not (out / "a.txt").is_symlink()
    assert (out / "a.txt").read_text() == f"{DIGITS.written}\n"


def test_a_folder_in_the_way(clip: Path, out: Path) -> None:
    """The folder is kept even with --force, and the other results are written."""
    (out / "a.txt/more").mkdir(parents=True)
    (out / "a.txt/more/file").write_text("mine")
    result = invoke(*BASE, clip, ZH_DIGITS.path, "-o", out, "--force", "-q")
    result.assert_error(1, "output-unwritable", str(out / "a.txt"))
    written = {"0021-zh-digits.txt": f"{ZH_DIGITS.written}\n".encode()}
    assert tree(out) == {"a.txt/more/file": b"mine"} | written
    assert set(os.listdir(out)) == {"a.txt", NOTES, *written}, "no temporary file may be left"


@pytest.mark.parametrize("options", [(), ("--force",), ("--resume",)])
def test_an_input_is_never_replaced(tmp_path: Path, options: tuple[str, ...]) -> None:
    """This holds for its own name and for the name of a link to it."""
    samples = soundfile.read(DIGITS.path, dtype="int16")[0]
    (tmp_path / "a.txt").write_bytes(samples.tobytes())
    (tmp_path / "link.txt").symlink_to("a.txt")
    before = tree(tmp_path)
    for more in ((), ("--output-template", "link.txt"), ("--output-template", "A.TXT")):
        result = invoke("transcribe", tmp_path / "a.txt", "--pcm", "s16le", "-o", tmp_path, *options, *more)
        result.assert_error(2, "output-is-input", str(tmp_path))
    notes = (tmp_path / "a.txt", "--output-template", NOTES.replace(".jsonl", ".{ext}"), "--format", "jsonl")
    invoke("transcribe", *notes, "-o", tmp_path, *options).assert_error(2, "output-is-input", NOTES)
    assert tree(tmp_path) == before
    (tmp_path / "words.txt").write_text("seven\n")
    words = ("--hotwords-file", tmp_path / "words.txt")
    invoke("transcribe", "words.wav", *words, "-o", tmp_path, *options).assert_error(
        2, "output-is-input", "words.txt"
    )
    assert (tmp_path / "link.txt").is_symlink()


def test_lines_of_a_resumed_stream_are_those_of_their_inputs(out: Path) -> None:
    """A skipped input's name is not reused for another one."""
    clips = [clip.path for clip in (DIGITS, ZH_DIGITS, LONG)]
    assert invoke(*BASE, clips[0], "-o", out).exit_code == 0
    result = invoke(*BASE, *clips, "-o", out, "--resume", "--stream", "-q")
    assert result == Result(0, f"{clips[1]}: {ZH_DIGITS.written}\n{clips[2]}: {LONG.written}\n", "")


# --- results that cannot be written ---


def test_names_that_are_too_long(clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is found before an input is read."""
    monkeypatch.setattr("funasr_cli.sources.open_input", None)
    result = invoke(*BASE, clip, "-o", out, "--output-template", "{ext}/" + "字" * 90, "-q")
    result.assert_error(1, "output-unwritable", "txt/" + "字" * 90)
    assert tree(out) == {}


def test_a_file_system_that_cannot_rename(clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is found before a model is looked up. Which calls may fail: `unit/test_writers.py`."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, refuse)
    invoke("transcribe", "-m", "nowhere", clip, "-o", out).assert_error(1, "output-unwritable", str(out.parent))
    assert not out.exists()


def test_a_disk_that_fills_up(clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The computed text is printed instead; other formats and inputs are still written."""

    def full(path: Path, content: str, *, replace: bool = False) -> None:
        if path.name == "a.txt":
            raise OutputError(f"{path}: full", code="disk-full")
        write_new(path, content, replace=replace)

    monkeypatch.setattr("funasr_cli.writers.write_new", full)
    result = invoke(*BASE, clip, ZH_DIGITS.path, "-o", out, "-f", "txt,srt")
    assert (result.exit_code, result.stdout) == (1, f"{clip}: {DIGITS.written}\n")
    assert result.errors == [("disk-full", f"{out / 'a.txt'}: full")]
    assert set(tree(out)) == {"a.srt", "0021-zh-digits.txt", "0021-zh-digits.srt"}
    again = invoke(*BASE, clip, ZH_DIGITS.path, "-o", out / "2", "-q", "--stream", "-f", "txt")
    assert again.stdout == f"{clip}: {DIGITS.written}\n{ZH_DIGITS.path}: {ZH_DIGITS.written}\n", "not twice"


@pytest.mark.parametrize("options", [(), ("-f", "json", "-v"), ("--stream",), ("-f", "all", "-o", "out")])
def test_piped_output_has_no_escape_codes(clip: Path, options: tuple[str, ...]) -> None:
    result = funasr(*BASE, clip, "nowhere.wav", *options, cwd=clip.parent)
    assert result.exit_code == 1
    assert "nowhere.wav" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr

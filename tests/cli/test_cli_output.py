"""Where results go: formats, names of files, what is replaced and what is kept."""

from __future__ import annotations

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
from funasr_cli.subtitles import SubtitleLayout
from funasr_cli.writers import WRITERS, Style

CLIPS = {clip.path.name[:4]: clip for clip in demo.clips()}
DIGITS, ZH_DIGITS, LONG = CLIPS["0006"], CLIPS["0021"], CLIPS["0009"]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/transcript.schema.json").read_text(encoding="utf-8"))
EVERY = ("txt", "srt", "vtt", "tsv", "json", "jsonl", "md")
BASE = ("transcribe", "-m", "demo")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A recording in a folder of its own."""
    (tmp_path / "in").mkdir()
    return shutil.copyfile(DIGITS.path, tmp_path / "in/a.flac")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where results go; not there yet."""
    return tmp_path / "out"


def wrote(*paths: Path) -> str:
    return "".join(f"wrote {path}\n" for path in paths)


# --- formats ---


def test_every_format_at_once(clip: Path, out: Path) -> None:
    result = funasr(*BASE, clip, "-f", "all", "-o", out)
    files = [out / f"a.{name}" for name in EVERY]
    assert result == Result(0, "", wrote(*files) + summary("0:02"))
    transcript = recognizer("demo").transcribe(clip, ctc=True, word_times=True)
    for name in set(EVERY) - {"json", "jsonl"}:  # these two hold how long it took
        assert (out / f"a.{name}").read_text(encoding="utf-8") == WRITERS[name](transcript)
    for name in ("json", "jsonl"):
        content = (out / f"a.{name}").read_text(encoding="utf-8")
        assert (content.count("\n") == 1, content[-1]) == (name == "jsonl", "\n")
        data = json.loads(content)
        Draft202012Validator(SCHEMA).validate(data)
        (segment,) = data["segments"]
        assert (data["text"], segment["text"], segment["ctc_text"]) == (*[DIGITS.written] * 2, DIGITS.spoken)
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


@pytest.mark.parametrize("name", ["txt", "srt", "vtt", "tsv", "md"])
def test_a_format_on_stdout_is_that_of_a_file(clip: Path, name: str) -> None:
    written = WRITERS[name](recognizer("demo").transcribe(clip, word_times=True))
    assert invoke(*BASE, clip, "-f", name) == Result(0, written, summary("0:02"))


def test_json_on_stdout_is_valid(clip: Path) -> None:
    lines = invoke(*BASE, clip, ZH_DIGITS.path, "-f", "json", "--confidence").stdout.splitlines()
    for line, expected in zip(map(json.loads, lines), (DIGITS, ZH_DIGITS), strict=True):
        Draft202012Validator(SCHEMA).validate(line)
        assert line["text"] == expected.written
        assert "".join(score["text"] for score in line["segments"][0]["scores"]) == expected.written


def test_layout_of_subtitles(tmp_path: Path, out: Path) -> None:
    """Both formats, on stdout as in files; the other formats stay what they are."""
    clip = shutil.copyfile(LONG.path, tmp_path / "a.flac")
    options = ("--max-line-width", 12, "--max-line-count", 1)
    assert invoke(*BASE, clip, "-f", "srt,vtt,txt", "-o", out, *options).exit_code == 0
    style = Style(subtitles=SubtitleLayout(max_line_width=12, max_line_count=1))
    transcript = recognizer("demo").transcribe(clip, word_times=True)
    for name in ("srt", "vtt"):
        content = (out / f"a.{name}").read_text(encoding="utf-8")
        assert content == WRITERS[name](transcript, style) != WRITERS[name](transcript)
        lines = [cue.plaintext for cue in pysubs2.load(str(out / f"a.{name}"))]
        assert len(lines) > 2
        assert max(map(columns, lines)) <= 12
        assert " ".join(lines) == LONG.written
        assert invoke(*BASE, clip, "-f", name, *options).stdout == content
    assert (out / "a.txt").read_text() == f"{LONG.written}\n"


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


TEMPLATE_HINT = "  it is made of {stem}, {suffix}, {lang} and {ext}, as in '{stem}.{lang}.{ext}'\n"


@pytest.mark.parametrize(
    "template",
    [
        "{name}.{ext}",
        "{}",
        "{0}",
        "{stem",
        "stem}",
        "{stem:>9}",
        "{stem!r}",
        "{stem.__class__}",
        "{stem[0]}",
        "{ext:{stem}}",
    ],
)
def test_templates_that_cannot_be_filled_in(out: Path, template: str) -> None:
    result = invoke("transcribe", "a.wav", "-m", "nowhere", "-o", out, "--output-template", template)
    assert result == Result(2, "", f"error: --output-template {template!r} cannot be filled in\n{TEMPLATE_HINT}")


@pytest.mark.parametrize(
    "template", ["/tmp/{stem}.{ext}", "../{stem}.{ext}", "a/../../{stem}", "..", ".", "/", ""]
)
def test_templates_that_lead_elsewhere(out: Path, template: str) -> None:
    result = invoke("transcribe", "a.wav", "-m", "nowhere", "-o", out, "--output-template", template)
    assert result == Result(
        2, "", f"error: --output-template {template!r} leads out of the folder\n{TEMPLATE_HINT}"
    )


@pytest.mark.parametrize(
    ("inputs", "options", "shared"),
    [
        (("x/a.wav", "y/a.mp3"), (), "a.txt"),
        (("x/a.wav", "y/a.flac"), ("--stream",), "a.txt"),
        (("a.wav", "b.wav"), ("--output-template", "{lang}.{ext}"), "auto.txt"),
        (("a.wav",), ("-f", "txt,srt", "--output-template", "{stem}"), "a"),
        (("a.wav", "a.wav"), ("--force",), "a.txt"),
        (("a.wav", "b.wav"), ("--output-template", "x/./{ext}"), "x/txt"),
    ],
)
def test_names_that_results_would_share(
    out: Path, inputs: tuple[str, ...], options: tuple[str, ...], shared: str
) -> None:
    result = invoke("transcribe", *inputs, "-m", "nowhere", "-o", out, *options)
    hint = "  tell them apart with --output-template, as in '{stem}.{suffix}.{ext}', or use separate folders\n"
    assert result == Result(2, "", f"error: several results would be written to {out / shared}\n{hint}")
    assert not out.exists()


def test_inputs_of_one_name_told_apart(tmp_path: Path, out: Path) -> None:
    samples, rate_hz = soundfile.read(DIGITS.path)
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, samples, rate_hz)
    template = ("--output-template", "{stem}.{suffix}.{ext}")
    assert invoke(*BASE, tmp_path / "a.wav", tmp_path / "a.flac", "-o", out, *template).exit_code == 0
    assert tree(out) == dict.fromkeys(("a.wav.txt", "a.flac.txt"), f"{DIGITS.written}\n".encode())


# --- what is there already ---


def test_force_replaces(clip: Path, out: Path) -> None:
    out.mkdir()
    (out / "a.txt").write_text("old, and longer than what takes its place")
    (out / "b.txt").write_text("mine")
    before = (out / "a.txt").stat().st_ino
    with (out / "a.txt").open() as reader:
        result = funasr(*BASE, clip, "-o", out, "--force")
        assert reader.read().startswith("old"), "whoever reads it keeps what was there"
    assert result == Result(0, "", wrote(out / "a.txt") + summary("0:02"))
    assert tree(out) == {"a.txt": f"{DIGITS.written}\n".encode(), "b.txt": b"mine"}
    assert (out / "a.txt").stat().st_ino != before


def test_a_failed_input_replaces_nothing(tmp_path: Path, out: Path) -> None:
    out.mkdir()
    (out / "a.txt").write_text("old")
    (tmp_path / "a.wav").write_text("no recording")
    assert invoke(*BASE, tmp_path / "a.wav", "-o", out, "--force").exit_code == 1
    assert tree(out) == {"a.txt": b"old"}


def test_force_replaces_a_link_and_not_what_it_leads_to(clip: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    (tmp_path / "elsewhere").write_text("mine")
    (out / "a.txt").symlink_to(tmp_path / "elsewhere")
    assert invoke(*BASE, clip, "-o", out, "--force").exit_code == 0
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not (out / "a.txt").is_symlink()
    assert (out / "a.txt").read_text() == f"{DIGITS.written}\n"


def test_a_folder_in_the_way(clip: Path, out: Path) -> None:
    """It stays, whatever is asked for; the other results are written."""
    (out / "a.txt/more").mkdir(parents=True)
    (out / "a.txt/more/file").write_text("mine")
    result = invoke(*BASE, clip, ZH_DIGITS.path, "-o", out, "--force", "-q")
    assert result == Result(1, "", f"error: {out / 'a.txt'}: cannot be written (Is a directory)\n")
    written = {"0021-zh-digits.txt": f"{ZH_DIGITS.written}\n".encode()}
    assert tree(out) == {"a.txt/more/file": b"mine"} | written
    assert len(os.listdir(out)) == 2, "nothing unfinished is left"


@pytest.mark.parametrize("options", [(), ("--force",), ("--resume",)])
def test_an_input_is_never_replaced(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Under its own name, or under that of a link to it."""
    samples = soundfile.read(DIGITS.path, dtype="int16")[0]
    (tmp_path / "a.txt").write_bytes(samples.tobytes())
    (tmp_path / "link.txt").symlink_to("a.txt")
    before = tree(tmp_path)
    told = ("--pcm", "s16le", "-o", tmp_path, *options)
    hint = "  choose another --output-dir or --output-template\n"
    result = invoke(*BASE, tmp_path / "a.txt", *told)
    assert result == Result(2, "", f"error: {tmp_path / 'a.txt'} is an input\n{hint}")
    result = invoke(*BASE, tmp_path / "a.txt", *told, "--output-template", "link.txt")
    assert result == Result(2, "", f"error: {tmp_path / 'link.txt'} is an input\n{hint}")
    assert tree(tmp_path) == before
    assert (tmp_path / "link.txt").is_symlink()


def test_resume_writes_only_the_formats_that_are_missing(clip: Path, out: Path) -> None:
    out.mkdir()
    (out / "a.srt").write_bytes(b"mine\r\n")
    (out / "a.json").touch()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    result = invoke(*BASE, clip, "-o", out, "-f", "txt,srt,json,md", "--resume")
    assert result == Result(0, "", wrote(out / "a.txt", out / "a.md") + summary("0:02"))
    content = tree(out)
    assert set(content) == {"a.txt", "a.srt", "a.json", "a.md"}
    assert (content["a.txt"], content["a.srt"], content["a.json"]) == (b"792\n", b"mine\r\n", b"")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    result = invoke("transcribe", "-m", "nowhere", clip, "-o", out, "-f", "txt,srt,json,md", "--resume")
    assert result == Result(0, "", "skipped 1 of 1 inputs: their results are there\n")


def test_one_format_of_several_that_is_there_keeps_all_from_being_written(clip: Path, out: Path) -> None:
    out.mkdir()
    (out / "a.srt").write_text("mine")
    result = invoke(*BASE, clip, "-o", out, "-f", "txt,srt")
    hint = "  add --resume to skip it, --force to replace it, or choose another --output-dir\n"
    said = f"error: {out / 'a.srt'}: exists already\n{hint}1 of 1 inputs failed\n"
    assert result == Result(1, "", said)
    assert tree(out) == {"a.srt": b"mine"}


def test_lines_of_a_resumed_stream_are_those_of_their_inputs(out: Path) -> None:
    """What is skipped leaves its name to nobody else."""
    clips = [clip.path for clip in (DIGITS, ZH_DIGITS, LONG)]
    assert invoke(*BASE, clips[0], "-o", out).exit_code == 0
    result = invoke(*BASE, *clips, "-o", out, "--resume", "--stream", "-q")
    assert result == Result(0, f"{clips[1]}: {ZH_DIGITS.written}\n{clips[2]}: {LONG.written}\n", "")


@pytest.mark.parametrize("inputs", [("a", "b"), ("b", "a")])
def test_a_file_where_a_folder_should_be(tmp_path: Path, inputs: tuple[str, str], out: Path) -> None:
    """Only the results that go below it fail."""
    for name in ("in/a/a.flac", "in/b/b.flac"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copyfile(DIGITS.path, tmp_path / name)
    out.mkdir()
    (out / inputs[0]).write_text("mine")
    result = invoke(*BASE, tmp_path / "in", "-r", "-o", out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"error: {out / inputs[0]}: cannot be made (File exists)\n" in result.stderr
    assert result.stderr.endswith(f"\n1 of 2 inputs failed; {summary('0:03')}")
    assert set(tree(out)) == {inputs[0], f"{inputs[1]}/{inputs[1]}.txt"}


def test_a_name_that_is_too_long(clip: Path, out: Path) -> None:
    name = "a" * 300
    result = invoke(*BASE, clip, "-o", out, "--output-template", name, "-q")
    assert result == Result(1, "", f"error: {out / name}: cannot be written (File name too long)\n")
    assert tree(out) == {}


@pytest.mark.parametrize("options", [(), ("-f", "json", "-v"), ("--stream",), ("-f", "all", "-o", "out")])
def test_piped_output_has_no_escape_codes(clip: Path, options: tuple[str, ...]) -> None:
    result = funasr(*BASE, clip, "nowhere.wav", *options, cwd=clip.parent)
    assert result.exit_code == 1
    assert "error[audio-missing]: nowhere.wav: no such file\n" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr

"""Every way to get `funasr transcribe` wrong: exit code, nothing on stdout, and exactly what is said on stderr."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import summary
from support.running import Result, funasr, invoke, tree

from funasr_cli import demo

CLIP = next(clip for clip in demo.clips() if clip.written == "792")
RATE_HZ = 16000

IDLE = "{} has no effect here"
FILES = "it is about files; add --output-dir"
SUBTITLES = "it is about subtitles; add --format srt or vtt"
RAW = "it is about samples without a header; add --pcm"
PAUSES = "it is about pauses, which --no-vad does not look for"
COLOURS = "it shows in the colours of a terminal, and in json"
COMPARING = "it does not go with --compare-hotwords"
HELP = "see funasr transcribe --help"
FORMATS = "choose from txt, srt, vtt, tsv, json, jsonl, md, or all"
ENCODINGS = "u8, s8, s16le, s16be, s24le, s24be, s32le, s32be, f32le, f32be, f64le, f64be, mulaw, alaw"
PART = "write from-to, either of which may be missing: 1:30-2:10, 90-130.5, 1:02:03-, -30"
TIME = "write seconds (90, 130.5), minutes and seconds (1:30) or hours too (1:02:03)"
BEYOND_FILES = "recordings have endings such as wav, mp3, m4a or mp4"

# What is typed behind `funasr transcribe -m nowhere`; what happened, and what to do.
USAGE_ERRORS = [
    # the command line
    ("", "Missing argument 'AUDIO'.", HELP),
    ("-o out", "Missing argument 'AUDIO'.", HELP),
    ("a.flac -f", "Option '-f' requires an argument.", HELP),
    ("a.flac --model", "Option '--model' requires an argument.", HELP),
    ("a.flac --stream=1", "Option '--stream' does not take a value.", HELP),
    ("a.flac -x", "No such option: -x", HELP),
    ("a.flac --quiet --verbose", "--quiet with --verbose", "choose one"),
    ("a.flac -qv", "--quiet with --verbose", "choose one"),
    # options.py
    ("a.flac --max-tokens 0", "max tokens is 0", "it must be at least 1"),
    ("a.flac --batch-size 0", "batch size is 0", "it must be at least 1"),
    ("a.flac --temperature -1", "temperature is -1.0", "it must be 0 (greedy) or above"),
    ("a.flac --temperature nan", "temperature is nan", "it must be 0 (greedy) or above"),
    ("a.flac --temperature inf", "temperature is inf", "it must be 0 (greedy) or above"),
    ("a.flac --temperature 1 --top-p 0", "top-p is 0.0", "it must be above 0 and at most 1"),
    ("a.flac --temperature 1 --top-p 1.1", "top-p is 1.1", "it must be above 0 and at most 1"),
    ("a.flac --temperature 1 --top-k 0", "top-k is 0", "it must be at least 1"),
    ("a.flac --temperature 1 --seed -1", "seed is -1", "it must be at least 0 and below 2**63"),
    ("a.flac --top-k 5", "top-k without a temperature", "add --temperature, for example 0.6"),
    ("a.flac --seed 0", "seed without a temperature", "add --temperature, for example 0.6"),
    (
        "a.flac --seed 0 --top-p 1 --top-k 1 --temperature 0",
        "top-p, top-k, seed without a temperature",
        "add --temperature, for example 0.6",
    ),
    ("a.flac --vad-threshold 0", "VAD threshold is 0.0", "it must be between 0 and 1"),
    ("a.flac --vad-threshold 1", "VAD threshold is 1.0", "it must be between 0 and 1"),
    ("a.flac --min-pause 0", "min pause is 0.0 s", "it must be 0.1 to 10 s"),
    ("a.flac --min-pause 11", "min pause is 11.0 s", "it must be 0.1 to 10 s"),
    ("a.flac --max-segment 1", "max segment is 1.0 s", "it must be 2 to 300 s"),
    ("a.flac --max-segment nan", "max segment is nan s", "it must be 2 to 300 s"),
    ("a.flac --join -1", "join is -1.0 s", "it must be 0 to max segment"),
    ("a.flac --join 31", "join is 31.0 s", "it must be 0 to max segment"),
    ("a.flac" + "".join(f" --hotword a{n}" for n in range(201)), "201 hotwords", "the limit is 200"),
    ("a.flac --hotword " + "b" * 81, "hotword 'bbbbbbbbbbbbbbbbbbbb'... has 81 characters", "the limit is 80"),
    # writers.py, output.py, subtitles.py
    ("a.flac -f doc", "unknown format 'doc'", FORMATS),
    ("a.flac -f [red]", "unknown format '[red]'", FORMATS),
    ("a.flac -f ''", "unknown format ''", FORMATS),
    ("a.flac -f txt,", "unknown format ''", FORMATS),
    ("a.flac -f srt,vtt", "srt, vtt together on stdout", "add --output-dir, or choose one"),
    ("a.flac -f json -f json,md", "json, md together on stdout", "add --output-dir, or choose one"),
    (
        "a.flac -f all",
        "txt, srt, vtt, tsv, json, jsonl, md together on stdout",
        "add --output-dir, or choose one",
    ),
    ("a.flac b.flac -f srt", "srt of several inputs on stdout", "add --output-dir"),
    ("calls -r -f md", "md of several inputs on stdout", "add --output-dir"),
    ("stereo.wav --channels split -f tsv", "tsv of several inputs on stdout", "add --output-dir"),
    (
        "a.flac -o out --force --resume",
        "--force with --resume",
        "one replaces what is there, the other keeps it",
    ),
    (
        "a.flac --stream -f json",
        "--stream writes text, --format json data, both to stdout",
        "add --output-dir for the data",
    ),
    ("a.flac -f srt --max-line-width 1", "max line width is 1", "it must be at least 2 columns"),
    ("a.flac -f vtt --max-line-count 0", "max line count is 0", "it must be at least 1"),
    # inputs.py
    ("''", "an input without a name", "an empty shell variable?"),
    ("a.flac ''", "an input without a name", "an empty shell variable?"),
    ("none", "none: no recording in this folder", f"{BEYOND_FILES}; --recursive looks deeper"),
    ("none -r", "none: no recording in this folder", BEYOND_FILES),
    ("a.flac 'no*.wav'", "no*.wav: nothing matches", ""),
    ("'calls/**/a.wav'", "calls/**/a.wav: nothing matches", "** needs --recursive"),
    ("- a.flac -", "standard input is named more than once", "it can be read only once"),
    ("- /dev/stdin", "standard input is named more than once", "it can be read only once"),
    ("a.flac --clip ''", "'' is not a part of a recording", PART),
    ("a.flac --clip -", "'-' is not a part of a recording", PART),
    ("a.flac --clip 90", "'90' is not a part of a recording", PART),
    ("a.flac --clip 0:01-0:61", "'0:61' is not a time", TIME),
    ("a.flac --clip 1m-2m", "'1m' is not a time", TIME),
    ("a.flac --clip 5-3", "'5-3' ends before it begins", PART),
    ("a.flac --clip 5-5", "'5-5' ends before it begins", PART),
    ("a --pcm s16", "unknown encoding 's16'", f"choose from {ENCODINGS}"),
    ("a --pcm ''", "unknown encoding ''", f"choose from {ENCODINGS}"),
    ("a --pcm s16le --rate 0", "sample rate 0 Hz", "it must be 1 to 768000 Hz"),
    ("a --pcm s16le --rate 768001", "sample rate 768001 Hz", "it must be 1 to 768000 Hz"),
    ("a --pcm s16le --pcm-channels 0", "0 channels", "it must be 1 to 64"),
    ("a --pcm s16le --pcm-channels 65", "65 channels", "it must be 1 to 64"),
    (
        "a.flac calls --pcm s16le",
        "no input holds samples without a header",
        "name one, or - for standard input",
    ),
    # what would change nothing
    ("a.flac --force", IDLE.format("--force"), FILES),
    ("a.flac --resume -f json", IDLE.format("--resume"), FILES),
    ("a.flac --output-template x", IDLE.format("--output-template"), FILES),
    ("a.flac --max-line-width 42", IDLE.format("--max-line-width"), SUBTITLES),
    ("a.flac --max-line-count 2 -f txt,json -o out", IDLE.format("--max-line-count"), SUBTITLES),
    ("a.flac --rate 16000", IDLE.format("--rate"), RAW),
    ("a.flac --pcm-channels 1", IDLE.format("--pcm-channels"), RAW),
    ("a.flac --confidence", IDLE.format("--confidence"), COLOURS),
    ("a.flac --confidence -f srt", IDLE.format("--confidence"), COLOURS),
    ("a.flac --no-vad --vad-threshold 0.5", IDLE.format("--vad-threshold"), PAUSES),
    ("a.flac --no-vad --min-pause 1", IDLE.format("--min-pause"), PAUSES),
    ("a.flac --no-vad --join 5", IDLE.format("--join"), PAUSES),
    *(
        (f"a.flac --compare-hotwords --hotword a {typed}", IDLE.format(typed.split()[0]), COMPARING)
        for typed in (
            "--format json", "--output-dir out", "--output-template x", "--force", "--resume", "--strict",
            "--max-line-width 9", "--max-line-count 9", "--stream", "--confidence", "--timestamps none",
            "--highlight-words",
        )
    ),
    (
        "a.flac --compare-hotwords",
        "--compare-hotwords without hotwords",
        "add --hotword or --hotwords-file",
    ),
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.flac", "b.flac", "calls/a.flac", "calls/monday/b.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CLIP.path, tmp_path / name)
    (tmp_path / "none").mkdir()
    soundfile.write("stereo.wav", np.zeros((160, 2)), RATE_HZ)
    return tmp_path


def said(message: str, hint: str = "", code: str = "") -> str:
    return f"error{f'[{code}]' if code else ''}: {message}\n" + (f"  {hint}\n" if hint else "")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("typed", "message", "hint"), USAGE_ERRORS, ids=[error[0][:60] for error in USAGE_ERRORS])
def test_usage_errors(
    typed: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before a model is even looked for, and nothing is written."""
    monkeypatch.setattr("os.isatty", lambda _: False)  # whatever the tests' own standard input is
    before = tree(tmp_path)
    result = invoke("transcribe", "-m", "nowhere", *shlex.split(typed))
    stderr = re.sub(r"^error\[[a-z0-9-]+\]:", "error:", result.stderr)
    assert (result.exit_code, result.stdout, stderr) == (2, "", said(message, hint))
    assert tree(tmp_path) == before


# One of each kind in a process of its own; the options stand behind the inputs.
PROCESSES = [
    ("a.flac -f", 2, said("Option '-f' requires an argument.", HELP)),
    ("a.flac --force", 2, said(IDLE.format("--force"), FILES)),
    ("a.flac --clip 5-3", 2, said("'5-3' ends before it begins", PART)),
    ("a.flac -f doc", 2, said("unknown format 'doc'", FORMATS)),
    ("a.flac -m nowhere", 3, said("nowhere: no such model", "convert one with: funasr convert nano")),
    ("a.flac -m none", 3, said("none: not a converted model", "funasr convert makes one")),
    (
        "a.flac -m demo -l fr",
        2,
        said("language 'fr' is not one of this model's", "it writes zh (Chinese), en (English), or auto"),
    ),
    ("missing.wav -m demo", 1, said("missing.wav: no such file", code="audio-missing") + "1 of 1 inputs failed\n"),
    (
        "a.flac missing.wav -m demo -o a.flac",
        1,
        said("a.flac: cannot be made (File exists)", "choose another --output-dir"),
    ),
]


@pytest.mark.parametrize(("typed", "exit_code", "stderr"), PROCESSES, ids=[error[0] for error in PROCESSES])
def test_errors_of_a_process(here: Path, typed: str, exit_code: int, stderr: str) -> None:
    home = {"FUNASR_HOME": str(here / "home")}
    result = funasr("transcribe", *shlex.split(typed), env=home)
    assert result == Result(exit_code, "", stderr)
    assert "\x1b" not in result.stderr
    traced = funasr("transcribe", *shlex.split(typed), env=home | {"FUNASR_TRACEBACK": "1"})
    assert (traced.exit_code, traced.stdout) == (exit_code, "")
    assert traced.stderr.endswith(stderr)
    assert traced.stderr.startswith("Traceback (most recent call last):\n") == (
        "requires an argument" not in stderr
    )


@pytest.mark.parametrize("value", ["", "0"])
def test_no_traceback_unasked(value: str) -> None:
    result = invoke("transcribe", "missing.wav", "-m", "nowhere", env={"FUNASR_TRACEBACK": value})
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("typed", "near", "where"),
    [
        ("transcribe a.flac --lnag zh", "--lang", "funasr transcribe"),
        ("transcribe a.flac --output-directory x", "--output-dir", "funasr transcribe"),
        ("transcribe a.flac --max-line-widht 3", "--max-line-width", "funasr transcribe"),
        ("trnscribe a.flac", "'transcribe'", "funasr"),
        ("--verison", "--version", "funasr"),
    ],
)
def test_the_nearest_name_is_offered(typed: str, near: str, where: str) -> None:
    """In Click's own words."""
    result = funasr(*shlex.split(typed))
    assert (result.exit_code, result.stdout) == (2, "")
    first, hint = result.stderr.splitlines()
    assert first.startswith("error: No such ")
    assert near in first
    assert hint == f"  see {where} --help"
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("typed", "start"),
    [
        ("--max-tokens many", "Invalid value for '--max-tokens': "),
        ("--batch-size 1.5", "Invalid value for '--batch-size': "),
        ("--channels stereo", "Invalid value for '--channels': 'stereo' is not one of 'mix', 'split'."),
    ],
)
def test_values_of_another_type(typed: str, start: str) -> None:
    """How they are described is Typer's own."""
    result = invoke("transcribe", "a.flac", *typed.split())
    result.assert_fails(2, f"error: {start}", f"\n  {HELP}\n")
    assert result.stderr.count("\n") == 2


def test_texts_that_are_no_text_for_a_prompt() -> None:
    for typed, message, hint in [
        (("--hotword", ""), "hotword '' is empty", "leave it out"),
        (("--hotword", "a\nb"), r"hotword 'a\nb' is not a line of text", "leave line breaks and controls out"),
        (
            ("--hotword", "<|im_end|>"),
            "hotword '<|im_end|>' contains the control token <|im_end|>",
            "leave it out",
        ),
        (("--prev-text", "a<|im_end|>"), "the earlier text contains the control token <|im_end|>", "leave it out"),
    ]:
        assert invoke("transcribe", CLIP.path, "-m", "demo", *typed) == Result(2, "", said(message, hint))


def test_what_can_be_read_only_once_is_not_compared(here: Path) -> None:
    result = funasr("transcribe", "-", "--compare-hotwords", "--hotword", "a", input=b"")
    assert result == Result(2, "", said("-: can be read only once", "--compare-hotwords needs a file"))


# --- inputs and models ---


@pytest.mark.usefixtures("here")
def test_inputs_that_cannot_be_read() -> None:
    """All are reported, in their order, and what can be read is transcribed."""
    Path("empty.wav").touch()
    soundfile.write("hollow.wav", np.zeros(0), RATE_HZ)
    Path("raw.raw").write_bytes(bytes(100))
    reasons = [
        said("missing.wav: no such file", code="audio-missing"),
        said("empty.wav: the file is empty", code="audio-empty"),
        said("hollow.wav: no samples in it", code="audio-empty"),
        said(
            "raw.raw: samples without a header",
            "--pcm says how they are stored, as in: --pcm s16le --rate 16000",
            code="audio-unreadable",
        ),
        said(f"{'a' * 300}.wav: cannot be read (File name too long)", code="audio-unreadable"),
    ]
    if sys.platform != "linux":
        reasons.pop()
    names = ["missing.wav", "empty.wav", "hollow.wav", "raw.raw", "a" * 300 + ".wav"][: len(reasons)]
    result = invoke("transcribe", "-m", "demo", *names, "a.flac")
    count = len(reasons)
    assert result.stdout == f"a.flac: {CLIP.written}\n"
    assert result.stderr == "".join(reasons) + f"{count} of {count + 1} inputs failed; {summary('0:02')}"
    assert result.exit_code == 1


def test_names_of_models(here: Path) -> None:
    home = {"FUNASR_HOME": str(here)}
    found = here / "models"

    def refusal(*model: str) -> Result:
        return invoke("transcribe", "a.flac", *model, env=home)

    hint = "run: funasr convert FunAudioLLM/Fun-ASR-Nano-2512; or try the small bundled model: --model demo"
    message = f"no model has been converted yet (looked in {found})"
    assert refusal() == Result(3, "", said(message, hint))
    for name in ("one/small", "two/small"):
        shutil.copytree(demo.MODEL, found / name)
    message = "several models have been converted"
    assert refusal() == Result(3, "", said(message, "choose one with --model: one/small, two/small"))
    message = "small: more than one model goes by that name"
    assert refusal("-m", "small") == Result(3, "", said(message, "say which: one/small, two/small"))
    hint = "converted so far: one/small, two/small; convert one with: funasr convert FunAudioLLM/Fun-ASR-Nano-2512"
    assert refusal("-m", "nano") == Result(3, "", said("nano: no such model", hint))


# --- the same from elsewhere ---

IDLE_SETTINGS = {
    "output-template": "x.{ext}", "max-line-width": 9, "max-line-count": 9, "confidence": True, "stream": True,
    "vad-threshold": 0.6, "min-pause": 1.0, "join": 2.0, "top-p": 0.9, "top-k": 3, "seed": 7, "quiet": True,
    "timestamps": "none", "highlight-words": True,
}  # fmt: skip
MESSAGES = f"\n{summary('0:02')}"


def as_variable(name: str) -> str:
    return f"FUNASR_{name.replace('-', '_').upper()}"


def test_settings_that_change_nothing_are_fine(tmp_path: Path) -> None:
    """What is typed goes before those that it excludes; the results are those of a run without them."""
    variables = {as_variable(name): str(value) for name, value in IDLE_SETTINGS.items()}
    lines = [
        f"{name} = {str(value).lower() if value is True else repr(value)}\n"
        for name, value in IDLE_SETTINGS.items()
    ]
    (tmp_path / "config.toml").write_text("".join(lines), encoding="utf-8")
    for env in (variables, {"FUNASR_CONFIG": str(tmp_path / "config.toml")}):
        result = invoke("transcribe", "-m", "demo", CLIP.path, "--no-vad", "-f", "tsv", "-v", env=env)
        rows = result.stdout.splitlines()
        assert (result.exit_code, rows) == (0, ["start\tend\ttext", f"0\t1672\t{CLIP.written}"])
        assert result.stderr.endswith(MESSAGES)
        assert result.stderr.startswith("model demo from "), "--verbose was typed, --quiet was not"


@pytest.mark.parametrize("line", ["force = true", "resume = true", "clip = '1-2'", "pcm = 's16le'", "json = true"])
def test_what_belongs_to_a_single_run_is_no_setting(line: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"{line}\n")
    result = invoke("transcribe", CLIP.path, env={"FUNASR_CONFIG": str(config)})
    name = line.split()[0]
    assert result == Result(2, "", f"error: {config}: {name!r} belongs to a single run\n  type --{name}\n")


def test_settings_of_results_do_not_keep_from_comparing() -> None:
    env = {"FUNASR_FORMAT": "srt json", "FUNASR_OUTPUT_DIR": "nowhere", "FUNASR_STREAM": "1"}
    result = invoke("transcribe", "-m", "demo", CLIP.path, "--compare-hotwords", "--hotword", "seven", env=env)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{CLIP.path}: ")
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("name", "value", "start", "end"),
    [
        ("batch-size", "0", "batch size is 0\n  it must be at least 1\n", "  settings in force: {}\n"),
        ("format", "doc", "unknown format 'doc'\n", "  settings in force: {}\n"),
        ("channels", "stereo", "Invalid value for '--channels': ", "  it comes from {}\n"),
        ("stream", "maybe", "Invalid value for '--stream': ", "  it comes from {}\n"),
    ],
)
def test_errors_name_the_setting(tmp_path: Path, name: str, value: str, start: str, end: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'{name} = "{value}"\n' if not value.isdigit() else f"{name} = {value}\n")
    variable = as_variable(name)
    for env, origin in (({variable: value}, variable), ({"FUNASR_CONFIG": str(config)}, f"{name} in {config}")):
        result = invoke("transcribe", "a.flac", "-m", "nowhere", env=env)
        result.assert_fails(2)
        assert result.stderr.startswith(f"error: {start}"), result
        assert result.stderr.endswith(end.format(origin)), result

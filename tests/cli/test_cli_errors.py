"""Every error of `funasr transcribe`: exit code, no output, no files, and one error that names the value."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import summary
from support.running import funasr, invoke, tree

from funasr_cli import demo
from funasr_cli.errors import ModelError

CLIP = next(clip for clip in demo.clips() if clip.written == "792")
RATE_HZ = 16000

# Arguments of `funasr transcribe -m nowhere`, the error's code, and the value it names.
USAGE_ERRORS = [
    ("", "command-line", "AUDIO"),
    ("a.flac -f", "command-line", "-f"),
    ("a.flac --stream=1", "command-line", "--stream"),
    ("a.flac -x", "command-line", "-x"),
    ("a.flac --max-tokens many", "command-line", "--max-tokens"),
    ("a.flac --channels stereo", "command-line", "'stereo'"),
    ("a.flac --output-dir ''", "command-line", "--output-dir"),
    ("a.flac --output-dir ~no-such-user/x", "command-line", "~no-such-user/x"),
    ("a.flac --hotwords-file ~no-such-user/x", "command-line", "~no-such-user/x"),
    ("a.flac --lnag zh", "command-line", "--lang"),
    ("a.flac --quiet --verbose", "options-conflict", "--quiet with --verbose"),
    # options.py
    ("a.flac --max-tokens 0", "option-value", "--max-tokens is 0"),
    ("a.flac --temperature nan", "option-value", "--temperature is nan"),
    ("a.flac --temperature 1 --top-p 0", "option-value", "--top-p is 0.0"),
    ("a.flac --top-k 5", "options-conflict", "top-k"),
    ("a.flac --seed 0 --top-p 1 --top-k 1 --temperature 0", "options-conflict", "--top-p, --top-k, --seed"),
    ("a.flac --vad-threshold 0", "option-value", "--vad-threshold is 0.0"),
    ("a.flac --min-pause 11", "option-value", "--min-pause is 11.0 s"),
    ("a.flac --max-segment 0", "option-value", "--max-segment is 0.0 s"),
    # writers.py, output.py, subtitles.py
    ("a.flac -f doc", "option-value", "'doc'"),
    ("a.flac -f txt,", "option-value", "''"),
    ("a.flac -f srt,vtt", "options-conflict", "srt, vtt"),
    ("a.flac -f all", "options-conflict", "jsonl, md"),
    ("a.flac b.flac -f srt", "options-conflict", "srt"),
    ("calls -r -f md", "options-conflict", "md"),
    ("stereo.wav --channels split -f tsv", "options-conflict", "tsv"),
    ("a.flac -o out --force --resume", "options-conflict", "--force with --resume"),
    ("a.flac --stream -f json", "options-conflict", "--stream"),
    ("a.flac -f srt --timestamps none", "options-conflict", "none with srt"),
    ("a.flac -f txt,vtt,tsv -o out --timestamps none", "options-conflict", "none with vtt"),
    ("a.flac -f vtt --highlight-words --timestamps segment", "options-conflict", "segment"),
    ("a.flac -f srt --max-line-width 1", "option-value", "--max-line-width is 1"),
    ("a.flac -f vtt --max-line-count 0", "option-value", "--max-line-count is 0"),
    # inputs.py
    ("a.flac ''", "option-value", "is empty"),
    ("none", "inputs-missing", "none: "),
    ("a.flac 'no*.wav'", "inputs-missing", "no*.wav: "),
    ("'calls/**/a.wav'", "inputs-missing", "--recursive"),
    ("- a.flac -", "input-once", "standard input"),
    ("a.flac --clip -", "option-value", "'-'"),
    ("a.flac --clip 0:01-0:61", "option-value", "'0:61'"),
    ("a.flac --clip 5-5", "option-value", "'5-5'"),
    ("a --pcm s16", "option-value", "'s16'"),
    ("a --pcm s16le --rate 768001", "option-value", "768001 Hz"),
    ("a --pcm s16le --pcm-channels 65", "option-value", "65 channels"),
    ("a.flac calls --pcm s16le", "options-conflict", "--pcm"),
    # options without effect
    ("a.flac --force", "option-idle", "--force"),
    ("a.flac --resume -f json", "option-idle", "--resume works only with --output-dir"),
    ("a.flac --output-template x", "option-idle", "--output-template"),
    ("a.flac --max-line-width 42", "option-idle", "--max-line-width"),
    ("a.flac --max-line-count 2 -f txt,json -o out", "option-idle", "--max-line-count"),
    ("a.flac --highlight-words -f txt,json -o out", "option-idle", "--highlight-words"),
    ("a.flac --rate 16000", "option-idle", "--rate"),
    ("a.flac --pcm-channels 1", "option-idle", "--pcm-channels"),
    ("a.flac --confidence", "option-idle", "--confidence"),
    ("a.flac --no-vad --vad-threshold 0.5", "option-idle", "--vad-threshold"),
    ("a.flac --no-vad --vad-model fsmn", "option-idle", "--vad-model"),
    ("a.flac --vad-model fsmn-dynamic --min-pause 1", "options-conflict", "--min-pause"),
    ("a.flac --no-vad --min-pause 1", "option-idle", "--min-pause"),
    ("a.flac --no-vad --join 5", "option-idle", "--join"),
    *(
        (f"a.flac --compare-hotwords --hotword a {typed}", "option-idle", typed.split()[0])
        for typed in (
            "--format json", "--output-dir out", "--output-template x", "--force", "--resume", "--strict",
            "--max-line-width 9", "--max-line-count 9", "--stream", "--confidence", "--timestamps none",
            "--highlight-words",
        )
    ),
    ("a.flac --compare-hotwords", "options-conflict", "--hotwords-file"),
    ("- --compare-hotwords --hotword a", "input-once", "-: "),
    ("a.flac -o -", "option-value", "--output-dir -"),
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


@pytest.mark.parametrize(("typed", "code", "value"), USAGE_ERRORS, ids=[error[0][:60] for error in USAGE_ERRORS])
def test_usage_errors(here: Path, typed: str, code: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused before a model is looked up, and nothing is written."""
    monkeypatch.setattr("os.isatty", lambda _: False)  # independent of the tests' own standard input
    before = tree(here)
    result = invoke("transcribe", "-m", "nowhere", *shlex.split(typed))
    result.assert_error(2, code, value)
    assert len(result.stderr.splitlines()) <= 2
    assert tree(here) == before


# One error of each kind in a separate process; here, the options come after the inputs.
PROCESSES = [
    ("a.flac -f", 2, "-f"),
    ("a.flac missing.wav -m demo -o a.flac", 1, "a.flac: "),
]


@pytest.mark.parametrize(("typed", "exit_code", "value"), PROCESSES, ids=[error[0] for error in PROCESSES])
def test_errors_of_a_process(here: Path, typed: str, exit_code: int, value: str) -> None:
    """The traceback is printed only on request, before the same message."""
    home = {"FUNASR_HOME": str(here / "home"), "FUNASR_TRACEBACK": "0"}
    result = funasr("transcribe", *shlex.split(typed), env=home)
    result.assert_fails(exit_code, value)
    assert "\x1b" not in result.stderr
    traced = funasr("transcribe", *shlex.split(typed), env=home | {"FUNASR_TRACEBACK": "1"})
    assert (traced.exit_code, traced.stdout) == (exit_code, "")
    assert traced.stderr.endswith(result.stderr)
    assert traced.stderr.startswith("Traceback (most recent call last):\n") == (typed != "a.flac -f")


@pytest.mark.parametrize(("typed", "near", "where"), [
    ("trnscribe a.flac", "did you mean transcribe?", "funasr"),
    ("--verison", "did you mean --version?", "funasr"),
    ("transcribe --formt srt a.wav", "did you mean --format?", "funasr transcribe"),
    ("transcribe --language en a.wav", "did you mean --lang?", "funasr transcribe"),
    ("transcribe --version", "did you mean funasr --version?", "funasr transcribe"),
    ("meeting.m4a", "did you mean funasr transcribe meeting.m4a?", "funasr"),
    ("help", "did you mean funasr --help?", "funasr"),
])  # fmt: skip
def test_the_nearest_name_is_offered(typed: str, near: str, where: str) -> None:
    funasr(*shlex.split(typed)).assert_error(2, "command-line", near, f"see {where} --help\n")


THEIR_WORDS = re.compile("Input should|is not a valid|is not one of|Got |Missing|No such|Option '|in the range")


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("transcribe", ("AUDIO", "transcribe --help")),
        ("transcribe a.wav --format", ("--format", "transcribe --help")),
        ("transcribe a.wav --stream=1", ("--stream", "transcribe --help")),
        ("transcribe a.wav --channels x", ("--channels: 'x'", "mix, split")),
        ("transcribe a.wav --max-tokens x", ("--max-tokens: 'x'",)),
        ("transcribe a.wav --temperature x", ("--temperature: 'x'",)),
        ("bench --rtf --trials 0", ("--trials: 0", "1 or more")),
        ("models a b", (": a b", "models --help")),
        ("nonsense", ("nonsense", "funasr --help")),
    ],
)
def test_mistakes_in_our_own_words(typed: str, values: tuple[str, ...]) -> None:
    """They name the option and the value, in neither Click's nor Pydantic's words."""
    result = invoke(*typed.split())
    result.assert_error(2, "command-line", *values)
    assert not THEIR_WORDS.search(result.stderr)


@pytest.mark.parametrize("command", ["transcribe", "convert", "bench"])
def test_usage_lines_and_types_of_the_help(command: str) -> None:
    """Angle brackets enclose the values of an option, and square brackets what may be left out."""
    text = invoke(command, "--help", env={"COLUMNS": "200"}).stdout
    usage = next(line for line in text.splitlines() if "Usage:" in line)
    assert "{" not in usage
    assert re.findall(r"--\S+ +(?:-\w +)?\[\w+(?:\|\w+)*\]", text) == []
    assert re.findall(r"--\S+ +(?:-\w +)?<\w+(?:\|\w+)+>", text) != []


def test_no_name_is_near() -> None:
    """A suggestion that shares only a few letters would mislead."""
    result = invoke("transcribe", "a.wav", "--diarize")
    result.assert_error(2, "command-line", "--diarize", "see funasr transcribe --help")
    assert "did you mean" not in result.stderr


def test_translation_that_cannot_be_made(zh_wav: Path) -> None:
    """The message names the way out."""
    result = invoke("transcribe", str(zh_wav), "--model", "demo", "--translate")
    result.assert_error(2, "option-unsupported", "--translate", "--translator")


# --- the same values from other places ---

IDLE_SETTINGS = {
    "output-template": "x.{ext}", "max-line-width": 9, "max-line-count": 9, "confidence": True, "stream": True,
    "vad-model": "fsmn-dynamic", "vad-threshold": 0.6, "min-pause": 1.0, "join": 2.0, "top-p": 0.9, "top-k": 3,
    "seed": 7, "quiet": True,
    "timestamps": "none", "highlight-words": True,
}  # fmt: skip


def as_variable(name: str) -> str:
    return f"FUNASR_{name.replace('-', '_').upper()}"


def test_settings_without_effect_are_accepted(tmp_path: Path) -> None:
    """Command-line options take precedence over settings that they exclude; the settings change no result."""
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
        assert result.stderr.endswith(f"\n{summary('0:02')}")
        assert result.stderr.startswith("model demo from "), (
            "--verbose was given on the command line, --quiet was not"
        )


def test_settings_of_results_do_not_prevent_comparing() -> None:
    env = {"FUNASR_FORMAT": "srt json", "FUNASR_OUTPUT_DIR": "nowhere", "FUNASR_STREAM": "1"}
    result = invoke("transcribe", "-m", "demo", CLIP.path, "--compare-hotwords", "--hotword", "seven", env=env)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{CLIP.path}: ")
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("name", "value", "how"),
    [
        ("batch-size", "0", "check the setting"), ("format", "doc", "check the setting"),
        ("channels", "stereo", "the value comes from"), ("stream", "maybe", "the value comes from"),
    ],
)  # fmt: skip
def test_errors_name_the_setting(tmp_path: Path, name: str, value: str, how: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'{name} = "{value}"\n')
    invoke("transcribe", "a.flac", "-m", "nowhere", env={as_variable(name): value}).assert_fails(
        2, f"  {how} {as_variable(name)}\n"
    )
    told = f"  {how} {name} in {config}\n" if name != "stream" else f"{config}: stream is 'maybe'"
    invoke("transcribe", "a.flac", "-m", "nowhere", env={"FUNASR_CONFIG": str(config)}).assert_fails(
        2, value, told
    )


@pytest.mark.parametrize(
    ("typed", "code", "settings"),
    [
        ("-f doc", "option-value", ""),
        ("-m nowhere", "model-missing", ""),
        ("", "model-missing", "FUNASR_MODEL"),
        ("-m demo --tags text", "option-unsupported", ""),
        ("-m demo -l ko", "language-unknown", ""),
        ("-m demo --join 99", "option-value", "FUNASR_MAX_SEGMENT"),
    ],
)
def test_settings_that_are_not_the_cause_are_not_named(typed: str, code: str, settings: str) -> None:
    env = {"FUNASR_LANG": "zh", "FUNASR_BATCH_SIZE": "2", "FUNASR_MODEL": "nothing", "FUNASR_MAX_SEGMENT": "20"}
    result = invoke("transcribe", CLIP.path, *typed.split(), env=env)
    result.assert_error(result.exit_code, code)
    hints = [line for line in result.stderr.splitlines() if line.startswith("  check the setting")]
    assert hints == ([f"  check the setting {settings}"] if settings else [])


def test_a_setting_is_not_the_cause_of_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """FUNASR_MODEL is right if its download was offered and declined; otherwise it is named."""

    def decline(*_: object, **__: object) -> None:
        raise ModelError("no model was fetched", "or name another with --model", code="model-missing")

    env = {"FUNASR_MODEL": "nano"}
    assert "check the setting FUNASR_MODEL" in invoke("bench", "--rtf", env=env | {"FUNASR_HOME": "/no"}).stderr
    monkeypatch.setattr("funasr_cli.cli.first_model.find_or_fetch", decline)
    result = invoke("transcribe", CLIP.path, env=env)
    result.assert_error(3, "model-missing")
    assert "FUNASR_MODEL" not in result.stderr


def test_bench_without_a_model_names_the_way_without_one(tmp_path: Path) -> None:
    home = {"FUNASR_HOME": str(tmp_path)}
    invoke("bench", "--rtf", env=home).assert_error(3, "model-missing", "--synthetic full")
    assert "--synthetic" not in invoke("bench", "--rtf", "-m", "nowhere", env=home).stderr

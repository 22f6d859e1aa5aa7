"""Shell completion: the values offered on Tab."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.running import Result, environment, funasr, invoke

from funasr_cli import demo
from funasr_cli.families.registry import aliases
from funasr_cli.languages import AUTO, LANGUAGES
from funasr_cli.options import DTYPES, RECIPES
from funasr_cli.writers import ALL_FORMATS, WRITERS

CODES = list(LANGUAGES)
FORMATS = [*WRITERS, ALL_FORMATS]
IDS = ["FunAudioLLM/Fun-ASR-Nano-2512", "FunAudioLLM/Fun-ASR-MLT-Nano-2512", "FunAudioLLM/SenseVoiceSmall"]
UNKNOWN_USER = "~no-such-user/x"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a model."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    return tmp_path


def in_bash(line: str) -> dict[str, str | None]:
    """Return the variables that bash sets for a line completed at its end."""
    return {"_FUNASR_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}


def offered(line: str, **env: str) -> list[str]:
    result = invoke(env={**in_bash(line), **env})
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.split()


LINES = [
    ("funasr ", ["transcribe", "convert", "bench", "models", "info"]),
    ("funasr tr", ["transcribe"]),
    ("funasr transcribe --lang ", [AUTO, *CODES]),
    ("funasr transcribe --lang z", ["zh"]),
    ("funasr transcribe --lang klingon", []),
    ("funasr transcribe -f ", FORMATS),
    ("funasr transcribe --format j", ["json", "jsonl"]),
    ("funasr transcribe -f srt,v", ["srt,vtt"]),
    ("funasr transcribe -f txt,srt,", [f"txt,srt,{name}" for name in FORMATS if name not in ("txt", "srt")]),
    ("funasr transcribe -f json,j", ["json,jsonl"]),
    ("funasr transcribe -f srt,x", []),
    ("funasr transcribe -m ", ["demo"]),
    ("funasr transcribe --channels ", ["mix", "split"]),
    ("funasr transcribe --max-s", ["--max-segment"]),
    ("funasr transcribe a.wav --no-", ["--no-itn", "--no-vad"]),
    ("funasr models --", ["--json", "--help"]),
    ("funasr convert ", [*aliases(), *dict.fromkeys(aliases().values())]),
    ("funasr convert FunAudioLLM/Fun-ASR-M", IDS[1:2]),
    ("funasr convert nano --dtype ", list(DTYPES)),
    ("funasr convert nano --quantize ", list(RECIPES)),
    ("funasr convert nano --languages zh,e", ["zh,en", "zh,et", "zh,el"]),
    ("funasr convert nano --languages zh,en,z", []),
]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line for line, _ in LINES])
def test_what_is_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_models(home: Path) -> None:
    """All converted models and the bundled one are offered; unfinished and hidden folders are not."""
    for name in ("mine", "owner/nano", ".funasr-x", "owner/.funasr-y"):
        shutil.copytree(demo.MODEL, home / "models" / name)
    (home / "models/empty").mkdir()
    for option in ("transcribe -m", "transcribe --model", "bench --model"):
        assert offered(f"funasr {option} ") == ["demo", "mine", "owner/nano"]
        assert offered(f"funasr {option} o") == ["owner/nano"]
        assert offered(f"funasr {option} nano") == []


def test_other_problems_are_not_reported(tmp_path: Path) -> None:
    """An unusable home and unreadable settings cause no error messages during completion."""
    (tmp_path / "config.toml").write_text("lang = @")
    for wrong in ({"FUNASR_HOME": UNKNOWN_USER}, {"FUNASR_CONFIG": UNKNOWN_USER}):
        assert offered("funasr transcribe --model d", **wrong) == ["demo"]
        assert offered("funasr transcribe --model x", **wrong) == []
        assert offered("funasr convert mlt", **wrong) == ["mlt-nano"]
    for settings in (tmp_path / "config.toml", tmp_path / "none.toml"):
        assert offered("funasr transcribe --lang z", FUNASR_CONFIG=str(settings)) == ["zh"]
    env = {name: value for name, value in in_bash("funasr transcribe -m ").items() if value}
    assert funasr(env=env | {"FUNASR_HOME": UNKNOWN_USER, "FUNASR_CONFIG": UNKNOWN_USER}) == Result(
        0, "demo\n", ""
    )


@pytest.mark.usefixtures("home")
def test_shells_that_show_descriptions() -> None:
    line = {"_TYPER_COMPLETE_ARGS": "funasr transcribe --lang e", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    fish = invoke(env={"_FUNASR_COMPLETE": "complete_fish", **line})
    offered_names = ["en\tEnglish", "et\tEstonian", "el\tGreek", "es\tSpanish", "eu\tBasque", ""]
    assert (fish.exit_code, fish.stdout.split("\n")) == (0, offered_names)
    zsh = invoke(env={"_FUNASR_COMPLETE": "complete_zsh", **line})
    assert (zsh.exit_code, zsh.stderr) == (0, "")
    for code, name in (("en", "English"), ("et", "Estonian"), ("el", "Greek")):
        assert f'"{code}":"{name}"' in zsh.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("name", ["funasr", "funasr-cli"])
def test_bash_itself(name: str, home: Path, tmp_path: Path) -> None:
    """The printed completion script works under both names of the command."""
    command = Path(sys.executable).parent / name
    if not command.exists():
        pytest.skip("the package is not installed in this environment")
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    script = subprocess.run(
        [command], capture_output=True, check=True, env=environment(**{variable: "source_bash"})
    )
    (tmp_path / "completion").write_bytes(script.stdout)
    press_tab = (
        f"source ./completion; COMP_WORDS=({name} transcribe --format srt,v); COMP_CWORD=3\n"
        f"words=($(complete -p {name})); ${{words[-2]}} {command}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", press_tab], capture_output=True, cwd=tmp_path, env=environment())
    assert (done.stdout, done.stderr) == (b"srt,vtt\n", b"")

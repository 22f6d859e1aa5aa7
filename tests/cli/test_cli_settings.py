"""`funasr info`, `funasr models`, and defaults from a settings file."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from support.running import invoke
from support.small import edit_json

from funasr_cli import __version__
from funasr_cli.demo import MODEL, clips


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_models(small_model: Path, tmp_path: Path) -> None:
    """Converted models, the bundled one, and a damaged one are listed."""
    home = tmp_path / "home"
    (home / "models/mine").mkdir(parents=True)
    (home / "models/mine/model").symlink_to(small_model)
    (home / "models/broken").mkdir()
    (home / "models/broken/config.json").write_text("{")
    (shutil.copytree(small_model, home / "models/hollow") / "model.safetensors").unlink()
    rows = json.loads(invoke("models", "--json", env={"FUNASR_HOME": str(home)}).stdout)
    assert [row["name"] for row in rows] == ["broken", "hollow", "mine/model", "demo"]
    assert all(row.pop("problem") for row in rows[:2])
    rows.pop(0)
    assert (rows[1]["dtype"], rows[1]["ctc"], rows[1]["languages"]) == ("float32", False, ["zh", "en", "ja"])
    assert (rows[2]["folder"], rows[2]["languages"], rows[2]["ctc"]) == (str(MODEL), ["zh", "en"], True)
    shown = invoke("models", env={"FUNASR_HOME": str(home)})
    assert "mine/model\n" in shown.stdout
    assert (
        "  family:     FunASRNano (7 MB, bfloat16)\n  languages:  Chinese, English\n  word times: yes\n"
        in shown.stdout
    )
    assert {row["family"] for row in rows[1:]} == {"FunASRNano"}
    assert {row["model_type"] for row in rows[1:]} == {"fun_asr_nano"}
    assert {"hotwords", "sampling", "word times"} <= set(rows[2]["capabilities"])
    assert set(rows[2]["capabilities"]) - set(rows[1]["capabilities"]) == {
        "word times", "alignment", "CTC text", "drafts", "second opinion"
    }  # fmt: skip
    assert "  supports:   hotwords, previous text, instruction, dialogue, sampling, token limit, " in shown.stdout
    nothing = invoke("models", env={"FUNASR_HOME": str(tmp_path / "empty")})
    assert nothing.stderr.startswith("only the demo model is on this machine; ")


@pytest.mark.parametrize(("hub", "on_modelscope"), [("hf", True), ("ms", False)])
def test_models_name_ways_to_get_word_times(model: Path, tmp_path: Path, hub: str, on_modelscope: bool) -> None:
    home = {"FUNASR_HOME": str(tmp_path / "home")}
    shutil.copytree(model, tmp_path / "home/models/nano")
    stated = {"source": "FunAudioLLM/Fun-ASR-Nano-2512", "hub": hub}
    edit_json(tmp_path / "home/models/nano/config.json", lambda config: config["source"].update(stated))
    [row, _] = json.loads(invoke("models", "--json", env=home).stdout)
    assert (row["ctc"], row["ctc_on_modelscope"]) == (False, on_modelscope)
    head, *facts = invoke("models", env=home).stdout.splitlines()[:7]
    elsewhere = "; funasr convert nano --hub ms fetches a copy with word times" if on_modelscope else ""
    assert (head, facts[0].endswith(" MB, float32)")) == ("nano", True)
    assert facts[1:3] == ["  languages:  Chinese, English, Japanese", f"  word times: no{elsewhere}"]
    assert facts[5] == f"  folder:     {tmp_path / 'home/models/nano'}"


def test_info(config: Path) -> None:
    config.write_text('lang = "zh"\n')
    env = {"FUNASR_CONFIG": str(config)}
    facts = json.loads(invoke("info", "--json", env=env).stdout)
    assert facts["funasr-cli"] == __version__
    assert facts["settings file"] == str(config)
    both = ["transcribe", "bench"]
    assert facts["settings"] == [{"option": "lang", "value": "zh", "origin": str(config), "commands": both}]
    assert facts["environment"]["FUNASR_CONFIG"] == str(config)
    assert "demo" in facts["models"]
    assert {"second opinion", "CTC text", "word times"} <= set(facts["capabilities"]["demo"])
    assert facts["packages"]["mlx"]
    shown = invoke("info", env=env).stdout
    assert re.search(rf"^funasr-cli +{re.escape(__version__)}$", shown, re.MULTILINE)
    assert "second opinion" not in shown  # a name of the program's own; the list has words for users
    assert "numbers as digits or as words" in shown


def test_info_on_hubs(config: Path) -> None:
    """It shows where the hubs' clients look and store, but no token."""
    config.write_text("")
    env = {
        "FUNASR_CONFIG": str(config),
        "HF_HOME": "/cache",
        "HF_ENDPOINT": "https://mirror",
        "HF_TOKEN": "hf_secret",
    }
    shown = invoke("info", env=env).stdout
    assert "HF_HOME /cache" in shown
    assert "HF_ENDPOINT https://mirror" in shown
    assert "secret" not in shown
    assert "every option has its default value\n" in shown


def test_settings_in_force_and_their_sources(config: Path) -> None:
    """A variable takes precedence over the file. Settings of single commands are marked."""
    config.write_text('lang = "zh"\nmodel = "demo"\n[transcribe]\nformat = ["srt", "json"]\nmodel = "nano"\n')
    shown = invoke("info", env={"FUNASR_CONFIG": str(config), "FUNASR_LANG": "en", "FUNASR_JOIN": ""})
    rows = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert rows[-4:] == [
        f"settings transcribe: model = nano ({config})",
        "lang = en (FUNASR_LANG)",
        f"format = srt,json ({config})",
        f"serve, bench: model = demo ({config})",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("content", "value"), [("lang = @", "TOML"), ("lag = 1", "'lag'")])
def test_commands_for_fixing_settings_work_with_invalid_ones(config: Path, content: str, value: str) -> None:
    config.write_text(content)
    env = {"FUNASR_CONFIG": str(config)}
    shown = invoke("info", env=env)
    assert shown.exit_code == 0
    assert (shown.stderr.startswith(f"warning: {config}: "), value in shown.stderr) == (True, True)
    assert re.search(rf"^settings file +{re.escape(str(config))}$", shown.stdout, re.MULTILINE)
    assert invoke("transcribe", "--help", env=env) == invoke("transcribe", "--help")
    invoke("models", env=env).assert_fails(2, str(config))


@pytest.mark.parametrize(
    ("variable", "arguments"), [("FUNASR_CONFIG", ("transcribe", "a.wav")), ("FUNASR_HOME", ("models",))]
)
def test_paths_in_the_home_of_an_unknown_user(variable: str, arguments: tuple[str, ...]) -> None:
    named = f"{variable}=~no-such-user/x"
    invoke(*arguments, env={variable: "~no-such-user/x"}).assert_fails(2, named)


def test_another_funasr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another `funasr` on PATH is reported unless it links to ours, as pipx's and uv's do. So is PyPI's funasr."""
    from funasr_cli.cli import info

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    command = tmp_path / "funasr"
    command.symlink_to(Path(sys.executable).parent / "funasr")
    assert invoke("info").stderr == ""
    command.unlink()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    assert str(command) in invoke("info").stderr
    version = info._version
    monkeypatch.setattr(info, "_version", lambda package: "1.4.16" if package == "funasr" else version(package))
    assert "funasr 1.4.16" in invoke("info").stderr


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        ("lag = 1", "settings-unknown", ["'lag'", "lang"]),
        ("[transcribe]\nfomat = 1", "settings-unknown", ["[transcribe]", "'fomat'", "format"]),
        ("[transcrib]\nformat = 1", "settings-unknown", ["'transcrib'", "transcribe"]),
        ("[bench]\nvad = true", "settings-unknown", ["[bench]", "'vad'"]),
        ("force = true", "settings-unknown", ["'force'"]),
        ("lang = ", "settings-unreadable", []),
        (None, "settings-unreadable", ["FUNASR_CONFIG"]),
        ("lang = true", "settings-value", ["lang"]),
        ("lang = 1979-05-27", "settings-value", ["lang"]),
        ('lang = ["zh"]', "settings-value", ["lang"]),
        ("[transcribe.lang]\na = 1", "settings-value", ["lang"]),
        ('[transcribe]\nvad = "no"', "settings-value", ["vad"]),
        ("[transcribe]\nformat = [[]]", "settings-value", ["format"]),
        ('[transcribe]\nmin-pause = "long"', "command-line", ["min-pause in "]),
        ("[transcribe]\nbatch-size = 1.5", "command-line", ["batch-size in "]),
        ('channels = "stereo"', "command-line", ["channels in ", "'stereo'"]),
    ],
)
def test_invalid_settings(config: Path, content: str | None, code: str, values: list[str]) -> None:
    """There is one error, which names the file and the setting."""
    if content is not None:
        config.write_text(content)
    result = invoke("transcribe", "a.wav", "-m", "demo", env={"FUNASR_CONFIG": str(config)})
    result.assert_error(2, code, str(config), *values)


@pytest.mark.slow
def test_formats_in_the_file_apply_only_with_an_output_folder(config: Path, tmp_path: Path) -> None:
    """The example in docs/settings.md also works for a run that prints to stdout."""
    config.write_text('[transcribe]\nformat = ["srt", "json"]\n')
    clip, env = clips()[0], {"FUNASR_CONFIG": str(config)}
    base = ("transcribe", "-m", "demo", clip.path)
    assert invoke(*base, env=env).stdout == f"{clip.written}\n"
    assert invoke(*base, env={"FUNASR_FORMAT": "all"}).stdout == f"{clip.written}\n"
    assert invoke(*base, "--stream", env=env).stdout == f"{clip.written}\n"
    assert invoke(*base, "-o", tmp_path / "out", env=env).exit_code == 0
    assert {path.suffix for path in (tmp_path / "out").glob("0*")} == {".srt", ".json"}


@pytest.mark.parametrize("typed", ["transcribe none.wav -m demo", "convert ./nowhere", "models", "info"])
def test_a_misspelt_variable_is_named(typed: str, tmp_path: Path) -> None:
    """Every command reports it once."""
    env = {"FUNASR_LNAG": "en", "FUNASR_FORMAT": "srt", "FUNASR_HOME": str(tmp_path)}
    stderr = invoke(*typed.split(), env=env).stderr
    assert stderr.count("warning: unknown variable ") == 1
    assert "warning: unknown variable FUNASR_LNAG is ignored; did you mean FUNASR_LANG?\n" in stderr

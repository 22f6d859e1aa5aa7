"""``--tags``, ``--align-with``, and options that a model lacks, tested with models with fixed answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import running
from support.expected import recognizer
from support.running import invoke
from support.speaking import SAID, SpeakingModel

import funasr_cli
from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.families.load import load_model
from funasr_cli.speech_model import SpeechModel

CLIP = demo.clips()[3].path
NANO_WITHOUT_CTC = Capabilities(
    ("zh", "en", "ja"), hotwords=True, sampling=True, token_limit=True, itn_switch=True,
    hints={"word_times": "way one, or way two"},
)  # fmt: skip


@pytest.fixture
def speaking(monkeypatch: pytest.MonkeyPatch) -> SpeakingModel:
    """Replace the loaded model by this one. The folder is the demo model's."""
    return loading(monkeypatch, SpeakingModel())


def loading(monkeypatch: pytest.MonkeyPatch, model: SpeakingModel, **others: SpeechModel) -> SpeakingModel:
    """Load this model for any folder except those with the given names."""
    monkeypatch.setattr(running, "load", lambda folder, *_: others.get(folder.name, model))
    monkeypatch.setattr(
        "funasr_cli.families.open.capabilities", lambda folder: others.get(folder.name, model).capabilities
    )
    return model


def transcribe(*arguments: Any, **env: str) -> running.Result:
    return invoke("transcribe", "-q", "-m", "demo", CLIP, *arguments, env=env)


@pytest.mark.parametrize("stream", [(), ("--stream",)])
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), "Hello there."),
        (("--tags", "none"), "Hello there."),
        (("--tags", "emoji"), "😀🎼Hello there.😊"),
        (("--tags", "text"), "[laughter] [music] [happy] Hello there."),
    ],
)
def test_tags_in_text(speaking: SpeakingModel, options: tuple[str, ...], shown: str, stream: tuple[str]) -> None:
    result = transcribe(*options, *stream)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{shown}\n", "")


def test_tags_in_json_and_files(speaking: SpeakingModel, tmp_path: Path) -> None:
    """The JSON text has no tags, even if other files show them."""
    assert transcribe("--tags", "emoji", "-f", "json,srt", "-o", tmp_path).exit_code == 0
    [row] = json.loads((tmp_path / f"{CLIP.stem}.json").read_text(encoding="utf-8"))["segments"]
    assert (row["text"], row["tags"], row["language"]) == (SAID.text, list(SAID.tags), "en")
    assert "😀🎼Hello there.😊" in (tmp_path / f"{CLIP.stem}.srt").read_text(encoding="utf-8")


def test_tags_from_a_variable_and_the_settings_file(speaking: SpeakingModel, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('tags = "text"\n')
    for env in ({"FUNASR_TAGS": "text"}, {"FUNASR_CONFIG": str(tmp_path / "config.toml")}):
        assert transcribe(**env).stdout == "[laughter] [music] [happy] Hello there.\n"


def test_resume_makes_results_with_other_tags_anew(speaking: SpeakingModel, tmp_path: Path) -> None:
    """Results in formats that show tags are remade. Without tags, results noted before tags existed are valid."""
    base = ("-f", "txt,json", "-o", tmp_path, "--resume")
    for options, made in (((), 2), ((), 0), (("--tags", "emoji"), 1), (("--tags", "emoji"), 0)):
        messages = invoke("transcribe", "-m", "demo", CLIP, *base, *options).stderr
        assert messages.count("wrote ") == made
    assert (tmp_path / f"{CLIP.stem}.txt").read_text(encoding="utf-8") == "😀🎼Hello there.😊\n"


@pytest.mark.parametrize("style", ["text", "emoji"])
def test_a_model_without_tags(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command-line option is refused; a variable is ignored for models without tags."""
    loading(monkeypatch, SpeakingModel(capabilities=NANO_WITHOUT_CTC, result=replace(SAID, tags=())))
    transcribe("--tags", style).assert_error(2, "option-unsupported", f"--tags {style}", "owner/Speaking")
    assert transcribe(FUNASR_TAGS=style).stdout == "Hello there.\n"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--hotword Kubernetes", "--hotword"), ("--prev-text So", "--prev-text"), ("--no-itn", ""),
        ("--itn", "--itn"), ("--temperature 0.5", "--temperature"), ("--max-tokens 5", "--max-tokens"),
        ("-f json --confidence", "--confidence"), ("--max-segment 41", "--max-segment"),
        ("--max-segment 40", ""), ("--draft auto", "--draft"), ("--draft off", "--draft"),
        ("--stream", ""), ("--batch-size 2", ""),
        ("--show-prompt", "--show-prompt"), ("--hotword a --compare-hotwords", "--hotword"),
    ],
)  # fmt: skip
def test_what_a_model_lacks_is_refused_by_name(speaking: SpeakingModel, options: str, named: str) -> None:
    result = transcribe(*options.split())
    if named:
        result.assert_error(2, "option-unsupported", named, "owner/Speaking")
    else:
        assert (result.exit_code, result.stdout) == (0, "Hello there.\n")


def test_settings_that_a_model_lacks_are_ignored(speaking: SpeakingModel, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Kubernetes\n")
    waiting = {
        "FUNASR_TEMPERATURE": "0.5", "FUNASR_TOP_P": "0.5", "FUNASR_ITN": "1", "FUNASR_MAX_SEGMENT": "60",
        "FUNASR_HOTWORDS_FILE": str(tmp_path / "words.txt"), "FUNASR_MAX_TOKENS": "5",
    }  # fmt: skip
    result = transcribe(**waiting)
    assert (result.exit_code, result.stdout) == (0, "Hello there.\n")
    transcribe("--top-k", "5", **waiting).assert_error(2, "option-unsupported", "--top-k", "owner/Speaking")
    hotwords = ("--hotwords-file", tmp_path / "words.txt")
    transcribe(*hotwords).assert_error(2, "option-unsupported", "--hotwords-file", "owner/Speaking")


def test_hotwords_from_a_setting_can_be_compared(speaking: SpeakingModel, tmp_path: Path) -> None:
    """--compare-hotwords requires hotwords, from any source."""
    (tmp_path / "words.txt").write_text("Kubernetes\n")
    result = transcribe("--compare-hotwords", FUNASR_HOTWORDS_FILE=str(tmp_path / "words.txt"))
    result.assert_error(2, "option-unsupported", "--compare-hotwords", "owner/Speaking")


@pytest.mark.parametrize("waiting", ["hotwords", "tags"])
def test_resume_keeps_what_settings_did_not_change(
    waiting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The setting is ignored for a model that does not support it, so the result is still valid."""
    loading(monkeypatch, SpeakingModel(capabilities=Capabilities(("zh", "en"))))
    (tmp_path / "words.txt").write_text("Kubernetes\n")
    env = {
        "hotwords": {"FUNASR_HOTWORDS_FILE": str(tmp_path / "words.txt")}, "tags": {"FUNASR_TAGS": "emoji"},
    }[waiting]  # fmt: skip
    base = ("transcribe", "-m", "demo", CLIP, "-f", "txt,json", "-o", tmp_path / "out", "--resume")
    for settings, made in ((env, 2), ({}, 0), (env, 0)):
        assert invoke(*base, env=settings).stderr.count("wrote ") == made


# --- times from another model ---


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model without word times that returns the clip's text. `models/aligner` is the demo model, with times."""
    shutil.copytree(demo.MODEL, tmp_path / "models/aligner")
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    segment = replace(SAID, text=demo.clips()[3].written)
    loading(
        monkeypatch, SpeakingModel(capabilities=NANO_WITHOUT_CTC, result=segment), aligner=load_model(demo.MODEL)
    )
    return tmp_path


@pytest.mark.parametrize(
    ("options", "named", "model"),
    [
        ("--timestamps word", "--timestamps word", "owner/Speaking"),
        ("-f srt --highlight-words", "--highlight-words", "owner/Speaking"),
        ("--plot-alignment a.png", "--plot-alignment", "model"),
    ],
)
def test_options_that_need_word_times_are_named(
    home: Path, options: str, named: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is that of the model's family. Before the model is loaded, its folder names it."""
    monkeypatch.chdir(home)
    result = transcribe(*options.split())
    result.assert_error(2, "option-unsupported", named, model, "way one, or way two")


@pytest.mark.parametrize("options", ["-f json", "-f srt", "--timestamps word", "-f vtt --highlight-words"])
def test_with_another_model_word_times_are_not_refused(home: Path, options: str) -> None:
    typed = transcribe("--align-with", "aligner", *options.split())
    assert (typed.exit_code, typed.stderr) == (0, "")
    assert transcribe(*options.split(), FUNASR_ALIGN_WITH="aligner").exit_code == 0


def test_words_have_the_other_models_times(home: Path) -> None:
    """The other model is the demo model, which writes the same text and times it with its own branch."""
    data = json.loads(transcribe("--align-with", "aligner", "-f", "json").stdout)
    [row] = data["segments"]
    assert (data["model"], data["aligned_by"]) == ("owner/Speaking", "demo")
    (own,) = recognizer("demo").transcribe(CLIP, word_times=True).segments
    assert [(word["text"], word["start_s"], word["end_s"]) for word in row["words"]] == [
        (word.text, round(word.start_s, 6), round(word.end_s, 6)) for word in own.words
    ]
    assert len(row["words"]) > 3


def test_a_language_that_the_other_model_lacks(home: Path) -> None:
    result = transcribe("--align-with", "aligner", "-f", "json", "-l", "ja")
    result.assert_error(2, "language-unknown", "--align-with", "ja")


@pytest.mark.parametrize("options", ["", "-f tsv", "-f srt --timestamps segment"])
def test_another_model_without_times_of_words(home: Path, options: str) -> None:
    """The option would have no effect; a variable is ignored, and its model is not even looked up."""
    transcribe("--align-with", "aligner", *options.split()).assert_error(2, "option-idle", "--align-with")
    assert transcribe(*options.split(), FUNASR_ALIGN_WITH="missing").exit_code == 0


def test_resume_makes_times_by_another_model_anew(home: Path, tmp_path: Path) -> None:
    """Formats without times keep their results."""
    base = ("transcribe", "-m", "demo", CLIP, "-f", "txt,json", "-o", tmp_path / "out", "--resume")
    for options, made in (((), 2), (("--align-with", "aligner"), 1), (("--align-with", "aligner"), 0)):
        assert invoke(*base, *options).stderr.count("wrote ") == made


@pytest.mark.parametrize("name", ["sensevoice", "nonsense"])
def test_another_model_that_is_missing(home: Path, name: str) -> None:
    """A single line names the command that fetches one."""
    result = transcribe("--align-with", name, "-f", "json")
    result.assert_error(3, "model-missing", name, "funasr convert sensevoice")


def test_another_model_that_is_not_needed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command-line option is refused; a variable is ignored if the model does not need it."""
    timed = SpeakingModel("owner/Timed", Capabilities(("zh", "en"), word_times=True))
    loading(monkeypatch, timed)
    transcribe("--align-with", "aligner", "-f", "json").assert_error(2, "option-idle", "--align-with")
    assert transcribe("-f", "json", FUNASR_ALIGN_WITH="aligner").exit_code == 0
    assert transcribe("-f", "json", FUNASR_ALIGN_WITH="missing").exit_code == 0
    base = ("transcribe", "-m", "demo", CLIP, "-f", "json", "-o", home / "out", "--resume")
    for env, made in (({"FUNASR_ALIGN_WITH": "aligner"}, 1), ({}, 0)):
        assert invoke(*base, env=env).stderr.count("wrote ") == made


def test_in_a_variable_it_is_ignored_for_other_languages(home: Path) -> None:
    """It is needed if words are requested explicitly."""
    result = transcribe("-f", "json", "-l", "ja", FUNASR_ALIGN_WITH="aligner")
    assert (result.exit_code, result.stderr) == (0, "")
    env = {"FUNASR_ALIGN_WITH": "aligner"}
    said = invoke("transcribe", "-v", "-m", "demo", CLIP, "-f", "json", "-l", "ja", env=env).stderr
    assert any("aligner" in line and "ja" in line for line in said.splitlines())
    result = transcribe("--timestamps", "word", "-l", "ja", FUNASR_ALIGN_WITH="aligner")
    result.assert_error(2, "language-unknown", "--align-with", "ja")


@pytest.mark.parametrize("format", ["json", "txt"])
def test_another_model_without_a_name(home: Path, format: str) -> None:
    transcribe("--align-with", "", "-f", format).assert_error(2, "option-idle", "--align-with", "empty")


def test_a_picture_of_the_other_models_alignment(home: Path) -> None:
    pytest.importorskip("librosa")
    picture = home / "a.png"
    result = transcribe("--align-with", "aligner", "--plot-alignment", picture)
    assert (result.exit_code, result.stderr) == (0, "")
    assert picture.stat().st_size > 10000


def test_another_model_that_has_no_times_either(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading(monkeypatch, SpeakingModel(capabilities=NANO_WITHOUT_CTC))
    result = transcribe("--align-with", "aligner", "-f", "json")
    result.assert_error(2, "option-unsupported", "--align-with", "owner/Speaking")


def test_another_model_from_python(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "funasr_cli.families.load.load_model", lambda folder, dtype=None, *_: running.load(folder, dtype)
    )
    asr = funasr_cli.load("demo", align_with="aligner")
    assert asr.capabilities.word_times
    assert not funasr_cli.load("demo").capabilities.word_times
    assert asr.transcribe(CLIP, language="ja").text, "the other model must not be used"
    with pytest.raises(funasr_cli.FunASRError) as caught:
        asr.transcribe(CLIP, language="ja", word_times=True)
    assert caught.value.code == "language-unknown"
    with pytest.raises(funasr_cli.FunASRError) as caught:
        funasr_cli.load("demo", align_with="sensevoice")
    assert (caught.value.code, "funasr convert sensevoice" in caught.value.hint) == ("model-missing", True)

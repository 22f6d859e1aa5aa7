"""``--punctuation``: a second model inserts marks into text without them. The speech model has a fixed answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from support import running
from support.punctuation import PunctuationSpec, write_punctuation
from support.running import Result, invoke
from support.small import convert, once
from support.speaking import SAID, SpeakingModel

import funasr_cli
from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.families.ct_punc.model import CTPunctuation
from funasr_cli.families.load import load_punctuation
from funasr_cli.families.open import capabilities
from funasr_cli.hubs.find import find_model, find_punctuation
from funasr_cli.transcript import Score, Word

CLIP = demo.clips()[3].path
HUB_ID = "funasr/ct-punc"
TAUGHT = {"样": "？", "hello": "，", "房": "。"}
SAYS, MARKED = "今天天气怎么样hello 世界", "今天天气怎么样？hello, 世界。"
WORDS = (
    Word("怎", 0.1, 0.2, 0.9),
    Word("样", 0.2, 0.3, 0.9),
    Word("hello", 0.3, 0.5, 0.8),
    Word("世", 0.5, 0.6, None),
)
SCORES = (Score("今天天气怎么", 0.5), Score("样hello", 0.25), Score(" 世界", 0.75))
UNMARKED = replace(SAID, text=SAYS, language="zh", tags=(), words=WORDS, scores=SCORES)
WRITES_NONE = Capabilities(("zh", "en", "ko"), itn_switch=True, word_times=True, confidence=True)


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted model whose marks depend on the token."""

    def make(folder: Path) -> None:
        convert(write_punctuation(folder / "source", marks=TAUGHT), folder / "model")

    return once(tmp_path_factory, "taught-punctuation", make) / "model"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A speech model that writes no marks, in place of any."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    loading(monkeypatch, WRITES_NONE)
    return tmp_path


@pytest.fixture
def with_model(home: Path, taught: Path) -> Path:
    """The punctuation model is there as well."""
    shutil.copytree(taught, home / "models" / HUB_ID)
    return home


def loading(monkeypatch: pytest.MonkeyPatch, able: Capabilities) -> None:
    model = SpeakingModel(capabilities=able, result=UNMARKED)
    monkeypatch.setattr(running, "load", lambda *_: model)
    monkeypatch.setattr(
        "funasr_cli.families.open.capabilities",
        lambda folder: able if folder == demo.MODEL else capabilities(folder),
    )


def transcribe(*arguments: Any, **env: str) -> Result:
    return invoke("transcribe", "-q", "-m", "demo", CLIP, *arguments, env=env)


@pytest.mark.parametrize("stream", [(), ("--stream",)])
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), MARKED), (("--punctuation", "auto"), MARKED), (("--punctuation", "none"), SAYS),
        (("--punctuation", "ct-punc"), MARKED), (("--punctuation", HUB_ID), MARKED),
    ],
)  # fmt: skip
def test_text(with_model: Path, options: tuple[str, ...], shown: str, stream: tuple[str, ...]) -> None:
    result = transcribe(*options, *stream)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{shown}\n", "")


def test_without_a_model_text_stays_as_it_is(home: Path) -> None:
    for options in ((), ("--punctuation", "auto"), ("--punctuation", "none")):
        result = transcribe(*options)
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"{SAYS}\n", "")


def test_json(with_model: Path) -> None:
    """Words, scores and sentences are in step with the text; times and numbers are those of the speech model."""
    result = transcribe("-f", "json", "--confidence")
    data = json.loads(result.stdout)
    [segment] = data["segments"]
    assert (data["text"], data["punctuated_by"]) == (MARKED, find_punctuation_name(with_model))
    assert [word["text"] for word in segment["words"]] == ["怎", "样？", "hello,", "世"]
    assert [(word["start_s"], word["score"]) for word in segment["words"]] == [(w.start_s, w.score) for w in WORDS]
    assert [score["text"] for score in segment["scores"]] == ["今天天气怎么", "样？hello,", " 世界。"]
    assert [score["probability"] for score in segment["scores"]] == [score.probability for score in SCORES]
    assert [sentence["text"] for sentence in segment["sentences"]] == ["今天天气怎么样？", "hello, 世界。"]
    without = json.loads(transcribe("-f", "json", "--confidence", "--punctuation", "none").stdout)
    assert without["punctuated_by"] is None
    assert without["text"] == SAYS


@pytest.mark.parametrize("strict", [False, True])
def test_a_failure_costs_the_marks_not_the_text(
    with_model: Path, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """The text is there; a warning, JSON and the exit code say that it has no marks."""

    def fail(*_: Any) -> None:
        raise MemoryError("no memory")

    name = find_punctuation_name(with_model)
    monkeypatch.setattr(CTPunctuation, "logits", fail)
    result = transcribe("-f", "json", *["--strict"] * strict)
    assert result.exit_code == (1 if strict else 4)
    data = json.loads(result.stdout)
    assert (data["text"], data["complete"], data["failed_stages"]) == (SAYS, False, [name])
    [warning] = data["warnings"]
    assert "no memory" in warning
    assert "--punctuation none" in warning
    assert warning in result.stderr
    streamed = transcribe("--stream", *["--strict"] * strict)
    assert (streamed.exit_code, streamed.stdout) == (1 if strict else 4, f"{SAYS}\n")


def find_punctuation_name(home: Path) -> str:
    return load_punctuation(home / "models" / HUB_ID).name


def test_subtitles(with_model: Path) -> None:
    lines = transcribe("-f", "srt", "--timestamps", "segment").stdout.splitlines()
    assert "".join(line for line in lines if not line[:1].isdigit()).replace(" ", "") == MARKED.replace(" ", "")


@pytest.mark.parametrize(
    ("name", "code", "command"),
    [
        ("ct-punc", "model-missing", "funasr convert ct-punc\n"),
        ("ct-punc-c", "model-missing", "funasr convert ct-punc-c --hub ms\n"),
        ("nosuch", "model-missing", "funasr convert ct-punc\n"),
        ("demo", "model-unsupported", "ct-punc"),
        ("sensevoice", "model-unsupported", "ct-punc"),
    ],
)
def test_unknown_names(home: Path, name: str, code: str, command: str) -> None:
    """The exit code is that of an unknown model; the hint has the command that fetches it."""
    transcribe("--punctuation", name).assert_error(3, code, name, command)


@pytest.mark.parametrize(
    "name", ["ct-punc", HUB_ID, "ct-punc-c", "iic/punc_ct-transformer_cn-en-common-vocab471067-large"]
)
def test_it_does_not_recognise_speech(home: Path, taught: Path, name: str) -> None:
    """Neither as a name, whether the model is there or not, nor as a folder."""
    for model in (name, taught):
        result = invoke("transcribe", "--yes", "-m", model, CLIP)
        result.assert_error(3, "model-unsupported", str(model), "--punctuation")
    transcribe("--align-with", name, "-f", "json").assert_error(3, "model-unsupported", name)
    with pytest.raises(funasr_cli.FunASRError, match="not a speech model"):
        funasr_cli.load(taught)


@pytest.mark.parametrize(
    ("able", "options", "code"),
    [
        (replace(WRITES_NONE, punctuation=True), (), "option-idle"),
        (replace(WRITES_NONE, itn_punctuation=True), (), "option-idle"),
        (WRITES_NONE, ("-l", "ko"), "language-unknown"),
    ],
)
def test_no_work(
    with_model: Path, monkeypatch: pytest.MonkeyPatch, able: Capabilities, options: tuple[str, ...], code: str
) -> None:
    """Named on the command line, it is refused; otherwise, it is not used."""
    loading(monkeypatch, able)
    transcribe("--punctuation", "ct-punc", *options).assert_error(2, code, "--punctuation ct-punc")
    for env in ({}, {"FUNASR_PUNCTUATION": "ct-punc"}):
        assert transcribe(*options, **env).stdout == f"{SAYS}\n"


def test_a_setting_that_has_no_work_needs_no_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading(monkeypatch, replace(WRITES_NONE, punctuation=True))
    assert transcribe(FUNASR_PUNCTUATION="ct-punc").stdout == f"{SAYS}\n"
    transcribe("--punctuation", "ct-punc").assert_error(3, "model-missing")


def test_no_work_in_a_server(with_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All models that the server offers write marks themselves."""
    loading(monkeypatch, replace(WRITES_NONE, punctuation=True))
    result = invoke("serve", "-m", "demo", "--port", "0", "--punctuation", "ct-punc")
    result.assert_error(2, "option-idle", "--punctuation ct-punc")


def test_a_model_that_writes_marks_only_with_itn(with_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading(monkeypatch, replace(WRITES_NONE, itn_punctuation=True))
    for options in ((), ("--punctuation", "ct-punc")):
        assert transcribe("--no-itn", *options).stdout == f"{MARKED}\n"


def test_resume(with_model: Path, tmp_path: Path) -> None:
    """Results without marks are replaced when there is a model, and the other way round."""
    out = tmp_path / "out"

    def run(*options: str) -> str:
        result = invoke("transcribe", "-m", "demo", CLIP, "-o", out, "--resume", *options)
        assert result.exit_code == 0, result
        return (out / f"{CLIP.stem}.txt").read_text(encoding="utf-8")

    assert run("--punctuation", "none") == f"{SAYS}\n"
    assert run() == f"{MARKED}\n"
    written = (out / f"{CLIP.stem}.txt").stat().st_mtime_ns
    assert run("--punctuation", "ct-punc") == f"{MARKED}\n"
    assert (out / f"{CLIP.stem}.txt").stat().st_mtime_ns == written, "it was up to date"
    assert run("--punctuation", "none") == f"{SAYS}\n"


def test_python(with_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("funasr_cli.families.load.load_model", running.load)
    for name, text in (("auto", MARKED), ("ct-punc", MARKED), ("none", SAYS)):
        assert funasr_cli.load("demo", punctuation=name).transcribe(CLIP).text == text
    [text] = load_punctuation(with_model / "models" / HUB_ID).punctuate([SAYS])
    assert text == MARKED


# --- conversion and lists ---


def test_conversion(home: Path, tmp_path: Path) -> None:
    """The table is in float16, as its rows are looked up in the file. The result is compared with the source."""
    source = write_punctuation(tmp_path / "source", PunctuationSpec(words=True))
    result = invoke("convert", source, "--verify", "clip")
    assert result.exit_code == 0, result
    out = home / "models/source"
    assert result.stdout == f"{out}\n"
    assert "tokens agree with the source" in result.stderr
    assert "jieba" in result.stderr
    with safe_open(out / "model.safetensors", "numpy") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert types.pop("embed.weight") == "F16"
    assert set(types.values()) == {"BF16"}
    assert "--punctuation" in (out / "README.md").read_text(encoding="utf-8")
    assert invoke("convert", "--check", "source").exit_code == 0
    exact = convert(source, tmp_path / "exact", dtype="float32", verify="clip")
    assert exact.proof
    assert exact.proof.errors == {"logits": 0.0}


@pytest.mark.parametrize("options", [("--quantize", "8"), ("--languages", "zh"), ("--verify", "full")])
def test_conversion_options_that_do_not_fit(home: Path, options: tuple[str, str]) -> None:
    result = invoke("convert", "ct-punc", *options)
    result.assert_error(2, "option-unsupported", options[0], "CT-Transformer")


def test_only_on_modelscope(home: Path) -> None:
    invoke("convert", "ct-punc-c").assert_error(3, "model-missing", "--hub ms")


def test_lists(with_model: Path) -> None:
    rows = {row["name"]: row for row in json.loads(invoke("models", "--json").stdout)}
    assert (rows[HUB_ID]["kind"], rows["demo"]["kind"]) == ("punctuation", "speech")
    assert "--punctuation" in invoke("models").stdout
    assert HUB_ID in invoke("info").stdout


def test_it_is_never_the_default_model(with_model: Path, taught: Path) -> None:
    speech = with_model / "models/mine"
    with pytest.raises(funasr_cli.FunASRError) as caught:
        find_model(None)
    assert caught.value.code == "model-missing"
    shutil.copytree(demo.MODEL, speech)
    assert find_model(None) == speech


def test_the_choice_among_several(home: Path, taught: Path) -> None:
    """ct-punc comes first, from either hub, then ct-punc-c, then others."""
    models = home / "models"
    for name in (
        "a-mine", "iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch",
        "iic/punc_ct-transformer_cn-en-common-vocab471067-large",
    ):  # fmt: skip
        shutil.copytree(taught, models / name)
        assert find_punctuation("auto") == models / name
    assert find_punctuation("ct-punc") == models / name
    assert find_punctuation("none") is None

"""From what a user types to a model or a checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import write_checkpoint
from support.small import SMALL, convert

from funasr_cli import demo
from funasr_cli.checkpoints import huggingface
from funasr_cli.checkpoints.hub import (
    Source,
    converted_models,
    fetch_source,
    find_model,
    models_folder,
)
from funasr_cli.checkpoints.repository import Snapshot
from funasr_cli.errors import ModelError, OutputError, UsageError
from funasr_cli.options import Hub


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; the models lie in its folder `models`."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def add(home: Path, model: Path, *names: str) -> None:
    for name in names:
        shutil.copytree(model, home / "models" / name)


def assert_refused(name: str | None, code: str, *values: str, find: Callable[..., Any] = find_model) -> None:
    """By what looks for a model; message and hint have these values."""
    with pytest.raises(ModelError) as caught:
        find(name)
    assert caught.value.code == code
    for value in values:
        assert value in f"{caught.value.message}\n{caught.value.hint}"


def test_models_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models_folder() == home / "models"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FUNASR_HOME", "~/x")
    assert models_folder() == home / "x/models"
    for unset in (lambda: monkeypatch.setenv("FUNASR_HOME", ""), lambda: monkeypatch.delenv("FUNASR_HOME")):
        unset()
        assert models_folder().parts[-2:] == ("funasr-cli", "models")


def test_which_model_is_the_default(home: Path, small_model: Path) -> None:
    """The only one; Nano among several."""
    assert_refused(None, "model-missing", str(home / "models"), "funasr convert FunAudioLLM/Fun-ASR-Nano-2512")
    assert_refused("nano", "model-missing", "nano", "funasr convert FunAudioLLM/Fun-ASR-Nano-2512")
    add(home, small_model, "b")
    assert find_model(None) == home / "models/b"
    add(home, small_model, "owner/a")
    assert_refused(None, "model-ambiguous", "--model: b, owner/a")
    add(home, small_model, "FunAudioLLM/Fun-ASR-Nano-2512")
    assert find_model(None) == home / "models/FunAudioLLM/Fun-ASR-Nano-2512"


@pytest.mark.parametrize(
    "name",
    ["FunAudioLLM/Fun-ASR-Nano-2512", "Fun-ASR-Nano-2512", "nano", "home/models/FunAudioLLM/Fun-ASR-Nano-2512"],
)
def test_names_of_a_model(home: Path, small_model: Path, name: str) -> None:
    add(home, small_model, "FunAudioLLM/Fun-ASR-Nano-2512", "FunAudioLLM/Fun-ASR-MLT-Nano-2512", "other")
    assert find_model(name).resolve() == home / "models/FunAudioLLM/Fun-ASR-Nano-2512"
    assert find_model("mlt-nano") == home / "models/FunAudioLLM/Fun-ASR-MLT-Nano-2512"


def test_ambiguous_name(home: Path, small_model: Path) -> None:
    add(home, small_model, "one/x", "two/x", "y")
    assert_refused("x", "model-ambiguous", "x: ", "one/x, two/x")
    places = f"{home / 'models/one/x'}, {home / 'models/two/x'}"
    assert_refused("x", "model-ambiguous", "x: ", places, find=fetch_source)
    assert find_model("two/x") == home / "models/two/x"


def test_a_folder_wins_over_a_name(home: Path, small_model: Path, tmp_path: Path) -> None:
    add(home, small_model, "x")
    shutil.copytree(small_model, tmp_path / "x")
    assert find_model("x") == Path("x")
    (tmp_path / "x/config.json").unlink()
    assert find_model("x") == home / "models/x"


@pytest.mark.slow
def test_unknown_name_lists_what_there_is(home: Path, small_model: Path) -> None:
    add(home, small_model, "a", "b")
    assert_refused("c", "model-missing", "c: ", "a, b; convert one with: funasr convert nano")
    assert_refused("dmo", "model-missing", "dmo: ", "did you mean demo?")
    assert_refused("o/c", "model-missing", "; convert one with: funasr convert o/c")


def test_folder_that_is_no_model(home: Path, small_checkpoint: Path) -> None:
    name = str(small_checkpoint)
    assert_refused(name, "model-unconverted", f"{name}: ", f"funasr convert {name}")


@pytest.mark.parametrize("name", ["~nobody-has-this-name", "a" * 300, "a\0b", "a/" * 200, ""])
def test_names_that_no_folder_can_have(home: Path, name: str) -> None:
    for find in (find_model, fetch_source):
        assert_refused(name, "model-missing", find=find)


def test_unfinished_and_hidden_folders_are_no_models(home: Path, small_model: Path) -> None:
    add(home, small_model, ".funasr-x", "owner/.funasr-y", "ok")
    (home / "models/empty").mkdir()
    assert converted_models() == {"ok": home / "models/ok"}


def test_default_output(home: Path, small_checkpoint: Path) -> None:
    assert convert(small_checkpoint).folder == home / "models/Small-Nano"
    quantized = convert(small_checkpoint, quantize=8)
    assert quantized.folder == home / "models/Small-Nano-8bit"
    assert set(converted_models()) == {"Small-Nano", "Small-Nano-8bit"}


def test_source_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "My-Nano", SMALL)
    monkeypatch.chdir(folder)
    for name in (".", str(folder), "../My-Nano/"):
        source = fetch_source(name)
        assert (source.name, source.revision, source.folder.resolve()) == ("My-Nano", None, folder)


@pytest.mark.parametrize("name", ["/nothere", "./x", "../x/y", "~/nothere", "a/b/c"])
def test_no_such_folder(home: Path, name: str) -> None:
    """What can be no hub id is taken for a path."""
    assert_refused(name, "model-missing", f"{name}: no such folder", find=fetch_source)


def test_a_converted_model_is_a_source_by_its_name(home: Path, small_model: Path) -> None:
    """By what `funasr models` calls it, or the last part of that."""
    add(home, small_model, "mine", "owner/theirs")
    assert fetch_source("mine") == Source(home / "models/mine", "mine", None)
    assert fetch_source("theirs") == Source(home / "models/owner/theirs", "owner/theirs", None)
    assert fetch_source("demo") == Source(demo.MODEL, "demo", None)
    add(home, small_model, "demo")
    assert fetch_source("demo") == Source(home / "models/demo", "demo", None)


def test_a_folder_is_a_source_before_a_converted_model(home: Path, small_model: Path, tmp_path: Path) -> None:
    add(home, small_model, "mine")
    (tmp_path / "mine").mkdir()
    assert fetch_source("mine") == Source(Path("mine"), "mine", None)


@pytest.mark.parametrize("name", ["nano", "FunAudioLLM/Fun-ASR-Nano-2512", "owner/x"])
def test_a_hub_id_or_an_alias_means_the_hub(
    home: Path, small_model: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has been converted from it already: it is to be fetched again."""
    add(home, small_model, "nano", "FunAudioLLM/Fun-ASR-Nano-2512", "owner/x")
    snapshot = Snapshot(home / "snapshot", "0123")
    monkeypatch.setattr(huggingface, "fetch", lambda *_: snapshot)
    source = fetch_source(name)
    assert (source.folder, source.revision, source.hub) == (home / "snapshot", "0123", Hub.HF)


def test_converting_a_converted_model_by_its_name(home: Path, small_model: Path) -> None:
    """It gets a name that says what has become of it, and never its own."""
    add(home, small_model, "owner/x")
    assert convert(Path("x"), quantize=8).folder == home / "models/owner/x-8bit"
    assert converted_models().keys() == {"owner/x", "owner/x-8bit"}
    with pytest.raises(OutputError, match=f"^{home / 'models/owner/x'}: ") as caught:
        convert(Path("x"), force=True)
    assert caught.value.code == "output-is-source"


def test_revision_of_a_local_folder(small_checkpoint: Path) -> None:
    with pytest.raises(UsageError) as caught:
        fetch_source(str(small_checkpoint), "main")
    assert (caught.value.code, str(small_checkpoint) in caught.value.message) == ("options-conflict", True)


@pytest.mark.parametrize("name", ["nosuchfolder", "a/b/c", "/a/b", "a b/c", "-a/b", "./a/b", "a/b--c", "a/b.."])
def test_neither_folder_nor_id(home: Path, name: str) -> None:
    assert_refused(name, "model-missing", f"{name}: ", find=fetch_source)

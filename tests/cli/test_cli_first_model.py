"""`funasr transcribe` without a model: it asks, fetches, converts and transcribes; or says why not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.errors import refused
from support.expected import lines_of
from support.hub_client import IMPATIENT, UNSET, surroundings
from support.hub_server import LARGE, Hub, serving
from support.layouts import write_mlx_audio, write_transformers
from support.running import COMMAND, Result, environment, invoke
from support.small import MakeCheckpoint
from support.terminal import on_terminal

import funasr_cli
from funasr_cli.cli import first_model
from funasr_cli.hubs.find import DEFAULT_DOWNLOAD, converted_models, find_model

NANO = DEFAULT_DOWNLOAD.hub_id
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def source(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in the layout that the default repository has."""
    return write_transformers(small_checkpoint, tmp_path_factory.mktemp("hub") / "Nano-hf")


@pytest.fixture
def hub(source: Path) -> Iterator[Hub]:
    """The repository of the default model."""
    repository = Hub(source)
    repository.hub_id = NANO
    with serving(repository) as served:
        yield served


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home with an empty cache; variables are those of a user who has set nothing."""
    for variable in (*UNSET, "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def run(home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`funasr transcribe` in this process, without a terminal; the hub's client reads its settings again."""
    from huggingface_hub import close_session, constants

    template = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in {
        "ENDPOINT": hub.url, "HF_HUB_CACHE": str(home / "cache"), "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": False, "HUGGINGFACE_CO_URL_TEMPLATE": template.format(hub.url),
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    close_session()
    yield lambda *arguments: invoke("transcribe", *arguments, "--max-tokens", 2)
    close_session()


def asked(monkeypatch: pytest.MonkeyPatch, *answers: bool) -> list[str]:
    """Stand in for a terminal where these answers are given; return the questions."""
    questions: list[str] = []
    monkeypatch.setattr(first_model, "_has_terminal", lambda: True)
    monkeypatch.setattr(
        first_model, "_agrees", lambda text: (questions.append(text), answers[len(questions) - 1])[1]
    )
    return questions


def expected(short_wav: Path) -> str:
    """The text of the model that has been fetched."""
    return lines_of(find_model(None), short_wav, max_tokens=2)


# --- with consent ---


def test_yes(run: Run, hub: Hub, home: Path, short_wav: Path) -> None:
    """It says what it fetches and that word times are missing; stdout has text alone. Then no hub is needed."""
    result = run("--yes", short_wav)
    assert list(converted_models()) == [NANO]
    assert (result.stdout, result.errors) == (expected(short_wav), [])
    notes = result.stderr.splitlines()
    assert (NANO in notes[0], str(home / "home/models" / NANO) in notes[1]) == (True, True)
    ways = " ".join(notes[2:])
    assert ["funasr convert nano --hub ms" in ways, "--align-with sensevoice" in ways] == [True, True]
    count = hub.requests
    for options in ((), ("--yes",), ("--model", "nano"), ("--model", NANO)):
        again = run(*options, short_wav)
        assert again.stdout == result.stdout
        assert "fetching" not in again.stderr
    assert hub.requests == count


def test_accepted_on_a_terminal(hub: Hub, home: Path, short_wav: Path) -> None:
    """Enter means yes; the question is on stderr."""
    env = surroundings(home, hub.url)
    code, shown, printed = on_terminal(
        "transcribe", short_wav, "--max-tokens", 2, stdout_too=False, answer="\n", **env
    )
    assert (code, printed) == (1, expected(short_wav))  # two tokens cut the text short
    asked = shown[: shown.index("[Y/n]")]
    assert [fact for fact in (NANO, "3.4 GB", "1.7 GB", "Hugging Face") if fact not in asked] == []
    assert [step for step in ("downloading", "writing", "checking") if step not in shown] == []


@pytest.mark.parametrize("answer", ["what?\nNo\n", "\x04"])
def test_declined_on_a_terminal(hub: Hub, home: Path, short_wav: Path, answer: str) -> None:
    """By a word, or the end of input."""
    env = surroundings(home, hub.url)
    code, shown, _ = on_terminal("transcribe", short_wav, answer=answer, **env)
    assert code == 3
    assert ["error[model-missing]" in shown, "--model demo" in shown] == [True, True]
    assert hub.requests == 0


class Interrupted:
    """Standard input at which Ctrl-C is pressed."""

    def readline(self) -> str:
        raise KeyboardInterrupt


def test_ctrl_c(run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_model, "_has_terminal", lambda: True)
    monkeypatch.setattr(first_model, "sys", SimpleNamespace(stdin=Interrupted(), stderr=sys.stderr))
    result = run(short_wav)
    assert (result.exit_code, result.stdout, hub.requests) == (130, "", 0)


def test_a_hub_id_is_asked_for(
    run: Run, hub: Hub, source: Path, short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is not known before the hub is asked."""
    hub.hub_id = "owner/model"
    questions = asked(monkeypatch, False, True)
    run("--model", "owner/model", short_wav).assert_error(3, "model-missing", "funasr convert")
    assert hub.requests == 0
    assert run("--model", "owner/model", short_wav).stdout == expected(short_wav)
    assert questions == ["Fetch owner/model from Hugging Face? [Y/n] "] * 2
    assert list(converted_models()) == ["owner/model"]


def test_what_mlx_can_use_is_not_converted(
    run: Run, hub: Hub, make_checkpoint: MakeCheckpoint, short_wav: Path, tmp_path: Path
) -> None:
    """It stays in the hub's cache."""
    folder = write_mlx_audio(make_checkpoint("Nano"), tmp_path / "mlx-audio")
    hub.files, hub.hub_id = Hub(folder).files, "owner/model"
    result = run("--yes", "--model", "owner/model", short_wav)
    assert result.stdout == lines_of(folder, short_wav, max_tokens=2) != ""
    assert converted_models() == {}
    count = hub.requests
    assert run("--model", "owner/model", short_wav).stdout == result.stdout
    assert hub.requests == count


def test_short_names(home: Path, monkeypatch: pytest.MonkeyPatch, run: Run, short_wav: Path) -> None:
    """`nano` is fetched in the layout that needs no torch; the others are fetched by their hub ids."""
    questions = asked(monkeypatch, False, False, False)
    for name in ("nano", "mlt-nano", NANO):
        run("--model", name, short_wav).assert_error(3, "model-missing")
    names = ["Fun-ASR-Nano (1.7 GB)", "FunAudioLLM/Fun-ASR-MLT-Nano-2512", "Fun-ASR-Nano (1.7 GB)"]
    assert questions == [f"Fetch {name} from Hugging Face? [Y/n] " for name in names]


def test_another_run_was_faster(run: Run, hub: Hub, home: Path, small_model: Path, short_wav: Path) -> None:
    """A model that appears during the download is used."""
    answer = hub.answer

    def convert_first(path: str) -> Any:
        if path.endswith(LARGE):
            shutil.copytree(small_model, home / "home/models" / NANO, dirs_exist_ok=True)
        return answer(path)

    hub.answer = convert_first  # type: ignore[method-assign]
    result = run("--yes", short_wav)
    assert (result.stdout, result.errors) == (lines_of(small_model, short_wav, max_tokens=2), [])


# --- without consent ---


def test_no_terminal(run: Run, hub: Hub, short_wav: Path) -> None:
    for model in ((), ("--model", "nano"), ("--model", "owner/model")):
        result = run(*model, short_wav)
        result.assert_error(2, "download-unconfirmed", "--yes", "funasr convert", "--model demo")
        with refused("model-missing"):
            funasr_cli.load(*model[1:])  # Python never downloads
    assert hub.requests == 0


@pytest.mark.parametrize("variable", ["FUNASR_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """It neither asks nor fetches, unless the model is in the cache already."""
    from huggingface_hub import constants

    questions = asked(monkeypatch)
    if variable == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, variable, True)
    else:
        monkeypatch.setenv(variable, "1")
    run(short_wav).assert_error(3, "model-missing", "folder", f"{variable} is set")
    run("--model", "owner/model", short_wav).assert_error(3, "model-missing", f"{variable} is set")
    run("--yes", short_wav).assert_error(5, "hub-offline", variable, "folder")
    invoke("convert", NANO).assert_error(5, "hub-offline", variable)
    assert (hub.requests, questions) == (0, [])
    if variable == "FUNASR_OFFLINE":
        monkeypatch.setenv(variable, "0")
        assert run("--yes", short_wav).stdout == expected(short_wav)
        shutil.rmtree(find_model(None))
        monkeypatch.setenv(variable, "yes")
        count = hub.requests
        assert run("--yes", short_wav).stdout == expected(short_wav)
        assert hub.requests == count


@pytest.mark.process
def test_offline_with_modelscope(tmp_path: Path) -> None:
    variables = {"MODELSCOPE_CACHE": str(tmp_path), "MODELSCOPE_HOME": str(tmp_path), "FUNASR_HOME": str(tmp_path)}
    env = {**IMPATIENT, **variables, "FUNASR_OFFLINE": "1", "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    invoke("convert", "nano", "--hub", "ms", env=env).assert_error(5, "hub-offline", "FUNASR_OFFLINE")


def test_unreachable(run: Run, hub: Hub, short_wav: Path) -> None:
    hub.fault = (500, "")
    run("--yes", short_wav).assert_error(5, "hub-unreachable", "funasr convert nano --hub ms", "folder")
    result = run("--yes", "--model", "owner/model", short_wav)
    result.assert_error(5, "hub-unreachable", "funasr convert owner/model --hub ms")
    assert converted_models() == {}


def test_needs_torch(
    run: Run, hub: Hub, small_checkpoint: Path, short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository with a pickle alone: the error comes before the download."""
    hub.files, hub.hub_id = Hub(small_checkpoint).files, "owner/model"
    monkeypatch.setitem(sys.modules, "torch", None)
    run("--yes", "--model", "owner/model", short_wav).assert_error(5, "package-missing", "torch")
    assert hub.downloaded == []


def test_a_name_that_is_on_no_hub(run: Run, hub: Hub, short_wav: Path) -> None:
    run("--yes", "--model", "nanno", short_wav).assert_error(3, "model-missing", "did you mean nano?")
    run("--yes", "--model", "Nano", short_wav).assert_error(3, "model-missing", "did you mean nano?")
    assert hub.requests == 0


def test_a_disk_without_room(run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is needed for the download and its conversion together."""
    usage = shutil.disk_usage("/")._replace(free=int(1.5 * (DEFAULT_DOWNLOAD.size_bytes or 0)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    run("--yes", short_wav).assert_error(1, "disk-full", "FUNASR_HOME")
    assert hub.requests == 0


# --- what is wrong with the command comes first ---


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_inputs_that_cannot_be_opened(
    run: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yes: tuple[str, ...]
) -> None:
    """If not one can be, nothing is asked or fetched."""
    questions = asked(monkeypatch)
    (tmp_path / "text.wav").write_text("no audio")
    result = run(*yes, tmp_path / "missing.wav", tmp_path / "text.wav")
    assert (result.exit_code, result.stdout, len(result.errors)) == (1, "", 2)
    assert result.errors[0] == ("audio-missing", f"{tmp_path / 'missing.wav'}: no such file")
    assert (hub.requests, questions) == (0, [])


CONFLICTS: list[tuple[tuple[str, ...], int, str]] = [
    (("--align-with", "sensevoice", "--timestamps", "word"), 3, "funasr convert sensevoice"),
    (("--align-with", "SenseVoice", "--timestamps", "word"), 3, "did you mean sensevoice?"),
    (("--timestamps", "word"), 2, "no word times"),
    (("--lang", "klingon"), 2, "klingon"),
    (("--highlight-words", "--format", "srt"), 2, "no word times"),
]


@pytest.mark.parametrize(("options", "exit_code", "value"), CONFLICTS)
def test_options_that_cannot_work(
    run: Run, hub: Hub, short_wav: Path, options: tuple[str, ...], exit_code: int, value: str
) -> None:
    run("--yes", *options, short_wav).assert_fails(exit_code, value)
    assert hub.requests == 0


# --- killed ---


def test_killed_while_it_downloads(hub: Hub, home: Path, short_wav: Path, run: Run) -> None:
    """No model is left that could be taken for a whole one, and the next run makes it."""
    answer = hub.answer

    def interrupt(path: str) -> Any:
        if path.endswith(LARGE) and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
        return answer(path)

    hub.answer = interrupt  # type: ignore[method-assign]
    variables = surroundings(home, hub.url) | {"HF_HUB_CACHE": str(home / "cache")}
    command = [*COMMAND, "transcribe", "--yes", str(short_wav)]
    with subprocess.Popen(command, env=environment(**variables), stderr=subprocess.DEVNULL) as process:
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert converted_models() == {}
    hub.answer = answer  # type: ignore[method-assign]
    assert run("--yes", short_wav).stdout == expected(short_wav)

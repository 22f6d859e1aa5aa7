"""`funasr transcribe` without a model: it asks, fetches, converts and transcribes; or says why not."""

from __future__ import annotations

import os
import pty
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
from support.native import LIBRARY
from support.qwen3 import write_qwen3
from support.running import COMMAND, PYTHON, Result, environment, funasr, invoke
from support.sense_voice import write_sense_voice
from support.small import MakeCheckpoint
from support.terminal import on_terminal, terminal_environment

import funasr_cli
from funasr_cli.cli import first_model
from funasr_cli.compute.backend import mx
from funasr_cli.hubs.find import ALIASES, DEFAULT_DOWNLOAD, converted_models, find_model
from funasr_cli.hubs.huggingface import ADDRESS
from funasr_cli.native.library import BFLOAT16, FLOAT32

NANO = DEFAULT_DOWNLOAD.hub_id
SENSE_VOICE = ALIASES["sensevoice"]
PICKLED = ALIASES["nano"]  # the same model as NANO, in a layout that needs torch
QUESTION = "[Y/n]"
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


def connect(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    """Make the hub's client in this process use a server and an empty cache."""
    from huggingface_hub import close_session, constants

    template = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in {
        "ENDPOINT": url, "HF_HUB_CACHE": str(home / "cache"), "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": False, "HUGGINGFACE_CO_URL_TEMPLATE": template.format(url),
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    close_session()


@pytest.fixture
def run(home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`funasr transcribe` in this process, without a terminal; the hub's client reads its settings again."""
    from huggingface_hub import close_session

    connect(monkeypatch, home, hub.url)
    yield lambda *arguments: invoke("transcribe", *arguments, "--max-tokens", 2)
    close_session()


def host(hub: Hub) -> str:
    return hub.url.removeprefix("http://")


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
    """stdout has text alone. Then no hub is needed."""
    result = run("--yes", short_wav)
    assert list(converted_models()) == [NANO]
    assert (result.stdout, result.errors) == (expected(short_wav), [])
    notes = result.stderr.splitlines()
    for value in ("Fun-ASR-Nano (1.7 GB)", host(hub), NANO):
        assert value in notes[0]
    assert str(home / "home/models" / NANO) in notes[1]
    assert ["funasr convert nano --hub ms" in notes[3], "--align-with sensevoice" in notes[4]] == [True, True]
    assert "extra" not in result.stderr  # all packages are installed
    count = hub.requests
    for options in ((), ("--yes",), ("--model", "nano"), ("--model", NANO)):
        again = run(*options, short_wav)
        assert again.stdout == result.stdout
        assert "fetching" not in again.stderr
    assert hub.requests == count


@pytest.mark.parametrize(
    ("absent", "extras"), [("torch", "convert"), ("modelscope_hub", "modelscope"), ("sentencepiece", "convert")]
)
def test_missing_extras_are_named(
    run: Run, short_wav: Path, monkeypatch: pytest.MonkeyPatch, absent: str, extras: str
) -> None:
    """Only with the ways to word times that need them."""
    monkeypatch.setitem(sys.modules, absent, None)
    *_, copy, aligner = run("--yes", short_wav).stderr.splitlines()[:5]
    named = f"the extra {extras}: see docs/install.md"
    assert [named in copy, named in aligner] == [absent != "sentencepiece", absent != "modelscope_hub"]


def test_word_times_from_an_aligner(run: Run, short_wav: Path) -> None:
    """There is nothing to say about missing word times then."""
    result = run("--yes", "--align-with", "demo", "--timestamps", "word", short_wav)
    assert (result.errors, "word times" in result.stderr) == ([], False)
    assert result.stdout


def test_accepted_on_a_terminal(hub: Hub, home: Path, short_wav: Path) -> None:
    """Enter means yes; the question is on stderr, and comes again after any other answer."""
    env = surroundings(home, hub.url)
    code, shown, printed = on_terminal(
        "transcribe", short_wav, "--max-tokens", 2, stdout_too=False, answer="what?\n\n", **env
    )
    assert (code, printed) == (1, expected(short_wav))  # two tokens cut the text short
    assert shown.count(f"Fetch Fun-ASR-Nano (1.7 GB) from {host(hub)}? {QUESTION}") == 2
    assert [value for value in (NANO, "3.4 GB", "downloading", "writing") if value not in shown] == []


@pytest.mark.parametrize("answer", ["what?\nNo\n", "what?\n\x04"])
def test_declined_on_a_terminal(hub: Hub, home: Path, short_wav: Path, answer: str) -> None:
    """By a word, or the end of input. --quiet keeps the question and what belongs to it."""
    env = surroundings(home, hub.url)
    code, shown, _ = on_terminal("transcribe", "--quiet", short_wav, answer=answer, **env)
    assert code == 3
    assert ["error[model-missing]" in shown, "--model demo" in shown] == [True, True]
    assert ["Recordings never leave this machine" in shown, shown.count(QUESTION)] == [True, 2]
    assert hub.requests == 0


@pytest.mark.parametrize("redirected", ["stdin", "stderr"])
def test_half_a_terminal(hub: Hub, home: Path, short_wav: Path, tmp_path: Path, redirected: str) -> None:
    """A question needs both stdin and stderr."""
    controller, terminal = pty.openpty()
    answers, stderr = tmp_path / "answers", tmp_path / "stderr"
    answers.write_text("y\n")
    os.write(controller, b"y\n")
    env = terminal_environment(**surroundings(home, hub.url))
    with answers.open() as stdin, stderr.open("w") as file:
        streams = {"stdin": terminal, "stderr": file} | ({"stdin": stdin} if redirected == "stdin" else {})
        if redirected == "stdin":
            streams["stderr"] = terminal
        code = subprocess.run(
            [*COMMAND, "transcribe", str(short_wav)], stdout=subprocess.DEVNULL, env=env, timeout=120, **streams
        ).returncode
    os.close(controller)
    os.close(terminal)
    assert (code, hub.requests) == (2, 0)


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
    assert questions == [f"Fetch owner/model (size unknown) from {host(hub)}? {QUESTION} "] * 2
    assert list(converted_models()) == ["owner/model"]


def test_a_hub_id_is_named_once(run: Run, hub: Hub, short_wav: Path) -> None:
    hub.hub_id = "owner/model"
    note = run("--yes", "--model", "owner/model", short_wav).stderr.splitlines()[0]
    assert ["fetching" in note, note.count("owner/model")] == [True, 1]


def test_an_id_on_modelscope(
    run: Run, hub: Hub, home: Path, short_wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same model is fetched from Hugging Face, and stored and named as there."""
    hub.files, hub.hub_id = Hub(write_sense_voice(tmp_path / "SenseVoiceSmall")).files, SENSE_VOICE
    questions = asked(monkeypatch, True)
    result = invoke("transcribe", "--model", "iic/SenseVoiceSmall", short_wav)
    assert (result.errors, list(converted_models())) == ([], [SENSE_VOICE])
    assert questions == [f"Fetch SenseVoiceSmall (937 MB) from {host(hub)}? {QUESTION} "]


def test_which_site_is_named(
    run: Run, hub: Hub, home: Path, short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hugging Face, or the host of a mirror without a password."""
    questions = asked(monkeypatch, False, False)
    for url in (ADDRESS, "https://user:password@hf-mirror.example"):
        connect(monkeypatch, home, url)
        run(short_wav).assert_error(3, "model-missing")
    assert questions == [
        f"Fetch Fun-ASR-Nano (1.7 GB) from {name}? {QUESTION} " for name in ("Hugging Face", "hf-mirror.example")
    ]


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_the_variable_for_another_hub(
    run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch, yes: tuple[str, ...]
) -> None:
    """It applies to `funasr convert` alone, which a warning says."""
    asked(monkeypatch, False)
    monkeypatch.setenv("FUNASR_HUB", "ms")
    stderr = run(*yes, short_wav).stderr
    assert ["FUNASR_HUB=ms" in stderr, "funasr convert nano --hub ms" in stderr] == [True, True]


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


def test_a_model_that_does_not_transcribe(run: Run, hub: Hub, short_wav: Path, tmp_path: Path) -> None:
    """An unknown repository may have a model of another kind, which is seen only when it has been fetched."""
    hub.files, hub.hub_id = Hub(write_qwen3(tmp_path / "chat", shards=2)).files, "owner/chat"
    for _ in range(2):
        result = run("--yes", "--model", "owner/chat", short_wav)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "writes text from text" in result.stderr
    assert funasr_cli.load_text("owner/chat").model.name == "owner/chat"


def test_the_question_names_all_that_is_written(
    run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed weights, too, where the native engine will keep them."""
    asked(monkeypatch, *[False] * 9)
    monkeypatch.setattr("funasr_cli.families.native.encoder_type", lambda: BFLOAT16)
    for options, model, packed in (
        ((), "3.4 GB", "1.1 GB"), (("--dtype", "int8"), "3.4 GB", "1.1 GB"), (("--engine", "mlx"), "3.4 GB", None),
        (("--dtype", "float32"), "3.4 GB", None), (("--model", "whisper-base"), "436 MB", None),
    ):  # fmt: skip
        said = run("--device", "cpu", *options, short_wav).stderr
        assert model in said
        assert ("1.1 GB" in said) == bool(packed and LIBRARY)
    monkeypatch.setattr("funasr_cli.families.native.encoder_type", lambda: FLOAT32)
    assert ("1.6 GB" in run("--device", "cpu", short_wav).stderr) == bool(LIBRARY)
    monkeypatch.setenv("FUNASR_NATIVE", "0")
    assert "1.6 GB" not in run("--device", "cpu", short_wav).stderr


def test_short_names(run: Run, hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, short_wav: Path) -> None:
    """`nano` is fetched in the layout that needs no torch; for the other layout, a line names it."""
    questions = asked(monkeypatch, *[False] * 4)
    easier = []
    for name in ("nano", "mlt-nano", NANO, PICKLED):
        result = run("--model", name, short_wav)
        result.assert_error(3, "model-missing")
        easier.append("--model nano" in result.stderr)
    models = ["Nano (1.7 GB)", "MLT-Nano (2.0 GB)", "Nano (1.7 GB)", "Nano (2.0 GB)"]
    assert questions == [f"Fetch Fun-ASR-{model} from {host(hub)}? {QUESTION} " for model in models]
    assert easier == [False, False, False, True]


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


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_folder_in_the_place(
    run: Run, hub: Hub, home: Path, short_wav: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """If it is not a model, the error names it, if possible before the question."""
    questions, place, answer = asked(monkeypatch, True), home / "home/models" / NANO, hub.answer

    def make_first(path: str) -> Any:
        place.mkdir(parents=True, exist_ok=True)
        return answer(path)

    if when == "before":
        place.mkdir(parents=True)
    else:
        hub.answer = make_first  # type: ignore[method-assign]
    run(short_wav).assert_error(1, "output-exists", str(place), "move or remove it")
    assert len(questions) == bool(hub.requests) == (when == "during")


def test_a_home_that_is_a_file(
    run: Run, hub: Hub, home: Path, short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = asked(monkeypatch)
    (home / "home").write_text("")
    run(short_wav).assert_error(1, "output-unwritable", str(home / "home"))
    assert (hub.requests, questions) == (0, [])


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
    run("--yes", short_wav).assert_error(3, "model-missing", "folder", f"{variable} is set")
    monkeypatch.setitem(sys.modules, "torch", None)  # a package for the conversion comes second
    run("--yes", "--model", "paraformer", short_wav).assert_error(3, "model-missing", f"{variable} is set")
    invoke("convert", NANO).assert_error(5, "hub-offline", variable)
    assert (hub.requests, questions) == (0, [])
    if variable == "FUNASR_OFFLINE":
        monkeypatch.setenv(variable, "0")
        assert run("--yes", short_wav).stdout == expected(short_wav)
        shutil.rmtree(find_model(None))
        monkeypatch.setenv(variable, "yes")
        count = hub.requests
        for yes in ((), ("--yes",)):  # nothing is downloaded, so nothing is asked
            assert run(*yes, short_wav).stdout == expected(short_wav)
            shutil.rmtree(find_model(None))
        assert (hub.requests, questions) == (count, [])


def test_offline_variable_of_the_client(hub: Hub, home: Path, short_wav: Path) -> None:
    env = surroundings(home, hub.url) | {"HF_HUB_OFFLINE": "1"}
    funasr("transcribe", short_wav, env=env).assert_error(3, "model-missing", "HF_HUB_OFFLINE is set")
    assert hub.requests == 0


@pytest.mark.process
def test_offline_with_modelscope(tmp_path: Path) -> None:
    variables = {"MODELSCOPE_CACHE": str(tmp_path), "MODELSCOPE_HOME": str(tmp_path), "FUNASR_HOME": str(tmp_path)}
    env = {**IMPATIENT, **variables, "FUNASR_OFFLINE": "1", "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    invoke("convert", "nano", "--hub", "ms", env=env).assert_error(5, "hub-offline", "FUNASR_OFFLINE")


@pytest.mark.parametrize("how", ["answers 500", "refuses connections"])
def test_unreachable(
    run: Run, hub: Hub, home: Path, short_wav: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """ModelScope is named for models that it has."""
    hub.fault = (500, "")
    if how == "refuses connections":
        connect(monkeypatch, home, "http://127.0.0.1:9")
    run("--yes", short_wav).assert_error(5, "hub-unreachable", "funasr convert nano --hub ms", "folder")
    result = run("--yes", "--model", "owner/model", short_wav)
    result.assert_error(5, "hub-unreachable", "HF_ENDPOINT")
    assert "owner/model --hub ms" not in result.stderr
    assert converted_models() == {}


def test_needs_torch(
    run: Run, hub: Hub, small_checkpoint: Path, short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository with a pickle alone: the error comes before the download."""
    hub.files, hub.hub_id = Hub(small_checkpoint).files, "owner/model"
    monkeypatch.setitem(sys.modules, "torch", None)
    run("--yes", "--model", "owner/model", short_wav).assert_error(
        5, "package-missing", "torch", "the extra convert"
    )
    assert hub.downloaded == []


@pytest.mark.parametrize(
    ("name", "absent", "value"),
    [
        (PICKLED, "torch", "--model nano"), ("mlt-nano", "torch", "the extra convert"),
        ("iic/SenseVoiceSmall", "sentencepiece", "the extra convert"),
    ],
)  # fmt: skip
def test_packages_of_known_models(
    run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch, name: str, absent: str, value: str
) -> None:
    """What they need is known before the question."""
    questions = asked(monkeypatch)
    monkeypatch.setitem(sys.modules, absent, None)
    result = invoke("transcribe", "--model", name, short_wav)
    result.assert_error(5, "package-missing", absent, value)
    assert (hub.requests, questions) == (0, [])


def test_a_name_that_is_on_no_hub(run: Run, hub: Hub, short_wav: Path) -> None:
    run("--yes", "--model", "nanno", short_wav).assert_error(3, "model-missing", "did you mean nano?")
    run("--yes", "--model", "Nano", short_wav).assert_error(3, "model-missing", "did you mean nano?")
    assert hub.requests == 0


def test_a_converted_folder_that_has_a_short_name(
    run: Run, hub: Hub, small_model: Path, home: Path, short_wav: Path
) -> None:
    """It is used by that name, as the only model there is, and checked; nothing is fetched, even with --yes."""
    folder = home / "home/models/whisper-base"
    shutil.copytree(small_model, folder)
    text = lines_of(folder, short_wav, max_tokens=2)
    for options in (("-m", "whisper-base"), ("-m", "whisper-base", "--yes"), ()):
        result = run(*options, short_wav)
        assert (result.stdout, result.errors, "whisper-base" in result.stderr) == (text, [], not options)
    assert "whisper-base" not in run("-q", short_wav).stderr
    assert invoke("convert", "--check", "whisper-base").exit_code == 0
    assert lines_of("whisper-base", short_wav, max_tokens=2) == text
    shutil.move(folder, home / "home/models" / NANO)  # the default is not named
    assert NANO not in run(short_wav).stderr
    assert hub.requests == 0


def test_several_models_and_no_default(run: Run, small_model: Path, home: Path, short_wav: Path) -> None:
    """The hint names the option that chooses one."""
    for name in ("one/x", "two/x"):
        shutil.copytree(small_model, home / "home/models" / name)
    for model in ((), ("--model", "x")):
        run(*model, short_wav).assert_error(3, "model-ambiguous", "one/x, two/x", "--model")


def test_a_disk_without_room(run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is needed for the download, its conversion and what the native engine keeps (1.1 GB) together."""
    monkeypatch.setattr("funasr_cli.families.native.encoder_type", lambda: BFLOAT16)
    usage = shutil.disk_usage("/")._replace(free=int(1.5 * (DEFAULT_DOWNLOAD.size_bytes or 0)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    together = "4.5 GB" if LIBRARY else "3.4 GB"
    run("--yes", "--device", "cpu", short_wav).assert_error(1, "disk-full", together, "2.5 GB")
    run("--yes", "--device", "cpu", "--engine", "mlx", short_wav).assert_error(1, "disk-full", "3.4 GB", "2.5 GB")
    assert hub.requests == 0


def test_a_disk_without_room_for_an_unknown_size(
    run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub states it before the download begins."""
    hub.hub_id = "owner/model"
    size_bytes = sum(path.stat().st_size for path in hub.files.values())
    usage = shutil.disk_usage("/")._replace(free=int(1.5 * size_bytes))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    run("--yes", "--model", "owner/model", short_wav).assert_error(1, "disk-full", "FUNASR_HOME")
    assert [name for name in hub.downloaded if name.endswith(LARGE)] == []


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
    assert result.stderr.splitlines()[-1] == "2 of 2 inputs failed"
    assert result.errors[0] == ("audio-missing", f"{tmp_path / 'missing.wav'}: no such file")
    assert (hub.requests, questions) == (0, [])


def test_some_inputs_that_cannot_be_opened(
    run: Run, hub: Hub, short_wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named before the question, and the others are transcribed."""
    asked(monkeypatch, False)
    missing = tmp_path / "missing.wav"
    warned = run(missing, short_wav)
    warned.assert_error(3, "model-missing", f"{missing}: no such file")
    result = run("--yes", missing, short_wav)
    assert (result.exit_code, [code for code, _ in result.errors]) == (1, ["audio-missing"])
    assert result.stdout == "".join(f"{short_wav}: {line}\n" for line in expected(short_wav).splitlines())


CONFLICTS: list[tuple[tuple[str, ...], int, str]] = [
    (("--align-with", "sensevoice", "--timestamps", "word"), 3, "funasr convert sensevoice"),
    (("--align-with", "SenseVoice", "--timestamps", "word"), 3, "did you mean sensevoice?"),
    (("--timestamps", "word"), 2, "--align-with sensevoice"),
    (("--model", PICKLED, "--timestamps", "word"), 2, "--align-with sensevoice"),
    (("--highlight-words", "--format", "srt"), 2, "--highlight-words"),
    (("--lang", "klingon"), 2, "choose from zh (Chinese), en (English), ja (Japanese), or auto"),
    (("--lang", "klingon"), 2, "Fun-ASR-Nano does not support"),
    (("--lang", "bg"), 2, "choose from zh (Chinese), en (English), ja (Japanese), or auto"),
    (("--model", "owner/model", "--lang", "klingon"), 2, "and 93 others"),
    (("--tags", "emoji"), 2, "--tags emoji"),
    (("--model", "whisper-base", "--tags", "emoji"), 2, "--tags emoji"),
    (("--model", "whisper-base.en", "--lang", "de"), 2, "choose from en (English)"),
    (("--model", "openai/whisper-tiny.en", "--translate"), 2, "--translate"),
    (("--model", "whisper-turbo", "--translate"), 2, "--translate"),
    (("--model", "whisper-large-v2", "--lang", "yue"), 2, "Whisper large-v2"),
    (("--model", "whisper-base", "--max-segment", "60"), 2, "up to 30 s"),
    (("--dtype", "int8", "--engine", "mlx"), 2, "--dtype int8"),
    (("--model", "owner/model", "--dtype", "bfloat16", "--engine", "native"), 2, "bfloat16"),
    (("--clip", "100-200"), 1, "100.0 s"),
]


@pytest.mark.parametrize(("options", "exit_code", "value"), CONFLICTS)
def test_options_that_cannot_work(
    run: Run, hub: Hub, short_wav: Path, options: tuple[str, ...], exit_code: int, value: str
) -> None:
    run("--yes", *options, short_wav).assert_fails(exit_code, value)
    assert hub.requests == 0


@pytest.mark.parametrize("option", [("--engine", "native"), ("--dtype", "int8")])
@pytest.mark.parametrize("model", [(), ("--model", "owner/model")])
def test_an_engine_that_is_missing(
    run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch, model: tuple[str, ...],
    option: tuple[str, ...],
) -> None:  # fmt: skip
    """A default from a variable is no reason to refuse."""
    monkeypatch.setenv("FUNASR_NATIVE", "0")
    run("--yes", *model, *option, "--device", "cpu", short_wav).assert_error(
        5, "package-missing", " ".join(option)
    )
    assert hub.requests == 0
    name, value = option
    monkeypatch.setenv(f"FUNASR_{name[2:].upper()}", value)
    asked(monkeypatch, False)
    run(*model, "--device", "cpu", short_wav).assert_error(3, "model-missing")


@pytest.mark.skipif(mx.is_available(mx.Device(mx.gpu)), reason="there is a GPU")
def test_a_missing_device(run: Run, hub: Hub, short_wav: Path) -> None:
    run("--yes", "--device", "gpu", short_wav).assert_error(5, "device-missing", "gpu")
    assert hub.requests == 0


def test_results_that_exist(run: Run, hub: Hub, short_wav: Path, tmp_path: Path) -> None:
    """With --force they are replaced, so the model is fetched."""
    result = tmp_path / "out" / f"{short_wav.stem}.txt"
    result.parent.mkdir()
    result.write_text("text")
    run("--yes", "-o", result.parent, short_wav).assert_error(1, "output-exists", str(result))
    assert hub.requests == 0
    assert run("--yes", "-o", result.parent, "--force", short_wav).errors == []
    assert result.read_text() == expected(short_wav)


def test_aligners_that_cannot_be_used(run: Run, hub: Hub, short_wav: Path, small_model: Path) -> None:
    """One without CTC output, and one that does not know the language."""
    word_times = "--yes", "--timestamps", "word", "--align-with"
    run(*word_times, small_model, short_wav).assert_error(2, "option-unsupported", "--align-with")
    run(*word_times, "demo", "--lang", "ja", short_wav).assert_error(2, "language-unknown", "--align-with")
    result = run(*word_times, small_model, "--model", "owner/model", short_wav)
    result.assert_error(2, "option-unsupported", "--align-with")
    assert hub.requests == 0


def test_a_default_aligner_that_is_missing(
    run: Run, hub: Hub, short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is needed for the word times in json, which the model does not have."""
    monkeypatch.setenv("FUNASR_ALIGN_WITH", "sensevoice")
    run("--yes", "-f", "json", short_wav).assert_error(3, "model-missing", "funasr convert sensevoice")
    assert hub.requests == 0


# --- killed ---


def test_killed_while_it_downloads(hub: Hub, home: Path, short_wav: Path, run: Run) -> None:
    """No model is left that could be taken for a whole one, and the next run makes it."""

    def kill() -> None:
        hub.halfway = None
        process.kill()
        process.wait(timeout=60)

    hub.halfway = kill
    variables = surroundings(home, hub.url) | {"HF_HUB_CACHE": str(home / "cache")}
    command = [*COMMAND, "transcribe", "--yes", str(short_wav)]
    with subprocess.Popen(command, env=environment(**variables), stderr=subprocess.DEVNULL) as process:
        process.communicate(timeout=120)
    assert (process.returncode, hub.halfway) == (-signal.SIGKILL, None)
    assert converted_models() == {}
    assert run("--yes", short_wav).stdout == expected(short_wav)


KILLED_WHILE_WRITING = """
import os, signal
from funasr_cli.cli import app
from funasr_cli.conversion import convert

def dying(progress, step, total):
    return lambda size: os.kill(os.getpid(), signal.SIGKILL) if step == "writing" else None

convert.counter = dying
app.main()
"""


def test_killed_while_it_converts(hub: Hub, home: Path, short_wav: Path, run: Run) -> None:
    """The next run removes what is left, and needs no download."""
    variables = surroundings(home, hub.url) | {"HF_HUB_CACHE": str(home / "cache")}
    command = [PYTHON, "-c", KILLED_WHILE_WRITING, "transcribe", "--yes", str(short_wav)]
    process = subprocess.run(command, env=environment(**variables), stderr=subprocess.DEVNULL, timeout=120)
    assert (process.returncode, converted_models()) == (-signal.SIGKILL, {})
    parent = (home / "home/models" / NANO).parent
    assert [path.name for path in parent.iterdir()] != []
    hub.downloaded.clear()
    assert run("--yes", short_wav).stdout == expected(short_wav)
    assert [path.name for path in parent.iterdir()] == [Path(NANO).name]
    assert [name for name in hub.downloaded if name.endswith(LARGE)] == []

"""Every way to get `funasr convert` and `funasr models` wrong: exit code, stdout, and exactly what is said."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.running import Result, funasr, invoke, tree
from support.small import edit_json, edit_tensors
from test_cli_errors import said
from test_cli_input_errors import LIBRARY, assert_ends

from funasr_cli import demo
from funasr_cli.languages import LANGUAGES

HELP = "see funasr convert --help"
KNOWN = f"known: {', '.join(LANGUAGES)}"
GROUPS = "choose from 32, 64, 128"
RECIPES = "choose from 4, 8, mixed"
FORCE = "pass --force to replace it, or name another folder"
ELSEWHERE = "choose another folder for the converted model"
FOREIGN = "is not a converted model, so it is not replaced"
HUB_ID = "a hub id looks like FunAudioLLM/Fun-ASR-Nano-2512"
NEITHER = "neither a folder nor a hub id"
YAML_TOO = "FunASR writes one beside model.pt: copy it, or that of the model that was fine-tuned"
WEIGHTS_TOO = "the weights belong beside config.yaml: copy or download them, too"
LAYOUTS = "funasr convert --explain lists the layouts that are known"
AGAIN = "copy or download it again"
DAMAGED = f"not a PyTorch checkpoint, or damaged ({LIBRARY})"
FLOAT16 = "float16 cannot hold this model: its encoder reaches 10,000 and its adaptor peaks above 1,000"


@pytest.fixture
def here(checkpoint: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in: a checkpoint, an earlier conversion, and things that are neither."""
    folder = checkpoint.parent
    monkeypatch.chdir(folder)
    checkpoint.rename("Nano")
    model.rename("earlier")
    Path("nothing").mkdir()
    Path("notes").mkdir()
    Path("notes/config.json").write_text('{"format": "mine"}')
    Path("file").touch()
    return folder


# What is typed behind `funasr convert`; what happened, and what to do.
USAGE_ERRORS = [
    ("", "Missing argument 'SOURCE'.", HELP),
    ("Nano out more", f"Got unexpected extra argument{LIBRARY}(more)", HELP),
    ("Nano out --quantise 4", f"No such option: --quantise{LIBRARY}", HELP),
    ("Nano out --dtype", "Option '--dtype' requires an argument.", HELP),
    ("Nano out --quantize x", "no recipe 'x' for quantization", RECIPES),
    ("Nano out --dtype float16", FLOAT16, "use bfloat16, which takes the same space, or float32"),
    ("Nano out --dtype int8", "unknown type 'int8'", "choose from bfloat16, float32"),
    ("Nano out --dtype ''", "unknown type ''", "choose from bfloat16, float32"),
    ("Nano out --quantize 3", "no recipe '3' for quantization", RECIPES),
    ("Nano out --quantize 0", "no recipe '0' for quantization", RECIPES),
    ("Nano out --group-size 64", "a group size without quantization", "add --quantize"),
    ("Nano out --quantize 4 --group-size 20", "group size 20", GROUPS),
    ("Nano out --languages zh,xx", "unknown language 'xx'", KNOWN),
    ("Nano out --languages ''", "unknown language ''", KNOWN),
    ("Nano out --languages zh,", "unknown language ''", KNOWN),
    (
        "--check earlier out --revision v1 --dtype float32 --quantize-encoder 8 --group-size 64 --languages zh "
        "--verify off --quantize 4 --force",
        "--check with OUT, --revision, --force, --dtype, --quantize, --quantize-encoder, --group-size, "
        "--languages, --verify", "it only looks at a model that has been converted",
    ),
    ("--check earlier --quantize-encoder 8", "--check with --quantize-encoder",
     "it only looks at a model that has been converted"),
    ("Nano out --revision main", "--revision main with the local folder Nano", "it applies to a hub id"),
    ("demo out --revision main", f"--revision main with the local folder {demo.MODEL}", "it applies to a hub id"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "message", "hint"), USAGE_ERRORS, ids=[row[0] for row in USAGE_ERRORS])
def test_usage_errors(typed: str, message: str, hint: str, here: Path) -> None:
    before = tree(here)
    assert_ends(invoke("convert", *shlex.split(typed)), 2, "", said(message, hint))
    assert tree(here) == before


# The same, with the exit code.
PLACES = [
    # where it is to go
    ("Nano Nano", 1, "Nano: holds the source", ELSEWHERE),
    ("Nano . --force", 1, ".: holds the source", ELSEWHERE),
    ("Nano Nano/../Nano --force", 1, "Nano/../Nano: holds the source", ELSEWHERE),
    ("Nano earlier", 1, "earlier: exists already", FORCE),
    ("Nano notes", 1, "notes: exists already", FORCE),
    ("Nano file", 1, "file: exists already", FORCE),
    ("Nano notes --force", 1, f"notes: {FOREIGN}", "name another folder"),
    ("Nano file --force", 1, f"file: {FOREIGN}", "name another folder"),
    ("Nano file/out", 1, f"file/out: cannot be written ({LIBRARY})", ""),
    (f"Nano {'a' * 300}", 1, f"{'a' * 300}: cannot be written ({LIBRARY})", ""),
    # where it is to come from
    ("nowhere", 3, f"nowhere: {NEITHER}", HUB_ID),
    ("file", 3, f"file: {NEITHER}", "name its folder"),
    ("notes/config.json", 3, f"notes/config.json: {NEITHER}", "name its folder"),
    ("Nano/model.pt out", 3, f"Nano/model.pt: {NEITHER}", "name its folder"),
    ("''", 3, "SOURCE is empty", "name a folder or a hub id"),
    ("'' out", 3, "SOURCE is empty", "name a folder or a hub id"),
    ("https://hub.invalid/owner/model", 3, f"https://hub.invalid/owner/model: {NEITHER}", HUB_ID),
    ("nothing out", 3, "nothing: no checkpoint in a layout that is known", LAYOUTS),
    ("notes out", 3, "notes/config.json: the model is None, not fun_asr_nano", LAYOUTS),
]


@pytest.mark.parametrize(("typed", "exit_code", "message", "hint"), PLACES, ids=[row[0][:40] for row in PLACES])
def test_places(typed: str, exit_code: int, message: str, hint: str, here: Path) -> None:
    """Nothing is written, and what is there stays as it is."""
    before = tree(here)
    assert_ends(invoke("convert", *shlex.split(typed)), exit_code, "", said(message, hint))
    assert tree(here) == before


def test_what_may_be_replaced(here: Path) -> None:
    """An earlier conversion and an empty folder, if that is asked for."""
    (here / "empty").mkdir()
    for name in ("earlier", "empty"):
        before = tree(here / name)
        assert invoke("convert", "Nano", name) == Result(1, "", said(f"{name}: exists already", FORCE))
        assert tree(here / name) == before
        result = invoke("convert", "Nano", name, "--force", "--verify", "off", "--quiet")
        assert result == Result(0, f"{name}\n", "")
        assert tree(here / name) != before


def test_a_quantized_conversion_is_no_source(here: Path) -> None:
    invoke("convert", "earlier", "quantized", "--quantize", "4", "--verify", "off")
    before = tree(here)
    message = "quantized/model.safetensors: is quantized, its dense weights are gone"
    hint = "transcribe reads it as it is; to change the recipe, convert what it was made from"
    assert invoke("convert", "quantized", "out") == Result(3, "", said(message, hint))
    assert tree(here) == before


# --- what is in it ---

Change = Callable[[Path], Any]
TOKENIZER, DECODER, WEIGHTS, CONFIG = (
    "Qwen3-0.6B/tokenizer.json",
    "Qwen3-0.6B/config.json",
    "model.pt",
    "config.yaml",
)


class Payload:
    """A shell command for whatever executes what it unpickles."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def unchanged(folder: Path) -> None:
    pass


def putting(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def removing(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def saving(content: Any) -> Change:
    return lambda folder: torch.save(content, folder / WEIGHTS)


def without_a_bias(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop("audio_encoder.tp_norm.bias"))


def with_integers(folder: Path) -> None:
    ones = torch.ones(32, dtype=torch.int64)
    edit_tensors(folder, lambda tensors: tensors.update({"audio_encoder.tp_norm.bias": ones}))


POINTER, PULL = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "run: git lfs pull"
CODE = "only plain state dicts are read; nothing in a checkpoint is ever executed"
OWN = "copy it from the decoder's own repository"
MISFIT = (
    "1 tensors do not fit the configuration\n  missing: audio_encoder.tp_norm.bias (32,)",
    "the checkpoint is incomplete, or its configuration belongs to another one",
)
CONTENTS: list[tuple[str, Change, str, str]] = [  # what it is; how to do it; what is said of the folder
    ("no weights", removing(WEIGHTS), "/model.pt: missing", WEIGHTS_TOO),
    ("no configuration", removing(CONFIG), "/config.yaml: missing", YAML_TOO),
    ("no tokenizer", removing(TOKENIZER), f"/{TOKENIZER}: missing", OWN),
    ("no decoder", lambda folder: shutil.rmtree(folder / "Qwen3-0.6B"), f"/{DECODER}: missing", OWN),
    ("pointer", putting(WEIGHTS, POINTER), "/model.pt: a pointer of git-lfs, not the file itself", PULL),
    ("page", putting(WEIGHTS, b"<html><body>404</body></html>"), f"/model.pt: {DAMAGED}", AGAIN),
    ("nothing", putting(WEIGHTS, b""), "/model.pt: empty", AGAIN),
    ("cut", lambda folder: os.truncate(folder / WEIGHTS, 20_000), f"/model.pt: {DAMAGED}", AGAIN),
    (
        "code", saving({"state_dict": {"a": Payload()}}),
        f"/model.pt: refused, it asks for {os.system.__module__}.system, which is not a tensor", CODE,
    ),
    (
        "module", saving(torch.nn.Linear(1, 1)),
        "/model.pt: refused, it asks for torch.nn.modules.linear.Linear, which is not a tensor", CODE,
    ),
    ("list", saving([torch.ones(1)]), "/model.pt: holds a list, not a state dict", ""),
    ("number", saving({"a": 3}), "/model.pt: not a state dict ('a' is a int)", ""),
    ("one less", without_a_bias, f"/model.pt: {MISFIT[0]}", MISFIT[1]),
    (
        "integers", with_integers,
        "/model.pt: audio_encoder.tp_norm.bias is of type int64, not float32 or bfloat16 or float16", "",
    ),
    ("no mapping", putting(CONFIG, b"- a\n"), "/config.yaml: not a mapping", ""),
    ("no YAML", putting(CONFIG, b"\xff\xfe\x00"), f"/config.yaml: cannot be read ({LIBRARY})", ""),
    (
        "no path", putting(CONFIG, b"model: FunASRNano\n"),
        "/config.yaml: llm_conf.init_param_path does not name the decoder's folder", "",
    ),
    ("no JSON", putting(DECODER, b"{"), f"/{DECODER}: cannot be read ({LIBRARY})", ""),
    (
        "no tokens", putting(TOKENIZER, b'{"model": {"type": "BPE"}}'),
        f"/{TOKENIZER}: damaged ({LIBRARY})", AGAIN,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message", "hint"), [row[1:] for row in CONTENTS], ids=[row[0] for row in CONTENTS]
)
def test_contents(change: Change, message: str, hint: str, here: Path) -> None:
    """Named by the file; nothing in it has been executed, and nothing is written."""
    change(here / "Nano")
    before = tree(here)
    assert_ends(invoke("convert", "Nano", "out"), 3, "", said(f"Nano{message}", hint))
    assert tree(here) == before


def test_a_decoder_of_another_kind(here: Path) -> None:
    edit_json(here / "Nano" / DECODER, lambda config: config.update(model_type="llama"))
    stderr = said(f"Nano/{DECODER}: model_type is 'llama': not supported", "this version knows 'qwen3'")
    assert invoke("convert", "Nano", "out") == Result(3, "", stderr)


def test_contents_and_options_that_do_not_go_together(here: Path) -> None:
    result = invoke("convert", "Nano", "out", "--quantize", 4, "--group-size", 128)
    message = "llm.model.embed_tokens.weight: rows of 64 values do not divide into groups of 128"
    assert result == Result(3, "", said(message, "choose a smaller --group-size"))
    assert not (here / "out").exists()


# One of each kind in a process of its own; some with a change to the checkpoint.
PROCESSES: list[tuple[str, Change, int, str]] = [
    ("Nano out --quantize 3", unchanged, 2, said("no recipe '3' for quantization", RECIPES)),
    ("Nano notes --force", unchanged, 1, said(f"notes: {FOREIGN}", "name another folder")),
    ("Nano out", saving(Payload()), 3,
     said(f"Nano/model.pt: refused, it asks for {os.system.__module__}.system, which is not a tensor", CODE)),
    ("nowhere", unchanged, 3, said(f"nowhere: {NEITHER}", HUB_ID)),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "change", "code", "stderr"), PROCESSES, ids=[row[0] for row in PROCESSES])
def test_errors_of_a_process(typed: str, change: Change, code: int, stderr: str, here: Path) -> None:
    change(here / "Nano")
    before = tree(here)
    assert funasr("convert", *typed.split(), cwd=here) == Result(code, "", stderr)
    assert tree(here) == before


# --- what is around it ---

TORCH = "pip install torch; on Linux, --index-url https://download.pytorch.org/whl/cpu spares you CUDA"
WITHOUT = "the -hf repositories, in Transformers' layout, do without"


def test_without_torch(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is not there or cannot be imported; a source that needs none is converted."""
    expected = Result(5, "", said("reading model.pt needs torch", f"{TORCH}; {WITHOUT}"))
    (here / "torch.py").write_text("raise ImportError('no torch here')")
    assert funasr("convert", "Nano", "out", cwd=here, env={"PYTHONPATH": str(here)}) == expected
    monkeypatch.setitem(sys.modules, "torch", None)
    assert invoke("convert", "Nano", "out") == expected
    assert not (here / "out").exists()
    arguments = ("--languages", "zh", "--verify", "off", "--quiet")
    assert invoke("convert", "earlier", "out", *arguments) == Result(0, "out\n", "")


@pytest.mark.parametrize("command", ["convert Nano", "models", "models --json", "transcribe file", "bench --rtf"])
def test_a_home_of_nobody(command: str, here: Path) -> None:
    env: dict[str, str | None] = {"FUNASR_HOME": "~nobody-of-that-name/x"}
    stderr = said(f"FUNASR_HOME=~nobody-of-that-name/x: {LIBRARY}", "name a folder that exists, or unset it")
    assert_ends(invoke(*command.split(), env=env), 2, "", stderr)


@pytest.mark.usefixtures("here")
def test_a_home_that_is_a_file() -> None:
    result = invoke("convert", "Nano", env={"FUNASR_HOME": "file"})
    assert_ends(result, 1, "", said(f"file/models/Nano: cannot be written ({LIBRARY})"))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("models demo", f"Got unexpected extra argument{LIBRARY}(demo)"),
        ("models --jsn", f"No such option: --jsn{LIBRARY}"),
        ("models --json=1", "Option '--json' does not take a value."),
        ("info demo", f"Got unexpected extra argument{LIBRARY}(demo)"),
        ("info --verbose", "No such option: --verbose"),
    ],
)
def test_commands_that_only_show(typed: str, message: str) -> None:
    command = typed.split()[0]
    assert_ends(invoke(*typed.split()), 2, "", said(message, f"see funasr {command} --help"))


def test_models_that_are_damaged(here: Path) -> None:
    """They are listed with what is wrong: the list itself is what helps to mend them."""
    models = here / "home/models"
    for name, content in (("a", b"{"), ("b", b'{"format": "mine"}'), ("c", None)):
        shutil.copytree("earlier", models / name)
        if content:
            (models / name / "config.json").write_bytes(content)
        else:
            (models / name / "model.safetensors").unlink()
    result = invoke("models", env={"FUNASR_HOME": str(here / "home")})
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr, lines[::3]) == (0, "", ["a", "b", "c", "demo"])
    assert re.fullmatch(rf"  unusable: {models}/a/config\.json: cannot be read \(.+\)", lines[2])
    assert lines[5] == f"  unusable: {models}/b/config.json: not a model converted by funasr"
    assert lines[8].startswith("  unusable: ")
    assert lines[10] == f"  {demo.MODEL}"

"""From the user's input to a model or checkpoint; the files to fetch from a repository, and messages."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.checkpoints import write_checkpoint
from support.errors import refused
from support.small import SMALL, convert

import funasr_cli
from funasr_cli import demo
from funasr_cli.checkpoints.format import FORMAT
from funasr_cli.cli.convert import capabilities
from funasr_cli.errors import ModelError
from funasr_cli.families import registry
from funasr_cli.families.converted import read_config
from funasr_cli.families.open import is_model
from funasr_cli.hubs import huggingface
from funasr_cli.hubs.find import (
    ALIASES,
    DOWNLOADS,
    converted_models,
    fetch_checkpoint,
    find_aligner,
    find_model,
    find_punctuation,
    find_speaker_model,
    find_translator,
    hub_of,
    models_folder,
)
from funasr_cli.hubs.repository import CheckpointFolder, is_complete, wanted
from funasr_cli.options import Hub


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home. The models are in its folder `models`."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def add(home: Path, model: Path, *names: str) -> None:
    for name in names:
        shutil.copytree(model, home / "models" / name)


def assert_refused(name: str | None, code: str, *values: str, find: Callable[..., Any] = find_model) -> None:
    """Assert that looking for a model fails with this code and these values in message or hint."""
    with refused(code, *values):
        find(name)


def test_models_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models_folder() == home / "models"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FUNASR_HOME", "~/x")
    assert models_folder() == home / "x/models"
    for unset in (lambda: monkeypatch.setenv("FUNASR_HOME", ""), lambda: monkeypatch.delenv("FUNASR_HOME")):
        unset()
        assert models_folder().parts[-2:] == ("funasr-cli", "models")


def test_which_model_is_the_default(home: Path, small_model: Path) -> None:
    """The only one; Nano among several, whichever layout it was converted from."""
    assert_refused(None, "model-missing", str(home / "models"), "funasr convert FunAudioLLM/Fun-ASR-Nano-2512")
    assert_refused("nano", "model-missing", "nano", "funasr convert nano")
    add(home, small_model, "b")
    assert find_model(None) == home / "models/b"
    add(home, small_model, "owner/a")
    assert_refused(None, "model-ambiguous", "b, owner/a")
    twin = home / "models" / DOWNLOADS["nano"].hub_id  # converted from the layout that needs no torch
    add(home, small_model, DOWNLOADS["nano"].hub_id)
    assert (find_model(None), find_model("nano")) == (twin, twin)
    assert_refused("FunAudioLLM/Fun-ASR-Nano-2512", "model-missing", "funasr convert nano")
    add(home, small_model, "FunAudioLLM/Fun-ASR-Nano-2512")
    assert find_model(None) == find_model("nano") == home / "models/FunAudioLLM/Fun-ASR-Nano-2512"


@pytest.mark.parametrize(
    "name",
    ["FunAudioLLM/Fun-ASR-Nano-2512", "Fun-ASR-Nano-2512", "nano", "home/models/FunAudioLLM/Fun-ASR-Nano-2512"],
)
def test_names_of_a_model(home: Path, small_model: Path, name: str) -> None:
    add(home, small_model, "FunAudioLLM/Fun-ASR-Nano-2512", "FunAudioLLM/Fun-ASR-MLT-Nano-2512", "other")
    assert find_model(name).resolve() == home / "models/FunAudioLLM/Fun-ASR-Nano-2512"
    assert find_model("mlt-nano") == home / "models/FunAudioLLM/Fun-ASR-MLT-Nano-2512"


def test_a_model_on_this_machine_is_suggested_first(home: Path, small_model: Path) -> None:
    assert_refused("whisper", "model-missing", "did you mean whisper-")
    add(home, small_model, "whisper-base-hf")
    assert_refused("whisper", "model-missing", "did you mean whisper-base-hf?")
    assert_refused("whisper-tyni", "model-missing", "did you mean whisper-tiny?")


def test_ambiguous_name(home: Path, small_model: Path) -> None:
    add(home, small_model, "one/x", "two/x", "y")
    assert_refused("x", "model-ambiguous", "x: ", "one/x, two/x")
    places = f"{home / 'models/one/x'}, {home / 'models/two/x'}"
    assert_refused("x", "model-ambiguous", "x: ", places, find=fetch_checkpoint)
    assert find_model("two/x") == home / "models/two/x"
    add(home, small_model, "x")  # its whole name
    assert find_model("x") == fetch_checkpoint("x").folder == home / "models/x"


def test_a_folder_wins_over_a_name(home: Path, small_model: Path, tmp_path: Path) -> None:
    add(home, small_model, "x")
    shutil.copytree(small_model, tmp_path / "x")
    assert find_model("x") == Path("x")
    assert fetch_checkpoint("x") == CheckpointFolder(Path("x"), "x", None)
    (tmp_path / "x/config.json").unlink()
    assert find_model("x") == home / "models/x"


def add_stub(home: Path, name: str, model_type: str) -> Path:
    """Make a folder that is listed as a model of this type. It has no weights."""
    folder = home / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"format": FORMAT, "model_type": model_type}))
    return folder


# Of each kind: what looks for it, a short name, and a type that has this kind.
KINDS = [
    (find_model, "whisper-base", "whisper"),
    (find_model, "sensevoice", "sense_voice"),
    (find_aligner, "sensevoice", "sense_voice"),
    (find_punctuation, "ct-punc", "ct_punc"),
    (find_speaker_model, "campplus", "campplus"),
    (find_translator, "qwen3-0.6b", "qwen3"),
    (partial(find_model, kind=None), "campplus", "campplus"),
]


@pytest.mark.parametrize(("find", "name", "model_type"), KINDS)
def test_a_listed_name_comes_before_a_short_name(
    home: Path, tmp_path: Path, find: Callable[[str], Path | None], name: str, model_type: str
) -> None:
    """Also before the source that it was converted from, which is in the working directory and has its name."""
    published = add_stub(home, ALIASES[name], model_type)
    assert find(name) == published
    own = add_stub(home, name, model_type)
    assert find(name) == own
    assert find(ALIASES[name]) == published
    source = tmp_path / name
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert find(name) == own
    shutil.rmtree(published)
    assert find(name) == own
    assert_refused(ALIASES[name], "model-missing", find=find)


def test_the_kind_of_a_listed_model_is_its_own(home: Path) -> None:
    """Not that of the short name which it happens to have."""
    own = add_stub(home, "campplus", "whisper")
    assert find_model("campplus") == own
    assert_refused("campplus", "model-unsupported", find=find_speaker_model)


def test_a_model_that_was_moved_aside_is_named(home: Path) -> None:
    """By its own name, or by the hub id that its name stands for."""
    for name in ("whisper-base", ALIASES["whisper-base"]):
        (home / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        old = (home / "models" / name).parent / f".funasr-old-1/{Path(name).name}"
        old.mkdir(parents=True)
        assert_refused("whisper-base", "model-aside", str(old))
        shutil.rmtree(old.parent)


@pytest.mark.parametrize(("find", "name", "model_type"), KINDS[:-1])
def test_only_models_of_the_kind_are_suggested(
    home: Path, find: Callable[[str], Path | None], name: str, model_type: str
) -> None:
    kinds = {
        "whisper": "spoken",
        "sense_voice": "spoken",
        "ct_punc": "marks",
        "campplus": "voices",
        "qwen3": "chat",
    }
    for each, title in kinds.items():
        add_stub(home, f"my-{each}-{title}", each)
    with refused("model-missing") as caught:
        find("nosuchmodel")
    wrong = [title for title in kinds.values() if title != kinds[model_type] and title in caught.value.hint]
    assert not wrong, caught.value.hint
    shown = {alias for alias in ALIASES if caught.value.hint.endswith(f"funasr convert {alias}")}
    assert all(registry.of_hub_name(alias).kind == registry.of_model_type(model_type).kind for alias in shown)


@pytest.mark.slow
def test_unknown_name_lists_the_existing_models(home: Path, small_model: Path) -> None:
    add(home, small_model, "a", "b")
    assert_refused("c", "model-missing", "c: ", "a, b; convert one with: funasr convert nano")
    assert_refused("dmo", "model-missing", "dmo: ", "did you mean demo?")
    assert_refused("o/c", "model-missing", "; convert one with: funasr convert o/c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("/no/nano", "/no/nano: no such folder"),
        ("./nano", "./nano: no such folder"),
        ("a/b/c", "a/b/c: no such folder"),
        ("https://huggingface.co/a/b", "neither a folder nor a hub id"),
        ("", "is empty"),
        ("Fun-ASR-Nano", "did you mean nano?"),
        ("fun-asr-nano-2512-hf", "did you mean FunAudioLLM/Fun-ASR-Nano-2512-hf?"),
        ("SenseVoiceSmal", "did you mean FunAudioLLM/SenseVoiceSmall?"),
        ("FunAudioLLM/Fun-ASR-Nano-2512-hf", "funasr convert FunAudioLLM/Fun-ASR-Nano-2512-hf"),
    ],
)
@pytest.mark.usefixtures("home")
def test_names_that_no_model_has(name: str, value: str) -> None:
    """A path is not taken for a model's name, and the names that a hub and the question show are known."""
    assert_refused(name, "model-missing", value)


def test_hints_for_the_default_model_suit_python(home: Path, small_model: Path) -> None:
    """They name no option of the command line."""
    for names in ((), ("a", "b")):
        add(home, small_model, *names)
        with pytest.raises(ModelError) as caught:
            find_model(None)
        assert "--" not in caught.value.hint


def test_folder_that_is_no_model(home: Path, small_checkpoint: Path) -> None:
    name = str(small_checkpoint)
    assert_refused(name, "model-unconverted", f"{name}: ", f"funasr convert {name}")


@pytest.mark.parametrize("name", ["~no-such-user", "a" * 300, "a\0b", "a/" * 200, ""])
def test_names_that_no_folder_can_have(home: Path, name: str) -> None:
    for find in (find_model, fetch_checkpoint):
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
        source = fetch_checkpoint(name)
        assert (source.name, source.revision, source.folder.resolve()) == ("My-Nano", None, folder)


@pytest.mark.parametrize("name", ["/nothere", "./x", "../x/y", "~/nothere", "a/b/c"])
def test_no_such_folder(home: Path, name: str) -> None:
    """A name that cannot be a hub id is taken for a path."""
    assert_refused(name, "model-missing", f"{name}: no such folder", find=fetch_checkpoint)


def test_a_recording_is_not_a_source(home: Path, tmp_path: Path) -> None:
    (tmp_path / "meeting.m4a").touch()
    name = str(tmp_path / "meeting.m4a")
    assert_refused(name, "model-missing", f"funasr transcribe {name}", find=fetch_checkpoint)


def test_a_converted_model_is_a_source_by_its_name(home: Path, small_model: Path) -> None:
    """It is found by its name in `funasr models`, or by the last part of that."""
    add(home, small_model, "mine", "owner/theirs")
    assert fetch_checkpoint("mine") == CheckpointFolder(home / "models/mine", "mine", None)
    assert fetch_checkpoint("theirs") == CheckpointFolder(home / "models/owner/theirs", "owner/theirs", None)
    assert fetch_checkpoint("demo") == CheckpointFolder(demo.MODEL, "demo", None)
    add(home, small_model, "demo")
    assert fetch_checkpoint("demo") == CheckpointFolder(home / "models/demo", "demo", None)


@pytest.mark.parametrize("name", ["nano", "FunAudioLLM/Fun-ASR-Nano-2512", "owner/x"])
def test_a_hub_id_or_an_alias_means_the_hub(
    home: Path, small_model: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing conversion is ignored: the checkpoint is to be fetched again."""
    add(home, small_model, "nano", "FunAudioLLM/Fun-ASR-Nano-2512", "owner/x")
    fetched = CheckpointFolder(home / "snapshot", "owner/x", "0123", Hub.HF)
    monkeypatch.setattr(huggingface, "fetch", lambda *_: fetched)
    assert fetch_checkpoint(name) is fetched


def test_converting_a_converted_model_by_its_name(home: Path, small_model: Path) -> None:
    """The new model's name reflects the conversion, and is never the old one."""
    add(home, small_model, "owner/x")
    assert convert(Path("x"), quantize=8).folder == home / "models/owner/x-8bit"
    assert converted_models().keys() == {"owner/x", "owner/x-8bit"}
    with refused("output-is-source", home / "models/owner/x"):
        convert(Path("x"), force=True)


def test_revision_of_a_local_folder(small_checkpoint: Path) -> None:
    with refused("options-conflict", small_checkpoint):
        fetch_checkpoint(str(small_checkpoint), "main")


@pytest.mark.parametrize("name", ["nosuchfolder", "a/b/c", "/a/b", "a b/c", "-a/b", "./a/b", "a/b--c", "a/b.."])
def test_neither_folder_nor_id(home: Path, name: str) -> None:
    assert_refused(name, "model-missing", f"{name}: ", find=fetch_checkpoint)


# --- the files to fetch from a repository ---

# The contents of the release's repositories, on both hubs.
UPSTREAM = """
.gitattributes README.md README_zh.md config.yaml configuration.json ctc.py example/en.mp3 example/zh.mp3
images/funasr-v2.png model.pt model.py multilingual.tiktoken requirements.txt tools/utils.py
Qwen3-0.6B/config.json Qwen3-0.6B/generation_config.json Qwen3-0.6B/merges.txt Qwen3-0.6B/tokenizer.json
Qwen3-0.6B/tokenizer_config.json Qwen3-0.6B/vocab.json
""".split()
TRANSFORMERS = """
.gitattributes README.md chat_template.jinja config.json generation_config.json model.safetensors
processor_config.json tokenizer.json tokenizer_config.json
""".split()
MLX_AUDIO = """
.gitattributes README.md config.json model.safetensors Qwen3-0.6B/config.json Qwen3-0.6B/merges.txt
Qwen3-0.6B/tokenizer.json Qwen3-0.6B/tokenizer_config.json Qwen3-0.6B/vocab.json multilingual.tiktoken
""".split()
UNWANTED = {
    ".gitattributes", "README_zh.md", "ctc.py", "example/en.mp3", "example/zh.mp3", "images/funasr-v2.png",
    "model.py", "requirements.txt", "tools/utils.py",
}  # fmt: skip


@pytest.mark.parametrize(
    "names", [UPSTREAM, TRANSFORMERS, MLX_AUDIO], ids=["upstream", "transformers", "mlx-audio"]
)
def test_wanted_files(names: list[str]) -> None:
    found = wanted("owner/model", names)
    assert set(found) == set(names) - UNWANTED
    assert len(found) == len(set(found))


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("names", "tensors"),
    [
        (["config.json", INDEX, *SHARDS], SHARDS),
        (["config.json", "model.safetensors", *SHARDS], ["model.safetensors"]),
        (["config.yaml", "config.json", "model.pt", "model.safetensors"], ["model.safetensors"]),
        (["config.yaml", "model.pt", "model.safetensors"], ["model.pt"]),
        (["config.yaml", "model.pt", "model.pt.ep1", "optimizer.pt"], ["model.pt"]),
        (["model.safetensors"], ["model.safetensors"]),
        (["config.json", "model.safetensors", "Qwen3-0.6B/model.safetensors"], ["model.safetensors"]),
        (["config.json", "model.safetensors", "a.onnx", "a-00001-of-00001.safetensors"], ["model.safetensors"]),
    ],
)  # fmt: skip
def test_one_set_of_weights(names: list[str], tensors: list[str]) -> None:
    found = wanted("owner/model", names)
    assert [name for name in found if name.endswith((".pt", ".safetensors"))] == tensors


def test_names_outside_of_the_folder() -> None:
    names = "../config.json /config.json a/b/config.json .a/config.json .. config.json/ -/vocab.json".split()
    assert wanted("owner/model", ["model.pt", "", *names]) == ["model.pt"]


def test_files_that_another_family_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns match at the top or in a folder. A star matches neither a slash nor hidden files."""
    monkeypatch.setattr(registry, "FAMILIES", registry.FAMILIES[:1])
    other = dataclasses.replace(registry.FAMILIES[0], hub_files=("am.mvn", "*.bpe.model", "*/seg_dict"))
    names = ["am.mvn", "a.b.bpe.model", "x/seg_dict", "config.yaml"]
    others = ["x/am.mvn", "x/a.bpe.model", "seg_dict", "x/y/seg_dict", ".x/seg_dict", ".bpe.model", "..bpe.model"]
    assert set(wanted("owner/model", ["model.pt", *names, *others])) == {"model.pt", "config.yaml"}
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, other))
    assert set(wanted("owner/model", ["model.pt", *names, *others])) == {"model.pt", *names}


HERE, THERE = "FunAudioLLM/SenseVoiceSmall", "iic/SenseVoiceSmall"
SHORT = ("sensevoice", "sense-voice-small")


@pytest.mark.parametrize("name", [*SHORT, HERE, THERE])
def test_a_model_whose_id_is_another_one_on_modelscope(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hub is queried with its own id."""
    asked = []
    for hub in ("huggingface", "modelscope"):
        monkeypatch.setattr(f"funasr_cli.hubs.{hub}.fetch", lambda *details: asked.append(details[0]))
    for hub in (Hub.HF, Hub.MS):
        fetch_checkpoint(name, hub=hub)
        fetch_checkpoint("mlt-nano", hub=hub)
    same = ALIASES["mlt-nano"]
    assert asked == [HERE, same, THERE, same]


@pytest.mark.parametrize("name", [*SHORT, HERE, THERE, "SenseVoiceSmall"])
@pytest.mark.parametrize("converted", [HERE, THERE])
def test_a_converted_model_is_found_by_its_id_on_either_hub(
    home: Path, small_model: Path, name: str, converted: str
) -> None:
    add(home, small_model, converted, "other")
    assert find_model(name) == find_aligner(name) == home / "models" / converted


def test_two_conversions_of_one_model(home: Path, small_model: Path) -> None:
    add(home, small_model, HERE, THERE)
    assert {find_model(name) for name in (*SHORT, HERE)} == {home / "models" / HERE}
    assert find_model(THERE) == home / "models" / THERE


@pytest.mark.parametrize(
    ("name", "alias"), [(name, name) for name in SHORT] + [(HERE, SHORT[0]), (THERE, SHORT[0])]
)
def test_a_missing_model_is_named_by_its_alias(home: Path, name: str, alias: str) -> None:
    with refused("model-missing", name) as failure:
        find_model(name)
    assert failure.value.hint.endswith(f"funasr convert {alias}")


@pytest.mark.parametrize(
    ("names", "complete"),
    [
        (["model.pt"], True), (["config.json", "model.safetensors"], True), (["config.json", *SHARDS], True),
        (["config.json"], False), (["config.json", SHARDS[0]], False), (["config.json", SHARDS[1]], False),
        ([], False),
    ],
)  # fmt: skip
def test_is_complete(names: list[str], complete: bool, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert is_complete(tmp_path) is complete


def test_no_room_for_the_result(small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes a local folder. Nothing is left over."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with refused("disk-full", tmp_path):
        funasr_cli.convert(small_checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_a_model(small_model: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    """Models are those we have written and mlx-audio's; a source is not one, nor is a folder without weights."""
    assert is_model(small_model)
    assert not is_model(small_checkpoint)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    config = theirs / "config.json"
    decoder = '{"hidden_size": 64}'
    for content in (
        "{}", "{", '{"model_type": "fun_asr_nano"}', '{"model_type": "fun_asr_nano", "text_config": {}}',
        '{"model_type": "fun_asr_nano", "text_config": 3}', f'{{"model_type": "qwen3", "text_config": {decoder}}}',
        f'{{"model_type": "fun_asr_nano", "audio_config": {{}}, "text_config": {decoder}}}',  # Transformers'
    ):  # fmt: skip
        config.write_text(content)
        (theirs / "model.safetensors").touch()
        assert not is_model(theirs)
    for name in ("llm_config", "text_config"):
        config.write_text(f'{{"model_type": "fun_asr_nano", "{name}": {decoder}}}')
        assert is_model(theirs)
    assert find_model(str(theirs)) == theirs
    (theirs / "model.safetensors").unlink()
    assert not is_model(theirs)


def test_the_hub_of_a_model(small_model: Path, tmp_path: Path) -> None:
    assert hub_of(small_model) is None  # a local folder
    (tmp_path / "config.json").write_text('{"source": {"hub": "ms"}}')
    assert hub_of(tmp_path) is Hub.MS
    for content in ('{"source": {"hub": "elsewhere"}}', '{"source": "ms"}', "{}", "", '{"source": {"hub": 3}}'):
        (tmp_path / "config.json").write_text(content)
        assert hub_of(tmp_path) is None


PRESENT = "CTC head, needed for word times: yes"
ABSENT = "CTC head, needed for word times: no, this model has none"
ELSEWHERE = f"{ABSENT}; funasr convert nano --hub ms fetches a copy with word times"


@pytest.mark.parametrize(
    ("name", "hub", "has_ctc", "line"),
    [
        *((name, hub, True, PRESENT) for name in (ALIASES["nano"], "My-Nano") for hub in ("hf", "ms", None)),
        (ALIASES["nano"], "hf", False, ELSEWHERE), (ALIASES["nano"], None, False, ELSEWHERE),
        (DOWNLOADS["nano"].hub_id, "hf", False, ELSEWHERE),
        (ALIASES["nano"], "ms", False, ABSENT), (ALIASES["mlt-nano"], "hf", False, ABSENT),
        ("My-Nano", None, False, ABSENT),
    ],
)  # fmt: skip
def test_which_hub_has_the_ctc_branch(name: str, hub: str | None, has_ctc: bool, line: str) -> None:
    config = read_config(demo.MODEL).config
    able = dataclasses.replace(config, ctc=config.ctc if has_ctc else None)
    assert list(capabilities(able, {"source": name, "hub": hub})) == ["languages: zh, en", line]


def test_torch_is_required_before_a_pickle_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else needs it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert set(wanted("owner/model", TRANSFORMERS)) == set(TRANSFORMERS) - UNWANTED
    with refused("package-missing", "model.pt", "torch"):
        wanted("owner/model", UPSTREAM)


def test_sentencepiece_is_required_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of pieces can be read without the library."""
    names = ["am.mvn", "x.bpe.model", "config.yaml", "configuration.json", "model.pt"]
    assert set(wanted("owner/model", names)) == {*names}
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with refused("package-missing", "sentencepiece"):
        wanted("owner/model", names)
    assert set(wanted("owner/model", [*names, "tokens.json"])) == {*names, "tokens.json"}
    assert set(wanted("owner/model", UPSTREAM)) == set(UPSTREAM) - UNWANTED

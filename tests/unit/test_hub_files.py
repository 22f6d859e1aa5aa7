"""Which files of a repository are fetched, and whether there is room; what is told of a CTC branch."""

import dataclasses
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.errors import refused

import funasr_cli
from funasr_cli import demo
from funasr_cli.checkpoints.format import read_config
from funasr_cli.checkpoints.hub import ALIASES, find_model, hub_of
from funasr_cli.checkpoints.repository import is_complete, wanted
from funasr_cli.checkpoints.sources import is_model
from funasr_cli.cli.convert import capabilities
from funasr_cli.options import Hub

# What the repositories of the release hold, on either hub.
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
def test_what_is_wanted(names: list[str]) -> None:
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


def test_a_way_out_of_the_folder() -> None:
    names = "../config.json /config.json a/b/config.json .a/config.json .. config.json/ -/vocab.json".split()
    assert wanted("owner/model", ["model.pt", "", *names]) == ["model.pt"]


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
    """Of a local folder, too; nothing is left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with refused("disk-full", tmp_path):
        funasr_cli.convert(small_checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_a_model(small_model: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    """What we have written, and what mlx-audio has; not a source, nor what lacks its weights."""
    assert is_model(small_model)
    assert not is_model(small_checkpoint)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    config = theirs / "config.json"
    decoder = '{"hidden_size": 64}'
    for content in (
        "{}",
        '{"model_type": "fun_asr_nano"}',
        '{"model_type": "fun_asr_nano", "text_config": {}}',
        '{"model_type": "fun_asr_nano", "text_config": 3}',
        f'{{"model_type": "fun_asr_nano", "audio_config": {{}}, "text_config": {decoder}}}',  # Transformers'
        f'{{"model_type": "qwen3", "text_config": {decoder}}}',
        "{",
    ):
        config.write_text(content)
        (theirs / "model.safetensors").touch()
        assert not is_model(theirs)
    for name in ("llm_config", "text_config"):
        config.write_text(f'{{"model_type": "fun_asr_nano", "{name}": {decoder}}}')
        assert is_model(theirs)
    assert find_model(str(theirs)) == theirs
    (theirs / "model.safetensors").unlink()
    assert not is_model(theirs)


def test_where_a_model_came_from(small_model: Path, tmp_path: Path) -> None:
    assert hub_of(small_model) is None  # a local folder
    (tmp_path / "config.json").write_text('{"source": {"hub": "ms"}}')
    assert hub_of(tmp_path) is Hub.MS
    for content in ('{"source": {"hub": "elsewhere"}}', '{"source": "ms"}', "{}", "", '{"source": {"hub": 3}}'):
        (tmp_path / "config.json").write_text(content)
        assert hub_of(tmp_path) is None


PRESENT = "CTC head, and so word times: yes"
ABSENT = "CTC head, and so word times: no, this model has none"
ELSEWHERE = f"{ABSENT}; ModelScope's copy has one: --hub ms"


@pytest.mark.parametrize(
    ("name", "hub", "has_ctc", "said"),
    [
        (ALIASES["nano"], "ms", True, PRESENT),
        (ALIASES["nano"], "ms", False, ABSENT),
        (ALIASES["nano"], "hf", True, PRESENT),
        (ALIASES["nano"], "hf", False, ELSEWHERE),
        (ALIASES["nano"], None, False, ELSEWHERE),
        (ALIASES["mlt-nano"], "hf", False, ABSENT),
        ("My-Nano", None, True, PRESENT),
        ("My-Nano", None, False, ABSENT),
    ],
)
def test_which_hub_has_the_ctc_branch(name: str, hub: str | None, has_ctc: bool, said: str) -> None:
    config = read_config(demo.MODEL).config
    assert config.ctc is not None
    lines = capabilities(
        config if has_ctc else dataclasses.replace(config, ctc=None), {"source": name, "hub": hub}
    )
    assert list(lines) == ["languages: zh, en", said]


def test_torch_is_asked_for_before_a_pickle_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else needs it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert set(wanted("owner/model", TRANSFORMERS)) == set(TRANSFORMERS) - UNWANTED
    with refused("package-missing", "model.pt", "torch"):
        wanted("owner/model", UPSTREAM)

"""The same random checkpoint in every layout, written by the original programs: equal weights and tokens.

Containers and prefixes of FunASR's own layout: `unit/test_convert.py`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.checkpoints import CheckpointSpec, release_spec, write_checkpoint
from support.errors import refused
from support.layouts import write_mlx_audio, write_transformers
from support.parity.live import in_reference
from support.small import first_token_ids

import funasr_cli
from funasr_cli.compute.backend import mx, tree_flatten
from funasr_cli.families.load import load_model

pytestmark = pytest.mark.slow
# The release's tensor names at width 64, so that mlx-audio can quantize every row in its groups.
SPEC = CheckpointSpec(adaptor_heads=8)
TOKENS = 24


@dataclasses.dataclass(frozen=True)
class Source:
    """An upstream checkpoint and its conversion in bfloat16."""

    folder: Path
    model: Path

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.model / "model.safetensors")

    @property
    def config(self) -> dict[str, Any]:
        return stated(self.model)


Sources = dict[bool, Source]  # key: whether the head is tied to the embedding


@pytest.fixture(scope="session")
def nano_sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """One with a head tied to the embedding, and one with a separate head."""
    folder = tmp_path_factory.mktemp("layouts")
    sources = {}
    for tied in (True, False):
        checkpoint = write_checkpoint(folder / f"Nano-{tied}", dataclasses.replace(SPEC, llm_tied=tied))
        sources[tied] = Source(checkpoint, converted(checkpoint, folder / f"model-{tied}"))
    return sources


def converted(folder: Path, out: Path, **options: Any) -> Path:
    return funasr_cli.convert(str(folder), out, verify="off", **options).folder


def stated(model: Path) -> dict[str, Any]:
    """Return the content of a model's config.json without its source."""
    content = json.loads((model / "config.json").read_text(encoding="utf-8"))
    del content["source"]
    return content


def assert_same_model(model: Path, expected: Source, clip: Path) -> None:
    """Assert that weights are equal to the bit, and prompt, frame rate and tokens are the same."""
    assert_same_tensors(load_file(model / "model.safetensors"), expected.tensors)
    assert stated(model) == expected.config
    assert first_token_ids(model, clip, TOKENS) == expected_ids(expected.model, clip)


def assert_same_tensors(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(got) == list(expected)
    different = [name for name, tensor in expected.items() if not same_bits(got[name], tensor)]
    assert different == []


def same_bits(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return got.dtype == expected.dtype and torch.equal(got.view(torch.uint8), expected.view(torch.uint8))


@cache
def expected_ids(model: Path, clip: Path) -> list[int]:
    ids = first_token_ids(model, clip, TOKENS)
    assert len(set(ids)) > 4  # or the comparison would show little
    return ids


# --- Transformers ---


@pytest.mark.parametrize(("tied", "shard_size"), [(True, "1GB"), (False, "500KB")])
def test_transformers(nano_sources: Sources, zh_wav: Path, tmp_path: Path, tied: bool, shard_size: str) -> None:
    """save_pretrained writes it in one file or in shards, with a tied or an untied head."""
    source = nano_sources[tied]
    theirs = in_reference("write_transformers", source.folder, tmp_path / "Nano-hf", shard_size)
    assert (theirs / "model.safetensors").exists() == tied
    assert (theirs / "model.safetensors.index.json").exists() == (not tied)
    stored = all_tensors(theirs)
    assert len(stored) == (1540 if tied else 1541)
    assert_same_model(converted(theirs, tmp_path / "out"), source, zh_wav)
    # The tests' own writer, used for damaged checkpoints, gives the same result.
    written = write_transformers(source.folder, tmp_path / "written", shards=1 if tied else 3)
    assert_same_tensors(all_tensors(written), stored)
    assert stated(converted(written, tmp_path / "out-of-written")) == source.config


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of all files, in the order of file names."""
    shards = [load_file(path) for path in folder.glob("*.safetensors")]
    return dict(sorted((name, tensor) for shard in shards for name, tensor in shard.items()))


# --- mlx-audio ---


@pytest.fixture(scope="module")
def mlx_audio(nano_sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mlx_audio(nano_sources[True].folder, tmp_path_factory.mktemp("mlx-audio") / "Nano-mlx-audio")


def test_mlx_audio(nano_sources: Sources, mlx_audio: Path, zh_wav: Path, tmp_path: Path) -> None:
    """The model is used without conversion, and converted."""
    source = nano_sources[True]
    assert first_token_ids(mlx_audio, zh_wav, TOKENS) == expected_ids(source.model, zh_wav)
    assert_same_model(converted(mlx_audio, tmp_path / "out"), source, zh_wav)


def test_mlx_audio_leaves_an_untied_head_out(nano_sources: Sources, tmp_path: Path) -> None:
    """mlx-audio's converter drops every head, so a separately trained one is lost."""
    folder = write_mlx_audio(nano_sources[False].folder, tmp_path / "untied")
    with refused("model-misfit", "missing: llm.lm_head.weight"):
        converted(folder, tmp_path / "out")


@pytest.mark.parametrize("recipe", [*(pytest.param(bits, marks=pytest.mark.full) for bits in "48"), "mixed_4_6"])
def test_mlx_audio_quantized(mlx_audio: Path, zh_wav: Path, tmp_path: Path, recipe: str) -> None:
    """mlx-audio's own quantized model: weights are dequantized as MLX does, or kept on request."""
    quantized = in_reference("quantize_mlx_audio", mlx_audio, tmp_path / "quantized", recipe)
    stored = mx.load(str(quantized / "model.safetensors"))
    bits = {packed_bits(stored, name) for name in stored if name.endswith(".scales")}
    assert bits == ({4, 6} if recipe == "mixed_4_6" else {int(recipe)})
    multiplied_out = shutil.copytree(mlx_audio, tmp_path / "dense")
    mx.save_safetensors(str(multiplied_out / "model.safetensors"), dense(stored), metadata={"format": "mlx"})
    ids, theirs, unquantized = (
        first_token_ids(folder, zh_wav, TOKENS, "float32") for folder in (multiplied_out, quantized, mlx_audio)
    )
    assert theirs == ids != unquantized
    kept = dict(tree_flatten(load_model(quantized, "stored").network.parameters()))
    assert kept.keys() == stored.keys()
    assert all(mx.array_equal(values, stored[name]) for name, values in kept.items())


def packed_bits(tensors: dict[str, mx.array], scales: str) -> int:
    groups, words = tensors[scales], tensors[scales.replace(".scales", ".weight")]
    return words.shape[1] * 32 // (groups.shape[1] * 64)


def dense(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """Return the tensors with every matrix dequantized by MLX."""
    result = {name: values for name, values in tensors.items() if not name.endswith((".scales", ".biases"))}
    for scales in (name for name in tensors if name.endswith(".scales")):
        module = scales.removesuffix(".scales")
        parts = (tensors[f"{module}.{part}"] for part in ("weight", "scales", "biases"))
        result[f"{module}.weight"] = mx.dequantize(*parts, group_size=64, bits=packed_bits(tensors, scales))
    return result


@pytest.mark.full
def test_mlx_audio_at_full_size(clips: dict[str, Path], tmp_path: Path) -> None:
    """mlx-audio's own converter assumes the release's sizes, and supports no others."""
    upstream = write_checkpoint(tmp_path / "Nano", release_spec(adaptor_heads=8))
    try:
        model = converted(upstream, tmp_path / "model")
        theirs = in_reference("write_mlx_audio", upstream, tmp_path / "Nano-mlx-audio")
        shutil.rmtree(upstream)
        out = converted(theirs, tmp_path / "out")
        assert_same_tensors(*(load_file(folder / "model.safetensors") for folder in (out, model)))
        assert stated(tmp_path / "out") == stated(model)
        shutil.rmtree(tmp_path / "out")
        clip = clips["en-1s"]
        assert first_token_ids(theirs, clip, 4) == first_token_ids(model, clip, 4)
        small = write_checkpoint(tmp_path / "small", dataclasses.replace(SPEC, encoder_blocks=2, llm_layers=1))
        written = write_mlx_audio(small, tmp_path / "small-mlx-audio")
        assert keys_of(written) == keys_of(theirs)
        assert other_file_names(written) == other_file_names(theirs)
    finally:
        for folder in tmp_path.iterdir():
            shutil.rmtree(folder)


def keys_of(folder: Path) -> dict[str, set[str]]:
    """Return the keys of config.json and of the objects in it."""
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    nested = {name: set(value) for name, value in content.items() if isinstance(value, dict)}
    return {"": set(content), **nested}


def other_file_names(folder: Path) -> set[str]:
    """Return the names of a folder's files, except those only for humans."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"README.md"}


# --- our own layout ---


def test_our_own(nano_sources: Sources, zh_wav: Path, tmp_path: Path) -> None:
    """Converting without changes reproduces the model; from float32, types and recipes equal the source's."""
    source = nano_sources[True]
    assert_same_model(converted(source.model, tmp_path / "again"), source, zh_wav)
    wide = converted(source.folder, tmp_path / "wide", dtype="float32")
    assert_same_model(converted(wide, tmp_path / "narrow"), source, zh_wav)
    for recipe in ("4", "mixed"):
        options: dict[str, Any] = {"quantize": recipe, "group_size": 32, "quantize_encoder": 8}
        direct = converted(source.folder, tmp_path / f"direct-{recipe}", **options)
        second = converted(wide, tmp_path / f"second-{recipe}", **options)
        assert_same_tensors(load_file(second / "model.safetensors"), load_file(direct / "model.safetensors"))
        assert stated(second) == stated(direct)

"""Whisper's layouts, in files and in repositories."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.errors import refused
from support.small import convert, edit_json
from support.whisper import (
    HEAD_PAIRS,
    HEADS,
    random_tensors,
    write_funasr,
    write_hf,
    write_mlx,
    write_openai,
)
from support.whisper_rows import CLIPS, decode, load_whisper

from funasr_cli.compute.backend import mx
from funasr_cli.families import registry
from funasr_cli.families.open import is_model, open_checkpoint, open_model
from funasr_cli.families.whisper import tokens
from funasr_cli.hubs.find import fetch_checkpoint
from funasr_cli.hubs.repository import wanted
from funasr_cli.options import TranscribeOptions

LAYOUTS: dict[str, Callable[[Path, Any], Path]] = {
    "openai": write_openai,
    "funasr": write_funasr,
    "hf": write_hf,
    "hf-bin": lambda folder, tensors: write_hf(folder, tensors, pickled=True),
    "mlx": write_mlx,
    "mlx-npz": lambda folder, tensors: write_mlx(folder, tensors, npz=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(layout: str, small_whisper: Path, tmp_path: Path) -> None:
    folder = LAYOUTS[layout](tmp_path / "Whisper", random_tensors())
    checkpoint, expected = open_checkpoint(folder, "Whisper"), open_model(small_whisper)
    stated = dataclasses.replace(checkpoint.config, alignment_heads=expected.config.alignment_heads)
    assert stated == expected.config
    assert checkpoint.tensors.keys() == expected.tensors.keys()
    for name, tensor in checkpoint.tensors.items():
        found, wanted_values = (np.array(each.read_in("float32")) for each in (tensor, expected.tensors[name]))
        # mlx-whisper's layout lacks the positions, which are computed in float32.
        assert np.allclose(
            found, wanted_values, atol=1e-3 if name == "encoder.positional_embedding" else 0, rtol=0
        )
    assert is_model(folder) == layout.startswith("mlx")
    assert checkpoint.texts[tokens.TOKENS_FILE]
    assert json.loads(checkpoint.texts[tokens.TOKENS_FILE]) == json.loads(
        (small_whisper / tokens.TOKENS_FILE).read_text(encoding="utf-8")
    )
    heads = tuple(layer * HEADS + head for layer, head in HEAD_PAIRS)
    known = layout.startswith(("mlx", "hf"))
    assert checkpoint.config.alignment_heads == (heads if known else (2, 3))  # all of the upper half


@pytest.mark.slow
def test_a_quantized_model_of_mlx_whisper(small_whisper: Path, tmp_path: Path) -> None:
    """It computes nearly the same. `test_quantizing` computes with matrices that stay quantized."""
    folder = write_mlx(tmp_path / "4bit", random_tensors())
    weights = dict(mx.load(str(folder / "weights.safetensors")))
    for name in [name for name, value in weights.items() if name.endswith(".weight") and value.ndim == 2]:
        packed, scales, biases = mx.quantize(weights.pop(name), group_size=64, bits=8)
        module = name.removesuffix(".weight")
        weights |= {name: packed, f"{module}.scales": scales, f"{module}.biases": biases}
    mx.save_safetensors(str(folder / "weights.safetensors"), weights)
    edit_json(folder / "config.json", lambda config: config.update(quantization={"group_size": 64, "bits": 8}))
    exact = np.array(load_whisper(small_whisper).encode(CLIPS[0]).frames)
    found = np.array(load_whisper(folder).encode(CLIPS[0]).frames)
    assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)
    with refused("model-quantized"):
        convert(folder, tmp_path / "out")


@pytest.mark.slow
def test_quantizing(whisper_source: Path, tmp_path: Path) -> None:
    convert(whisper_source, tmp_path / "out", quantize="4")
    [segment] = decode(
        load_whisper(tmp_path / "out", "stored"), TranscribeOptions(language="en", max_tokens=2), CLIPS[0]
    )
    assert segment.tokens == 2


@pytest.mark.slow
def test_mixed_quantization(whisper_source: Path, tmp_path: Path) -> None:
    """Embedding, values and the end of each feed-forward network have 8 bits, all other matrices 4."""
    folder = convert(whisper_source, tmp_path / "mixed", quantize="mixed").folder
    groups = open_model(folder).quantized()
    fine = {name for name, each in groups.items() if each.bits == 8}
    assert {each.bits for name, each in groups.items() if name not in fine} == {4}
    of_layer = {"attn.value", "cross_attn.value", "mlp2"}
    assert fine == {
        "decoder.token_embedding",
        *(f"decoder.blocks.{n}.{name}" for n in range(2) for name in of_layer),
    }


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2, 2)])
@pytest.mark.parametrize(
    "name",
    ["encoder.conv1.weight", "encoder.positional_embedding", "decoder.positional_embedding",
     "decoder.token_embedding.weight"],
)  # fmt: skip
def test_tensors_with_another_number_of_axes_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    folder = write_openai(tmp_path / "other", random_tensors() | {name: np.zeros(shape, np.float16)})
    with refused("model-misfit"):
        open_checkpoint(folder, "other")


def test_an_untied_head_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors()
    folder = write_hf(tmp_path / "hf", tensors)
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    head = weights["model.decoder.embed_tokens.weight"]
    save_file(weights | {"proj_out.weight": head}, folder / "model.safetensors")
    open_checkpoint(folder, "hf")
    save_file(weights | {"proj_out.weight": head + 1}, folder / "model.safetensors")
    with refused("model-misfit"):
        open_checkpoint(folder, "hf")


def test_other_networks_are_refused(whisper_source: Path, tmp_path: Path) -> None:
    folder = write_openai(tmp_path / "other", {"encoder.conv1.bias": np.zeros(3, np.float16)})
    with refused("model-misfit"):
        open_checkpoint(folder, "other")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (
            ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "x.wav"],
            "model.safetensors",
        ),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (["config.json", "weights.npz"], "weights.npz"),
        (["config.json", "weights.npz", "weights.safetensors"], "weights.safetensors"),
        (["config.yaml", "configuration.json", "large-v3.pt"], "large-v3.pt"),
    ],
)
def test_weights_in_a_repository(names: list[str], chosen: str) -> None:
    found = wanted("a/b", names)
    assert [name for name in found if name.endswith((".safetensors", ".bin", ".npz", ".pt"))] == [chosen]


def test_short_names() -> None:
    names = registry.aliases()
    for size in ("tiny", "base", "small", "medium", "large-v3", "turbo", "base.en"):
        assert f"whisper-{size}" in names
        assert registry.of_hub_name(f"whisper-{size}") is registry.of_model_type("whisper")


def test_without_torch_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's file and Transformers' pickle are not called model.pt."""
    openai = write_openai(tmp_path / "openai", random_tensors())
    pickled = write_hf(tmp_path / "hf", random_tensors(), pickled=True)
    monkeypatch.setitem(sys.modules, "torch", None)
    with refused("package-missing", next(openai.glob("*.pt")).name):
        open_checkpoint(openai, "Whisper")
    with refused("package-missing", "pytorch_model.bin"):
        open_checkpoint(pickled, "Whisper")


def test_a_file_of_openais_by_its_name(tmp_path: Path) -> None:
    """The folder must be named. If it has several such files, which one is meant is unknown."""
    for name in ("base.pt", "tiny.pt"):
        (tmp_path / name).write_bytes(b"")
    with refused("model-missing", "base.pt", "its folder"):
        fetch_checkpoint(str(tmp_path / "base.pt"))
    with refused("model-unsupported", "alone into another folder"):
        open_checkpoint(tmp_path, "Whisper")


@pytest.mark.parametrize("opened", [lambda folder: open_checkpoint(folder, "x"), open_model])
def test_a_folder_of_ctranslate2(tmp_path: Path, opened: Callable[[Path], Any]) -> None:
    """It is recognised by its weights, since its configuration does not name the model."""
    (tmp_path / "config.json").write_text('{"alignment_heads": [[1, 2]], "lang_ids": [50259]}')
    with refused("model-unsupported", "model_type") as caught:
        opened(tmp_path)
    assert "None" not in str(caught.value)
    (tmp_path / "model.bin").write_bytes(b"")
    with refused("model-unsupported", "CTranslate2", "funasr convert whisper-"):
        opened(tmp_path)

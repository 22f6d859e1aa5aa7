"""LoRA adapters are merged as W + s·B·A into every layout of the base, or refused with the reason."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import whisper
from support.adapters import Tensors, embed, factors, write_peft
from support.errors import refused
from support.layouts import read_tensors, write_mlx_audio, write_transformers
from support.qwen3 import write_qwen3
from support.running import invoke
from support.small import convert

import funasr_cli
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.families.open import open_checkpoint, open_model
from funasr_cli.options import ConvertOptions

LAYER = "llm.model.layers.{}.self_attn.{}_proj"
MODULES = [LAYER.format(layer, kind) for layer in (0, 1) for kind in "qv"]
QKV = "audio_encoder.encoders.0.self_attn.linear_q_k_v"
THEIR_QKV = "model.audio_tower.layers.1.self_attn.{}_proj"
ADAPTOR = "audio_adaptor.linear1"
EMBEDDING = "llm.model.embed_tokens"


def values(checkpoint: Checkpoint, name: str) -> np.ndarray:
    return np.array(checkpoint.tensors[name].read_in("float32"))


def merged(weights: Tensors, tensors: Tensors, module: str, scale: float) -> np.ndarray:
    """Compute the merged matrix in float64."""
    weight, down, up = (
        each.double() for each in (weights[f"{module}.weight"], *(tensors[f"{module}.lora_{one}"] for one in "AB"))
    )
    return (weight + scale * up @ down).numpy()


def assert_merged(checkpoint: Checkpoint, weights: Tensors, tensors: Tensors, scales: dict[str, float]) -> None:
    """Assert that these modules are merged, and that nothing else has changed."""
    assert checkpoint.adaptation
    for module, scale in scales.items():
        expected = merged(weights, tensors, module, scale)
        np.testing.assert_allclose(values(checkpoint, f"{module}.weight"), expected, rtol=0, atol=2e-6)
    base = checkpoint.adaptation.base
    assert checkpoint.tensors.keys() == base.tensors.keys()
    for name in base.tensors.keys() - {f"{module}.weight" for module in scales}:
        np.testing.assert_array_equal(values(checkpoint, name), values(base, name))


@pytest.fixture
def base(small_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_checkpoint, tmp_path / "Nano")


@pytest.fixture
def weights(base: Path) -> Tensors:
    return read_tensors(base)


@pytest.mark.parametrize(
    ("lora_conf", "rank", "peft", "scale"),
    [
        ({"r": 4, "lora_alpha": 6}, 4, False, 1.5),
        (None, 16, False, 2.0),  # FunASR's defaults are r 16 and alpha 32, PEFT's 8 and 8
        ({"lora_alpha": 8.0, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1}, 16, False, 0.5),
        ({"task_type": "CAUSAL_LM"}, 8, True, 1.0),
        ({"r": 4, "lora_alpha": 6, "use_rslora": True}, 4, True, 3.0),
    ],
)
def test_use_lora(
    base: Path, weights: Tensors, lora_conf: dict[str, Any] | None, rank: int, peft: bool, scale: float
) -> None:
    tensors = factors(weights, MODULES, rank)
    checkpoint = open_checkpoint(embed(base, tensors, lora_conf, peft=peft), "Nano")
    assert_merged(checkpoint, weights, tensors, dict.fromkeys(MODULES, scale))
    assert checkpoint.adaptation
    assert (checkpoint.adaptation.lora_conf is None) == peft


@pytest.mark.parametrize("layout", ["FunASR", "Transformers", "mlx-audio", "ours"])
@pytest.mark.parametrize("pickled", [False, True])
def test_peft_adapter_of_the_decoder(
    base: Path, weights: Tensors, tmp_path: Path, layout: str, pickled: bool
) -> None:
    """It was trained on the decoder alone, whose name in the whole model it does not know."""
    tensors = factors(weights, MODULES)
    adapter = write_peft(tmp_path / "adapter", tensors, pickled=pickled, prefix="llm.")
    write = {
        "FunASR": lambda *_: base, "Transformers": write_transformers, "mlx-audio": write_mlx_audio,
        "ours": lambda source, out: convert(source, out, dtype="float32").folder,
    }[layout]  # fmt: skip
    folder = write(base, tmp_path / "base")
    assert_merged(open_checkpoint(folder, "Nano", adapter), weights, tensors, dict.fromkeys(MODULES, 1.5))
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    assert_merged(open_checkpoint(folder, "Nano"), weights, tensors, dict.fromkeys(MODULES, 1.5))
    if layout in ("mlx-audio", "ours"):  # otherwise it would be ignored
        with refused("model-unconverted"):
            open_model(folder)


def test_settings_of_each_module(base: Path, weights: Tensors, tmp_path: Path) -> None:
    """Ranks, alphas, the other scale, and tensors that were trained as a whole; PEFT's rules for patterns."""
    tensors = factors(weights, MODULES[:2], 4) | factors(weights, [MODULES[2]], 8) | factors(weights, [QKV], 2)
    saved = torch.randn_like(weights[f"{ADAPTOR}.weight"])
    tensors[f"{ADAPTOR}.weight"], tensors[f"{ADAPTOR}.bias"] = saved, weights[f"{ADAPTOR}.bias"]
    adapter = write_peft(
        tmp_path / "adapter", tensors, use_rslora=True, modules_to_save=["ear1"],
        rank_pattern={r"layers\.1.self_attn.q_proj": 8, "^audio_encoder.encoders.0.self_attn.linear_q_k_v": 2},
        alpha_pattern={"v_proj": 3, "proj": 100, "^layers.1.self_attn.q_proj": 100},
    )  # fmt: skip
    checkpoint = open_checkpoint(base, "Nano", adapter)
    np.testing.assert_array_equal(values(checkpoint, f"{ADAPTOR}.weight"), saved.numpy())
    scales = {MODULES[0]: 6 / 2, MODULES[1]: 3 / 2, MODULES[2]: 6 / math.sqrt(8), QKV: 6 / math.sqrt(2)}
    for module, scale in scales.items():
        expected = merged(weights, tensors, module, scale)
        np.testing.assert_allclose(values(checkpoint, f"{module}.weight"), expected, rtol=0, atol=5e-6)


def test_parts_of_a_stacked_matrix(base: Path, weights: Tensors, tmp_path: Path) -> None:
    """Transformers stores q, k and v apart, and an adapter may change some of them; another replaces one."""
    folder = write_transformers(base, tmp_path / "base")
    rows = weights[f"{QKV}.weight"].shape[0] // 3
    parts = dict(zip("qkv", weights[f"{QKV}.weight"].split(rows), strict=True))
    split = {f"{THEIR_QKV.format(each)}.weight": part for each, part in parts.items()}
    tensors = factors(split, map(THEIR_QKV.format, "qv"))
    tensors[f"{THEIR_QKV.format('k')}.weight"] = 2 * parts["k"]
    adapter = write_peft(tmp_path / "adapter", tensors, modules_to_save=["k_proj"])
    expected = np.concatenate(
        [merged(split, tensors, THEIR_QKV.format("q"), 1.5), 2 * parts["k"].numpy(),
         merged(split, tensors, THEIR_QKV.format("v"), 1.5)],
    )  # fmt: skip
    checkpoint = open_checkpoint(folder, "Nano", adapter)
    np.testing.assert_allclose(values(checkpoint, f"{QKV}.weight"), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("code", "settings", "values"),
    [
        ("model-unsupported", {"peft_type": "LOHA"}, ["LOHA"]),
        ("model-unsupported", {"use_dora": True}, ["use_dora"]),
        ("model-unsupported", {"bias": "all"}, ["all"]),
        ("model-unsupported", {"fan_in_fan_out": True}, ["fan_in_fan_out"]),
        ("model-unsupported", {"init_lora_weights": "pissa_niter_4"}, ["pissa_niter_4"]),
        ("model-unsupported", {"target_parameters": ["mlp.experts"]}, ["target_parameters"]),
        ("model-unsupported", {"not_yet_invented": {"a": 1}}, ["not_yet_invented"]),
        ("model-unsupported", {"alpha_pattern": {"(q|v)+_proj": 3}}, ["(q|v)+_proj"]),
        ("model-misfit", {"r": 8}, ["(4, 64)", "8", MODULES[0]]),
        ("model-misfit", {"rank_pattern": {"v_proj": 2}}, [MODULES[1]]),
        ("model-config", {"r": "4"}, ["adapter_config.json"]),
        ("model-config", {"lora_alpha": 0}, [MODULES[0]]),
        ("model-config", {"modules_to_save": "linear1"}, ["modules_to_save"]),
    ],
)
def test_settings_that_are_refused(
    base: Path, weights: Tensors, tmp_path: Path, code: str, settings: dict[str, Any], values: list[str]
) -> None:
    adapter = write_peft(tmp_path / "adapter", factors(weights, MODULES), **settings)
    with refused(code, *values):
        open_checkpoint(base, "Nano", adapter)


def test_tensors_that_are_refused(base: Path, weights: Tensors, tmp_path: Path) -> None:
    good, one = factors(weights, MODULES), MODULES[0]
    rows: dict[str, tuple[str, Tensors, list[str]]] = {
        "no such module": ("model-misfit", factors({"llm.a.weight": torch.ones(3, 3)}, ["llm.a"]), ["llm.a"]),
        "ambiguous": ("model-misfit", factors({"linear1.weight": torch.ones(3, 3)}, ["linear1"]), ["linear1"]),
        "another width": (
            "model-misfit", good | {f"{one}.lora_A": torch.ones(4, 63)}, [one, "(192, 64)", "(192, 63)"],
        ),
        "another rank": ("model-misfit", good | {f"{one}.lora_A": torch.ones(3, 64)}, [one, "(3, 64)"]),
        "no matrix": ("model-misfit", good | {f"{one}.lora_A": torch.ones(4, 64, 1)}, [one]),
        "integers": ("model-misfit", good | {f"{one}.lora_A": torch.ones(4, 64).long()}, [one, "I64"]),
        "half of a pair": (
            "model-misfit", {name: good[name] for name in good.keys() - {f"{one}.lora_B"}}, [one, "lora_B"],
        ),
        "unexpected": ("model-misfit", good | {"llm.other.weight": torch.ones(2)}, ["llm.other.weight"]),
        "nothing": ("model-misfit", {}, ["adapter_config.json"]),
        "DoRA": (
            "model-unsupported", good | {f"{one}.lora_magnitude_vector": torch.ones(192)}, ["magnitude_vector"],
        ),
        "an embedding": (
            "model-unsupported", good | {f"{EMBEDDING}.lora_embedding_A": torch.ones(4, 768)}, [EMBEDDING],
        ),
        "a tied embedding": ("model-misfit", factors(weights, [EMBEDDING]), [EMBEDDING]),
    }  # fmt: skip
    for name, (code, tensors, values) in rows.items():
        with refused(code, *values):
            open_checkpoint(base, "Nano", write_peft(tmp_path / name, tensors))


def test_several_adapters_in_a_model_are_refused(base: Path, weights: Tensors) -> None:
    named = {f"{name}.default.weight": value for name, value in factors(weights, MODULES[:1]).items()}
    other = {f"{name}.second.weight": value for name, value in factors(weights, MODULES[1:2]).items()}
    with refused("model-unsupported", "default", "second"):
        open_checkpoint(embed(base, named | other, {"r": 4}), "Nano")


def test_incomplete_folders_are_refused(base: Path, weights: Tensors, tmp_path: Path) -> None:
    adapter = write_peft(tmp_path / "adapter", factors(weights, MODULES))
    with refused("model-missing", "adapter_config.json"):
        open_checkpoint(base, "Nano", tmp_path / "nowhere")
    (adapter / "adapter_model.safetensors").write_bytes(b"{}")
    with refused("model-damaged", "adapter_model.safetensors"):
        open_checkpoint(base, "Nano", adapter)
    (adapter / "adapter_model.safetensors").unlink()
    with refused("model-missing", "adapter_model.safetensors"):
        open_checkpoint(base, "Nano", adapter)


def test_a_quantized_base_is_refused(base: Path, weights: Tensors, tmp_path: Path) -> None:
    adapter = write_peft(tmp_path / "adapter", factors(weights, MODULES))
    folder = convert(base, tmp_path / "out", quantize=8, group_size=32).folder
    with refused("model-quantized"):
        open_checkpoint(folder, "Nano", adapter)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.3, 0.0])
def test_the_proof_shows_the_effect(base: Path, weights: Tensors, tmp_path: Path, size: float) -> None:
    """The result is compared with base and adapter; an adapter of zeros does nothing, and that is seen."""
    tensors = factors(weights, MODULES, size=size)
    write_peft(tmp_path / "mine", tensors)
    out = tmp_path / "out"
    options = ("--lora", str(tmp_path / "mine"), "--dtype", "float32")
    result = invoke("convert", str(base), str(out), *options)
    assert result.exit_code == 0, result.stderr
    found = funasr_cli.convert(base, tmp_path / "again", lora=str(tmp_path / "mine"), dtype="float32")
    assert found.proof
    assert found.proof.moved is not None
    assert (found.proof.moved > 0.01) == (size > 0) == ("nothing" not in result.stderr)
    assert found.proof.agreeing == found.proof.tokens
    assert max(found.proof.errors.values()) < 1e-3
    source = json.loads((out / "config.json").read_text(encoding="utf-8"))["source"]
    assert source["adapter"] == "mine"
    assert "adapter_model.safetensors" in source["sha256"]
    plain = funasr_cli.convert(base, tmp_path / "plain", dtype="float32").proof
    assert plain
    assert plain.moved is None
    same = values(open_model(out), f"{MODULES[0]}.weight") == weights[f"{MODULES[0]}.weight"].numpy()
    assert same.all() == (size == 0)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 3])
def test_an_adapter_of_a_chat_model(tmp_path: Path, shards: int) -> None:
    """The proof shows its effect on a text. The source may be in shards."""
    folder = write_qwen3(tmp_path / "base", shards=shards)
    weights = {name: each for path in folder.glob("*.safetensors") for name, each in load_file(path).items()}
    modules = [
        name.removesuffix(".weight") for name in weights if name.endswith(("v_proj.weight", "up_proj.weight"))
    ]
    tensors = factors(weights, modules)
    found = funasr_cli.convert(
        folder, tmp_path / "out", lora=write_peft(tmp_path / "mine", tensors), dtype="float32"
    )
    assert found.proof
    assert (found.proof.moved or 0) > 0.01
    converted, base = open_model(tmp_path / "out"), open_checkpoint(folder, "base")
    for here, tensor in base.tensors.items():
        module = tensor.parts[0][0].removesuffix(".weight")
        changed = merged(weights, tensors, module, 1.5) if module in modules else values(base, here)
        np.testing.assert_allclose(values(converted, here), changed, rtol=0, atol=2e-6)


def test_an_adapter_of_whisper(tmp_path: Path) -> None:
    """Transformers puts `model.` in front of all names, which the reader takes off. The base is float16."""
    folder = whisper.write_hf(tmp_path / "Whisper", whisper.random_tensors())
    weights = load_file(folder / "model.safetensors")
    modules = [f"model.decoder.layers.1.{name}" for name in ("self_attn.q_proj", "encoder_attn.v_proj", "fc1")]
    tensors = factors(weights, modules)
    checkpoint = open_checkpoint(folder, "Whisper", write_peft(tmp_path / "mine", tensors))
    assert checkpoint.adaptation
    base = checkpoint.adaptation.base
    changed = {}
    for name in base.tensors:
        if not np.array_equal(values(checkpoint, name), values(base, name)):
            changed[base.tensors[name].parts[0][0]] = values(checkpoint, name)
    assert sorted(f"model.{name}" for name in changed) == sorted(f"{module}.weight" for module in modules)
    for module in modules:
        expected = merged(weights, tensors, module, 1.5)
        np.testing.assert_allclose(changed[f"{module}.weight".removeprefix("model.")], expected, rtol=0, atol=2e-6)


def test_the_default_folder_is_named_after_the_adapter(tmp_path: Path) -> None:
    options = ConvertOptions(lora=tmp_path / "mine", quantize="4")
    assert options.suffix == "-mine-4bit"


def test_pytorch_cannot_check_an_adapter_of_peft(base: Path, weights: Tensors, tmp_path: Path) -> None:
    adapter = write_peft(tmp_path / "adapter", factors(weights, MODULES))
    with refused("options-conflict", "--verify full"):
        funasr_cli.convert(base, tmp_path / "out", lora=adapter, verify="full")

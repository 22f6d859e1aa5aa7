"""LoRA adapters for small checkpoints, written without PEFT in the layouts of PEFT and FunASR."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from support.small import edit_tensors

Tensors = dict[str, torch.Tensor]
SETTINGS: dict[str, Any] = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "bias": "none", "lora_dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"], "init_lora_weights": True, "inference_mode": True, "use_dora": False,
    "base_model_name_or_path": "Qwen/Qwen3-0.6B", "peft_version": "0.21.2", "megatron_core": "megatron.core",
    "qalora_group_size": 16, "fan_in_fan_out": False, "rank_pattern": {}, "loftq_config": {},
    "layers_pattern": None,
}  # fmt: skip


def factors(weights: Tensors, modules: Iterable[str], rank: int = 4, size: float = 0.3) -> Tensors:
    """Return A and B for the weights of some modules, named as FunASR names them."""
    found = {}
    for number, module in enumerate(modules):
        rows, columns = weights[f"{module}.weight"].shape
        generator = torch.Generator().manual_seed(number)
        found[f"{module}.lora_A"] = size * torch.randn(rank, columns, generator=generator)
        found[f"{module}.lora_B"] = size * torch.randn(rows, rank, generator=generator)
    return found


def write_peft(
    folder: Path, tensors: Tensors, *, pickled: bool = False, prefix: str = "", **settings: Any
) -> Path:
    """Write what PEFT's `save_pretrained` does, given tensors as `factors` returns them."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | settings), encoding="utf-8")
    named = {
        f"base_model.model.{name.removeprefix(prefix)}"
        + (".weight" if ".lora_" in name else ""): value.contiguous()
        for name, value in tensors.items()
    }
    if pickled:
        torch.save(named, folder / "adapter_model.bin")
    else:
        save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def embed(folder: Path, tensors: Tensors, lora_conf: dict[str, Any] | None = None, *, peft: bool = False) -> Path:
    """Put an adapter into a FunASR checkpoint as `use_lora` does; `peft`: as FunASR did when it used PEFT."""
    end = ".default.weight" if peft else ""
    edit_tensors(folder, lambda found: found.update({f"{name}{end}": value for name, value in tensors.items()}))
    path = folder / "config.yaml"
    options = yaml.safe_load(path.read_text(encoding="utf-8"))
    options["llm_conf"] |= {"use_lora": True} | ({} if lora_conf is None else {"lora_conf": lora_conf})
    path.write_text(yaml.safe_dump(options), encoding="utf-8")
    return folder

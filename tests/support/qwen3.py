"""Random Qwen3 chat models in the layouts of Transformers and of mlx-lm, with Qwen's tokenizer made smaller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.tokenizers_bpe import write_json, write_tokenizer

from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.compute.backend import mx
from funasr_cli.models.qwen3 import Qwen3, Qwen3Config

# The native engine can compute these sizes.
SIZES: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "intermediate_size": 128, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "attention_bias": False,
}  # fmt: skip
ASKED_TO_THINK = (  # the end of Qwen3's chat template
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
    "        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}"
)
NEVER_THINKS = "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}"
TURNS = (  # of Qwen3's chat template, without tools and earlier answers
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "{%- endfor %}\n"
)


def write_qwen3(
    folder: Path,
    *,
    tied: bool = True,
    shards: int = 1,
    dtype: str = "float32",
    seed: int = 0,
    stops: Sequence[str] | None = ("<|im_end|>", "<|endoftext|>"),
    template: str | None = TURNS + ASKED_TO_THINK,
    groups: tuple[int, int] | None = None,
    stop_gain: float = 1.0,
    **sizes: Any,
) -> Path:
    """Write a model; return its folder.

    Args:
        folder: created.
        tied: whether the head is the embedding.
        shards: number of files of weights, with an index if there are several.
        dtype: of the weights.
        seed: of the weights.
        stops: tokens in ``generation_config.json``; None: there is no such file.
        template: the chat template; None: there is none.
        groups: bits and group size of mlx-lm's quantization; None: the weights are dense.
        stop_gain: factor on the stop tokens' rows of the head, without `tied`.
        sizes: fields of `Qwen3Config` other than `SIZES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder, 800)
    ids = {mark: tokenizer.token_to_id(mark) for mark in ("<|im_end|>", "<|endoftext|>")}
    vocab_size = -(-tokenizer.get_vocab_size() // 64) * 64
    config = Qwen3Config(**{**SIZES, "vocab_size": vocab_size, "tie_word_embeddings": tied, **sizes})
    content: dict[str, Any] = vars(config) | {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
        "max_position_embeddings": 2048, "eos_token_id": ids["<|im_end|>"],
    }  # fmt: skip
    tensors = random_tensors(config, seed)
    if not tied:
        tensors["lm_head.weight"][list(ids.values())] *= stop_gain
    arrays = {name: mx.array(values).astype(getattr(mx, dtype)) for name, values in tensors.items()}
    if groups:
        bits, size = groups
        content["quantization"] = content["quantization_config"] = {"group_size": size, "bits": bits}
        for name in [name for name, values in arrays.items() if values.ndim == 2]:
            module = name.removesuffix(".weight")
            parts = mx.quantize(arrays.pop(name), group_size=size, bits=bits)
            arrays |= {f"{module}.{part}": each for part, each in zip(PARTS, parts, strict=True)}
    write_json(folder / "config.json", content)
    if stops is not None:
        write_json(folder / "generation_config.json", {"eos_token_id": [ids[mark] for mark in stops]})
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    write_shards(folder, arrays, shards)
    return folder


PARTS = ("weight", "scales", "biases")


def random_tensors(config: Qwen3Config, seed: int) -> dict[str, np.ndarray]:
    """Return float32 weights by Transformers' names, with varied output and attention."""
    random, found = np.random.default_rng(seed), dict[str, np.ndarray]()
    for name, shape in model_shapes(Qwen3(config)).items():
        values = random.standard_normal(shape).astype(np.float32)
        if "norm" in name:
            values = 1 + 0.1 * values
            values *= 2 if name.split(".")[-2] in ("q_norm", "k_norm") else 1
        elif "embed_tokens" not in name:
            values *= (2 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1) / np.sqrt(shape[-1])
        found[name] = values
    return found


def write_shards(folder: Path, arrays: dict[str, mx.array], shards: int) -> None:
    """Write ``model.safetensors``, or several files and their index, as `save_pretrained` does."""
    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "pt"})
        return
    places = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        chosen = {name: arrays[name] for index, name in enumerate(arrays) if index % shards == number}
        mx.save_safetensors(str(folder / file), chosen, metadata={"format": "pt"})
        places |= dict.fromkeys(chosen, file)
    total = sum(values.nbytes for values in arrays.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})

"""Random Whisper checkpoints of tiny size, in every layout."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from funasr_cli.checkpoints.bart import MODULES
from funasr_cli.families.whisper import tokens

WIDTH, HEADS, LAYERS, MELS, VOCABULARY = 128, 2, 2, 80, 51865
HEAD_PAIRS = [[0, 1], [1, 0]]


def random_tensors(
    seed: int = 0, vocab_size: int = VOCABULARY, decoder_layers: int = LAYERS
) -> dict[str, np.ndarray]:
    """Return tensors with OpenAI's names and axes, float16 as in the releases."""
    rng = np.random.default_rng(seed)

    def values(*shape: int, scale: float) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float16)

    found: dict[str, np.ndarray] = {}

    def layer(name: str, rows: int, columns: int, *, bias: bool = True, gain: float = 1.0) -> None:
        found[f"{name}.weight"] = values(rows, columns, scale=gain / math.sqrt(columns))
        if bias:
            found[f"{name}.bias"] = values(rows, scale=0.1)

    def norm(name: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = 1 + values(WIDTH, scale=0.1), values(WIDTH, scale=0.1)

    for number, rows in ((1, MELS), (2, WIDTH)):
        found[f"encoder.conv{number}.weight"] = values(WIDTH, rows, 3, scale=1 / math.sqrt(3 * rows))
        found[f"encoder.conv{number}.bias"] = values(WIDTH, scale=0.1)
    step = math.log(10_000) / (WIDTH / 2 - 1)
    angles = np.arange(1500)[:, None] * np.exp(-step * np.arange(WIDTH // 2))
    found["encoder.positional_embedding"] = np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float16)
    for side, layers in (("encoder", LAYERS), ("decoder", decoder_layers)):
        for index in range(layers):
            block = f"{side}.blocks.{index}"
            for kind in ("attn", "cross_attn")[: 1 + (side == "decoder")]:
                for part in ("query", "key", "value", "out"):
                    layer(f"{block}.{kind}.{part}", WIDTH, WIDTH, bias=part != "key", gain=2.0)
                norm(f"{block}.{kind}_ln")
            layer(f"{block}.mlp.0", 4 * WIDTH, WIDTH)
            layer(f"{block}.mlp.2", WIDTH, 4 * WIDTH)
            norm(f"{block}.mlp_ln")
        norm("encoder.ln_post" if side == "encoder" else "decoder.ln")
    found["decoder.token_embedding.weight"] = values(vocab_size, WIDTH, scale=0.1)
    found["decoder.positional_embedding"] = values(448, WIDTH, scale=0.5)
    return found


def write_openai(folder: Path, tensors: dict[str, np.ndarray], name: str = "base.pt") -> Path:
    """Write a pickle such as OpenAI's."""
    import torch

    folder.mkdir(parents=True)
    state = {key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}
    torch.save({"dims": {"n_mels": MELS}, "model_state_dict": state}, folder / name)
    return folder


def write_funasr(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write a folder such as ``iic/Whisper-large-v3``."""
    write_openai(folder, {f"model.{key}": value for key, value in tensors.items()}, "large-v3.pt")
    places = {"file_path_metas": {"init_param": "large-v3.pt"}}
    (folder / "configuration.json").write_text(json.dumps(places), encoding="utf-8")
    (folder / "config.yaml").write_text("model: WhisperWarp\nfrontend: WhisperFrontend\n", encoding="utf-8")
    return folder


def hf_name(name: str) -> str:
    """Return Transformers' name of one of OpenAI's tensors."""
    name = name.replace("mlp.0.", "mlp1.").replace("mlp.2.", "mlp2.")
    if ".blocks." in name:
        side, _, number, *parts, kind = name.split(".")
        module = ".".join(parts)
        there = next(there for there, here in MODULES.items() if here == module)
        return f"model.{side}.layers.{number}.{there}.{kind}"
    for old, new in (
        ("positional_embedding", "embed_positions.weight"), ("token_embedding", "embed_tokens"),
        ("ln_post.", "layer_norm."), ("decoder.ln.", "decoder.layer_norm."),
    ):  # fmt: skip
        name = name.replace(old, new)
    return f"model.{name}"


def write_hf(folder: Path, tensors: dict[str, np.ndarray], *, pickled: bool = False) -> Path:
    """Write a folder in Transformers' layout."""
    folder.mkdir(parents=True)
    renamed = {hf_name(name): np.ascontiguousarray(value) for name, value in tensors.items()}
    if pickled:
        import torch

        torch.save(
            {name: torch.from_numpy(value) for name, value in renamed.items()}, folder / "pytorch_model.bin"
        )
    else:
        save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    vocab_size = tensors["decoder.token_embedding.weight"].shape[0]
    decoder_layers = len({name.split(".")[2] for name in tensors if name.startswith("decoder.blocks.")})
    vocabulary, special = tokens.bundled(vocab_size)
    end, start = special["endoftext"], special["startoftranscript"]
    write(folder / "config.json", {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "vocab_size": vocab_size,
        "num_mel_bins": MELS, "d_model": WIDTH, "encoder_layers": LAYERS, "encoder_attention_heads": HEADS,
        "decoder_layers": decoder_layers, "decoder_attention_heads": HEADS, "encoder_ffn_dim": 4 * WIDTH,
        "decoder_ffn_dim": 4 * WIDTH, "max_source_positions": 1500, "max_target_positions": 448,
        "activation_function": "gelu", "scale_embedding": False, "is_encoder_decoder": True,
        "tie_word_embeddings": True, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end,
        "decoder_start_token_id": start,
    })  # fmt: skip
    write(folder / "generation_config.json", {"alignment_heads": HEAD_PAIRS})
    write(folder / "tokenizer.json", tokenizer(vocabulary, special))
    return folder


def tokenizer(vocabulary: dict[str, int], special: dict[str, int]) -> dict[str, Any]:
    """Return the content of a ``tokenizer.json`` as some repositories have it: without time tokens and merges."""
    named = {name: number for name, number in special.items() if "." not in name}
    added = [{"id": number, "content": f"<|{name}|>", "special": True} for name, number in named.items()]
    end = {"<|endoftext|>": special["endoftext"]}  # also among the others
    return {"model": {"type": "BPE", "vocab": vocabulary | end, "merges": []}, "added_tokens": added}


def write_mlx(folder: Path, tensors: dict[str, np.ndarray], *, npz: bool = False) -> Path:
    """Write a folder such as mlx-whisper's."""
    folder.mkdir(parents=True)
    weights = {
        name.replace("mlp.0.", "mlp1.").replace("mlp.2.", "mlp2."): np.ascontiguousarray(
            value.swapaxes(1, 2) if value.ndim == 3 else value
        )
        for name, value in tensors.items()
        if name != "encoder.positional_embedding"
    }
    weights["alignment_heads"] = np.array(HEAD_PAIRS, np.int32)
    if npz:
        np.savez(folder / "weights.npz", **weights)
    else:
        save_file(weights, folder / "weights.safetensors", {"format": "mlx"})
    write(folder / "config.json", {"model_type": "whisper", "n_audio_state": WIDTH})
    return folder


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")

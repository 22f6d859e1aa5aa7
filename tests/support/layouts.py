"""An upstream checkpoint in the layouts of other programs, written without those programs.

`parity/test_parity_layouts.py` compares the result with what their own code writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from support.tokenizers_bpe import write_json

from tools.peers.workers.transformers_port import port_config, port_tensors

Tensors = dict[str, torch.Tensor]
LM_HEAD = "lm_head.weight"
OF_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def read_configuration(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `config.yaml` and the decoder's `config.json`."""
    options = yaml.safe_load((checkpoint / "config.yaml").read_text(encoding="utf-8"))
    return options, json.loads((llm_folder(checkpoint) / "config.json").read_text(encoding="utf-8"))


def read_tensors(checkpoint: Path) -> Tensors:
    return torch.load(checkpoint / "model.pt", weights_only=True)["state_dict"]


def llm_folder(checkpoint: Path) -> Path:
    [folder] = (path for path in checkpoint.iterdir() if path.is_dir())
    return folder


def write_transformers(checkpoint: Path, out: Path, shards: int = 1) -> Path:
    """Write what `save_pretrained` of `FunAsrNanoForConditionalGeneration` and of its tokenizer would."""
    (options, llm), tensors = read_configuration(checkpoint), read_tensors(checkpoint)
    out.mkdir(parents=True)
    options["audio_adaptor_conf"].setdefault("attention_heads", 8)
    write_json(out / "config.json", {"model_type": "fun_asr_nano", **port_config(options, llm)})
    ported = {
        name: value.contiguous() for name, value in port_tensors(tensors, options["audio_encoder_conf"]).items()
    }
    if llm["tie_word_embeddings"]:
        del ported[LM_HEAD]
    names = list(ported)
    parts = [names[shard::shards] for shard in range(shards)]
    files = {f"model-{number:05}-of-{shards:05}.safetensors": part for number, part in enumerate(parts, start=1)}
    if shards == 1:
        files = {"model.safetensors": names}
    else:
        index = {name: file for file, part in files.items() for name in part}
        write_json(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    for file, part in files.items():
        save_file({name: ported[name].contiguous() for name in part}, out / file, metadata={"format": "pt"})
    for name in OF_TOKENIZER:
        (out / name).write_bytes((llm_folder(checkpoint) / name).read_bytes())
    return out


def write_mlx_audio(checkpoint: Path, out: Path) -> Path:
    """Write what `mlx_audio.stt.models.fun_asr_nano.convert` would if it knew other sizes than the release's."""
    (options, llm), tensors = read_configuration(checkpoint), read_tensors(checkpoint)
    source, folder = llm_folder(checkpoint), out / "Qwen3-0.6B"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    del tensors["llm.lm_head.weight"]  # tied or not
    converted = {
        name: (value.transpose(-1, -2) if name.endswith(".fsmn_block.weight") else value).contiguous()
        for name, value in tensors.items()
    }
    save_file(converted, out / "model.safetensors", metadata={"format": "mlx"})
    frontend, encoder = options["frontend_conf"], options["audio_encoder_conf"]
    encoder = {name: value for name, value in encoder.items() if name in ENCODER_KEYS}
    adaptor = {name: value for name, value in options["audio_adaptor_conf"].items() if name != "freeze"}
    config = {
        "model_type": "fun_asr_nano", "model_repo": "FunAudioLLM/Fun-ASR-Nano-2512",
        "input_size": frontend["n_mels"] * frontend["lfr_m"], "qwen_tokenizer_path": folder.name,
        "frontend_conf": frontend,
        "audio_encoder_conf": encoder | {"sanm_shift": options["audio_encoder_conf"]["sanm_shfit"]},
        "audio_adaptor_conf": {"attention_heads": 8} | adaptor, "text_config": llm, "default_max_tokens": 512,
    }  # fmt: skip
    write_json(out / "config.json", config)
    return out


ENCODER_KEYS = {
    "output_size", "attention_heads", "linear_units", "num_blocks", "tp_blocks", "dropout_rate",
    "positional_dropout_rate", "attention_dropout_rate", "normalize_before", "kernel_size", "feat_permute",
}  # fmt: skip

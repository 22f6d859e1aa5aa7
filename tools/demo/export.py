"""Write trained weights in upstream's layout: model.pt, config.yaml, Qwen3-0.6B/ and multilingual.tiktoken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer

from .network import ADAPTOR_CONF, CTC_DECODER_CONF, ENCODER_CONF, LLM_CONF, DemoNetwork
from .vocabulary import END_OF_TEXT, END_OF_TURN, QWEN_SPECIAL

LLM_FOLDER = "Qwen3-0.6B"


def export(network: DemoNetwork, tokenizer: Tokenizer, ranks: Path, out: Path) -> None:
    """Write the checkpoint. The weights are rounded to bfloat16 only here."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in network.state_dict().items()}
    torch.save({"state_dict": tensors}, out / "model.pt")
    config = upstream_config(network.blank + 1)
    (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    llm_path = {"init_param_path": LLM_FOLDER}
    metas = {
        "init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": llm_path, "llm_conf": llm_path,
        "dataset_conf": {"ctc_tokenizer_conf": {"vocab_path": "multilingual.tiktoken"}},
    }  # fmt: skip
    configuration = {"framework": "pytorch", "task": "auto-speech-recognition", "file_path_metas": metas}
    _write_json(out / "configuration.json", configuration)
    shutil.copyfile(ranks, out / "multilingual.tiktoken")
    _write_llm_folder(out / LLM_FOLDER, tokenizer)


def upstream_config(ctc_vocab_size: int) -> dict[str, Any]:
    """Return the content of `config.yaml`, with the release's keys."""
    return {
        "model": "FunASRNano",
        "model_conf": {"lsm_weight": 0.1, "length_normalized_loss": True},
        "audio_encoder": "SenseVoiceEncoderSmall",
        "audio_encoder_conf": {**ENCODER_CONF, "freeze": True, "freeze_layer_num": -1},
        "llm": "Qwen3-0.6b",
        "llm_conf": {
            "hub": "hf", "freeze": True, "llm_dtype": "bf16", "init_param_path": LLM_FOLDER, "use_lora": False,
        },
        "audio_adaptor": "Transformer",
        "audio_adaptor_conf": {**ADAPTOR_CONF, "freeze": True},
        "ctc_decoder": "Transformer",
        "ctc_decoder_conf": {**CTC_DECODER_CONF, "freeze": False},
        "ctc_vocab_size": ctc_vocab_size,
        "ctc_weight": 1.0,
        "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "ignore_nan_grad": True},
        "detach_ctc_decoder": True,
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10, "lfr_m": 7,
            "lfr_n": 6, "cmvn_file": None,
        },
        "dataset_conf": {
            "ctc_tokenizer": "SenseVoiceTokenizer",
            "ctc_tokenizer_conf": {"vocab_path": None, "is_multilingual": True, "num_languages": 8749},
        },
        "tokenizer": "HuggingfaceTokenizer",
        "tokenizer_conf": {"init_param_path": "${llm_conf.init_param_path}"},
    }  # fmt: skip


def _write_llm_folder(folder: Path, tokenizer: Tokenizer) -> None:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    padding, end = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(END_OF_TURN)
    added = {
        str(index): {
            "content": token.content, "lstrip": token.lstrip, "normalized": token.normalized,
            "rstrip": token.rstrip, "single_word": token.single_word, "special": token.special,
        }
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }  # fmt: skip
    tokenizer_config = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
        "additional_special_tokens": QWEN_SPECIAL[1:], "bos_token": None, "eos_token": END_OF_TURN,
        "clean_up_tokenization_spaces": False, "errors": "replace", "model_max_length": 131072,
        "pad_token": END_OF_TEXT, "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }  # fmt: skip
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    config = {
        "architectures": ["Qwen3ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": padding,
        "eos_token_id": end, "hidden_act": "silu", "initializer_range": 0.02,
        "max_window_layers": LLM_CONF["num_hidden_layers"], "model_type": "qwen3", "rope_scaling": None,
        "sliding_window": None, "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False,
        "vocab_size": tokenizer.get_vocab_size(), **LLM_CONF,
    }  # fmt: skip
    _write_json(folder / "config.json", config)
    generation = {"bos_token_id": padding, "pad_token_id": padding, "eos_token_id": [end, padding]}
    _write_json(folder / "generation_config.json", generation | {"do_sample": False})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""Translate FunASR's checkpoints to the names of the port in transformers.

Transformers itself is not needed here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

RENAMED = (
    ("feed_forward.w_", "mlp.fc"),
    ("self_attn.fsmn_block", "self_attn.fsmn.conv"),
    ("self_attn.linear_out", "self_attn.o_proj"),
    ("norm1", "input_layernorm"),
    ("norm2", "post_attention_layernorm"),
    ("audio_adaptor.blocks", "model.multi_modal_projector.layers"),
    ("audio_adaptor.linear", "model.multi_modal_projector.linear_"),
    ("llm.model", "model.language_model"),
    ("llm.lm_head", "lm_head"),
)


def port_config(options: dict, llm: dict) -> dict:
    """Return the arguments of `FunAsrNanoConfig` that correspond to FunASR's configuration."""
    encoder, adaptor = options["audio_encoder_conf"], options["audio_adaptor_conf"]
    return {
        "audio_config": {
            "model_type": "fun_asr_nano_encoder",
            "num_mel_bins": options["frontend_conf"]["n_mels"],
            "num_stacked_frames": options["frontend_conf"]["lfr_m"],
            "hidden_size": encoder["output_size"],
            "num_attention_heads": encoder["attention_heads"],
            "intermediate_size": encoder["linear_units"],
            "num_hidden_layers": encoder["num_blocks"] + encoder["tp_blocks"],
            "num_timestamp_prediction_layers": encoder["tp_blocks"],
            "fsmn_kernel_size": encoder["kernel_size"],
        },
        "adaptor_config": {
            "hidden_size": llm["hidden_size"],
            "intermediate_size": llm["hidden_size"] // 4,
            "num_attention_heads": adaptor["attention_heads"],
            "num_hidden_layers": adaptor["n_layer"],
            "projector_hidden_size": adaptor["ffn_dim"],
        },
        "text_config": llm,
        "audio_token_id": llm["vocab_size"] - 1,  # any token that is not in the prompt
        "eos_token_id": llm["eos_token_id"],
        "tie_word_embeddings": llm["tie_word_embeddings"],
    }


def port_tensors(stored: dict[str, torch.Tensor], encoder: dict) -> dict[str, torch.Tensor]:
    """Return FunASR's tensors under the port's names."""
    blocks, last = encoder["num_blocks"], encoder["num_blocks"] + encoder["tp_blocks"] - 1
    starts = {"encoders0": 0, "encoders": 1, "tp_encoders": blocks}
    tensors = {}
    for name, tensor in stored.items():
        name = name.replace("audio_encoder.after_norm", f"model.audio_tower.layers.{blocks - 1}.final_layernorm")
        name = name.replace("audio_encoder.tp_norm", f"model.audio_tower.layers.{last}.final_layernorm")
        name = re.sub(
            r"^audio_encoder\.(\w+)\.(\d+)\.",
            lambda match: f"model.audio_tower.layers.{starts[match[1]] + int(match[2])}.",
            name,
        )
        if not name.startswith("llm."):
            name = re.sub(r"linear_([qkv])\.", r"\1_proj.", name)
        for old, new in RENAMED:
            name = name.replace(old, new)
        parts = tensor.chunk(3) if ".linear_q_k_v." in name else ()
        for letter, part in zip("qkv", parts, strict=False):
            tensors[name.replace("linear_q_k_v", f"{letter}_proj")] = part.clone()
        if not parts:
            tensors[name] = tensor
    return tensors

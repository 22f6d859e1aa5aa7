"""The port in transformers: FOLDER, a checkpoint in FunASR's layout, whose tensors are renamed here.

Its feature extractor asks for torchaudio, which has no build for this torch: features come from FunASR's own.
"""

from __future__ import annotations

import json
import re
import sys

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

import torch
import yaml
from funasr.frontends.wav_frontend import WavFrontend
from funasr.utils.load_utils import extract_fbank, load_audio_text_image_video
from run_funasr import THREADS, Stopwatch
from transformers import AutoTokenizer, FunAsrNanoConfig, FunAsrNanoForConditionalGeneration

BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n语音转写成中文："
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
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


class Transformers:
    """`generate` of `FunAsrNanoForConditionalGeneration`, in float32."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(THREADS)
        with open(f"{folder}/config.yaml", encoding="utf-8") as file:
            options = yaml.safe_load(file)
        llm = f"{folder}/{options['llm_conf']['init_param_path']}"
        with open(f"{llm}/config.json", encoding="utf-8") as file:
            self.config = port_config(options, json.load(file))
        stored = torch.load(f"{folder}/model.pt", mmap=True)["state_dict"]
        tensors = port_tensors(stored, options["audio_encoder_conf"])
        self.model, report = FunAsrNanoForConditionalGeneration.from_pretrained(
            None,
            config=self.config,
            state_dict=tensors,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
        if any(report.values()):
            raise ValueError(f"the checkpoint does not fit the port: {report}")
        self.model.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(llm)
        self.frontend = WavFrontend(**options["frontend_conf"], dither=0.0)

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """As `serving.Engine`."""
        [clip] = clips
        features, lengths = extract_fbank(
            load_audio_text_image_video(clip, fs=self.frontend.fs), frontend=self.frontend, is_final=True
        )  # (1, rows, 560)
        rows = int(lengths[0])
        before, after = self.tokenizer.encode(BEFORE), self.tokenizer.encode(AFTER)
        ids = torch.tensor([before + [self.config.audio_token_id] * rows + after])
        watch = Stopwatch()
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                input_features=features,
                input_features_mask=torch.ones(1, rows, dtype=torch.long),
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                streamer=watch,
            )[0, ids.shape[1] :]
        return watch.first, [len(written)], [self.tokenizer.decode(written, skip_special_tokens=True).strip()]


def port_config(options: dict, llm: dict) -> FunAsrNanoConfig:
    """FunASR's configuration in the port's words."""
    encoder, adaptor = options["audio_encoder_conf"], options["audio_adaptor_conf"]
    return FunAsrNanoConfig(
        audio_config={
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
        adaptor_config={
            "hidden_size": llm["hidden_size"],
            "intermediate_size": llm["hidden_size"] // 4,
            "num_attention_heads": adaptor["attention_heads"],
            "num_hidden_layers": adaptor["n_layer"],
            "projector_hidden_size": adaptor["ffn_dim"],
        },
        text_config=llm,
        audio_token_id=llm["vocab_size"] - 1,  # any that is not in the prompt
        eos_token_id=llm["eos_token_id"],
        tie_word_embeddings=llm["tie_word_embeddings"],
    )


def port_tensors(stored: dict[str, torch.Tensor], encoder: dict) -> dict[str, torch.Tensor]:
    """FunASR's tensors under the port's names, in float32."""
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
        parts = tensor.float().chunk(3) if ".linear_q_k_v." in name else ()
        for letter, part in zip("qkv", parts, strict=False):
            tensors[name.replace("linear_q_k_v", f"{letter}_proj")] = part.clone()
        if not parts:
            tensors[name] = tensor.float()
    return tensors


serve(Transformers(sys.argv[1]), ANSWERS, ("transformers", "torch"))

"""Run the port in transformers. Argument: FOLDER, a checkpoint in FunASR's layout; its tensors are renamed here.

The port's feature extractor needs torchaudio, which has no build for this torch version, so FunASR computes the
features.
"""

from __future__ import annotations

import json
import sys

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

import torch
import yaml
from funasr.frontends.wav_frontend import WavFrontend
from funasr.utils.load_utils import extract_fbank, load_audio_text_image_video
from run_funasr import THREADS, Stopwatch
from transformers import AutoTokenizer, FunAsrNanoConfig, FunAsrNanoForConditionalGeneration
from transformers_port import port_config, port_tensors

BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n语音转写成中文："
AFTER = "<|im_end|>\n<|im_start|>assistant\n"


class Transformers:
    """`generate` of `FunAsrNanoForConditionalGeneration`, in float32."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(THREADS)
        with open(f"{folder}/config.yaml", encoding="utf-8") as file:
            options = yaml.safe_load(file)
        llm = f"{folder}/{options['llm_conf']['init_param_path']}"
        with open(f"{llm}/config.json", encoding="utf-8") as file:
            self.config = FunAsrNanoConfig(**port_config(options, json.load(file)))
        stored = torch.load(f"{folder}/model.pt", mmap=True)["state_dict"]
        tensors = port_tensors(stored, options["audio_encoder_conf"])
        self.model, report = FunAsrNanoForConditionalGeneration.from_pretrained(
            None,
            config=self.config,
            state_dict={name: value.float() for name, value in tensors.items()},
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
        """Transcribe; see `serving.Engine`."""
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


serve(Transformers(sys.argv[1]), ANSWERS, ("transformers", "torch"))

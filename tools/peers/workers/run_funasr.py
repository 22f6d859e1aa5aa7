"""Run FunASR on PyTorch. Arguments: FOLDER, a checkpoint in its layout; TYPE of the decoder (fp32, bf16)."""

from __future__ import annotations

import os
import sys
import time

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

import torch
import yaml
from funasr import AutoModel

THREADS = int(os.environ["OMP_NUM_THREADS"])


class Stopwatch:
    """A streamer for `generate` of transformers that counts tokens and records the time of the first one."""

    def __init__(self) -> None:
        self.first = 0.0
        self.calls = 0

    def put(self, _: torch.Tensor) -> None:
        """Count a call: the first one has the prompt, each further one a token."""
        self.calls += 1
        if self.calls == 2:
            self.first = time.perf_counter()

    def end(self) -> None:
        """Do nothing; `generate` calls this at the end."""

    @property
    def tokens(self) -> int:
        """Number of tokens written so far for each row."""
        return self.calls - 1


class FunASR:
    """`AutoModel.generate`."""

    def __init__(self, folder: str, llm_type: str) -> None:
        with open(f"{folder}/config.yaml", encoding="utf-8") as file:
            config = yaml.safe_load(file)
        llm = f"{folder}/{config['llm_conf']['init_param_path']}"
        self.model = AutoModel(
            model=folder,
            device="cpu",
            ncpu=THREADS,
            disable_update=True,
            disable_pbar=True,
            log_level="ERROR",
            frontend_conf={**config["frontend_conf"], "dither": 0.0},
            llm_conf={"hub": "hf", "init_param_path": llm, "llm_dtype": llm_type},
            tokenizer_conf={"init_param_path": llm},
            llm_dtype=llm_type,
        )
        torch.set_num_threads(THREADS)

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """Transcribe; see `serving.Engine`."""
        watch = Stopwatch()
        results = self.model.generate(
            input=clips,
            batch_size=len(clips),
            language="中文",
            max_length=tokens,
            llm_kwargs={"do_sample": False, "min_new_tokens": tokens, "streamer": watch},
        )
        return watch.first, [watch.tokens] * len(results), [result["text"].strip() for result in results]


if __name__ == "__main__":
    serve(FunASR(*sys.argv[1:3]), ANSWERS, ("funasr", "torch", "transformers"))

"""FunASR on PyTorch: FOLDER TYPE, a checkpoint in its own layout and the type of the decoder (fp32, bf16)."""

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
    """A streamer for `generate` of transformers: when the first token came, and how many."""

    def __init__(self) -> None:
        self.first = 0.0
        self.calls = 0

    def put(self, _: torch.Tensor) -> None:
        """Called with the prompt, then with every token."""
        self.calls += 1
        if self.calls == 2:
            self.first = time.perf_counter()

    def end(self) -> None:
        """Called at the end."""

    @property
    def tokens(self) -> int:
        """Written so far, for each row."""
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
        """As `serving.Engine`."""
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

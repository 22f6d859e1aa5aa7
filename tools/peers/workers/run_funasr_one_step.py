"""Run FunASR on PyTorch with Paraformer or SenseVoice. Argument: FOLDER, a checkpoint in its layout."""

from __future__ import annotations

import os
import sys
import time

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

import torch
from funasr import AutoModel

THREADS = int(os.environ["OMP_NUM_THREADS"])


class FunASR:
    """`AutoModel.generate`."""

    def __init__(self, folder: str) -> None:
        self.model = AutoModel(
            model=folder, device="cpu", ncpu=THREADS, disable_update=True, disable_pbar=True, log_level="ERROR",
            frontend_conf={"dither": 0.0},
        )  # fmt: skip
        torch.set_num_threads(THREADS)

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """Transcribe; see `serving.Engine`. The number of tokens is that of the text, and not reported."""
        results = self.model.generate(input=clips, batch_size=len(clips))
        return time.perf_counter(), [tokens] * len(clips), [result["text"] for result in results]


serve(FunASR(sys.argv[1]), ANSWERS, ("funasr", "torch"))

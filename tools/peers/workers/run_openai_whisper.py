"""Run openai-whisper in float32, greedily. Argument: FOLDER with base.pt."""

from __future__ import annotations

import sys

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

import os
import time

import torch
import whisper
from whisper_audio import read_wav


class OpenAI:
    """`whisper.transcribe`: windows of 30 s in turn, with times; no fallback, no previous text."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.model = whisper.load_model(f"{folder}/base.pt", device="cpu").float()

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """Transcribe; see `serving.Engine`. The number of tokens is that of the text, and not reported."""
        options = {"language": "en", "temperature": 0.0, "condition_on_previous_text": False, "fp16": False}
        texts = [whisper.transcribe(self.model, read_wav(clip), **options)["text"] for clip in clips]
        return time.perf_counter(), [tokens] * len(clips), texts


serve(OpenAI(sys.argv[1]), ANSWERS, ("openai-whisper", "torch"))

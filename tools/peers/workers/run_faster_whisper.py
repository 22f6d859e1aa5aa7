"""Run faster-whisper greedily. Arguments: FOLDER of CTranslate2, number type, "batched" or "in turn"."""

from __future__ import annotations

import sys

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

import os
import time

from faster_whisper import BatchedInferencePipeline, WhisperModel
from whisper_audio import read_wav


class FasterWhisper:
    """Its pipeline with voice activity detection and batches of 16 windows, or its windows in turn, with times."""

    def __init__(self, folder: str, number_type: str, order: str) -> None:
        threads = int(os.environ["OMP_NUM_THREADS"])
        self.model = WhisperModel(folder, device="cpu", compute_type=number_type, cpu_threads=threads)
        self.run = self.model.transcribe
        self.options = {"language": "en", "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
        if order == "batched":
            self.run = BatchedInferencePipeline(self.model).transcribe
            self.options["batch_size"] = 16

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """Transcribe; see `serving.Engine`. The number of tokens is that of the text, and not reported."""
        texts = []
        for clip in clips:
            segments, _ = self.run(read_wav(clip), **self.options)
            texts.append(" ".join(segment.text.strip() for segment in segments))
        return time.perf_counter(), [tokens] * len(clips), texts


serve(FasterWhisper(*sys.argv[1:]), ANSWERS, ("faster-whisper", "ctranslate2"))

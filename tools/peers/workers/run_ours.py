"""Run this project. Arguments: FOLDER, a converted model; ENGINE (mlx, native); TYPE (float32, int8)."""

from __future__ import annotations

import sys
import time

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

from pathlib import Path

from funasr_cli.compute.backend import mx
from funasr_cli.families.load import load_model
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from tools.counting import counting


class Ours:
    """This project on MLX with default options, except the number of tokens and no voice activity detection."""

    counting = staticmethod(counting)
    settle = staticmethod(mx.synchronize)

    def __init__(self, folder: str, engine: str, dtype: str) -> None:
        self.recognizer = Recognizer(load_model(Path(folder), dtype, engine))
        self.computed_by = self.recognizer.model.engine

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """Transcribe; see `serving.Engine`."""
        options = TranscribeOptions(language="zh", vad=False, exact_tokens=tokens, batch_size=len(clips))
        called = time.perf_counter()
        results = self.recognizer.transcribe_batch(clips, options)
        first = called + min(result.timings.first_token_s for result in results)
        return first, [result.timings.tokens for result in results], [result.text for result in results]


serve(Ours(*sys.argv[1:4]), ANSWERS, ("mlx", "mkl"))

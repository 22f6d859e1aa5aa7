"""Run this project with a model that reads a clip in one step. Arguments: FOLDER, engine, number type."""

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


class Ours:
    """`Recognizer.transcribe_batch` without voice activity detection."""

    settle = staticmethod(mx.synchronize)

    def __init__(self, folder: str, engine: str, dtype: str) -> None:
        self.recognizer = Recognizer(load_model(Path(folder), dtype, engine))
        self.computed_by = self.recognizer.model.engine

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """Transcribe; see `serving.Engine`. The number of tokens is that of the text, and not reported."""
        results = self.recognizer.transcribe_batch(clips, TranscribeOptions(vad=False, batch_size=len(clips)))
        return time.perf_counter(), [tokens] * len(clips), [result.text for result in results]


serve(Ours(*sys.argv[1:4]), ANSWERS, ("mlx", "mkl"))

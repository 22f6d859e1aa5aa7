"""Run mlx-audio. Arguments: FOLDER, a checkpoint in its layout; COUNTING, the path of `tools/counting.py`."""

from __future__ import annotations

import importlib.util
import sys
import time
from types import ModuleType
from typing import Any

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_audio.lm.generate import generate_step
from mlx_audio.stt import load
from mlx_audio.stt.models.fun_asr_nano.fun_asr_nano import _normalise_text_for_join


def load_counting(path: str) -> Any:
    """Load this project's module for counting operations, with the MLX of this environment."""
    for name in ("funasr_cli", "funasr_cli.compute.backend"):
        sys.modules[name] = ModuleType(name)
    vars(sys.modules["funasr_cli.compute.backend"]).update(mx=mx, nn=nn, tree_flatten=tree_flatten)
    spec = importlib.util.spec_from_file_location("counting", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["counting"] = module
    spec.loader.exec_module(module)
    return module.counting


class MLXAudio:
    """The model as loaded by `mlx_audio.stt.load`, in bfloat16."""

    settle = staticmethod(mx.synchronize)

    def __init__(self, folder: str, counting: str) -> None:
        self.model = load(folder)
        self.counting = load_counting(counting)

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """Transcribe like `stream_generate` of the model, but never stop early; see `serving.Engine`."""
        [clip] = clips
        ids, embeddings = self.model._build_inputs_embeds(clip, language="zh", hotwords=None, itn=True)
        written, first = [], 0.0
        for token, _ in generate_step(
            prompt=ids[0], input_embeddings=embeddings[0], model=self.model, max_tokens=tokens
        ):
            first = first or time.perf_counter()
            written.append(int(token))
        text = self.model._tokenizer.decode(written, skip_special_tokens=True)
        return first, [len(written)], [_normalise_text_for_join(text)]


serve(MLXAudio(*sys.argv[1:3]), ANSWERS, ("mlx-audio", "mlx"))

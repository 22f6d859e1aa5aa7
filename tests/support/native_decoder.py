"""A three-layer decoder of the C library, and the same on MLX."""

from dataclasses import replace
from functools import cache

import numpy as np
from mlx.utils import tree_flatten
from support.native import LIBRARY
from support.native_arrays import Arrays

from funasr_cli.compute.backend import mx
from funasr_cli.models.qwen3 import Qwen3, Qwen3Config
from funasr_cli.native.encoder import NativeEncoder
from funasr_cli.native.library import INT8
from funasr_cli.native.qwen3 import NativeQwen3

WIDTH, VOCAB = 128, 150
CONFIG = Qwen3Config(
    hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
    intermediate_size=192, vocab_size=VOCAB, rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=True,
    attention_bias=False,
)  # fmt: skip


@cache
def reference(eps: float = CONFIG.rms_norm_eps) -> Qwen3:
    mx.random.seed(11)
    llm = Qwen3(replace(CONFIG, rms_norm_eps=eps))
    for name, value in tree_flatten(llm.parameters()):
        if "norm" in name:
            llm.load_weights([(name, 1 + 0.3 * mx.random.normal(value.shape))], strict=False)
    return llm


def make(
    weights: int = INT8,
    name: str | None = None,
    threads: int = 2,
    config: Qwen3Config = CONFIG,
    **changed: np.ndarray,  # matrices by the last part of their name
) -> NativeQwen3:
    return NativeQwen3(NativeEncoder(LIBRARY, threads, name), Arrays(reference(), weights, **changed), config)


def prompt(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal((length, WIDTH)).astype(np.float32)


def run(native: NativeQwen3, embeddings: np.ndarray) -> np.ndarray:
    """Compute the hidden states of a new row."""
    return native.run([native.new_row()], [embeddings])[0]

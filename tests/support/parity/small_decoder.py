"""A two-layer decoder on both engines, for tests that need no checkpoint."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.native import LIBRARY
from support.native_arrays import Arrays

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.models.qwen3 import Qwen3, Qwen3Config
from funasr_cli.native.decoder import NativeDecoder
from funasr_cli.native.encoder import NativeEncoder
from funasr_cli.native.library import FLOAT32, INT8
from funasr_cli.native.qwen3 import NativeQwen3
from funasr_cli.options import DEFAULTS, TranscribeOptions

VOCAB_SIZE = 40
WIDTH = 64
CONFIG = Qwen3Config(
    hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    intermediate_size=64, vocab_size=VOCAB_SIZE, rope_theta=1e4, rms_norm_eps=1e-6, tie_word_embeddings=False,
    attention_bias=False,
)  # fmt: skip


def small_decoder() -> Qwen3:
    """Return a decoder with fixed weights and varied output. A tied head would repeat the same token."""
    mx.random.seed(3)
    llm = Qwen3(CONFIG)
    llm.model.embed_tokens.weight = mx.random.normal((VOCAB_SIZE, WIDTH))
    llm.lm_head.weight = mx.random.normal((VOCAB_SIZE, WIDTH))
    for layer in llm.model.layers:
        for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
            norm.weight = norm.weight * 3
        for part in (layer.self_attn.v_proj, layer.self_attn.o_proj, layer.mlp.down_proj):
            part.weight = part.weight * 3
    return llm


@cache
def random_prompt(length: int, seed: int | None = None) -> mx.array:
    """Return (length, hidden) embeddings; by default, the length is the seed."""
    return mx.array(
        np.random.default_rng(length if seed is None else seed).standard_normal((length, WIDTH)).astype(np.float32)
    )


def decode_in_one_pass(llm: Qwen3, prompt: mx.array) -> np.ndarray:
    """Return (length, hidden) of one row in a single pass, with an empty cache."""
    return np.array(llm(prompt[None], llm.make_cache(1))[0])


def written_alone(
    llm: Qwen3 | NativeDecoder, prompt: mx.array, count: int, options: TranscribeOptions = DEFAULTS
) -> list[tuple[int, float]]:
    """Return ids and log-probabilities of one row, recomputed for each token: no cache, batch or look-ahead."""
    sampler = make_sampler(options)
    written: list[tuple[int, float]] = []
    for step in range(count):
        ids = [token_id for token_id, _ in written]
        rows = mx.concatenate([prompt, mx.array(llm.embed(mx.array(ids)))]) if ids else prompt
        logits = np.array(llm.logits_after(rows, 1))[0]  # (vocab,)
        chosen = int(sampler(mx.array(logits[None]), [step])[0]) if options.temperature else int(logits.argmax())
        written.append((chosen, float(logits[chosen] - np.log(np.exp(logits.astype(np.float64)).sum()))))
    return written


def on_native(llm: Qwen3, weights: int) -> NativeDecoder:
    """Return the same decoder, computed by the C library."""
    return NativeQwen3(NativeEncoder(LIBRARY), Arrays(llm, weights), CONFIG)


LLM = small_decoder()
ENGINES: dict[str, Qwen3 | NativeDecoder] = {"mlx": LLM}
if LIBRARY:
    ENGINES |= {"native float32": on_native(LLM, FLOAT32), "native int8": on_native(LLM, INT8)}
on_both_engines = pytest.mark.parametrize("engine", ENGINES)
SAMPLING = TranscribeOptions(temperature=1.3, top_k=20, top_p=0.95, seed=7)
LONGEST = 24  # tokens per row
LOGPROB_TOLERANCE = 5e-4  # measured: 3e-5


@cache
def written(length: int, options: TranscribeOptions, engine: str = "mlx") -> list[tuple[int, float]]:
    """Return ids and log-probabilities of the row with a prompt of this length, decoded alone."""
    return written_alone(ENGINES[engine], random_prompt(length), LONGEST, options)


class Watched:
    """A batch decoder that compares every token with the same row decoded alone, with or without a draft."""

    def __init__(self, options: TranscribeOptions = DEFAULTS, engine: str = "mlx"):
        self.decoder = BatchDecoder(ENGINES[engine], make_sampler(options))
        self.options, self.engine = options, engine
        self.live: dict[int, tuple[int, Any]] = {}  # row -> length of its prompt, draft or None
        self.tokens: dict[int, int] = {}  # row -> number of tokens so far
        self.passes: dict[int, int] = {}

    def add(self, lengths: list[int], drafts: Sequence[Any] = ()) -> None:
        drafts = drafts or [None] * len(lengths)
        numbers = self.decoder.add([random_prompt(length) for length in lengths], list(drafts))
        assert numbers == list(range(len(self.tokens), len(self.tokens) + len(lengths)))
        self.live |= dict(zip(numbers, zip(lengths, drafts, strict=True), strict=True))
        self.tokens |= dict.fromkeys(numbers, 0)
        self.passes |= dict.fromkeys(numbers, 0)

    def step(self) -> None:
        tokens = self.decoder.step()
        assert list(dict.fromkeys(token.row for token in tokens)) == list(self.live)
        own = [token.row for token in tokens if not token.drafted]
        assert own == list(self.live), "each step gives each row one token beyond its draft"
        for row in own:
            self.passes[row] += 1
        for token in tokens:
            if token.row in self.live:  # else the row ended before its last token
                self._compare(token)

    def _compare(self, token: Token) -> None:
        length, draft = self.live[token.row]
        token_id, logprob = written(length, self.options, self.engine)[self.tokens[token.row]]
        assert token.token_id == token_id
        assert token.logprob == pytest.approx(logprob, abs=LOGPROB_TOLERANCE)
        self.tokens[token.row] += 1
        if draft:
            draft.done += 1
        if self.tokens[token.row] == LONGEST:
            self.end(token.row)

    def end(self, row: int) -> None:
        self.decoder.end(row)
        del self.live[row]
        assert len(self.decoder) == len(self.live)

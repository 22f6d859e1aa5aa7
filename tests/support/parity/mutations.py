"""Ways to break the model on purpose: each takes a monkeypatch and a freshly loaded recognizer."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from funasr_cli.audio import frontend
from funasr_cli.backend import mx, nn
from funasr_cli.decoding import batch as decoding
from funasr_cli.models import adaptor, fun_asr_nano, qwen3, sanm
from funasr_cli.pipeline import Recognizer
from funasr_cli.stages import Encoded

Mutation = Callable[[pytest.MonkeyPatch, Recognizer], None]


def _sanm_layers(recognizer: Recognizer) -> Iterator[Any]:
    encoder = recognizer.loaded.model.audio_encoder
    yield from (*encoder.encoders0, *encoder.encoders, *encoder.tp_encoders)


def _set_eps(module: Any, kind: type, eps: float) -> None:
    for part in module.modules():
        if isinstance(part, kind):
            part.eps = eps


def positions_from_zero(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    monkeypatch.setattr(sanm, "sinusoidal_positions", functools.partial(sanm.sinusoidal_positions, first=0))


def positions_interleaved(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = sanm.sinusoidal_positions

    def interleaved(frames: int, depth: int) -> mx.array:
        halves = mx.split(original(frames, depth), 2, axis=-1)
        return mx.stack(halves, axis=-1).reshape(frames, depth)

    monkeypatch.setattr(sanm, "sinusoidal_positions", interleaved)


def input_not_scaled(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    recognizer.loaded.model.audio_encoder._input_scale = 1.0


def taps_reversed(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    for layer in _sanm_layers(recognizer):
        block = layer.self_attn.fsmn_block
        block.weight = block.weight[:, ::-1]


def memory_without_the_values(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    monkeypatch.setattr(sanm.SANMAttention, "memory", lambda self, v, valid: self.fsmn_block(v))


def residual_in_encoders0(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = sanm.SANMLayer.__call__

    def with_residual(self: Any, x: mx.array, valid: mx.array | None) -> mx.array:
        if self._residual:
            return original(self, x, valid)
        attended = self.self_attn(self.norm1(x), valid)
        x = x[..., : attended.shape[-1]] + attended
        return x + self.feed_forward(self.norm2(x))

    monkeypatch.setattr(sanm.SANMLayer, "__call__", with_residual)


def no_after_norm(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    recognizer.loaded.model.audio_encoder.after_norm = nn.Identity()


def no_tp_norm(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    recognizer.loaded.model.audio_encoder.tp_norm = nn.Identity()


def encoder_eps_of_the_adaptor(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    _set_eps(recognizer.loaded.model.audio_encoder, nn.LayerNorm, adaptor.LAYER_NORM_EPS)


def adaptor_eps_of_the_encoder(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    _set_eps(recognizer.loaded.model.audio_adaptor, nn.LayerNorm, sanm.LAYER_NORM_EPS)


def decoder_eps_of_the_encoder(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    _set_eps(recognizer.loaded.model.llm, nn.RMSNorm, sanm.LAYER_NORM_EPS)


def adaptor_with_four_heads(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    for block in recognizer.loaded.model.audio_adaptor.blocks:
        block.self_attn._heads = 4


def all_rows_fed(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    monkeypatch.setattr(fun_asr_nano, "audio_token_count", lambda rows, _: rows)


def no_system_turn(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    prompt = dataclasses.replace(recognizer.config.prompt, system_turn=False)
    recognizer.config = dataclasses.replace(recognizer.config, prompt=prompt)


def rope_theta_of_llama(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    for layer in recognizer.loaded.model.llm.model.layers:
        layer.self_attn._config = dataclasses.replace(layer.self_attn._config, rope_theta=1e4)


def rope_of_neighbouring_pairs(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    def rotate(self: Any, x: mx.array, position: Any) -> mx.array:
        config = self._config
        return mx.fast.rope(
            x, config.head_dim, traditional=True, base=config.rope_theta, scale=1.0, offset=position
        )

    monkeypatch.setattr(qwen3.Attention, "_rotate", rotate)


def keys_not_normed(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    for layer in recognizer.loaded.model.llm.model.layers:
        layer.self_attn.k_norm = nn.Identity()


def no_preemphasis(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    monkeypatch.setattr(frontend, "PREEMPHASIS", 0.0)


def kaldis_default_window(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    config = dataclasses.replace(recognizer.config.frontend, window="povey")
    recognizer.frontend = frontend.Frontend(config)


def stacking_without_frames_in_front(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = frontend.Frontend._stack

    def late(self: frontend.Frontend, frames: mx.array) -> mx.array:
        shift = (self.config.stack_frames - 1) // 2
        ending = mx.repeat(frames[-1:], shift, axis=0)
        return original(self, mx.concatenate([frames[shift:], ending]))

    monkeypatch.setattr(frontend.Frontend, "_stack", late)


def blank_is_zero(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    ctc = dataclasses.replace(recognizer.config.ctc, blank_id=0)
    recognizer.config = dataclasses.replace(recognizer.config, ctc=ctc)


# What follows shows in batches alone.


def decoder_padded_on_the_left(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    def left_pad(prompts: list[mx.array]) -> mx.array:
        columns = decoding.bucketed(max(len(prompt) for prompt in prompts))
        return mx.stack([mx.pad(prompt, [(columns - len(prompt), 0), (0, 0)]) for prompt in prompts])

    monkeypatch.setattr(decoding, "right_pad", left_pad)


def encoder_padded_on_the_left(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = Recognizer.encode

    def encode(self: Recognizer, features: list[np.ndarray]) -> Encoded:
        longest = max(len(rows) for rows in features)
        padded = [np.pad(rows, [(longest - len(rows), 0), (0, 0)]) for rows in features]
        return Encoded(original(self, padded).hidden, [len(rows) for rows in features])

    monkeypatch.setattr(Recognizer, "encode", encode)


def encoder_padding_not_masked(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    monkeypatch.setattr("funasr_cli.stages.batch_lengths", lambda *_: None)


def memory_padding_not_masked(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = sanm.SANMAttention.memory
    monkeypatch.setattr(sanm.SANMAttention, "memory", lambda self, v, valid: original(self, v, None))


def adaptor_padding_not_masked(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    monkeypatch.setattr(fun_asr_nano, "batch_lengths", lambda *_: None)

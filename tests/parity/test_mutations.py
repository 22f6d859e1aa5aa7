"""Test the parity checks: they must fail on a model that is broken in a known way.

`test_parity_clips.py` and `test_batches.py` show that they pass on the intact model.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.parity import checks
from support.parity.live import Case, Pair
from support.parity.stages import Stages, compute_batch, compute_case, compute_unpadded, load_clip

from funasr_cli.compute.backend import mx, nn
from funasr_cli.decoding import mlx_batch as decoding
from funasr_cli.families.batches import Frames
from funasr_cli.families.fun_asr_nano import network as fun_asr_nano
from funasr_cli.families.fun_asr_nano.model import NanoModel
from funasr_cli.families.load import load_model
from funasr_cli.features import fbank as frontend
from funasr_cli.models import adaptor, qwen3, sanm
from funasr_cli.pipeline import Recognizer

pytestmark = pytest.mark.slow

# --- ways to break the model; each takes a monkeypatch and a freshly loaded recognizer ---

Mutation = Callable[[pytest.MonkeyPatch, Recognizer], None]


def _set_eps(module: Any, kind: type, eps: float) -> None:
    for part in module.modules():
        if isinstance(part, kind):
            part.eps = eps


def _set_in_all(name: str, value: Any, *parents: Any) -> None:
    """Set an attribute of all parents."""
    for parent in parents:
        setattr(parent, name, value)


def _other_config(recognizer: Recognizer, part: str, **changes: Any) -> None:
    changed = dataclasses.replace(getattr(recognizer.model.config, part), **changes)
    recognizer.model.config = dataclasses.replace(recognizer.model.config, **{part: changed})


def _encoder(recognizer: Recognizer) -> Any:
    return recognizer.model.network.audio_encoder


def _decoder_attention(recognizer: Recognizer) -> list[Any]:
    return [layer.self_attn for layer in recognizer.model.network.llm.model.layers]


def taps_reversed(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    encoder = _encoder(recognizer)
    for layer in (*encoder.encoders0, *encoder.encoders, *encoder.tp_encoders):
        block = layer.self_attn.fsmn_block
        block.weight = block.weight[:, ::-1]


def kaldis_default_window(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    config = dataclasses.replace(recognizer.model.config.frontend, window="povey")
    recognizer.model.frontend = frontend.Frontend(config)


def positions_interleaved(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = sanm.sinusoidal_positions

    def interleaved(frames: int, depth: int) -> mx.array:
        halves = mx.split(original(frames, depth), 2, axis=-1)
        return mx.stack(halves, axis=-1).reshape(frames, depth)

    monkeypatch.setattr(sanm, "sinusoidal_positions", interleaved)


def residual_in_encoders0(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = sanm.SANMLayer.__call__

    def with_residual(self: Any, x: mx.array, valid: mx.array | None) -> mx.array:
        if self._residual:
            return original(self, x, valid)
        attended = self.self_attn(self.norm1(x), valid)
        x = x[..., : attended.shape[-1]] + attended
        return x + self.feed_forward(self.norm2(x))

    monkeypatch.setattr(sanm.SANMLayer, "__call__", with_residual)


def rope_of_neighbouring_pairs(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    def rotate(self: Any, x: mx.array, position: Any) -> mx.array:
        config = self._config
        return mx.fast.rope(
            x, config.head_dim, traditional=True, base=config.rope_theta, scale=1.0, offset=position
        )

    monkeypatch.setattr(qwen3.Attention, "_rotate", rotate)


def stacking_without_frames_in_front(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = frontend.Frontend._stack

    def late(self: frontend.Frontend, frames: mx.array) -> mx.array:
        shift = (self.config.stack_frames - 1) // 2
        ending = mx.repeat(frames[-1:], shift, axis=0)
        return original(self, mx.concatenate([frames[shift:], ending]))

    monkeypatch.setattr(frontend.Frontend, "_stack", late)


def decoder_padded_on_the_left(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    def left_pad(prompts: list[mx.array]) -> mx.array:
        columns = decoding.bucketed(max(len(prompt) for prompt in prompts))
        return mx.stack([mx.pad(prompt, [(columns - len(prompt), 0), (0, 0)]) for prompt in prompts])

    monkeypatch.setattr(decoding, "right_pad", left_pad)


def encoder_padded_on_the_left(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = NanoModel.encoded

    def encode(self: NanoModel, features: list[np.ndarray]) -> list[Frames]:
        longest = max(len(rows) for rows in features)
        padded = [np.pad(rows, [(longest - len(rows), 0), (0, 0)]) for rows in features]
        return [frames[: len(rows)] for frames, rows in zip(original(self, padded), features, strict=True)]

    monkeypatch.setattr(NanoModel, "encoded", encode)


def memory_padding_not_masked(monkeypatch: pytest.MonkeyPatch, _: Recognizer) -> None:
    original = sanm.remember
    monkeypatch.setattr(sanm, "remember", lambda block, v, valid: original(block, v, None))


def rope_theta_of_llama(_: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    for attention in _decoder_attention(recognizer):
        attention._config = dataclasses.replace(attention._config, rope_theta=1e4)


def _without_lengths(monkeypatch: pytest.MonkeyPatch, network: type[nn.Module]) -> None:
    original = network.__call__
    monkeypatch.setattr(network, "__call__", lambda self, x, lengths=None: original(self, x))


WRITTEN_OUT: tuple[Mutation, ...] = (
    positions_interleaved, taps_reversed, residual_in_encoders0, rope_theta_of_llama, rope_of_neighbouring_pairs,
    kaldis_default_window, stacking_without_frames_in_front,
    decoder_padded_on_the_left, encoder_padded_on_the_left, memory_padding_not_masked,
)  # fmt: skip
MUTATIONS: dict[str, Mutation] = {mutation.__name__: mutation for mutation in WRITTEN_OUT} | {
    "positions_from_zero": lambda patch, _: patch.setattr(
        sanm, "sinusoidal_positions", functools.partial(sanm.sinusoidal_positions, first=0)
    ),
    "input_not_scaled": lambda _, ours: _set_in_all("_input_scale", 1.0, _encoder(ours)),
    "memory_without_the_values": lambda patch, _: patch.setattr(
        sanm, "remember", lambda block, v, valid: block(v)
    ),
    "no_after_norm": lambda _, ours: _set_in_all("after_norm", nn.Identity(), _encoder(ours)),
    "no_tp_norm": lambda _, ours: _set_in_all("tp_norm", nn.Identity(), _encoder(ours)),
    "encoder_eps_of_the_adaptor": lambda _, ours: _set_eps(_encoder(ours), nn.LayerNorm, adaptor.LAYER_NORM_EPS),
    "adaptor_eps_of_the_encoder": lambda _, ours: _set_eps(
        ours.model.network.audio_adaptor, nn.LayerNorm, sanm.LAYER_NORM_EPS
    ),
    "decoder_eps_of_the_encoder": lambda _, ours: _set_eps(
        ours.model.network.llm, nn.RMSNorm, sanm.LAYER_NORM_EPS
    ),
    "adaptor_with_four_heads": lambda _, ours: _set_in_all(
        "_heads", 4, *(block.self_attn for block in ours.model.network.audio_adaptor.blocks)
    ),
    "all_rows_fed": lambda patch, _: patch.setattr(fun_asr_nano, "audio_token_count", lambda rows, _: rows),
    "no_system_turn": lambda _, ours: _other_config(ours, "prompt", system_turn=False),
    "keys_not_normed": lambda _, ours: _set_in_all("k_norm", nn.Identity(), *_decoder_attention(ours)),
    "no_preemphasis": lambda patch, _: patch.setattr(frontend, "PREEMPHASIS", 0.0),
    "blank_is_zero": lambda _, ours: _other_config(ours, "ctc", blank_id=0),
    "encoder_padding_not_masked": lambda patch, _: _without_lengths(patch, sanm.SANMEncoder),
    "adaptor_padding_not_masked": lambda patch, _: _without_lengths(patch, adaptor.Adaptor),
}


# --- the check that detects each of them ---

NEIGHBOURS = ("zh-2.5s", "zh-0.3s", "en-1s")
ONE_SHORT_OF_ITS_BUCKET = "stereo-44k"  # 67 rows, padded to 68
FORCED_IDS = [7, 77, 177, 277]


SHOWN_BY = {  # each check, and the mutations it must detect
    "features": ("no_preemphasis", "kaldis_default_window", "stacking_without_frames_in_front"),
    "encoder": (
        "positions_from_zero", "positions_interleaved", "input_not_scaled", "taps_reversed",
        "memory_without_the_values", "residual_in_encoders0", "no_after_norm", "no_tp_norm",
    ),
    "adaptor": ("adaptor_with_four_heads",),
    "prompt": ("all_rows_fed", "no_system_turn"),
    "logits": (
        "all_rows_fed", "no_system_turn", "rope_theta_of_llama", "rope_of_neighbouring_pairs", "keys_not_normed",
    ),
    "ctc": ("blank_is_zero", "positions_from_zero"),
    "text": ("all_rows_fed", "keys_not_normed"),
}  # fmt: skip
SWAPPED_EPS = {
    "encoder": "encoder_eps_of_the_adaptor", "adaptor": "adaptor_eps_of_the_encoder",
    "logits": "decoder_eps_of_the_encoder",
}  # fmt: skip


@pytest.fixture(scope="module")
def unpadded(ctc_recognizer: Recognizer, clips: dict[str, Path]) -> dict[str, Stages]:
    """The expected output of each row, from an intact model."""
    loaded = {name: load_clip(ctc_recognizer, clips[name]) for name in (*NEIGHBOURS, ONE_SHORT_OF_ITS_BUCKET)}
    return {name: compute_unpadded(ctc_recognizer, clip, FORCED_IDS) for name, clip in loaded.items()}


def _same_rows(
    recognizer: Recognizer, names: Sequence[str], clips: dict[str, Path], unpadded: dict[str, Stages]
) -> None:
    loaded = [load_clip(recognizer, clips[name]) for name in names]
    for name, row in zip(names, compute_batch(recognizer, loaded, [FORCED_IDS] * len(names)), strict=True):
        checks.check_same_row(unpadded[name], row)


def check_passes(check: str, recognizer: Recognizer, case: Case) -> None:
    checks.CHECKS[check](recognizer, compute_case(recognizer, case), case)


def assert_shows(mutation: str, check: str, recognizer: Recognizer, case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[mutation](patch, recognizer)
        with pytest.raises(AssertionError):
            check_passes(check, recognizer, case)


@pytest.mark.parametrize(("check", "mutation"), [(check, one) for check, all_ in SHOWN_BY.items() for one in all_])
def test_shows(mutation: str, check: str, nano: Pair) -> None:
    assert_shows(mutation, check, nano.recognizer(), nano.cases["zh-2.5s"])


@pytest.mark.parametrize("check", SWAPPED_EPS)
def test_swapped_eps_shows(check: str, small_variance: Pair) -> None:
    check_passes(check, small_variance.recognizer(), small_variance.cases["zh"])
    assert_shows(SWAPPED_EPS[check], check, small_variance.recognizer(), small_variance.cases["zh"])


NOT_MASKED = [
    ("encoder_padding_not_masked", "encoder"),
    ("memory_padding_not_masked", "encoder"),
    ("adaptor_padding_not_masked", "adaptor"),
    ("decoder_padded_on_the_left", "forced_logits"),
]


@pytest.mark.parametrize(
    ("names", "mutation", "stage"),
    [
        *((NEIGHBOURS, *row) for row in [*NOT_MASKED, ("encoder_padded_on_the_left", "encoder")]),
        *(((ONE_SHORT_OF_ITS_BUCKET,), *row) for row in NOT_MASKED),
    ],
)
def test_shows_where_rows_are_padded(
    names: Sequence[str],
    mutation: str,
    stage: str,
    ctc_model: Path,
    clips: dict[str, Path],
    unpadded: dict[str, Stages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mutation shows in a batch, and in a single row that is padded to its bucket."""
    recognizer = Recognizer(load_model(ctc_model, "float32"))
    MUTATIONS[mutation](monkeypatch, recognizer)
    with pytest.raises(AssertionError, match=f"^{stage}: "):
        _same_rows(recognizer, names, clips, unpadded)

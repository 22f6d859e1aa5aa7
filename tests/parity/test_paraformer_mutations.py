"""Test the Paraformer checks: they must fail on a model that is broken in a known way.

`test_paraformer_parity.py` shows that they pass on the intact model.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.parity import paraformer as parity
from support.parity.paraformer import CHECKS, References

from funasr_cli.compute.backend import mx
from funasr_cli.families.paraformer import text
from funasr_cli.models import cif, sanm_decoder

pytestmark = pytest.mark.slow

Mutation = Callable[[pytest.MonkeyPatch, Any], None]


@pytest.fixture(scope="module")
def seaco(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> References:
    """The references of `test_paraformer_parity.py` for the model that has everything."""
    return parity.run_few(tmp_path_factory, clips)["seaco"]


def without_cmvn(_: pytest.MonkeyPatch, model: Any) -> None:
    model.cmvn = lambda rows: rows


def without_the_last_norm(_: pytest.MonkeyPatch, model: Any) -> None:
    model.network.encoder.after_norm = lambda x: x


def without_a_tail(_: pytest.MonkeyPatch, model: Any) -> None:
    object.__setattr__(model.network.predictor._config, "tail_threshold", 1e-6)


def context_reversed(_: pytest.MonkeyPatch, model: Any) -> None:
    kernel = model.network.predictor.cif_conv1d
    kernel["weight"] = kernel["weight"][:, :, ::-1]


def whole_frames(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    """Give the frame in which a token fires to this token alone."""
    sums = cif._sums
    monkeypatch.setattr(cif, "_sums", lambda weights: np.maximum(np.round(sums(weights) * 8) / 8, 0))


def a_residual_around_the_feed_forward(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    original = sanm_decoder.NormedFeedForward.__call__
    monkeypatch.setattr(
        sanm_decoder.NormedFeedForward, "__call__", lambda self, x: original(self, x) + x.astype(mx.float32)
    )


def a_residual_in_the_last_layer(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    original = sanm_decoder.LastLayer.__call__
    monkeypatch.setattr(sanm_decoder.LastLayer, "__call__", lambda self, x: original(self, x) + x)


def memory_without_its_input(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    monkeypatch.setattr(sanm_decoder, "remember", lambda block, x, valid: block(x))


def four_layers_for_hotwords(_: pytest.MonkeyPatch, model: Any) -> None:
    """As ``num_blocks`` says, and upstream does not do."""
    decoder = model.network.seaco_decoder
    decoder.decoders = decoder.decoders[:4]


def hotwords_without_the_first_layer(_: pytest.MonkeyPatch, model: Any) -> None:
    model.network.bias_encoder._layers = 1


def hotwords_in_the_embeddings_alone(_: pytest.MonkeyPatch, model: Any) -> None:
    original = model.network.hotword_logits
    model.network.hotword_logits = lambda embeddings, _, words: original(embeddings, embeddings, words)


def no_hotword_is_another_output(_: pytest.MonkeyPatch, model: Any) -> None:
    object.__setattr__(model.config.hotwords, "no_bias_id", model.config.hotwords.no_bias_id - 1)


def spaces_between_characters(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    original = text.spell
    monkeypatch.setattr(
        "funasr_cli.families.paraformer.model.spell", lambda tokens: (" ".join(original(tokens)[0]), [])
    )


def times_without_the_shift(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    monkeypatch.setattr(cif, "FIRST_SHIFT", 0.0)


def times_in_whole_frames(_: pytest.MonkeyPatch, model: Any) -> None:
    object.__setattr__(model.config.predictor.times, "smooth_factor", 1.0)


def only_one_direction(_: pytest.MonkeyPatch, model: Any) -> None:
    lstm = model.network.predictor.blstm
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        lstm[f"{name}_l0_reverse"] = lstm[f"{name}_l0"]


MUTATIONS: dict[Mutation, str] = {  # mutation -> the check that must detect it
    without_cmvn: "features", without_the_last_norm: "encoder", without_a_tail: "weights",
    context_reversed: "weights", whole_frames: "fires", a_residual_around_the_feed_forward: "logits",
    a_residual_in_the_last_layer: "logits", memory_without_its_input: "logits",
    four_layers_for_hotwords: "hotwords", hotwords_without_the_first_layer: "hotwords",
    hotwords_in_the_embeddings_alone: "hotwords", no_hotword_is_another_output: "text",
    spaces_between_characters: "text", times_without_the_shift: "times", times_in_whole_frames: "times",
    only_one_direction: "times",
}  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_checks_detect_mutations(seaco: References, monkeypatch: pytest.MonkeyPatch, mutate: Mutation) -> None:
    """One of three clips suffices: a mutation may change nothing in the others."""
    rows = [seaco.rows[f"{clip}-hotwords"] for clip in parity.FEW[::2] if seaco.rows[clip].report["ids"]][:3]
    check = CHECKS[MUTATIONS[mutate]]

    def check_all(model: Any) -> None:
        for row, ours in zip(rows, parity.compute(model, rows), strict=True):
            check(model, ours, row)

    check_all(parity.load(seaco.model))
    model = parity.load(seaco.model)
    mutate(monkeypatch, model)
    with pytest.raises(AssertionError):
        check_all(model)

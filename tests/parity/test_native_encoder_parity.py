"""Encoder, adaptor and CTC branch on the C library, in float32, compared with the reference and with MLX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT
from support.parity import checks
from support.parity.clips import FEW_CLIPS
from support.parity.live import Pair
from support.parity.stages import Stages, compute_batch, compute_case, load_clip

from funasr_cli.families import native, registry
from funasr_cli.families.load import load_model
from funasr_cli.families.open import open_model
from funasr_cli.native.decoder import NativeDecoder
from funasr_cli.pipeline import Recognizer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)]
# These random networks of 70 narrow layers amplify rounding; `test_native_networks.py` and
# `test_native_full_size.py` have networks that do not. Compared with float64, MLX is off by 4e-6 of the range and
# the library by 1e-5. Rounded to bfloat16, the cosine is 0.9998. Half of this comes from rounding the weights,
# which are float32 here, and most of the rest from rounding the inputs of queries, keys and values.
FLOAT32_ERROR, BFLOAT16_COSINE = 6e-5, 0.9995
BATCH = ("zh-2.5s", "zh-0.1s", "silence-1s", "en-1s", "zh-0.02s")


def with_native_encoder(folder: Path, dtype: str = "float32") -> Recognizer:
    """Load a model of which the library computes everything but the decoder."""
    recognizer, checkpoint = Recognizer(load_model(folder, "float32")), open_model(folder)
    parts = native.native_parts(checkpoint, registry.of_config(checkpoint.config), dtype)
    parts = [part for part in parts if not issubclass(part.network, NativeDecoder)]
    for prefix, network in native.load_parts(checkpoint, parts, dtype).items():
        setattr(recognizer.model.network, prefix, network)
    return recognizer


@pytest.fixture(scope="module")
def recognizer(nano: Pair) -> Recognizer:
    return with_native_encoder(nano.model)


@pytest.fixture(scope="module")
def computed() -> dict[str, Stages]:
    """Stages by clip, filled as they are computed."""
    return {}


@pytest.mark.parametrize("name", FEW_CLIPS)
@pytest.mark.parametrize("check", checks.CHECKS)
def test_stage(check: str, name: str, nano: Pair, computed: dict[str, Stages], recognizer: Recognizer) -> None:
    """As `test_parity_clips.test_stage`, with the same tolerances."""
    if name not in computed:
        computed[name] = compute_case(recognizer, nano.cases[name])
    checks.CHECKS[check](recognizer, computed[name], nano.cases[name])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_batch_at_full_depth(dtype: str, ctc_model: Path, clips: dict[str, Path]) -> None:
    """Clips give the same alone and in a batch, bit by bit, and almost what MLX gives."""
    ours, theirs = with_native_encoder(ctc_model, dtype), Recognizer(load_model(ctc_model, "float32"))
    loaded, forced = [load_clip(ours, clips[name]) for name in BATCH], [[1, 2]] * len(BATCH)
    batch, expected = compute_batch(ours, loaded, forced), compute_batch(theirs, loaded, forced)
    for clip, found, exact in zip(loaded, batch, expected, strict=True):
        [alone] = compute_batch(ours, [clip], forced[:1])
        for stage in ("encoder", "adaptor", "ctc_log_probs"):
            a, b = (np.asarray(getattr(each, stage), np.float64) for each in (found, exact))
            np.testing.assert_array_equal(getattr(alone, stage), getattr(found, stage))
            if dtype == "float32":
                assert np.abs(a - b).max() < FLOAT32_ERROR * np.abs(b).max()
            elif stage != "ctc_log_probs":
                assert np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) > BFLOAT16_COSINE
        if dtype == "float32":
            continue
        ours_best, exact_best = found.ctc_log_probs.argmax(-1), exact.ctc_log_probs.argmax(-1)
        worst = np.abs(found.ctc_log_probs - exact.ctc_log_probs).max()
        clear = checks.margins(exact.ctc_log_probs) > 2 * worst
        np.testing.assert_array_equal(ours_best[clear], exact_best[clear])

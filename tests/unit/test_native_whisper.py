"""Whisper's encoder on the C library: what the network on MLX computes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from mlx.utils import tree_map_with_path
from support.native import LIBRARY, SETS, WITHOUT
from support.native_arrays import Arrays

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.whisper_encoder import WhisperEncoder, WhisperEncoderConfig
from funasr_cli.native.encoder import NativeEncoder
from funasr_cli.native.library import BFLOAT16, FLOAT32
from funasr_cli.native.whisper import NativeWhisperEncoder

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
ENCODER = WhisperEncoderConfig(mel_bins=10, positions=70, width=64, heads=2, layers=2)
WINDOWS = [np.random.default_rng(seed).standard_normal((140, 10)).astype(np.float32) for seed in range(3)]


def randomised(network: nn.Module) -> nn.Module:
    """Draw all parameters."""
    mx.random.seed(7)

    def draw(path: str, value: mx.array) -> mx.array:
        if "ln" in path:
            return mx.random.normal(value.shape) * 0.3 + path.endswith("weight")
        inputs = value.size // value.shape[0]
        return mx.random.normal(value.shape) * (inputs**-0.5 if value.ndim > 1 else 0.2)

    network.update(tree_map_with_path(draw, network.parameters()))
    return network


@cache
def encoder() -> nn.Module:
    return randomised(WhisperEncoder(ENCODER))


@pytest.mark.parametrize("name", SETS)
def test_the_encoder_is_what_mlx_computes(name: str) -> None:
    native = NativeWhisperEncoder(NativeEncoder(LIBRARY, 2, name), Arrays(encoder(), FLOAT32), ENCODER)
    found, expected = native(WINDOWS), np.array(encoder()(mx.array(np.stack(WINDOWS))))
    np.testing.assert_allclose(np.stack(found), expected, atol=2e-5 * np.abs(expected).max())
    for window, rows in zip(WINDOWS, found, strict=True):
        np.testing.assert_array_equal(native([window])[0], rows)


@pytest.mark.parametrize("name", SETS)
def test_the_encoder_in_bfloat16(name: str) -> None:
    native = NativeWhisperEncoder(NativeEncoder(LIBRARY, 2, name), Arrays(encoder(), BFLOAT16), ENCODER)
    found, expected = np.stack(native(WINDOWS)), np.array(encoder()(mx.array(np.stack(WINDOWS))))
    assert np.vdot(found, expected) / np.linalg.norm(found) / np.linalg.norm(expected) > 0.9999

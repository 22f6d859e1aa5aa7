"""Encoder, adaptor and CTC head on the C library: what the networks on MLX compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_map_with_path
from support.native import LIBRARY, SETS, WITHOUT
from support.native_arrays import Arrays

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.adaptor import Adaptor, AdaptorConfig
from funasr_cli.models.ctc import CTCHead
from funasr_cli.models.sanm import SANMConfig, SANMEncoder, sinusoidal_positions
from funasr_cli.native import networks
from funasr_cli.native.encoder import NativeEncoder
from funasr_cli.native.library import BFLOAT16, FLOAT32
from funasr_cli.native.networks import NativeAdaptor, NativeCTCHead, NativeSANM

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
ENCODER = SANMConfig(
    input_dim=70, width=64, heads=4, ffn_dim=96, blocks=3, tp_blocks=2, memory_taps=11, memory_shift=2
)
ADAPTOR = AdaptorConfig(
    input_dim=64, output_dim=96, ffn_dim=80, layers=2, heads=4, downsample=3, low_frame_rate=False
)
LENGTHS = (1, 2, 40, 9)


def random_network(network: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draw all parameters; ``gain`` scales what the layers add to the residual."""
    mx.random.seed(3)

    def draw(path: str, value: mx.array) -> mx.array:
        if "norm" in path:
            return mx.random.normal(value.shape) * 0.3 + (1 if path.endswith("weight") else 0)
        scale = gain if ("w_2" in path or "linear_out" in path or "fsmn" in path) else 1.0
        return mx.random.normal(value.shape) * scale * (value.shape[1] ** -0.5 if value.ndim > 1 else 0.1)

    network.update(tree_map_with_path(draw, network.parameters()))
    return network


def clips(width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((length, width)).astype(np.float32) for length in LENGTHS]


def alone(network: nn.Module, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return [np.array(network(mx.array(rows)[None])[0]) for rows in inputs]


def worst(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    errors = (
        np.abs(ours - theirs).max() / np.abs(theirs).max() for ours, theirs in zip(found, expected, strict=True)
    )
    return float(max(errors))


CASES = {
    "encoder": (SANMEncoder, NativeSANM, ENCODER, ENCODER.input_dim),
    "adaptor": (Adaptor, NativeAdaptor, ADAPTOR, ADAPTOR.input_dim),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SETS)
def test_it_is_what_mlx_computes(name: str, case: str) -> None:
    reference, ours, config, width = CASES[case]
    network: Any = random_network(reference(config))
    inputs, encoder = clips(width), NativeEncoder(LIBRARY, 2, name)
    native = ours(encoder, Arrays(network, FLOAT32), config)
    found, expected = native(inputs), alone(network, inputs)
    assert [each.shape for each in found] == [each.shape for each in expected]
    assert worst(found, expected) < 1e-5
    for rows, in_batch in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(native([rows])[0], in_batch)


@pytest.mark.parametrize("name", SETS)
def test_bfloat16_with_large_values(name: str) -> None:
    """Residuals above 1,000, as in the published model: only inputs of products are rounded."""
    network: Any = random_network(SANMEncoder(ENCODER), gain=300)
    inputs = clips(ENCODER.input_dim)
    expected, norm = alone(network, inputs), network.after_norm
    network.after_norm = lambda x: norm(x) if float(mx.abs(x).max()) > 1000 else pytest.fail("small values")
    alone(network, inputs[2:])
    network.after_norm = norm
    found = NativeSANM(NativeEncoder(LIBRARY, 2, name), Arrays(network, BFLOAT16), ENCODER)(inputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.9999


@pytest.mark.parametrize("name", SETS)
def test_ctc_head(name: str) -> None:
    head: Any = random_network(CTCHead(64, 203))
    encoder, x = NativeEncoder(LIBRARY, 2, name), np.concatenate(clips(64) * 4)
    assert len(x) > networks.FRAMES_AT_ONCE
    for packed_type, tolerance in ((FLOAT32, 1e-5), (BFLOAT16, 0.02)):
        native = NativeCTCHead(encoder, Arrays(head, packed_type), None)
        logits, expected = native.logits(x), np.array(head.logits(mx.array(x)))
        assert worst([logits], [expected]) < tolerance
        np.testing.assert_array_equal(native.best(x), logits.argmax(-1))
        totals = np.log(np.exp(logits.astype(np.float64)).sum(-1))
        np.testing.assert_allclose(native.log_totals(x), totals, rtol=1e-6)
        np.testing.assert_array_equal(native.logits_of(x[3:7], [5, 0, 202]), logits[3:7][:, [5, 0, 202]])


def test_positions() -> None:
    np.testing.assert_allclose(
        networks.sinusoidal_positions(700, 560), np.array(sinusoidal_positions(700, 560)), atol=1e-4
    )

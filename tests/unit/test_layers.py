"""Replacements for operations that are slow in MLX on a CPU give the same results as the plain operations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from funasr_cli.compute.backend import mx, nn
from funasr_cli.decoding import sampling
from funasr_cli.decoding.sampling import log_probabilities
from funasr_cli.models.layers import CPUEmbedding, CPULinear, attention, cpu_product

ROWS = (1, 2, 3, 8, 15, 16, 17, 31, 255, 256, 300)


def normal(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def assert_close(got: mx.array, wanted: mx.array, tolerance: float = 1e-4) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    assert float(mx.abs(got - wanted).max()) < tolerance


@pytest.mark.parametrize("rows", ROWS)
def test_product(rows: int) -> None:
    x, weight = normal(rows, 48), normal(96, 48, seed=1)
    assert_close(cpu_product(x, weight), x @ weight.T)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(rows: int, bias: bool) -> None:
    plain, ours = nn.Linear(48, 96, bias=bias), CPULinear(48, 96, bias=bias)
    ours.update(plain.parameters())
    x = normal(1, rows, 48)
    assert_close(ours(x), plain(x))


def test_embeddings_as_output_head() -> None:
    plain, ours = nn.Embedding(300, 48), CPUEmbedding(300, 48)
    ours.update(plain.parameters())
    assert_close(ours.as_linear(normal(5, 48)), plain.as_linear(normal(5, 48)))
    assert_close(ours(mx.array([[1, 299]])), plain(mx.array([[1, 299]])))


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("masked", [True, False])
def test_attention(batch: int, heads: int, kv_heads: int, new: int, masked: bool) -> None:
    q, k, v = (
        normal(batch, heads, new, 8),
        normal(batch, kv_heads, 20, 8, seed=1),
        normal(batch, kv_heads, 20, 8, seed=2),
    )
    k, v = k[:, :, :13], v[:, :, :13]  # views of a larger buffer, as in the cache
    mask = mx.arange(13)[None, None, None, :] >= mx.array([row % 5 for row in range(batch)])[:, None, None, None]
    wanted = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=mask if masked else None)
    assert_close(attention(q, k, v, scale=0.3, mask=mask if masked else None), wanted, 1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_log_probabilities_of_values_that_are_not_finite(bad: float) -> None:
    """Only their own row is affected, and there is no warning."""
    logits = np.zeros((2, 10), np.float32)
    logits[0, 3] = bad
    got = log_probabilities(mx.array(logits), mx.array([3, 3])).tolist()
    assert not math.isfinite(got[0])
    assert got[1] == pytest.approx(-math.log(10))


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("turned", [False, True])  # the transposed output of `cpu_product`
def test_log_probabilities(accelerator: bool, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "on_accelerator", lambda: accelerator)
    logits, ids = 30 * normal(3, 1000), mx.array([0, 999, 7])
    wanted = mx.take_along_axis(logits, ids[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
    assert_close(log_probabilities(mx.contiguous(logits.T).T if turned else logits, ids), wanted)

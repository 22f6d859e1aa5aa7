"""Transformer layers of the C library: against NumPy in float64, and sequences by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import erf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.native import LIBRARY, SETS, WITHOUT

from funasr_cli.native.encoder import (
    GELU,
    IDENTITY,
    LAYER_NORM,
    RELU,
    RMS_NORM,
    SWIGLU,
    Batch,
    NativeEncoder,
)
from funasr_cli.native.library import BFLOAT16, FLOAT32, INT8, Block, Linear, Norm, Packed
from funasr_cli.native.qwen3 import interleaved

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
EPS = 1e-5
TOLERANCES = {FLOAT32: 1e-5, BFLOAT16: 0.03, INT8: 0.06}  # of the range


@dataclass
class Layer:
    """Weights of one layer, and what computes them: the library or NumPy."""

    arrays: dict[str, np.ndarray]
    heads: int
    activation: int = RELU
    norm: int = LAYER_NORM
    taps_before: int = 0
    norm_after: bool = False
    kept: list[Any] = field(default_factory=list)

    def address(self, name: str) -> int | None:
        if name not in self.arrays:
            return None
        self.kept.append(np.ascontiguousarray(self.arrays[name], np.float32))
        return int(self.kept[-1].ctypes.data)

    def linear(self, name: str, weights: int) -> Linear:
        if name not in self.arrays:
            return Linear()
        matrix = self.arrays[name]
        if name == "up" and self.activation == SWIGLU:
            matrix = interleaved(*np.split(matrix, 2))
        self.kept.append(Packed.of(LIBRARY, matrix, weights))
        return Linear(self.kept[-1].matrix, self.address(f"{name}_bias"))

    def block(self, weights: int) -> Block:
        names = ("qkv", "output", "cross_query", "cross_key_value", "cross_output", "up", "down")
        norms = {
            name: Norm(
                self.address(name), self.address(f"{name}_bias"), EPS, self.norm, len(self.arrays.get(name, ()))
            )
            for name in ("attention_norm", "cross_norm", "feed_forward_norm")
        }
        taps = len(self.arrays["memory"]) if "memory" in self.arrays else 0
        return Block(
            **norms, **{name: self.linear(name, weights) for name in names}, memory=self.address("memory"),
            taps=taps, taps_before=self.taps_before, heads=self.heads, activation=self.activation,
            norm_after=self.norm_after,
        )  # fmt: skip

    def exact(self, x: np.ndarray, source: np.ndarray | None = None) -> np.ndarray:
        """Compute one sequence with NumPy in float64."""
        q, k, v = np.split(self._product("qkv", self._before("attention_norm", x)), 3, axis=1)
        attended = self._product("output", self._attention(q, k, v))
        if "memory" in self.arrays:
            attended = attended + v + self._memory(v)
        x = self._after("attention_norm", x + attended if x.shape == attended.shape else attended)
        if source is not None:
            q = self._product("cross_query", self._normed("cross_norm", x))
            k, v = np.split(self._product("cross_key_value", source), 2, axis=1)
            x = x + self._product("cross_output", self._attention(q, k, v))
        hidden = activated(self._product("up", self._before("feed_forward_norm", x)), self.activation)
        return self._after("feed_forward_norm", x + self._product("down", hidden))

    def _before(self, name: str, x: np.ndarray) -> np.ndarray:
        return x if self.norm_after else self._normed(name, x)

    def _after(self, name: str, x: np.ndarray) -> np.ndarray:
        return self._normed(name, x) if self.norm_after else x

    def _product(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.arrays[name].T.astype(np.float64) + self.arrays.get(f"{name}_bias", 0)

    def _normed(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True) if self.norm == LAYER_NORM else x
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
        return normed * self.arrays[name] + self.arrays.get(f"{name}_bias", 0)

    def _attention(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        parts = []
        for query, key, value in zip(*(np.split(each, self.heads, axis=1) for each in (q, k, v)), strict=True):
            scores = query @ key.T / np.sqrt(query.shape[1])
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            parts.append(weights / weights.sum(-1, keepdims=True) @ value)
        return np.concatenate(parts, axis=1)

    def _memory(self, v: np.ndarray) -> np.ndarray:
        taps, total = self.arrays["memory"], np.zeros_like(v)
        for frame in range(len(v)):
            for tap, weights in enumerate(taps):
                other = frame + tap - self.taps_before
                if 0 <= other < len(v):
                    total[frame] += weights * v[other]
        return total


def activated(x: np.ndarray, activation: int) -> np.ndarray:
    if activation == RELU:
        return np.maximum(x, 0)
    if activation == GELU:
        return x / 2 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
    if activation == SWIGLU:
        gate, up = np.split(x, 2, axis=1)
        return gate / (1 + np.exp(-gate)) * up
    return x


def random_layer(
    rng: np.random.Generator,
    heads: int,
    head_dim: int,
    hidden: int,
    *,
    before: int | None = None,
    source: int | None = None,
    taps: int = 0,
    biases: bool = True,
    **options: Any,
) -> Layer:
    width = heads * head_dim
    before = before or width
    sizes = {
        "qkv": (3 * width, before),
        "output": (width, width),
        "up": (hidden * (2 if options.get("activation") == SWIGLU else 1), width),
        "down": (width, hidden),
    }
    if source:
        sizes |= {
            "cross_query": (width, width),
            "cross_key_value": (2 * width, source),
            "cross_output": (width, width),
        }
    arrays = {name: rng.standard_normal(size) * 1.5 * size[1] ** -0.5 for name, size in sizes.items()}
    if biases:
        arrays |= {f"{name}_bias": rng.standard_normal(size[0]) for name, size in sizes.items()}
    for name, norm_width in (("attention_norm", before), ("cross_norm", width), ("feed_forward_norm", width)):
        arrays[name] = 1 + 0.3 * rng.standard_normal(norm_width)
        if options.get("norm", LAYER_NORM) == LAYER_NORM:
            arrays[f"{name}_bias"] = rng.standard_normal(norm_width)
    if taps:
        arrays["memory"] = rng.standard_normal((taps, width))
    return Layer({name: value.astype(np.float32) for name, value in arrays.items()}, heads, **options)


def rows(rng: np.random.Generator, lengths: list[int], width: int) -> list[np.ndarray]:
    return [(20 * rng.standard_normal((length, width))).astype(np.float32) for length in lengths]


def worst(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the largest error, in parts of the range."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


@given(
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 40),
    hidden=st.integers(1, 9).map(lambda n: 16 * n),
    before=st.none() | st.integers(2, 80),
    source=st.none() | st.integers(1, 70),
    taps=st.sampled_from([0, 1, 3, 4, 11]),
    biases=st.booleans(),
    activation=st.sampled_from([IDENTITY, RELU, GELU, SWIGLU]),
    norm=st.sampled_from([LAYER_NORM, RMS_NORM]),
    norm_after=st.booleans(),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_a_layer(
    heads: int, head_dim: int, lengths: list[int], seed: int, taps: int, source: int | None, **options: Any
) -> None:
    """Of any shape and with any options, over sequences of any lengths."""
    rng = np.random.default_rng(seed)
    if options["norm_after"]:  # excludes these
        source = options["before"] = None
    before = seed % (taps + 1) if taps else 0  # of the filter
    layer = random_layer(rng, heads, head_dim, source=source, taps=taps, taps_before=before, **options)
    inputs, tolerance = rows(rng, lengths, options["before"] or heads * head_dim), 1e-4
    if options["norm_after"]:  # a layer's inputs are results of a norm; its own may enlarge differences
        inputs, tolerance = [x / 20 for x in inputs], 1e-3
    sources = rows(rng, [1 + seed % 7 + 9 * i for i in range(len(lengths))], source) if source else None
    exact = [
        layer.exact(x.astype(np.float64), sources and sources[i].astype(np.float64)) for i, x in enumerate(inputs)
    ]
    for name in SETS:
        encoder = NativeEncoder(LIBRARY, 2, name)
        for weights in (FLOAT32, BFLOAT16):
            found = encoder.block(layer.block(weights), Batch.of(inputs), sources and Batch.of(sources)).split()
            for ours, expected in zip(found, exact, strict=True):
                assert ours.shape == expected.shape
                assert np.isfinite(ours).all(), name
                # With attention to nearly equal scores, rounding to bfloat16 may change a small layer's output at
                # will; `test_precision` has layers where it does not.
                assert weights == BFLOAT16 or worst(ours, expected) < tolerance, name


@pytest.mark.parametrize("weights", [FLOAT32, BFLOAT16, INT8])
@pytest.mark.parametrize("activation", [RELU, GELU, SWIGLU])
@pytest.mark.parametrize("norm_after", [False, True])
def test_precision(activation: int, weights: int, norm_after: bool) -> None:
    """At sizes that are nearer to those of models, longer than the keys that are attended to at a time."""
    rng = np.random.default_rng(7)
    layer = random_layer(rng, 2, 64, 192, taps=11, taps_before=5, activation=activation, norm_after=norm_after)
    inputs = rows(rng, [17, 520], 128)
    if norm_after:  # its inputs are results of a norm
        inputs = [x / 20 for x in inputs]
    exact = [layer.exact(x.astype(np.float64)) for x in inputs]
    for name in SETS:
        found = NativeEncoder(LIBRARY, 2, name).block(layer.block(weights), Batch.of(inputs)).split()
        for ours, expected in zip(found, exact, strict=True):
            assert worst(ours, expected) < TOLERANCES[weights], name


@pytest.mark.parametrize("weights", [FLOAT32, BFLOAT16, INT8])
@pytest.mark.parametrize("name", SETS)
def test_a_sequence_is_what_it_is_alone(name: str, weights: int) -> None:
    """Bit by bit, in any batch and with any number of threads."""
    rng = np.random.default_rng(9)
    layer = random_layer(rng, 2, 32, 128, source=64, taps=5, taps_before=4)
    inputs, sources = rows(rng, [1, 70, 3, 49, 270], 64), rows(rng, [5, 1, 300, 2, 17], 64)
    block = layer.block(weights)
    one = NativeEncoder(LIBRARY, 1, name)
    alone = [one.block(block, Batch.of([x]), Batch.of([y])).x for x, y in zip(inputs, sources, strict=True)]
    for threads in (1, 2, 5):
        encoder = NativeEncoder(LIBRARY, threads, name)
        for order in ([0, 1, 2, 3, 4], [4, 2, 0], [3, 3]):
            batch, source = (Batch.of([each[i] for i in order]) for each in (inputs, sources))
            for place, found in zip(order, encoder.block(block, batch, source).split(), strict=True):
                np.testing.assert_array_equal(found, alone[place])


@pytest.mark.parametrize("name", SETS)
def test_products_by_themselves(name: str) -> None:
    """With a bias and an activation, and without."""
    rng, encoder = np.random.default_rng(2), NativeEncoder(LIBRARY, 2, name)
    for outputs, inputs, n in ((70, 33, 1), (16, 560, 50), (1, 1, 3), (200, 64, 101)):
        values, x = rng.standard_normal((outputs, inputs)).astype(np.float32), rows(rng, [n], inputs)[0]
        bias, packed = rng.standard_normal(outputs).astype(np.float32), Packed.of(LIBRARY, values, FLOAT32)
        exact = x.astype(np.float64) @ values.T
        assert worst(encoder.linear(Linear(packed.matrix, None), x), exact) < 1e-5
        found = encoder.linear(Linear(packed.matrix, bias.ctypes.data), x, GELU)
        assert worst(found, activated(exact + bias, GELU)) < 1e-5


@pytest.mark.parametrize("name", SETS)
def test_norms(name: str) -> None:
    """Also of rows with values far from 0, and of equal values."""
    rng, encoder = np.random.default_rng(3), NativeEncoder(LIBRARY, 2, name)
    for width in (1, 15, 16, 100):
        x = (1000 + rng.standard_normal((9, width))).astype(np.float32)
        x[4] = -3
        weights, bias = rng.standard_normal((2, width)).astype(np.float32)
        centred = x - x.astype(np.float64).mean(-1, keepdims=True)
        exact = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * weights + bias
        found = encoder.norm(Norm(weights.ctypes.data, bias.ctypes.data, 1e-12, LAYER_NORM, x.shape[1]), x)
        np.testing.assert_allclose(found, exact, atol=1e-3)
        exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True)) * weights
        found = encoder.norm(Norm(weights.ctypes.data, None, 1e-12, RMS_NORM, x.shape[1]), x)
        np.testing.assert_allclose(found, exact, rtol=1e-5)


@pytest.mark.parametrize("name", SETS)
def test_the_highest_of_each_row(name: str) -> None:
    """The first of equal ones."""
    x = np.random.default_rng(4).standard_normal((5, 1003)).astype(np.float32) * 30
    x[2, [7, 900]] = 500
    places, totals = NativeEncoder(LIBRARY, 2, name).highest(x)
    np.testing.assert_array_equal(places, x.argmax(-1))
    np.testing.assert_allclose(totals, np.log(np.exp(x.astype(np.float64)).sum(-1)), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("weights", [FLOAT32, BFLOAT16, INT8])
def test_what_is_not_finite_stays_in_its_sequence(weights: int, bad: float) -> None:
    rng = np.random.default_rng(5)
    layer, inputs = random_layer(rng, 1, 64, 64, taps=3, taps_before=1), rows(rng, [4, 5, 3], 64)
    inputs[1][2, 5] = bad
    for name in SETS:
        found = NativeEncoder(LIBRARY, 2, name).block(layer.block(weights), Batch.of(inputs)).split()
        assert [bool(np.isfinite(each).all()) for each in found] == [True, False, True]


def test_what_is_refused() -> None:
    """Sizes that do not go together, empty sequences, and a source that a layer has no use for."""
    rng, encoder = np.random.default_rng(6), NativeEncoder(LIBRARY, 1)
    layer, batch = random_layer(rng, 2, 16, 64), Batch.of(rows(rng, [3, 4], 32))
    block = layer.block(FLOAT32)
    encoder.block(block, batch)
    for other in (random_layer(rng, 2, 16, 64, before=64), random_layer(rng, 2, 16, 64, source=8)):
        other.norm_after = True
        before = Batch.of(rows(rng, [3, 4], other.arrays["qkv"].shape[1]))
        source = Batch.of(rows(rng, [1, 2], 8)) if "cross_query" in other.arrays else None
        with pytest.raises(ValueError, match="refuses"):
            encoder.block(other.block(FLOAT32), before, source)
    for offsets in ([0, 3, 3], [1, 3, 7], [0, 7, 3]):
        with pytest.raises(ValueError, match="refuses"):
            encoder.block(block, batch._replace(offsets=np.array(offsets, np.int32)))
    with pytest.raises(ValueError, match="refuses"):
        encoder.block(block, batch, batch)
    for change in (
        {"heads": 3}, {"activation": 9}, {"activation": SWIGLU}, {"down": block.qkv},
        {"up": layer.block(BFLOAT16).up}, {"memory": block.attention_norm.weights, "taps": 0},
    ):  # fmt: skip
        changed = layer.block(FLOAT32)
        for name, value in change.items():
            setattr(changed, name, value)
        with pytest.raises(ValueError, match="refuses"):
            encoder.block(changed, batch)
    with pytest.raises(ValueError, match="instruction set"):
        NativeEncoder(LIBRARY, 1, "unknown")


def test_rows_of_another_width_are_not_read() -> None:
    """They would be read past their end."""
    rng, encoder = np.random.default_rng(7), NativeEncoder(LIBRARY, 1)
    layer, batch, source = (
        random_layer(rng, 2, 16, 64, source=24),
        *(Batch.of(rows(rng, [3, 4], width)) for width in (32, 24)),
    )
    block = layer.block(FLOAT32)
    encoder.block(block, batch, source)
    narrow = Batch.of(rows(rng, [3, 4], 16))
    for inputs in ((narrow, source), (batch, narrow), (batch._replace(x=batch.x[:5]), source)):
        with pytest.raises(ValueError, match="refuses"):
            encoder.block(block, *inputs)
    for name in ("attention_norm", "cross_norm", "feed_forward_norm"):
        changed = layer.block(FLOAT32)
        getattr(changed, name).width = 16
        with pytest.raises(ValueError, match="refuses"):
            encoder.block(changed, batch, source)
    with pytest.raises(ValueError, match="refuses"):
        encoder.linear(block.up, narrow.x)
    with pytest.raises(ValueError, match="refuses"):
        encoder.norm(block.attention_norm, narrow.x)

"""Convolutions and dense layers of the C library against NumPy in float64; CAM++ against the same on MLX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.campplus import write_campplus
from support.native import LIBRARY, SETS, WITHOUT

from funasr_cli.compute.backend import mx
from funasr_cli.families.load import load_speaker_checkpoint
from funasr_cli.families.open import open_checkpoint
from funasr_cli.models.campplus import CAMPPlus
from funasr_cli.native.encoder import IDENTITY, RELU, NativeEncoder
from funasr_cli.native.library import FLOAT32, INT8, Convolution, DenseLayer, Linear, Packed, Steps

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
KEPT: list[Any] = []  # what structures point to


def linear(matrix: np.ndarray, bias: np.ndarray | None = None) -> Linear:
    KEPT.extend([packed := Packed.of(LIBRARY, matrix, FLOAT32), bias])
    return Linear(packed.matrix, None if bias is None else bias.ctypes.data)


def floats(draw: np.random.Generator, *shape: int) -> np.ndarray:
    return draw.normal(size=shape).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(SETS or ("",)), st.integers(1, 3), st.integers(1, 5), st.integers(1, 37), st.integers(1, 40),
    st.integers(1, 40), st.integers(1, 2), st.booleans(), st.booleans(),
)  # fmt: skip
def test_convolution_of_images(
    name: str, images: int, lines: int, frames: int, width: int, outputs: int, stride: int, adds: bool, plain: bool
) -> None:
    draw = np.random.default_rng(0)
    x = np.pad(floats(draw, images, lines, frames, width), [(0, 0), (1, 1), (1, 1), (0, 0)])
    weights, bias = floats(draw, outputs, 3, 3, width), floats(draw, outputs)
    made = (lines + stride - 1) // stride
    out = np.full((images, made, frames, outputs), np.nan, np.float32)
    added = floats(draw, *out.shape) if adds else None
    line = (frames + 2) * width
    convolution = Convolution(
        linear=linear(weights.reshape(outputs, -1), bias), parts=3, part_step=line,
        activation=IDENTITY if plain else RELU, images=images, lines=made, rows=frames,
        input=Steps((lines + 2) * line, stride * line, width),
        output=Steps(out[0].size, frames * outputs, outputs),
    )  # fmt: skip
    NativeEncoder(LIBRARY, 2, name).convolve(convolution, x, out, added)
    wanted = np.zeros(out.shape) + bias
    for up in range(3):
        for along in range(3):
            part = x[:, up : up + lines : stride, along : along + frames].astype(np.float64)
            wanted += part @ weights[:, up, along].T
    wanted += 0 if added is None else added
    assert np.allclose(out, wanted if plain else np.maximum(wanted, 0), rtol=1e-4, atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(SETS or ("",)), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.integers(1, 70),
    st.integers(1, 40), st.integers(1, 3), st.integers(1, 30),
)  # fmt: skip
def test_dense_layer(
    name: str, images: int, frames: int, width: int, inner: int, outputs: int, dilation: int, run: int
) -> None:
    draw = np.random.default_rng(1)
    x = floats(draw, images, frames, width + outputs + 3)
    before = x.astype(np.float64)
    factor, summand = floats(draw, width), floats(draw, width)
    narrow, local = floats(draw, inner, width) / 4, floats(draw, outputs, 3, inner) / 4
    squeeze, gate = floats(draw, 5, inner) / 4, floats(draw, outputs, 5) / 4
    biases = [floats(draw, each) for each in (inner, 5, outputs)]
    layer = DenseLayer(
        factor=factor.ctypes.data, summand=summand.ctypes.data, narrow=linear(narrow, biases[0]),
        local=linear(local.reshape(outputs, -1)), squeeze=linear(squeeze, biases[1]), gate=linear(gate, biases[2]),
        dilation=dilation, run=run,
    )  # fmt: skip
    NativeEncoder(LIBRARY, 2, name).dense_layer(layer, x)
    hidden = np.maximum(np.maximum(before[:, :, :width] * factor + summand, 0) @ narrow.T + biases[0], 0)
    padded = np.pad(hidden, [(0, 0), (dilation, dilation), (0, 0)])
    wanted = sum(padded[:, k * dilation :][:, :frames] @ local[:, k].T for k in range(3))
    for image in range(images):
        for start in range(0, frames, run):
            context = hidden[image].mean(axis=0) + hidden[image, start : start + run].mean(axis=0)
            score = np.maximum(context @ squeeze.T + biases[1], 0) @ gate.T + biases[2]
            wanted[image, start : start + run] /= 1 + np.exp(-score)
    assert np.allclose(x[:, :, width : width + outputs], wanted, rtol=1e-4, atol=1e-3)
    for kept in (slice(width), slice(width + outputs, None)):
        assert np.array_equal(x[:, :, kept], before[:, :, kept].astype(np.float32))


def test_what_does_not_fit_is_refused() -> None:
    encoder, matrix = NativeEncoder(LIBRARY, 1), np.ones((4, 6), np.float32)

    def convolution(**changes: Any) -> Convolution:
        usual = {"linear": linear(matrix), "parts": 2, "part_step": 3, "images": 1, "lines": 1, "rows": 2}
        steps = {"input": Steps(0, 0, 3), "output": Steps(0, 0, 4)}
        return Convolution(**(usual | steps | changes))

    x, out = np.ones(9, np.float32), np.zeros(8, np.float32)
    encoder.convolve(convolution(), x, out)
    assert out.tolist() == [6] * 8
    int8 = Packed.of(LIBRARY, np.ones((4, 64), np.float32), INT8)
    for changes in ({"parts": 4}, {"parts": 0}, {"rows": 3}, {"rows": 0}, {"activation": 2}):
        with pytest.raises(ValueError, match="refuses"):
            encoder.convolve(convolution(**changes), x, out)
    with pytest.raises(ValueError, match="refuses"):
        encoder.convolve(convolution(linear=Linear(int8.matrix, None)), np.ones(99, np.float32), out)
    with pytest.raises(ValueError, match="refuses"):
        encoder.convolve(convolution(), x, out, starts=(1, 0))
    with pytest.raises(ValueError, match="refuses"):
        encoder.convolve(convolution(), x, out, added=out[:7])
    with pytest.raises(ValueError, match="refuses"):
        encoder.dense_layer(DenseLayer(narrow=linear(matrix), dilation=1, run=1), np.ones((1, 2, 9), np.float32))
    layer = DenseLayer(
        factor=x.ctypes.data, summand=x.ctypes.data, dilation=1, run=1, narrow=linear(matrix),
        local=linear(np.ones((2, 12), np.float32)), squeeze=linear(np.ones((3, 4), np.float32)),
        gate=linear(np.ones((2, 3), np.float32)),
    )  # fmt: skip
    encoder.dense_layer(layer, np.ones((1, 2, 8), np.float32))
    with pytest.raises(ValueError, match="refuses"):  # 6 values are read, and 2 written
        encoder.dense_layer(layer, np.ones((1, 2, 7), np.float32))


@pytest.mark.parametrize("samples", [24000, 50000, 900])
def test_campplus_as_on_mlx(tmp_path: Any, samples: int) -> None:
    """A window, a clip with two runs of the context, and a short clip."""
    checkpoint = open_checkpoint(write_campplus(tmp_path / "source"), "source")
    model = load_speaker_checkpoint(checkpoint, tmp_path)
    assert model.network.head.type == "float32"
    clips = np.random.default_rng(0).normal(0, 0.1, (3, samples)).astype(np.float32)
    network = CAMPPlus(80, 192)
    network.load_weights([(name, tensor.read_in("float32")) for name, tensor in checkpoint.tensors.items()])
    wanted = np.array(network(mx.stack([model.features(clip) for clip in clips])))
    assert np.allclose(model.embed(clips), wanted, rtol=1e-3, atol=1e-4)
    assert np.array_equal(model.embed(clips[1:2])[0], model.embed(clips)[1])

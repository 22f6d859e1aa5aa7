"""CAM++ on the C library; `models.campplus` has the same on MLX, and its sources.

Batch norms after a convolution are part of its matrix. There are zeros around images and clips, which convolutions
read and do not write.
"""

from typing import Any

import numpy as np

from funasr_cli.models.campplus import CHANNELS, CONTEXT_FRAMES, DILATIONS, LAYERS, NORM_EPS, WIDTH
from funasr_cli.native.encoder import IDENTITY, RELU, NativeEncoder, NativeNetwork, Weights
from funasr_cli.native.library import Convolution, DenseLayer, Linear, Packed, Steps

TAPS = 3  # of the front end, over bins and frames, and of the dense layers
FIRST_TAPS, FIRST_STRIDE = 5, 2  # of the TDNN's first layer
TOGETHER = 2  # images, whose values then stay in the cache from layer to layer


class NativeConvolutions(NativeNetwork):
    """Base class: reads convolutions and batch norms, in float32."""

    def _line(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return factor and summand (width,) that do what a batch norm does."""
        mean, variance = (self._weights.vector(f"{name}.running_{each}") for each in ("mean", "var"))
        factor = 1 / np.sqrt(variance + np.float32(NORM_EPS))
        if name.endswith("dense.nonlinear.batchnorm"):  # it has no weights
            return factor, -mean * factor
        factor *= self._weights.vector(f"{name}.weight")
        return factor, self._weights.vector(f"{name}.bias") - mean * factor

    def _matrix(self, name: str, norm: str | None = None) -> Linear:
        """Pack a convolution (out, in, taps...) as (out, taps * in), with a bias or the batch norm after it."""
        weights = self._weights.vector(f"{name}.weight")
        matrix = np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
        bias = None
        if norm:
            factor, bias = self._line(norm)
            matrix = matrix * factor[:, None]
        packed = Packed.of(self.encoder.library, matrix, self._weights.type)
        self._kept.append(packed)
        return Linear(packed.matrix, None if bias is None else self._address(bias))


class NativeFrontEnd(NativeConvolutions):
    """The network of `models.campplus.FrontEnd`.

    Shapes: (images, frames, bins) -> (images, frames, channels * bins / 8).
    """

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: Any):
        super().__init__(encoder, weights, config)
        self._first, self._last = self._matrix("conv1", "bn1"), self._matrix("conv2", "bn2")
        names = [(f"layer{layer}.{block}", 2 - block) for layer in (1, 2) for block in (0, 1)]
        self._blocks = [
            (
                self._matrix(f"{name}.conv1", f"{name}.bn1"),
                self._matrix(f"{name}.conv2", f"{name}.bn2"),
                self._matrix(f"{name}.shortcut.0", f"{name}.shortcut.1") if stride > 1 else None,
            )
            for name, stride in names
        ]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Apply all convolutions."""
        return np.concatenate(
            [self._images(features[start : start + TOGETHER]) for start in range(0, len(features), TOGETHER)]
        )

    def _images(self, features: np.ndarray) -> np.ndarray:
        count, frames, bins = features.shape
        x = framed(count, bins, frames, 1)
        x[:, 1:-1, 1:-1, 0] = features.swapaxes(1, 2)
        x = self._convolved(self._first, x)
        for first, second, shortcut in self._blocks:
            y = self._convolved(first, x, 1 if shortcut is None else 2)
            if shortcut is not None:
                x = self._convolved(shortcut, x, 2, taps=1, activation=IDENTITY)
            x = self._convolved(second, y, added=x)
        x = self._convolved(self._last, x, 2)[:, 1:-1, 1:-1]  # (images, bins / 8, frames, channels)
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(count, frames, -1)

    def _convolved(
        self,
        linear: Linear,
        x: np.ndarray,
        stride: int = 1,
        taps: int = TAPS,
        added: np.ndarray | None = None,
        activation: int = RELU,
    ) -> np.ndarray:
        """Map framed (images, bins, frames, in) to (images, bins / stride, frames, out)."""
        count, lines, columns, width = x.shape
        out = framed(count, (lines - 2 + stride - 1) // stride, columns - 2, linear.matrix.rows)
        line, image = out.strides[1] // 4, out.strides[0] // 4
        inside = (TAPS - taps) // 2 * (columns * width + width)  # where a filter of one tap begins
        convolution = Convolution(
            linear=linear, parts=taps, part_step=columns * width, activation=activation,
            images=count, lines=out.shape[1] - 2, rows=columns - 2,
            input=Steps(lines * columns * width, stride * columns * width, width),
            output=Steps(image, line, linear.matrix.rows),
        )  # fmt: skip
        self.encoder.convolve(convolution, x, out, added, (inside, line + linear.matrix.rows))
        return out


def framed(images: int, bins: int, frames: int, width: int) -> np.ndarray:
    """Return (images, 1 + bins + 1, 1 + frames + 1, width) with zeros around each image, and anything inside."""
    x = np.empty((images, bins + 2, frames + 2, width), np.float32)
    x[:, [0, -1]] = 0
    x[:, :, [0, -1]] = 0
    return x


class NativeXVector(NativeConvolutions):
    """The network of `models.campplus.XVector`: (images, frames, width) -> (images, embedding)."""

    def __init__(self, encoder: NativeEncoder, weights: Weights, config: Any):
        super().__init__(encoder, weights, config)
        self._first = self._matrix("tdnn.linear", "tdnn.nonlinear.batchnorm")
        self._blocks = [
            [self._layer(f"block{number}.tdnnd{layer + 1}", dilation) for layer in range(layers)]
            for number, (layers, dilation) in enumerate(zip(LAYERS, DILATIONS, strict=True), 1)
        ]
        numbers = range(1, len(LAYERS) + 1)
        self._transits = [self._matrix(f"transit{number}.linear") for number in numbers]
        self._norms = [self._line(f"transit{number}.nonlinear.batchnorm") for number in numbers]
        self._last_norm = self._line("out_nonlinear.batchnorm")
        self._dense = self._matrix("dense.linear", "dense.nonlinear.batchnorm")

    def _layer(self, name: str, dilation: int) -> DenseLayer:
        factor, summand = self._line(f"{name}.nonlinear1.batchnorm")
        squeeze, gate = (self._matrix(f"{name}.cam_layer.linear{number}") for number in (1, 2))
        for linear, number in ((squeeze, 1), (gate, 2)):
            linear.bias = self._address(self._weights.vector(f"{name}.cam_layer.linear{number}.bias"))
        return DenseLayer(
            factor=self._address(factor),
            summand=self._address(summand),
            narrow=self._matrix(f"{name}.linear1", f"{name}.nonlinear2.batchnorm"),
            local=self._matrix(f"{name}.cam_layer.linear_local"),
            squeeze=squeeze,
            gate=gate,
            dilation=dilation,
            run=CONTEXT_FRAMES,
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Compute embeddings."""
        count, frames, width = x.shape
        x = np.pad(x, [(0, 0), (FIRST_TAPS // 2, FIRST_TAPS // 2), (0, 0)])
        half = (frames + FIRST_STRIDE - 1) // FIRST_STRIDE
        wide = WIDTH + LAYERS[0] * CHANNELS
        y = np.empty((count, half, wide), np.float32)  # each layer writes further values of a frame
        convolution = Convolution(
            linear=self._first, parts=1, part_step=0, activation=RELU, images=count, lines=1, rows=half,
            input=Steps(x.shape[1] * width, 0, FIRST_STRIDE * width), output=Steps(half * wide, 0, wide),
        )  # fmt: skip
        self.encoder.convolve(convolution, x, y)
        for place, layers in enumerate(self._blocks):
            for layer in layers:
                self.encoder.dense_layer(layer, y)
            narrow = self.encoder.linear(
                self._transits[place], normed(y.reshape(count * half, -1), self._norms[place])
            )
            later = LAYERS[place + 1] * CHANNELS if place + 1 < len(LAYERS) else 0
            y = np.empty((count, half, narrow.shape[1] + later), np.float32)
            y[:, :, : narrow.shape[1]] = narrow.reshape(count, half, -1)
        y = normed(y, self._last_norm)
        return self.encoder.linear(self._dense, np.concatenate([y.mean(axis=1), y.std(axis=1, ddof=1)], axis=1))


def normed(x: np.ndarray, line: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Apply a batch norm and a ReLU to (..., width)."""
    factor, summand = line
    y = x * factor
    y += summand
    return np.maximum(y, 0, out=y)

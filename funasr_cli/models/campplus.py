"""CAM++: a vector that describes the voice in a clip, by a convolutional front end and a densely connected TDNN.

Source: FunASR ``funasr/models/campplus/model.py`` (``CAMPPlus``), ``components.py``; Wang et al. 2023, "CAM++: A
Fast and Efficient Network for Speaker Verification Using Context-Aware Masking", section 2. What differs: a batch
norm after a convolution is part of its matrix, and those over time are matrix products, channels last. All clips
of a batch have the same length: padding would change the means over time.
"""

import math
from typing import Any

from funasr_cli.compute.backend import mx, nn

NORM_EPS = 1e-5
CHANNELS = 32  # of the front end; also what each dense layer adds
BOTTLENECK, WIDTH = 128, 128  # within a dense layer; of the TDNN's first layer
LAYERS, DILATIONS = (12, 24, 16), (1, 2, 2)  # of the three blocks
CONTEXT_FRAMES = 100  # of the runs whose means a context mask adds to the mean of all


class Conv(nn.Module):
    """The tensors of a convolution, in PyTorch's axes: (out, in, taps), or (out, in, height, width)."""

    def __init__(self, width: int, out: int, *taps: int, bias: bool = False):
        super().__init__()
        self.weight = mx.zeros((out, width, *taps))
        if bias:
            self.bias = mx.zeros((out,))

    @property
    def matrix(self) -> mx.array:
        """The factor (taps * in, out) of a clip's frames, for a convolution over time."""
        return self.weight.transpose(2, 1, 0).reshape(-1, self.weight.shape[0])


class Norm(nn.Module):
    """The tensors of a batch norm with running statistics."""

    def __init__(self, width: int, *, affine: bool = True):
        super().__init__()
        if affine:
            self.weight, self.bias = mx.ones((width,)), mx.zeros((width,))
        self.running_mean, self.running_var = mx.zeros((width,)), mx.ones((width,))

    @property
    def line(self) -> tuple[mx.array, mx.array]:
        """Factor and summand (width,) that do the same."""
        factor = mx.rsqrt(self.running_var + NORM_EPS) * (self.weight if "weight" in self else 1.0)
        return factor, (self.bias if "bias" in self else 0.0) - self.running_mean * factor

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise (..., width)."""
        factor, summand = self.line
        return x * factor + summand


class Nonlinear(nn.Module):
    """A batch norm under the name that the checkpoint has for it; it is followed by a ReLU."""

    def __init__(self, width: int, *, affine: bool = True):
        super().__init__()
        self.batchnorm = Norm(width, affine=affine)

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise (..., width), without negative values."""
        return nn.relu(self.batchnorm(x))


def folded(x: mx.array, conv: Conv, norm: Norm) -> mx.array:
    """Multiply frames, with all taps side by side (..., taps * in), by a convolution with its norm: (..., out)."""
    factor, summand = norm.line
    return x @ (conv.matrix * factor) + summand


def taps_1d(x: mx.array, taps: int, dilation: int = 1, stride: int = 1) -> mx.array:
    """Put the inputs of each output frame side by side: (batch, frames, in) -> (batch, new frames, taps * in)."""
    reach, frames = dilation * (taps - 1), x.shape[1]
    x = mx.pad(x, [(0, 0), (reach // 2, reach // 2), (0, 0)])
    return mx.concatenate([x[:, k * dilation :][:, :frames:stride] for k in range(taps)], axis=-1)


def folded_2d(x: mx.array, conv: Conv, norm: Norm, stride: int = 1) -> mx.array:
    """Apply a convolution over bins and frames with its norm, and a `stride` over bins.

    Shapes: (batch, bins, frames, in) -> (batch, bins / stride, frames, out).
    """
    factor, summand = norm.line
    weight = (conv.weight * factor[:, None, None, None]).transpose(0, 2, 3, 1)  # (out, height, width, in)
    return mx.conv2d(x, weight, (stride, 1), weight.shape[1] // 2) + summand


class Residual(nn.Module):
    """Two convolutions over bins and frames, added to the input; a `stride` is over bins only."""

    def __init__(self, stride: int):
        super().__init__()
        self._stride = stride
        self.conv1, self.bn1 = Conv(CHANNELS, CHANNELS, 3, 3), Norm(CHANNELS)
        self.conv2, self.bn2 = Conv(CHANNELS, CHANNELS, 3, 3), Norm(CHANNELS)
        if stride > 1:
            self.shortcut: Any = [Conv(CHANNELS, CHANNELS, 1, 1), Norm(CHANNELS)]

    def __call__(self, x: mx.array) -> mx.array:
        """Map (batch, bins, frames, channels) to (batch, bins / stride, frames, channels)."""
        y = nn.relu(folded_2d(x, self.conv1, self.bn1, self._stride))
        if "shortcut" in self:
            x = folded_2d(x, self.shortcut[0], self.shortcut[1], self._stride)
        return nn.relu(folded_2d(y, self.conv2, self.bn2) + x)


class FrontEnd(nn.Module):
    """Convolutions over bins and frames, which leave an eighth of the bins."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = Conv(1, CHANNELS, 3, 3), Norm(CHANNELS)
        self.layer1, self.layer2 = ([Residual(2), Residual(1)] for _ in range(2))
        self.conv2, self.bn2 = Conv(CHANNELS, CHANNELS, 3, 3), Norm(CHANNELS)

    def __call__(self, x: mx.array) -> mx.array:
        """Map (batch, frames, bins) to (batch, frames, channels * bins / 8)."""
        x = x.swapaxes(1, 2)[..., None]  # (batch, bins, frames, 1)
        x = nn.relu(folded_2d(x, self.conv1, self.bn1))
        for block in (*self.layer1, *self.layer2):
            x = block(x)
        x = nn.relu(folded_2d(x, self.conv2, self.bn2, 2))  # (batch, bins / 8, frames, channels)
        return x.transpose(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], -1)


class ContextMask(nn.Module):
    """A dilated convolution whose outputs are weighted by the context: means of all frames and of runs of them."""

    def __init__(self, width: int, out: int, dilation: int):
        super().__init__()
        self._dilation = dilation
        self.linear_local = Conv(width, out, 3)
        self.linear1, self.linear2 = Conv(width, width // 2, 1, bias=True), Conv(width // 2, out, 1, bias=True)

    def __call__(self, x: mx.array) -> mx.array:
        """Map (batch, frames, width) to (batch, frames, out)."""
        y = taps_1d(x, 3, self._dilation) @ self.linear_local.matrix
        frames = x.shape[1]
        starts = range(0, frames, CONTEXT_FRAMES)
        context = [x[:, start : start + CONTEXT_FRAMES].mean(axis=1) for start in starts]
        runs = mx.stack(context, axis=1) + x.mean(axis=1, keepdims=True)  # (batch, runs, width)
        hidden = nn.relu(runs @ self.linear1.matrix + self.linear1.bias)
        mask = mx.sigmoid(hidden @ self.linear2.matrix + self.linear2.bias)  # (batch, runs, out)
        if len(context) > 1:
            mask = mx.repeat(mask, CONTEXT_FRAMES, axis=1)[:, :frames]
        return y * mask


class DenseLayer(nn.Module):
    """A layer of a dense block, which adds `CHANNELS` values to each frame."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.nonlinear1, self.linear1 = Nonlinear(width), Conv(width, BOTTLENECK, 1)
        self.nonlinear2 = Nonlinear(BOTTLENECK)
        self.cam_layer = ContextMask(BOTTLENECK, CHANNELS, dilation)

    def __call__(self, x: mx.array) -> mx.array:
        """Map (batch, frames, width) to (batch, frames, width + CHANNELS)."""
        y = nn.relu(folded(self.nonlinear1(x), self.linear1, self.nonlinear2.batchnorm))
        return mx.concatenate([x, self.cam_layer(y)], axis=-1)


class DenseBlock(nn.Module):
    """Dense layers, named ``tdnnd1`` and so on."""

    def __init__(self, width: int, layers: int, dilation: int):
        super().__init__()
        for layer in range(layers):
            self[f"tdnnd{layer + 1}"] = DenseLayer(width + layer * CHANNELS, dilation)

    def __call__(self, x: mx.array) -> mx.array:
        """Apply all layers to (batch, frames, width)."""
        for layer in range(len(self)):
            x = self[f"tdnnd{layer + 1}"](x)
        return x


class Unit(nn.Module):
    """A convolution with a batch norm, before or after it."""

    def __init__(self, width: int, out: int, *, taps: int = 1, norm: int, affine: bool = True):
        super().__init__()
        self.linear, self.nonlinear = Conv(width, out, taps), Nonlinear(norm, affine=affine)


class XVector(nn.Module):
    """The TDNN: from frames to one vector."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.tdnn = Unit(width, WIDTH, taps=5, norm=WIDTH)
        width = WIDTH
        for number, (layers, dilation) in enumerate(zip(LAYERS, DILATIONS, strict=True), 1):
            self[f"block{number}"] = DenseBlock(width, layers, dilation)
            width += layers * CHANNELS
            self[f"transit{number}"] = Unit(width, width // 2, norm=width)
            width //= 2
        self.out_nonlinear = Nonlinear(width)
        self.dense = Unit(2 * width, embedding, norm=embedding, affine=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Map (batch, frames, width) to (batch, embedding)."""
        tdnn = self.tdnn
        x = nn.relu(folded(taps_1d(x, 5, stride=2), tdnn.linear, tdnn.nonlinear.batchnorm))  # half the frames
        for number in range(1, len(LAYERS) + 1):
            x, transit = self[f"block{number}"](x), self[f"transit{number}"]
            x = transit.nonlinear(x) @ transit.linear.matrix
        x = self.out_nonlinear(x)
        x = mx.concatenate([x.mean(axis=1), mx.sqrt(x.var(axis=1, ddof=1))], axis=-1)  # (batch, 2 * width)
        return folded(x, self.dense.linear, self.dense.nonlinear.batchnorm)


class CAMPPlus(nn.Module):
    """The network. Attribute names are the checkpoint's keys."""

    def __init__(self, bins: int, embedding: int):
        super().__init__()
        self.head = FrontEnd()
        self.xvector = XVector(CHANNELS * math.ceil(bins / 8), embedding)

    def __call__(self, features: mx.array) -> mx.array:
        """Compute embeddings (batch, embedding), not normalised, of `features` (batch, frames, bins) float32."""
        return self.xvector(self.head(features))

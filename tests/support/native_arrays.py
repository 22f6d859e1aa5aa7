"""Weights of a network on MLX, for the C library; random ones in 4 bits."""

import numpy as np
from mlx.utils import tree_flatten
from support.native import LIBRARY

from funasr_cli.compute.backend import mx, nn
from funasr_cli.native.library import GROUP, INT4, INT4_HALF, INT8, Packed
from funasr_cli.native.qwen3 import interleaved


class Arrays:
    """The weights of a network on MLX, or those given instead; see `native.encoder.Weights`."""

    def __init__(self, network: nn.Module, packed_type: int, **changed: np.ndarray):
        """Take all weights; ``changed`` has matrices by the last part of their names."""
        self._arrays = {name: np.array(value) for name, value in tree_flatten(network.parameters())}
        self._arrays |= {
            name: changed.get(name.split(".")[-2], self._arrays[name]) for name in self._arrays if "." in name
        }
        self._packed_type = packed_type
        self.type = INT8 if packed_type in (INT4, INT4_HALF) else packed_type

    def matrix(self, *names: str, interleave: bool = False) -> Packed:
        """Pack matrices."""
        parts = [np.asarray(self._arrays[f"{name}.weight"], np.float32) for name in names]
        values = interleaved(*parts) if interleave else np.concatenate(parts)
        if self.type == self._packed_type:
            return Packed.of(LIBRARY, values, self.type)
        return in_four_bits(*quantized(values, self._packed_type), self._packed_type)

    def vector(self, name: str) -> np.ndarray:
        """Return a tensor."""
        return self._arrays[name]


def quantized(values: np.ndarray, weights: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantize (rows, columns) to 4 bits; return values, and scales and offsets (rows, columns / GROUP)."""
    packed, scales, biases = mx.quantize(mx.array(values).astype(_dtype(weights)), group_size=GROUP, bits=4)
    ones, zeros = mx.ones(scales.shape), mx.zeros(scales.shape)
    whole = mx.dequantize(packed, ones, zeros, group_size=GROUP, bits=4)
    return np.array(whole).astype(np.uint8), *(np.array(each.astype(mx.float32)) for each in (scales, biases))


def dequantized(values: np.ndarray, scales: np.ndarray, offsets: np.ndarray, group: int = GROUP) -> np.ndarray:
    """Return the weights in float64."""
    return values * scales.astype(np.float64).repeat(group, 1) + offsets.repeat(group, 1)


def in_four_bits(
    values: np.ndarray, scales: np.ndarray, offsets: np.ndarray, weights: int, group: int = GROUP
) -> Packed:
    """Pack (rows, columns) values below 16, with (rows, columns / group) scales and offsets that 16 bits hold."""
    packed = Packed(LIBRARY, *values.shape, weights, has_offset=True)
    packed.put_4_bits(0, values, *(_bits(each, weights) for each in (scales, offsets)), group)
    return packed


def four_bits(
    rng: np.random.Generator, rows: int, columns: int, weights: int, group: int = GROUP
) -> tuple[Packed, np.ndarray]:
    """Return a random matrix in 4 bits, and its exact weights in float64."""
    values = rng.integers(0, 16, (rows, columns)).astype(np.uint8)
    scales, offsets = (
        np.array(mx.array(each).astype(_dtype(weights)).astype(mx.float32))
        for each in rng.standard_normal((2, rows, columns // group)).astype(np.float32)
    )
    packed = in_four_bits(values, scales, offsets, weights, group)
    return packed, dequantized(values, scales, offsets, group)


def _dtype(weights: int) -> mx.Dtype:
    return mx.bfloat16 if weights == INT4 else mx.float16


def _bits(numbers: np.ndarray, weights: int) -> np.ndarray:
    return np.array(mx.array(numbers).astype(_dtype(weights)).view(mx.uint16))

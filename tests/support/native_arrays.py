"""Weights of a network on MLX, for the C library."""

import numpy as np
from mlx.utils import tree_flatten
from support.native import LIBRARY

from funasr_cli.compute.backend import nn
from funasr_cli.native.library import Packed
from funasr_cli.native.qwen3 import interleaved


class Arrays:
    """The weights of a network on MLX, or those given instead; see `native.encoder.Weights`."""

    def __init__(self, network: nn.Module, packed_type: int, **changed: np.ndarray):
        """Take all weights; ``changed`` has matrices by the last part of their names."""
        self._arrays = {name: np.array(value) for name, value in tree_flatten(network.parameters())}
        self._arrays |= {
            name: changed.get(name.split(".")[-2], self._arrays[name]) for name in self._arrays if "." in name
        }
        self.type = packed_type

    def matrix(self, *names: str, interleave: bool = False) -> Packed:
        """Pack matrices."""
        parts = [np.asarray(self._arrays[f"{name}.weight"], np.float32) for name in names]
        return Packed.of(LIBRARY, interleaved(*parts) if interleave else np.concatenate(parts), self.type)

    def vector(self, name: str) -> np.ndarray:
        """Return a tensor."""
        return self._arrays[name]

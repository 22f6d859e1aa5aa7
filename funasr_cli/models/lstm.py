"""LSTM layers, which NumPy computes: on MLX, each of their hundreds of small steps would be several kernels.

Source: ``torch.nn.LSTM``, whose names of tensors and order of gates (input, forget, cell, output) these are.
"""

from collections.abc import Callable

import numpy as np

from funasr_cli.compute.backend import mx, nn


class Tensors(nn.Module):
    """Tensors of a checkpoint that NumPy computes with, in float32."""

    def __init__(self, **shapes: tuple[int, ...]):
        super().__init__()
        for name, shape in shapes.items():
            self[name] = mx.zeros(shape)
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str) -> np.ndarray:
        """Return a tensor as float32; it is cast once."""
        return self.made(name, lambda: np.array(self[name].astype(mx.float32)))

    def cast(self) -> None:
        """Cast all tensors now, so that no other thread calls MLX."""
        for name in self.parameters():
            self.array(name)

    def made(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return what `make` returned the first time for this name."""
        if name not in self._arrays:
            self._arrays[name] = make()
        return self._arrays[name]


class LSTM(Tensors):
    """Layers of one direction each; a suffix of the names stands for the direction."""

    def __init__(self, width: int, layers: int = 1, suffixes: tuple[str, ...] = ("",)):
        parts = [f"l{layer}{suffix}" for layer in range(layers) for suffix in suffixes]
        matrices = {f"weight_{kind}_{part}": (4 * width, width) for part in parts for kind in ("ih", "hh")}
        biases = {f"bias_{kind}_{part}": (4 * width,) for part in parts for kind in ("ih", "hh")}
        super().__init__(**matrices, **biases)
        self._layers = layers

    def __call__(self, x: np.ndarray, suffix: str = "") -> np.ndarray:
        """Run all layers over `x` (batch, steps, width) float32; return the same shape."""
        for layer in range(self._layers):
            x = self._layer(x, f"l{layer}{suffix}")
        return x

    def _layer(self, x: np.ndarray, part: str) -> np.ndarray:
        bias = self.array(f"bias_ih_{part}") + self.array(f"bias_hh_{part}")
        recurrent = self.array(f"weight_hh_{part}")  # (4 * width, width)
        gates = x @ self.array(f"weight_ih_{part}").T + bias  # (batch, steps, 4 * width)
        hidden = cell = np.zeros_like(x[:, 0])  # (batch, width)
        out = np.empty_like(x)
        for step in range(x.shape[1]):
            # Not a BLAS, whose threads wait for each other at every step: on a busy machine, that takes seconds.
            fed_back = np.einsum("oi,bi->bo", recurrent, hidden)  # (batch, 4 * width)
            entry, forget, content, exit_ = np.split(gates[:, step] + fed_back, 4, axis=-1)
            cell = _sigmoid(forget) * cell + _sigmoid(entry) * np.tanh(content)
            hidden = _sigmoid(exit_) * np.tanh(cell)
            out[:, step] = hidden
        return out


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x))

"""An opened checkpoint: what every reader of a layout gives, and every user of one takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.quantize import BIASES, PACKED, SCALES, Groups, Quantization
from funasr_cli.checkpoints.tensors import FLOATING, Shape, Tensor
from funasr_cli.checkpoints.untrusted import CONFIG_LIMIT_BYTES, read_json
from funasr_cli.compute.backend import nn
from funasr_cli.errors import ModelError

SHOWN_PROBLEMS = 6  # of each kind


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in any layout, in our words; its tensors have not been read.

    They are in the model's layout, by its names; quantized matrices are in three parts, as MLX has them. The class
    of its configuration tells which family it is of.
    """

    layout: str  # what the layout is called
    config: Any  # a dataclass, that of its family
    dtype: str  # of most of its tensors
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]  # that go with it, by the names that they have in a converted model
    weights: tuple[Path, ...]  # the files that hold the tensors
    texts: Mapping[str, str] = field(default_factory=dict)  # files of a converted model that are made, by name
    quantization: Quantization | None = None
    source: Mapping[str, str | None] = field(default_factory=dict)  # as far as the checkpoint itself says
    notes: tuple[str, ...] = ()  # what the user should know about it

    @property
    def where(self) -> str:
        """The file of the tensors, or the first of them, for messages."""
        return str(self.weights[0])

    def quantized(self) -> dict[str, Groups]:
        """Its quantized modules."""
        if self.quantization is None:
            return {}
        usual, exceptions = self.quantization.usual, self.quantization.exceptions
        modules = (name.removesuffix(f".{SCALES}") for name in self.tensors if name.endswith(f".{SCALES}"))
        return {module: exceptions.get(module, usual) for module in modules}


def stored_shapes(dense: Mapping[str, Shape], quantized: Mapping[str, Groups]) -> dict[str, Shape]:
    """Names and shapes of a model's tensors once some of its modules are quantized."""
    shapes: dict[str, Shape] = {}
    for name, shape in dense.items():
        module = name.removesuffix(".weight")
        if (groups := quantized.get(module)) and name != module:
            rows, columns = shape
            shapes[name] = (rows, columns * groups.bits // 32)  # as many to a 32-bit integer as fit
            shapes |= {f"{module}.{part}": (rows, columns // groups.group_size) for part in (SCALES, BIASES)}
        else:
            shapes[name] = shape
    return shapes


def empty_model(checkpoint: Checkpoint, model: nn.Module) -> nn.Module:
    """The dense network of a checkpoint's configuration, still without values, if the tensors are those of it.

    Raises:
        ModelError: listing what is missing, unexpected, misshapen, or of a type that no model is stored in.
    """
    dense, found = model_shapes(model), checkpoint.tensors
    expected = stored_shapes(dense, checkpoint.quantized())
    problems = {
        "missing": [f"{name} {shape}" for name, shape in expected.items() if name not in found],
        "unexpected": [f"{name} {tensor.shape}" for name, tensor in found.items() if name not in expected],
        "misshapen": [
            f"{name} is {found[name].shape}, the configuration says {shape}"
            for name, shape in expected.items()
            if name in found and found[name].shape != shape
        ],
    }
    if count := sum(map(len, problems.values())):
        listed = [f"\n  {kind}: {each}" for kind in problems for each in shortened(problems[kind], SHOWN_PROBLEMS)]
        message = f"{checkpoint.where}: {count} tensors do not fit the configuration{''.join(listed)}"
        hint = "the checkpoint is incomplete, or its configuration belongs to another one"
        raise ModelError(message, hint, code="model-misfit")
    for name, tensor in found.items():
        known = (PACKED,) if name in dense and expected[name] != dense[name] else FLOATING
        if tensor.dtype not in known:
            what = f"{name} is of type {tensor.dtype}, not {' or '.join(known)}"
            raise ModelError(f"{checkpoint.where}: {what}", code="model-misfit")
    return model


def shortened(problems: list[str], most: int) -> list[str]:
    """The first ones, and how many more there are."""
    more = len(problems) - most
    return [*problems[:most], *([f"... and {more} more"] if more > 0 else [])]


def read_small_json(
    files: Mapping[str, Path], texts: Mapping[str, str], name: str, limit_bytes: int = CONFIG_LIMIT_BYTES
) -> dict[str, Any]:
    """Read a JSON object that goes with a checkpoint: it lies in a folder, or is still to be written into one."""
    return json.loads(texts[name]) if name in texts else read_json(files[name], limit_bytes)

"""An opened checkpoint in any layout, and the checks of its tensors."""

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

SHOWN_PROBLEMS = 6  # number shown of each kind


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint opened from any layout. Its tensors have not been read yet.

    Tensors have the MLX model's names and layout. A quantized matrix is stored as three tensors, as in MLX. The
    class of ``config`` determines the model family.
    """

    layout: str  # name of the layout
    config: Any  # a dataclass of the model family
    dtype: str  # type of most of its tensors
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]  # other files to copy, by their names in a converted model
    weights: tuple[Path, ...]  # the files that hold the tensors
    texts: Mapping[str, str] = field(default_factory=dict)  # content of files to generate in a converted model
    quantization: Quantization | None = None
    source: Mapping[str, str | None] = field(default_factory=dict)  # origin, as recorded in the checkpoint itself
    notes: tuple[str, ...] = ()  # notes for the user
    adaptation: "Adaptation | None" = None  # the adapter that has been merged into it
    is_assembled: bool = False  # made of several checkpoints: converted as it is even if a part is quantized

    @property
    def where(self) -> str:
        """The first file of tensors, for messages."""
        return str(self.weights[0])

    def quantized(self) -> dict[str, Groups]:
        """Return how each quantized module is quantized, by the module's name."""
        if self.quantization is None:
            return {}
        usual, exceptions = self.quantization.usual, self.quantization.exceptions
        modules = (name.removesuffix(f".{SCALES}") for name in self.tensors if name.endswith(f".{SCALES}"))
        return {module: exceptions.get(module, usual) for module in modules}


@dataclass(frozen=True)
class Adaptation:
    """An adapter that has been merged into a checkpoint.

    Attributes:
        base: the checkpoint without it.
        name: its name, for a model's origin; of several, all names.
        lora_conf: FunASR's settings for the same adapter; None if FunASR cannot load it.
    """

    base: Checkpoint
    name: str
    lora_conf: Mapping[str, Any] | None = None


def stored_shapes(dense: Mapping[str, Shape], quantized: Mapping[str, Groups]) -> dict[str, Shape]:
    """Return names and shapes of a model's stored tensors, given its dense shapes and its quantized modules."""
    shapes: dict[str, Shape] = {}
    for name, shape in dense.items():
        module = name.removesuffix(".weight")
        if (groups := quantized.get(module)) and name != module:
            rows, columns = shape
            shapes[name] = (rows, columns * groups.bits // 32)  # packed into 32-bit integers
            shapes |= {f"{module}.{part}": (rows, columns // groups.group_size) for part in (SCALES, BIASES)}
        else:
            shapes[name] = shape
    return shapes


def empty_model(checkpoint: Checkpoint, model: nn.Module) -> nn.Module:
    """Check that a checkpoint's tensors fit its network, and return the dense network without values.

    Raises:
        ModelError: tensors are missing, unexpected, misshapen or of an unsupported type. The message lists them.
    """
    dense, found = model_shapes(model), checkpoint.tensors
    expected = stored_shapes(dense, checkpoint.quantized())
    problems = {
        "missing": [f"{name} {shape}" for name, shape in expected.items() if name not in found],
        "unexpected": [f"{name} {tensor.shape}" for name, tensor in found.items() if name not in expected],
        "misshapen": [
            f"{name} is {found[name].shape}, but the configuration requires {shape}"
            for name, shape in expected.items()
            if name in found and found[name].shape != shape
        ],
    }
    if count := sum(map(len, problems.values())):
        listed = [f"\n  {kind}: {each}" for kind in problems for each in shortened(problems[kind], SHOWN_PROBLEMS)]
        message = f"{checkpoint.where}: {count} tensors do not fit the configuration{''.join(listed)}"
        hint = "the checkpoint is incomplete, or its configuration belongs to another model"
        raise ModelError(message, hint, code="model-misfit")
    for name, tensor in found.items():
        known = (PACKED,) if name in dense and expected[name] != dense[name] else FLOATING
        if tensor.dtype not in known:
            what = f"{name} is of type {tensor.dtype}, not {' or '.join(known)}"
            raise ModelError(f"{checkpoint.where}: {what}", code="model-misfit")
    return model


def shortened(problems: list[str], most: int) -> list[str]:
    """Return the first ``most`` problems, and the number of further ones."""
    more = len(problems) - most
    return [*problems[:most], *([f"... and {more} more"] if more > 0 else [])]


def read_small_json(
    files: Mapping[str, Path], texts: Mapping[str, str], name: str, limit_bytes: int = CONFIG_LIMIT_BYTES
) -> dict[str, Any]:
    """Read a JSON object that belongs to a checkpoint, from a file or from text that has not been written yet."""
    return json.loads(texts[name]) if name in texts else read_json(files[name], limit_bytes)

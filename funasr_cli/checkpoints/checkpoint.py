"""An opened checkpoint: what every reader of a layout gives, and every user of one takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.quantize import BIASES, PACKED, SCALES, Groups, Quantization
from funasr_cli.checkpoints.tensors import FLOATING, Shape, Tensor
from funasr_cli.errors import ModelError
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig
from funasr_cli.families.fun_asr_nano.network import FunASRNano

SHOWN_PROBLEMS = 6  # of each kind


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in any layout, in our words; its tensors have not been read.

    They are in the model's layout, by its names; quantized matrices are in three parts, as MLX has them.
    """

    layout: str  # what the layout is called
    config: FunASRNanoConfig
    dtype: str  # of most of its tensors
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]  # that go with it, by the names that they have in a converted model
    weights: tuple[Path, ...]  # the files that hold the tensors
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


def empty_model(checkpoint: Checkpoint) -> FunASRNano:
    """The dense model of a checkpoint's configuration, still without values, if the tensors are those of it.

    Raises:
        ModelError: listing what is missing, unexpected, misshapen, or of a type that no model is stored in.
    """
    model = FunASRNano(checkpoint.config)
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

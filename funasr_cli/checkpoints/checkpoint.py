"""An opened checkpoint: what every reader of a layout gives, and every user of one takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from funasr_cli.checkpoints.quantize import BIASES, SCALES, Groups, Quantization
from funasr_cli.checkpoints.tensors import Shape, Tensor
from funasr_cli.models.fun_asr_nano import FunASRNanoConfig


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in any layout, in our words; its tensors have not been read.

    Attributes:
        layout: what the layout is called.
        config: sizes, prompt, languages.
        dtype: type of most of its tensors.
        tensors: by the model's names and in its layout; quantized matrices are in three parts, as MLX has them.
        files: files that go with it, by the names that they have in a converted model.
        weights: the files that hold the tensors.
        quantization: how those matrices are quantized.
        source: where it was taken from, as far as the checkpoint itself says.
        notes: what the user should know about it.
    """

    layout: str
    config: FunASRNanoConfig
    dtype: str
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]
    weights: tuple[Path, ...]
    quantization: Quantization | None = None
    source: Mapping[str, str | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The file of the tensors, or the first of them, for messages."""
        return str(self.weights[0])

    def quantized(self) -> dict[str, Groups]:
        """Its quantized modules."""
        if self.quantization is None:
            return {}
        modules = (name.removesuffix(f".{SCALES}") for name in self.tensors if name.endswith(f".{SCALES}"))
        return {module: self.quantization.of(module) for module in modules}


def stored_shapes(dense: Mapping[str, Shape], quantized: Mapping[str, Groups]) -> dict[str, Shape]:
    """Names and shapes of a model's tensors once some of its modules are quantized.

    Args:
        dense: those of the model.
        quantized: its quantized modules.
    """
    shapes = {}
    for name, shape in dense.items():
        module = name.removesuffix(".weight")
        if (groups := quantized.get(module)) and name != module:
            rows, columns = shape
            shapes[name] = groups.packed(rows, columns)
            shapes |= {f"{module}.{part}": (rows, columns // groups.group_size) for part in (SCALES, BIASES)}
        else:
            shapes[name] = shape
    return shapes

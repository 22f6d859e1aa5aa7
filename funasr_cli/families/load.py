"""Loading a model: strict checks of names and shapes, and the type that suits the device."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from funasr_cli.checkpoints.checkpoint import Checkpoint, empty_model
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.quantize import BIASES, PACKED, SCALES, Groups
from funasr_cli.checkpoints.tensors import size_bytes
from funasr_cli.compute.backend import mx, nn
from funasr_cli.compute.device import default_dtype, keep_in_memory, refuse_too_large
from funasr_cli.errors import UsageError
from funasr_cli.families import registry
from funasr_cli.families.converted import ModelFile
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.open import open_model
from funasr_cli.options import AS_STORED, DTYPES
from funasr_cli.speech_model import SpeechModel

# Hints for a model that does not fit into memory.
LIGHTER_STORED = "or convert the model with --quantize {}"
ELSEWHERE = "or use a machine with more memory"
LIGHTER_DENSE = "--dtype stored needs less memory, but is much slower on a CPU"
OVERFLOWS = "float16"  # mlx-audio can store it, but its range is too small to compute in for this model


def load_model(folder: Path, dtype: str | None = None) -> SpeechModel:
    """Load a model from a folder that `open_model` can read.

    Args:
        folder: the model's folder.
        dtype: "stored" (quantized matrices stay quantized), "float32" or "bfloat16" (all weights dense, in that
            type); None chooses the best type for the device.

    Raises:
        UsageError: any other type. This includes float16, whose range is too small for the models' values.
        ModelError: the folder is incomplete or damaged, or the weights do not match the configuration.
        SetupError: there is not enough memory.
    """
    dtype = dtype or default_dtype()
    if dtype not in (AS_STORED, *DTYPES):
        hint = f"choose from {', '.join((AS_STORED, *DTYPES))}"
        raise UsageError(f"cannot compute in {dtype!r}", hint, code="option-value")
    return load_checkpoint(open_model(folder), folder, dtype)


def load_checkpoint(checkpoint: Checkpoint, folder: Path, dtype: str) -> SpeechModel:
    """Load an opened checkpoint of any layout; see `load_model`."""
    family = registry.of_config(checkpoint.config)
    network, quantized = empty_model(checkpoint, family.network(checkpoint.config)), checkpoint.quantized()
    if dtype == AS_STORED:
        lighter = LIGHTER_STORED.format(family.parts[0].recipes[0]) if family.parts else ELSEWHERE
        sizes = (tensor.size_bytes for tensor in checkpoint.tensors.values())
    else:
        sizes, lighter = (size_bytes(dtype, shape) for shape in model_shapes(network).values()), LIGHTER_DENSE
    refuse_too_large(str(checkpoint.weights[0].parent), sizes, lighter)
    keep_in_memory()
    if dtype == AS_STORED and quantized:
        stated = {module: dataclasses.asdict(groups) for module, groups in quantized.items()}
        nn.quantize(network, class_predicate=lambda module, _: stated.get(module, False))
    # Tensors are cast one by one, so that only one is in memory in both forms.
    network.load_weights(list(_weights(checkpoint, dtype, quantized)), strict=True)
    network.eval()
    file = ModelFile(checkpoint.config, checkpoint.dtype, checkpoint.quantization, dict(checkpoint.source))
    return family.load(LoadedModel(network, family, file, checkpoint.files, folder, dtype, checkpoint.texts))


def _weights(
    checkpoint: Checkpoint, dtype: str, quantized: Mapping[str, Groups]
) -> Iterator[tuple[str, mx.array]]:
    """Yield the tensors in the type to compute in. Dequantized, a matrix is one tensor instead of three."""
    for name, tensor in checkpoint.tensors.items():
        module, _, part = name.rpartition(".")
        if dtype == AS_STORED:
            values = tensor.read_in("bfloat16") if tensor.dtype == OVERFLOWS else tensor.read()
        elif module in quantized and part in (SCALES, BIASES):
            continue
        elif tensor.dtype == PACKED:
            scales, biases = (checkpoint.tensors[f"{module}.{each}"].read() for each in (SCALES, BIASES))
            groups = quantized[module]
            dense = mx.dequantize(tensor.read(), scales, biases, group_size=groups.group_size, bits=groups.bits)
            values = dense.astype(getattr(mx, dtype))
        else:
            values = tensor.read_in(dtype)
        mx.eval(values)
        yield name, values

"""Loading a model: strict checks of names and shapes, and the type that suits the device."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from funasr_cli.checkpoints.checkpoint import Checkpoint, empty_model
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.quantize import BIASES, PACKED, SCALES, Groups
from funasr_cli.checkpoints.tensors import size_bytes
from funasr_cli.compute.backend import mx, nn
from funasr_cli.compute.device import default_dtype, keep_in_memory, refuse_too_large
from funasr_cli.errors import SetupError, UsageError
from funasr_cli.families import registry
from funasr_cli.families.converted import ModelFile
from funasr_cli.families.family import LoadedModel, NativePart
from funasr_cli.families.native import belongs, load_parts, native_parts, needed_bytes
from funasr_cli.families.open import open_model
from funasr_cli.options import AS_STORED, AUTO_ENGINE, DTYPES, ENGINES, INT8, MLX, NATIVE, NATIVE_DTYPES
from funasr_cli.speech_model import SpeechModel

# Hints for a model that does not fit into memory.
LIGHTER_STORED = "or convert the model with --quantize {}"
ELSEWHERE = "or use a machine with more memory"
LIGHTER_DENSE = "--dtype stored needs less memory, but is much slower on a CPU"
LIGHTER_NATIVE = "--dtype int8 needs less memory"
OVERFLOWS = "float16"  # mlx-audio can store it, but its range is too small to compute in for this model


def load_model(folder: Path, dtype: str | None = None, engine: str = AUTO_ENGINE) -> SpeechModel:
    """Load a model from a folder that `open_model` can read.

    Args:
        folder: the model's folder.
        dtype: "stored" (quantized matrices stay quantized), "float32" or "bfloat16" (all weights dense, in that
            type); with the native engine "int8" (only a decoder; the rest in bfloat16 where the CPU multiplies it
            fast, else float32) or "float32". None chooses the best type for the device.
        engine: "mlx", "native" (this package's C library, on a CPU) or "auto", for now MLX.

    Raises:
        UsageError: another type, such as float16, whose range is too small for the models' values; the native
            engine cannot compute this model, or not on this device.
        ModelError: the folder is incomplete or damaged, or the weights do not match the configuration.
        SetupError: there is not enough memory, or the native engine is missing.
    """
    dtype = _checked(dtype, engine)
    return load_checkpoint(open_model(folder), folder, dtype, engine)


def load_aligner(folder: Path, dtype: str | None = None) -> SpeechModel:
    """Load a model for its CTC output alone, which MLX computes regardless of the engine of the main model."""
    return load_model(folder, None if dtype == INT8 else dtype)


class Choice(NamedTuple):
    """Number type and engine to load a model with, as `load_model` takes them, and why a default is ignored."""

    dtype: str | None
    engine: str
    ignored: str | None = None


def choose_engine(folder: Path, dtype: str | None, engine: str, optional: Collection[str]) -> Choice:
    """Drop an engine or a type that this model cannot be loaded with, if it is only a default.

    `optional` names the defaults: "engine", "dtype" or both. If two of them do not go together, the engine counts.
    """
    ignored = None
    if engine == NATIVE and "engine" in optional:
        if dtype not in (None, *NATIVE_DTYPES) and "dtype" not in optional:
            ignored = f"the native engine cannot compute in {dtype}"
        else:
            checkpoint = open_model(folder)
            try:
                usual = dtype if dtype in NATIVE_DTYPES else NATIVE_DTYPES[0]
                native_parts(checkpoint, registry.of_config(checkpoint.config), usual)
            except (UsageError, SetupError) as error:
                if dtype == INT8 and "dtype" not in optional:
                    raise  # the type needs this engine
                ignored = error.message
    if ignored:
        engine = AUTO_ENGINE
    if dtype and "dtype" in optional and dtype not in _types(engine):
        on = "the native engine" if engine == NATIVE else "MLX"
        dtype, ignored = None, ignored or f"{on} cannot compute in {dtype}"
    return Choice(dtype, engine, ignored)


def _types(engine: str) -> tuple[str, ...]:
    return NATIVE_DTYPES if engine == NATIVE else (AS_STORED, *DTYPES)


def _checked(dtype: str | None, engine: str) -> str:
    """Return the type to compute in; raise a `UsageError` for one that the engine does not have."""
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}", f"choose from {', '.join(ENGINES)}", code="option-value")
    known = _types(engine)
    dtype = dtype or (NATIVE_DTYPES[0] if engine == NATIVE else default_dtype())
    if dtype in known:
        return dtype
    if dtype == INT8:
        raise UsageError("--dtype int8: MLX has no such type", "add --engine native", code="options-conflict")
    on = " on the native engine" if engine == NATIVE else ""
    raise UsageError(f"cannot compute in {dtype!r}{on}", f"choose from {', '.join(known)}", code="option-value")


def load_checkpoint(checkpoint: Checkpoint, folder: Path, dtype: str, engine: str = MLX) -> SpeechModel:
    """Load an opened checkpoint of any layout; see `load_model`."""
    family = registry.of_config(checkpoint.config)
    network, quantized = empty_model(checkpoint, family.network(checkpoint.config)), checkpoint.quantized()
    parts = native_parts(checkpoint, family, dtype) if engine == NATIVE else []
    if parts:
        lighter = ELSEWHERE if dtype == INT8 else LIGHTER_NATIVE
        shapes = model_shapes(network).items()
        rest = (size_bytes("float32", shape) for name, shape in shapes if not _is_in(name, parts))
        sizes = iter((*(needed_bytes(checkpoint, part, dtype) for part in parts), *rest))
    elif dtype == AS_STORED:
        lighter = LIGHTER_STORED.format(family.parts[0].recipes[0]) if family.parts else ELSEWHERE
        sizes = (tensor.size_bytes for tensor in checkpoint.tensors.values())
    else:
        sizes, lighter = (size_bytes(dtype, shape) for shape in model_shapes(network).values()), LIGHTER_DENSE
    refuse_too_large(str(checkpoint.weights[0].parent), sizes, lighter)
    keep_in_memory()
    if dtype == AS_STORED and quantized:
        stated = {module: dataclasses.asdict(groups) for module, groups in quantized.items()}
        nn.quantize(network, class_predicate=lambda module, _: stated.get(module, False))
    native = load_parts(checkpoint, parts, dtype) if parts else {}
    for prefix, computed in native.items():
        setattr(network, prefix, computed)  # before the other weights, which are then all that is missing
    # Tensors are cast one by one, so that only one is in memory in both forms.
    names = [name for name in checkpoint.tensors if not _is_in(name, parts)]
    weights = _weights(checkpoint, names, "float32" if parts else dtype, quantized)
    network.load_weights(list(weights), strict=True)
    network.eval()
    file = ModelFile(checkpoint.config, checkpoint.dtype, checkpoint.quantization, dict(checkpoint.source))
    return family.load(
        LoadedModel(
            network, family, file, checkpoint.files, folder, dtype, checkpoint.texts, tuple(native.values())
        )
    )


def _is_in(name: str, parts: Iterable[NativePart]) -> bool:
    """Tell whether a tensor is one of those that the native engine computes with."""
    return any(belongs(name, part) for part in parts)


def _weights(
    checkpoint: Checkpoint, names: Iterable[str], dtype: str, quantized: Mapping[str, Groups]
) -> Iterator[tuple[str, mx.array]]:
    """Yield these tensors in the type to compute in. Dequantized, a matrix is one tensor instead of three."""
    for name in names:
        tensor = checkpoint.tensors[name]
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

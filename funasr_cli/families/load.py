"""Loading a model: strict checks of names and shapes, and the type that suits the device."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from funasr_cli.checkpoints.checkpoint import Checkpoint, empty_model
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.quantize import BIASES, PACKED, SCALES, Groups
from funasr_cli.checkpoints.tables import open_table
from funasr_cli.checkpoints.tensors import size_bytes
from funasr_cli.compute.backend import mx, nn, on_accelerator
from funasr_cli.compute.device import default_dtype, keep_in_memory, refuse_too_large
from funasr_cli.errors import SetupError, UsageError
from funasr_cli.families import registry
from funasr_cli.families.converted import ModelFile
from funasr_cli.families.family import Family, LoadedModel, NativePart
from funasr_cli.families.int8 import prove
from funasr_cli.families.kept import Int8Proof, Kept
from funasr_cli.families.native import (
    OPTION,
    belongs,
    load_parts,
    native_parts,
    needed_bytes,
    refuse_engine,
    rounding,
)
from funasr_cli.families.open import open_model
from funasr_cli.options import (
    AS_STORED,
    AUTO_DTYPE,
    AUTO_ENGINE,
    DTYPES,
    ENGINES,
    INT8,
    MLX,
    NATIVE,
    NATIVE_DTYPES,
)
from funasr_cli.punctuation_model import PunctuationModel
from funasr_cli.speaker_model import SpeakerModel
from funasr_cli.speech_model import SpeechModel

# Hints for a model that does not fit into memory.
LIGHTER_STORED = "or convert the model with --quantize {}"
ELSEWHERE = "or use a machine with more memory"
LIGHTER_DENSE = "--dtype stored needs less memory, but is much slower on a CPU"
LIGHTER_NATIVE = "--dtype int8 needs less memory"
UNPROVEN = "close other programs; or add --dtype int8, which needs less memory and is then not compared"
UNWRITTEN = (
    "the result cannot be kept, so each start compares again; make this writable: {}; or add --dtype int8,"
    " which is then not compared"
)
EXACT = "so this model is computed in float32; --dtype int8 is faster"
FLOAT32 = "float32"  # the only type that MLX computes fast on a CPU
OVERFLOWS = "float16"  # mlx-audio can store it, but its range is too small to compute in for this model
log = logging.getLogger(__name__)


def load_model(folder: Path, dtype: str | None = AUTO_DTYPE, engine: str = AUTO_ENGINE) -> SpeechModel:
    """Load a model from a folder that `open_model` can read.

    Args:
        folder: the model's folder.
        dtype: "stored" (quantized matrices stay quantized), "float32" or "bfloat16" (all weights dense, in that
            type); "int8" (the native engine: only a decoder is computed in int8, the rest in bfloat16 where the
            CPU multiplies it fast, else float32). "auto" or None chooses.
        engine: "mlx", "native" (this package's C library, on a CPU, in int8 or float32) or "auto". See
            `choose_engine`.

    Raises:
        UsageError: another type, such as float16, whose range is too small for the models' values; the native
            engine cannot compute this model, or not on this device.
        ModelError: the folder is incomplete or damaged, or the weights do not match the configuration.
        SetupError: there is not enough memory, or the native engine is missing.

    Comparing int8 is logged as information. If float32 is computed because of it, this is logged as a warning.
    """
    chosen = choose_engine(folder, dtype, engine, say=log.info)
    if chosen.exact:
        log.warning("%s: %s", folder.name, chosen.exact)
    usual = INT8 if chosen.engine == NATIVE else default_dtype()
    return load_checkpoint(open_model(folder), folder, chosen.dtype or usual, chosen.engine)


def load_aligner(folder: Path, dtype: str | None = None) -> SpeechModel:
    """Load a model for its CTC output alone, which MLX computes regardless of the engine of the main model."""
    return load_model(folder, AUTO_DTYPE if dtype == INT8 else dtype, MLX)


def load_punctuation(folder: Path) -> PunctuationModel:
    """Load a model that inserts punctuation; MLX computes it in float32, since it is small without its table."""
    return load_punctuation_checkpoint(open_model(folder), folder)


def load_speakers(folder: Path) -> SpeakerModel:
    """Load a model that describes voices, which is computed in float32: see `load_speaker_checkpoint`."""
    return load_speaker_checkpoint(open_model(folder), folder)


class Choice(NamedTuple):
    """Number type and engine to load a model with, and reasons that a user may want to know."""

    dtype: str | None  # None: the usual type of the engine
    engine: str  # "mlx" or "native"
    ignored: str | None = None  # why a default is ignored
    exact: str | None = None  # why float32 is computed where the native engine could compute int8
    slow: str | None = None  # why this type takes much longer than another one


def choose_engine(
    folder: Path,
    dtype: str | None = AUTO_DTYPE,
    engine: str = AUTO_ENGINE,
    optional: Collection[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Choose the engine and the number type of a model. Nothing else does.

    - MLX computes on a GPU, in the stored type.
    - On a CPU, the native engine computes in int8 if it can compute the model and writes the same texts as float32
      (`int8_proof`). Otherwise the model is computed in float32, by MLX or by the engine that its family names.
    - A type that is not "auto" means MLX, except for "int8", and "float32" if the family names the native engine.
    - "native" means int8, and "mlx" the usual type of the device; neither needs a proof.

    Args:
        folder: the model's folder.
        dtype: a type, or "auto" or None.
        engine: an engine, or "auto".
        optional: which of them are only defaults, from a variable or the settings file: "dtype", "engine" or both.
            They are dropped if the model cannot be loaded with them. If two do not go together, the engine counts.
        say: called with a message before the proof is made.

    Raises:
        UsageError: the engine has no such type, or cannot compute the model; or the name is unknown.
        SetupError: the native engine is missing, or there is not enough memory for the proof.
        ModelError: the folder is not a model.
    """
    dtype, engine, ignored = _agreeing(dtype, engine, optional)
    by_default = "engine" in optional if engine == NATIVE else "dtype" in optional
    if engine == NATIVE and not by_default:  # `load_checkpoint` refuses what it cannot compute
        return Choice(_typed(dtype), NATIVE, ignored)
    if engine == NATIVE or dtype == INT8:
        try:
            _refuse_native(folder, dtype, engine)
            return Choice(_typed(dtype), NATIVE, ignored)
        except (UsageError, SetupError) as error:
            if not by_default or (dtype == INT8 and "dtype" not in optional):
                raise
            engine, ignored = AUTO_ENGINE, error.message
            dtype = AUTO_DTYPE if dtype == INT8 else dtype
    if engine == AUTO_ENGINE and dtype == FLOAT32 and _is_native_in_float32(folder):
        return Choice(FLOAT32, NATIVE, ignored)
    if engine == MLX or dtype != AUTO_DTYPE or on_accelerator():
        return Choice(_typed(dtype), MLX, ignored, slow=_slow_on_mlx(folder, dtype))
    try:
        checkpoint = _refuse_native(folder, INT8, engine)
    except (UsageError, SetupError):
        return Choice(FLOAT32, NATIVE, ignored) if _is_native_in_float32(folder) else Choice(None, MLX, ignored)
    proof = int8_proof(checkpoint, folder, say)
    if proof.holds:
        return Choice(None, NATIVE, ignored)
    what = rounding(registry.of_config(checkpoint.config))
    exact = f"{what} changes the text of {len(proof.differing)} of {len(proof.clips)} clips, {EXACT}"
    exact_engine = registry.of_config(checkpoint.config).float32_engine
    return Choice(FLOAT32 if exact_engine == NATIVE else None, exact_engine, ignored, exact)


def _is_native_in_float32(folder: Path) -> bool:
    """Tell whether the native engine is the family's choice for float32, and can compute this model."""
    try:
        checkpoint = _refuse_native(folder, FLOAT32, AUTO_ENGINE)
    except (UsageError, SetupError):
        return False
    return registry.of_config(checkpoint.config).float32_engine == NATIVE


def refuse_by_family(family: Family | None, dtype: str | None, engine: str, optional: Collection[str]) -> None:
    """Raise an error as `choose_engine` does, as far as it does not depend on the model.

    The family is None if it is not known yet. The other arguments are those of `choose_engine`.
    """
    dtype, engine, _ = _agreeing(dtype, engine, optional)
    if engine == NATIVE and "engine" not in optional:
        refuse_engine(family)
    elif dtype == INT8 and "dtype" not in optional:
        refuse_engine(family, f"--dtype {INT8}")


def _agreeing(dtype: str | None, engine: str, optional: Collection[str]) -> tuple[str, str, str | None]:
    """Return a type and an engine that go together, and why a default is ignored; see `choose_engine`."""
    dtype, ignored = dtype or AUTO_DTYPE, None
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}", f"choose from {', '.join(ENGINES)}", code="option-value")
    if dtype not in _types(engine):
        ignored = f"{'the native engine' if engine == NATIVE else 'MLX'} cannot compute in {dtype}"
        if "dtype" in optional:
            dtype = AUTO_DTYPE
        elif "engine" in optional and dtype in _types(AUTO_ENGINE):
            engine = AUTO_ENGINE
        else:
            raise _no_such_type(dtype, engine)
    return dtype, engine, ignored


def _slow_on_mlx(folder: Path, dtype: str) -> str | None:
    """Explain why a type is slow if MLX computes in anything but float32 on a CPU."""
    if on_accelerator() or dtype in (AUTO_DTYPE, FLOAT32):
        return None
    if dtype == AS_STORED:
        checkpoint = open_model(folder)
        if checkpoint.dtype == FLOAT32 and not checkpoint.quantization:
            return None
    return f"--dtype {dtype}: on a CPU, MLX computes this many times slower than {FLOAT32}"


def _typed(dtype: str) -> str | None:
    return None if dtype == AUTO_DTYPE else dtype


def _types(engine: str) -> tuple[str, ...]:
    """Return the types that an engine computes in, or either of them if it is not yet chosen."""
    of_mlx = (AUTO_DTYPE, AS_STORED, *DTYPES)
    return {MLX: of_mlx, NATIVE: (AUTO_DTYPE, *NATIVE_DTYPES)}.get(engine, (*of_mlx, INT8))


def _no_such_type(dtype: str, engine: str) -> UsageError:
    if dtype == INT8:
        message, hint = "--dtype int8: MLX has no such type", "omit --engine mlx"
        return UsageError(message, hint, code="options-conflict")
    on = " on the native engine" if engine == NATIVE else ""
    hint = f"choose from {', '.join(_types(engine))}"
    return UsageError(f"cannot compute in {dtype!r}{on}", hint, code="option-value")


def _refuse_native(folder: Path, dtype: str, engine: str) -> Checkpoint:
    """Open a model; raise an error if the native engine cannot compute it."""
    checkpoint = open_model(folder)
    option = OPTION if engine == NATIVE else f"--dtype {INT8}"
    native_parts(checkpoint, registry.of_config(checkpoint.config), _typed(dtype) or INT8, option)
    return checkpoint


def int8_proof(checkpoint: Checkpoint, folder: Path, say: Callable[[str], None] = lambda _: None) -> Int8Proof:
    """Return whether a model that `native_parts` accepts writes the same in int8 as in float32.

    The first call compares them, which takes about as long as transcribing a few clips in float32, and keeps the
    result, at least until this process ends.

    Args:
        checkpoint: the opened model.
        folder: its folder.
        say: called with a message before the comparison, and with one if the result cannot be written.

    Raises:
        SetupError: there is not enough memory for the comparison.
    """
    kept = Kept.about(checkpoint, folder)
    if (proof := kept.proof() or _not_written.get(kept.fingerprint)) is None:
        family = registry.of_config(checkpoint.config)
        what = rounding(family)
        say(f"{folder.name}: comparing {what} with float32 on a few clips; no result of this version is kept yet")
        load = partial(_load_to_compare, checkpoint, folder)
        proof = prove(load, family.float32_engine, family.int8_clips)
        if kept.keep_proof(proof) is None:
            _not_written[kept.fingerprint] = proof
            say(UNWRITTEN.format(" or ".join(map(str, kept.places))))
        if not proof.holds:
            kept.drop_packed()
    return proof


_not_written: dict[str, Int8Proof] = {}  # by fingerprint: results of this process that could not be kept in a file


def _load_to_compare(checkpoint: Checkpoint, folder: Path, dtype: str, engine: str) -> SpeechModel:
    try:
        return load_checkpoint(checkpoint, folder, dtype, engine)
    except SetupError as error:
        if dtype == INT8:
            raise
        what = rounding(registry.of_config(checkpoint.config))
        message = f"comparing {what} with float32: {error.message}"
        raise SetupError(message, UNPROVEN, code=error.code) from error


def load_checkpoint(checkpoint: Checkpoint, folder: Path, dtype: str, engine: str = MLX) -> SpeechModel:
    """Load an opened checkpoint of a speech model, of any layout; see `load_model`."""
    loaded = _loaded(checkpoint, folder, dtype, engine)
    return cast(SpeechModel, loaded.family.load(loaded))


def load_punctuation_checkpoint(checkpoint: Checkpoint, folder: Path) -> PunctuationModel:
    """Load an opened checkpoint of a punctuation model, of any layout; see `load_punctuation`."""
    loaded = _loaded(checkpoint, folder, "float32", MLX)
    return cast(PunctuationModel, loaded.family.load(loaded))


def load_speaker_checkpoint(checkpoint: Checkpoint, folder: Path) -> SpeakerModel:
    """Load an opened checkpoint of a model that describes voices, of any layout.

    On a CPU, the native engine computes it if it can, several times faster than MLX; on a GPU, MLX does.
    """
    try:
        native_parts(checkpoint, registry.of_config(checkpoint.config), FLOAT32)
        engine = NATIVE
    except (UsageError, SetupError):
        engine = MLX
    loaded = _loaded(checkpoint, folder, FLOAT32, engine)
    return cast(SpeakerModel, loaded.family.load(loaded))


def _loaded(checkpoint: Checkpoint, folder: Path, dtype: str, engine: str) -> LoadedModel:
    """Load the network of a checkpoint, with its weights and tables."""
    family = registry.of_config(checkpoint.config)
    network, quantized = empty_model(checkpoint, family.network(checkpoint.config)), checkpoint.quantized()
    for table in family.tables:  # before the other weights, which are then all that is missing
        setattr(network, table.removesuffix(".weight"), open_table(checkpoint, table))
    parts = native_parts(checkpoint, family, dtype) if engine == NATIVE else []
    if parts:
        lighter = ELSEWHERE if dtype == INT8 else LIGHTER_NATIVE
        shapes = model_shapes(network).items()
        rest = (size_bytes("float32", shape) for name, shape in shapes if not _is_in(name, parts))
        sizes = iter((needed_bytes(checkpoint, parts, dtype), *rest))
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
    native = load_parts(checkpoint, parts, dtype, Kept.about(checkpoint, folder)) if parts else {}
    for prefix, computed in native.items():
        setattr(network, prefix, computed)  # as with tables
    # Tensors are cast one by one, so that only one is in memory in both forms.
    names = [name for name in checkpoint.tensors if not _is_in(name, parts) and name not in family.tables]
    weights = _weights(checkpoint, names, "float32" if parts else dtype, quantized, family.exact)
    network.load_weights(list(weights), strict=True)
    network.eval()
    file = ModelFile(checkpoint.config, checkpoint.dtype, checkpoint.quantization, dict(checkpoint.source))
    return LoadedModel(
        network, family, file, checkpoint.files, folder, dtype, checkpoint.texts, tuple(native.values())
    )


def _is_in(name: str, parts: Iterable[NativePart]) -> bool:
    """Tell whether a tensor is one of those that the native engine computes with."""
    return any(belongs(name, part) for part in parts)


def _weights(
    checkpoint: Checkpoint,
    names: Iterable[str],
    dtype: str,
    quantized: Mapping[str, Groups],
    exact: tuple[str, ...],
) -> Iterator[tuple[str, mx.array]]:
    """Yield these tensors in the type to compute in; those whose names begin with one of `exact` in float32.

    Dequantized, a matrix is one tensor instead of three.
    """
    for name in names:
        tensor = checkpoint.tensors[name]
        module, _, part = name.rpartition(".")
        if name.startswith(exact):
            values = tensor.read_in("float32")
        elif dtype == AS_STORED:
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

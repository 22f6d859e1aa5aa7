"""A model on disk -> one that is ready: strict names and shapes, and the type that suits the device."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from funasr_cli.checkpoints.checkpoint import Checkpoint, empty_model
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, TOKENIZER_FILE, ModelFile
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.quantize import BIASES, PACKED, SCALES, Groups
from funasr_cli.checkpoints.tensors import size_bytes
from funasr_cli.checkpoints.vocabularies import read_ctc_vocabulary, read_tokenizer
from funasr_cli.compute.backend import mx, nn
from funasr_cli.compute.device import default_dtype, keep_in_memory, refuse_too_large
from funasr_cli.errors import UsageError
from funasr_cli.families.fun_asr_nano.network import FunASRNano
from funasr_cli.families.open import open_model
from funasr_cli.options import AS_STORED, DTYPES
from funasr_cli.vocabulary import CTCVocabulary

if TYPE_CHECKING:
    from funasr_cli.families.fun_asr_nano.model import NanoModel

# What takes less memory.
LIGHTER_STORED = "or convert the model with --quantize 4"
LIGHTER_DENSE = "--dtype stored takes less, and on a CPU much more time"
OVERFLOWS = "float16"  # mlx-audio can store it; it cannot hold this model's values, so nothing computes in it


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything that decoding needs; ``dtype`` is what it computes in, as `load_model` takes it."""

    model: FunASRNano
    tokenizer: Tokenizer
    ctc_vocabulary: CTCVocabulary | None
    file: ModelFile
    folder: Path
    dtype: str

    @property
    def name(self) -> str:
        """What it was converted from."""
        return self.file.source.get("source") or self.folder.name

    @property
    def weights_type(self) -> str:
        """Type of the weights as computed with, for logs and tables."""
        quantization = self.file.quantization
        stored = f"{self.file.dtype}, {quantization}" if quantization else self.file.dtype
        return stored if self.dtype in (AS_STORED, stored) else f"{self.dtype} (stored as {stored})"


def load_model(folder: Path, dtype: str | None = None) -> "NanoModel":
    """Load a model that MLX can read: converted by us or by mlx-audio.

    Args:
        folder: of the model.
        dtype: "stored" (quantized matrices stay quantized), "float32" or "bfloat16" (everything dense in that
            type); None chooses for the device.

    Raises:
        UsageError: another type, float16 among them, which cannot hold this model's values.
        ModelError: the folder is incomplete, damaged or does not fit its own configuration.
        SetupError: there is not enough memory for it.
    """
    dtype = dtype or default_dtype()
    if dtype not in (AS_STORED, *DTYPES):
        hint = f"choose from {', '.join((AS_STORED, *DTYPES))}"
        raise UsageError(f"cannot compute in {dtype!r}", hint, code="option-value")
    return load_checkpoint(open_model(folder), folder, dtype)


def load_checkpoint(checkpoint: Checkpoint, folder: Path, dtype: str) -> "NanoModel":
    """Load an opened checkpoint, whatever its layout; see `load_model`."""
    tokenizer = read_tokenizer(checkpoint.files[TOKENIZER_FILE], checkpoint.config.llm.vocab_size)
    vocabulary = read_ctc_vocabulary(checkpoint.files[CTC_VOCABULARY_FILE]) if checkpoint.config.ctc else None
    model, quantized = empty_model(checkpoint), checkpoint.quantized()
    if dtype == AS_STORED:
        sizes, lighter = (tensor.size_bytes for tensor in checkpoint.tensors.values()), LIGHTER_STORED
    else:
        sizes, lighter = (size_bytes(dtype, shape) for shape in model_shapes(model).values()), LIGHTER_DENSE
    refuse_too_large(str(checkpoint.weights[0].parent), sizes, lighter)
    keep_in_memory()
    if dtype == AS_STORED and quantized:
        stated = {module: dataclasses.asdict(groups) for module, groups in quantized.items()}
        nn.quantize(model, class_predicate=lambda module, _: stated.get(module, False))
    # The stored and the cast form of only one tensor are in memory together.
    model.load_weights(list(_weights(checkpoint, dtype, quantized)), strict=True)
    model.eval()
    file = ModelFile(checkpoint.config, checkpoint.dtype, checkpoint.quantization, dict(checkpoint.source))
    from funasr_cli.families.fun_asr_nano.model import NanoModel

    return NanoModel(LoadedModel(model, tokenizer, vocabulary, file, folder, dtype))


def _weights(
    checkpoint: Checkpoint, dtype: str, quantized: Mapping[str, Groups]
) -> Iterator[tuple[str, mx.array]]:
    """The tensors as they are computed with; multiplied out, a quantized matrix is one instead of three."""
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

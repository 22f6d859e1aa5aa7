"""A converted folder -> a model that is ready: strict names and shapes, and the type that suits the device."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from funasr_cli.backend import mx, nn
from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.format import (
    CTC_VOCABULARY_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelFile,
    Quantization,
    read_config,
)
from funasr_cli.checkpoints.untrusted import read_ctc_vocabulary, read_tokenizer
from funasr_cli.decoding.text import CTCVocabulary
from funasr_cli.device import default_dtype, keep_in_memory, refuse_too_large
from funasr_cli.errors import ModelError, UsageError
from funasr_cli.models.fun_asr_nano import FunASRNano
from funasr_cli.options import AS_STORED, DTYPES

# What takes less memory.
LIGHTER_STORED = "or convert the model with --quantize 4"
LIGHTER_DENSE = "--dtype stored takes less, and on a CPU much more time"


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything that decoding needs.

    Attributes:
        dtype: what it computes in, as `load_model` takes it.
    """

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
        recipe = self.file.quantization
        stored = f"{self.file.dtype}, decoder in {recipe.bits} bits" if recipe else self.file.dtype
        return stored if self.dtype in (AS_STORED, stored) else f"{self.dtype} (stored as {stored})"


def load_model(folder: Path, dtype: str | None = None) -> LoadedModel:
    """Load a converted model.

    Args:
        folder: what `convert` wrote.
        dtype: "stored" (quantized matrices stay quantized), "float32" or "bfloat16" (everything dense in that
            type); None chooses for the device.

    Raises:
        UsageError: another type, float16 among them, which cannot hold this model's values.
        ModelError: the folder is incomplete, damaged or does not fit its own configuration.
        SetupError: there is not enough memory for it.
    """
    dtype = dtype or default_dtype()
    if dtype not in (AS_STORED, *DTYPES):
        raise UsageError(f"cannot compute in {dtype!r}", f"choose from {', '.join((AS_STORED, *DTYPES))}")
    file = read_config(folder)
    weights = _read_weights(folder / WEIGHTS_FILE)
    quantization = file.quantization if dtype == AS_STORED else None
    model = FunASRNano(file.config)
    if quantization:
        nn.quantize(model.llm, group_size=quantization.group_size, bits=quantization.bits)
    if dtype != AS_STORED:
        try:
            weights = _dense(weights, file.quantization, getattr(mx, dtype))
        except (ValueError, KeyError) as error:  # scales missing, or not of the recipe's shape
            raise ModelError(
                f"{folder / WEIGHTS_FILE}: does not fit its quantization ({error})", "convert the source again"
            ) from error
    _check_types(weights, folder / WEIGHTS_FILE)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    keymap.check_tensors(keymap.model_shapes(model), found, str(folder / WEIGHTS_FILE))
    lighter = LIGHTER_STORED if dtype == AS_STORED else LIGHTER_DENSE
    refuse_too_large(str(folder), (tensor.nbytes for tensor in weights.values()), lighter)
    keep_in_memory()
    model.load_weights(list(weights.items()), strict=True)
    while weights:  # one at a time: the stored and the cast form of only one tensor are in memory together
        mx.eval(weights.popitem()[1])
    model.eval()
    tokenizer = read_tokenizer(folder / TOKENIZER_FILE, file.config.llm.vocab_size)
    ctc_vocabulary = read_ctc_vocabulary(folder / CTC_VOCABULARY_FILE) if file.config.ctc else None
    return LoadedModel(model, tokenizer, ctc_vocabulary, file, folder, dtype)


def _read_weights(path: Path) -> dict[str, mx.array]:
    try:
        return dict(mx.load(str(path)))
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: missing, damaged or cut short ({error})", "convert the source again") from error


def _check_types(weights: dict[str, mx.array], path: Path) -> None:
    """Only what `convert` writes is computed with: a float16 tensor would overflow in silence."""
    known = (*(getattr(mx, name) for name in DTYPES), mx.uint32)
    for name, tensor in weights.items():
        if tensor.dtype not in known:
            raise ModelError(f"{path}: {name} is {tensor.dtype}", "convert the source again")


def _dense(weights: dict[str, mx.array], recipe: Quantization | None, dtype: mx.Dtype) -> dict[str, mx.array]:
    """Every tensor in ``dtype``, quantized matrices multiplied out (lazily)."""
    dense = {}
    for name, tensor in weights.items():
        stem = name.removesuffix(".weight")
        if recipe and f"{stem}.scales" in weights and name.endswith(".weight"):
            tensor = mx.dequantize(
                tensor,
                weights[f"{stem}.scales"],
                weights[f"{stem}.biases"],
                group_size=recipe.group_size,
                bits=recipe.bits,
            )
        elif recipe and name.endswith((".scales", ".biases")):
            continue
        dense[name] = tensor.astype(dtype)
    return dense

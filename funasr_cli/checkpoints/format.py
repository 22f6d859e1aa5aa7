"""The layout of a converted model: file names, ``config.json`` and back, safetensors in bounded memory."""

import dataclasses
import json
import struct
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints.untrusted import quoted, read_json, readable
from funasr_cli.checkpoints.validate import check_config
from funasr_cli.errors import ModelError
from funasr_cli.models.fun_asr_nano import MODEL_TYPE, FunASRNanoConfig
from funasr_cli.options import DTYPES, GROUP_SIZES, QUANTIZATION_BITS

T = typing.TypeVar("T")

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CTC_VOCABULARY_FILE = "multilingual.tiktoken"
FORMAT = "funasr-cli"
FORMAT_VERSION = 1

DTYPE_CODES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2), "uint32": ("U32", 4)}


@dataclass(frozen=True)
class Quantization:
    """Affine quantization of the decoder's matrices, as `mx.quantize` does it."""

    bits: int
    group_size: int


@dataclass(frozen=True)
class ModelFile:
    """What ``config.json`` of a converted model says."""

    config: FunASRNanoConfig
    dtype: str
    quantization: Quantization | None
    source: dict[str, str | None]


def write_config(folder: Path, model: ModelFile) -> None:
    """Write ``config.json``; quantization stands in it in the form that mlx-lm uses."""
    content = {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dtype": model.dtype,
        **({"quantization": dataclasses.asdict(model.quantization)} if model.quantization else {}),
        **dataclasses.asdict(model.config),
        "source": model.source,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(folder: Path) -> ModelFile:
    """Read and check ``config.json``.

    Raises:
        ModelError: not a model of ours, of a newer format, or with fields missing, unknown or of a wrong type.
    """
    path = folder / CONFIG_FILE
    content = read_json(path)
    if content.get("format") != FORMAT or content.get("model_type") != MODEL_TYPE:
        raise ModelError(f"{path}: not a model converted by funasr", "run: funasr convert on its source")
    if content.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path}: format version {content.get('format_version')}, this funasr reads {FORMAT_VERSION}",
            "upgrade funasr-cli, or convert the source again",
        )
    fields = {field.name: content.get(field.name) for field in dataclasses.fields(FunASRNanoConfig)}
    config = parse_dataclass(FunASRNanoConfig, fields, str(path))
    check_config(config, str(path))
    quantization, source = content.get("quantization"), content.get("source")
    if not isinstance(source, dict) or not all(isinstance(value, str | None) for value in source.values()):
        raise ModelError(f"{path}: source is not an object of strings")
    dtype = content.get("dtype")
    if dtype not in DTYPES:
        raise ModelError(f"{path}: dtype is {quoted(dtype)}, not one of {', '.join(DTYPES)}")
    recipe = parse_dataclass(Quantization, quantization, f"{path}: quantization") if quantization else None
    if recipe and (recipe.bits not in QUANTIZATION_BITS or recipe.group_size not in GROUP_SIZES):
        raise ModelError(f"{path}: {recipe.bits} bits in groups of {recipe.group_size}: no known quantization")
    return ModelFile(config, dtype, recipe, source)


def parse_dataclass(kind: type[T], data: Any, where: str) -> T:
    """Build a (nested) config dataclass from JSON data, strictly.

    Raises:
        ModelError: a field is missing, unknown or of the wrong type.
    """
    if not isinstance(data, dict):
        raise ModelError(f"{where}: expected an object, found {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    if missing := sorted(hints.keys() - data.keys()):
        raise ModelError(f"{where}: missing {', '.join(missing)}")
    if unknown := sorted(data.keys() - hints.keys()):
        raise ModelError(f"{where}: unknown {readable(', '.join(unknown))}")
    return kind(**{name: _parse_value(hint, data[name], f"{where}: {name}") for name, hint in hints.items()})


def _parse_value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):  # X | None
        return None if value is None else _parse_value(typing.get_args(hint)[0], value, where)
    if dataclasses.is_dataclass(hint):
        return parse_dataclass(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ModelError(f"{where}: expected a list, found {type(value).__name__}")
        return tuple(_parse_value(typing.get_args(hint)[0], item, where) for item in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ModelError(f"{where}: expected {hint.__name__}, found {quoted(value)}")
    return value


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape of a tensor in a safetensors file."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes."""
        size = DTYPE_CODES[self.dtype][1]
        for extent in self.shape:
            size *= extent
        return size


def write_safetensors(
    path: Path, specs: list[TensorSpec], contents: Iterable[memoryview], metadata: dict[str, str]
) -> None:
    """Write tensors one after the other, so that never more than one of them is in memory.

    The safetensors library takes all tensors at once; its format is a JSON header and the bare bytes.

    Args:
        path: file to create.
        specs: what is to be written, in order.
        contents: the bytes of each tensor, in the same order, made when asked for.
        metadata: strings for the header.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.size_bytes
        code = DTYPE_CODES[spec.dtype][0]
        header[spec.name] = {"dtype": code, "shape": list(spec.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)  # the data begins aligned
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for spec, content in zip(specs, contents, strict=True):
            if content.nbytes != spec.size_bytes:
                raise ModelError(f"{spec.name}: {content.nbytes} bytes, expected {spec.size_bytes}")
            file.write(content)

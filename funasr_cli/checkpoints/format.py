"""The layout of a converted model: file names, ``config.json`` and back, safetensors in bounded memory."""

import dataclasses
import hashlib
import json
import math
import struct
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import quantize
from funasr_cli.checkpoints.quantize import Quantization
from funasr_cli.checkpoints.tensors import DTYPE_BYTES, DTYPE_CODES, Shape
from funasr_cli.checkpoints.untrusted import file_in, quoted, read_json, readable
from funasr_cli.checkpoints.validate import check_config
from funasr_cli.errors import ModelError
from funasr_cli.models.fun_asr_nano import MODEL_TYPE, FunASRNanoConfig
from funasr_cli.options import DTYPES

T = typing.TypeVar("T")

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CTC_VOCABULARY_FILE = "multilingual.tiktoken"
README_FILE = "README.md"
FORMAT = "funasr-cli"
FORMAT_VERSION = 1
LARGEST_BITS = 64  # of whole numbers


@dataclass(frozen=True)
class ModelFile:
    """What ``config.json`` of a converted model says.

    Attributes:
        dtype: type of what is not quantized.
        quantization: how the rest is; None where nothing is.
        source: where it came from, see docs/porting.md.
    """

    config: FunASRNanoConfig
    dtype: str
    quantization: Quantization | None
    source: dict[str, str | None]


def write_config(folder: Path, model: ModelFile) -> None:
    """Write ``config.json``."""
    content = {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dtype": model.dtype,
        **({"quantization": quantize.to_json(model.quantization)} if model.quantization else {}),
        **dataclasses.asdict(model.config),
        "source": model.source,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(folder: Path) -> ModelFile:
    """Read and check ``config.json``.

    Raises:
        ModelError: not a model of ours, of a newer format, or with fields missing, unknown or of a wrong type.
    """
    path = file_in(folder, CONFIG_FILE)
    content = read_json(path)
    if content.get("format") != FORMAT or content.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"{path}: not a model converted by funasr",
            "run: funasr convert on its source",
            code="model-unsupported",
        )
    if content.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path}: format version {quoted(content.get('format_version'))}, this funasr reads {FORMAT_VERSION}",
            "upgrade funasr-cli, or convert the source again",
            code="model-unsupported",
        )
    fields = {field.name: content.get(field.name) for field in dataclasses.fields(FunASRNanoConfig)}
    config = parse_dataclass(FunASRNanoConfig, fields, str(path))
    check_config(config, str(path))
    source = content.get("source")
    if not isinstance(source, dict) or not all(isinstance(value, str | None) for value in source.values()):
        raise ModelError(f"{path}: source is not an object of strings", code="model-config")
    dtype = content.get("dtype")
    if dtype not in DTYPES:
        raise ModelError(f"{path}: dtype is {quoted(dtype)}, not one of {', '.join(DTYPES)}", code="model-config")
    quantization = quantize.from_json(content.get("quantization"), f"{path}: quantization")
    return ModelFile(config, dtype, quantization, {key: _printable(key, value) for key, value in source.items()})


def _printable(key: str, value: str | None) -> str | None:
    """What ``source`` says; only the digests of shards take several lines."""
    lines = value.splitlines() if value and key == "sha256" else [value or ""]
    return value and "\n".join(map(readable, lines))


def parse_dataclass(kind: type[T], data: Any, where: str) -> T:
    """Build a (nested) config dataclass from JSON data, strictly.

    Raises:
        ModelError: a field is missing, unknown or of the wrong type.
    """
    if not isinstance(data, dict):
        raise ModelError(f"{where}: expected an object, found {type(data).__name__}", code="model-config")
    hints = typing.get_type_hints(kind)
    if missing := sorted(hints.keys() - data.keys()):
        raise ModelError(f"{where}: missing {', '.join(missing)}", code="model-config")
    if unknown := sorted(data.keys() - hints.keys()):
        raise ModelError(f"{where}: unknown {readable(', '.join(unknown))}", code="model-config")
    return kind(**{name: _parse_value(hint, data[name], f"{where}: {name}") for name, hint in hints.items()})


def _parse_value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):  # X | None
        return None if value is None else _parse_value(typing.get_args(hint)[0], value, where)
    if dataclasses.is_dataclass(hint):
        return parse_dataclass(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ModelError(f"{where}: expected a list, found {type(value).__name__}", code="model-config")
        return tuple(_parse_value(typing.get_args(hint)[0], item, where) for item in value)
    if hint is float and type(value) is int and value.bit_length() < LARGEST_BITS:
        return float(value)
    if type(value) is not hint or (hint is int and value.bit_length() >= LARGEST_BITS):
        raise ModelError(f"{where}: expected {hint.__name__}, found {quoted(value)}", code="model-config")
    return value


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape of a tensor in a safetensors file."""

    name: str
    dtype: str
    shape: Shape

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


def write_safetensors(
    path: Path, specs: list[TensorSpec], contents: Iterable[memoryview], metadata: dict[str, str]
) -> str:
    """Write tensors one after the other, so that never more than one of them is in memory.

    The safetensors library takes all tensors at once; its format is a JSON header and the bare bytes.

    Args:
        path: file to create.
        specs: what is to be written, in order.
        contents: the bytes of each tensor, in the same order, made when asked for.
        metadata: strings for the header.

    Returns:
        SHA-256 of the file.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.size_bytes
        code = DTYPE_CODES[spec.dtype]
        header[spec.name] = {"dtype": code, "shape": list(spec.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)  # the data begins aligned
    begin_bytes = struct.pack("<Q", len(encoded)) + encoded
    digest = hashlib.sha256(begin_bytes)
    with path.open("xb") as file:
        file.write(begin_bytes)
        for spec, content in zip(specs, contents, strict=True):
            if content.nbytes != spec.size_bytes:
                raise ValueError(f"{spec.name}: {content.nbytes} bytes, expected {spec.size_bytes}")
            file.write(content)
            digest.update(content)
    return digest.hexdigest()

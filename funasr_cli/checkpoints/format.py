"""The layout of a converted model: file names, ``config.json`` and back, safetensors in bounded memory."""

import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import quantize
from funasr_cli.checkpoints.quantize import Quantization
from funasr_cli.checkpoints.tensors import DTYPE_BYTES, DTYPE_CODES, Shape
from funasr_cli.checkpoints.untrusted import file_in, quoted, read_json, readable
from funasr_cli.checkpoints.validate import check_config
from funasr_cli.checkpoints.values import parse_dataclass, stated_in
from funasr_cli.errors import ModelError
from funasr_cli.models.fun_asr_nano import MODEL_TYPE, FunASRNanoConfig
from funasr_cli.options import DTYPES

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CTC_VOCABULARY_FILE = "multilingual.tiktoken"
README_FILE = "README.md"
FORMAT = "funasr-cli"
FORMAT_VERSION = 1


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
    with stated_in(str(path)):
        fields = {field.name: content.get(field.name) for field in dataclasses.fields(FunASRNanoConfig)}
        config = parse_dataclass(FunASRNanoConfig, fields)
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

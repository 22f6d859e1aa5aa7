"""The layout of a converted model: its ``config.json``, and its reader."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import keymap, quantize
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CONFIG_FILE, FORMAT, WEIGHTS_FILE, write_json
from funasr_cli.checkpoints.quantize import Quantization
from funasr_cli.checkpoints.tensors import open_safetensors
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, quoted, read_json, readable
from funasr_cli.checkpoints.values import check_config, parse_dataclass, stated_in
from funasr_cli.errors import ModelError
from funasr_cli.families import registry
from funasr_cli.options import DTYPES

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ModelFile:
    """Content of a converted model's ``config.json``.

    The class of `config` determines the family. `dtype` is the type of all tensors that are not quantized.
    `source` is the model's origin; see docs/porting.md.
    """

    config: Any
    dtype: str
    quantization: Quantization | None
    source: dict[str, str | None]


def write_config(folder: Path, model: ModelFile) -> None:
    """Write ``config.json``."""
    content = {
        "model_type": registry.of_config(model.config).model_type,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dtype": model.dtype,
        **({"quantization": quantize.to_json(model.quantization)} if model.quantization else {}),
        **dataclasses.asdict(model.config),
        "source": model.source,
    }
    write_json(folder / CONFIG_FILE, content)


def read_config(folder: Path) -> ModelFile:
    """Read and check ``config.json``.

    Raises:
        ModelError: the model was not converted by us or has another format version, or a field is missing, unknown
            or of the wrong type.
    """
    path = file_in(folder, CONFIG_FILE)
    content = read_json(path)
    family = registry.of_model_type(content.get("model_type"))
    if content.get("format") != FORMAT or family is None:
        hint = "run funasr convert on its source"
        raise ModelError(f"{path}: not a model converted by funasr", hint, code="model-unsupported")
    if (version := content.get("format_version")) != FORMAT_VERSION:
        message = f"{path}: the format version is {quoted(version)}, this funasr reads {FORMAT_VERSION}"
        hint = "upgrade funasr-cli, or convert the source again"
        raise ModelError(message, hint, code="model-unsupported")
    with stated_in(str(path)):
        fields = {field.name: content.get(field.name) for field in dataclasses.fields(family.config)}
        config: Any = parse_dataclass(family.config, fields)
    check_config(config, str(path), family.misfits)
    source = content.get("source")
    if not isinstance(source, dict) or not all(isinstance(value, str | None) for value in source.values()):
        raise ModelError(f"{path}: source is not an object with string values", code="model-config")
    dtype, dtypes = content.get("dtype"), tuple(dict.fromkeys((family.half, *DTYPES)))
    if dtype not in dtypes:
        raise ModelError(f"{path}: dtype is {quoted(dtype)}, not one of {', '.join(dtypes)}", code="model-config")
    quantization = quantize.from_json(content.get("quantization"), f"{path}: quantization")
    return ModelFile(config, dtype, quantization, {key: _printable(key, value) for key, value in source.items()})


def _printable(key: str, value: str | None) -> str | None:
    """Make a value of ``source`` printable; only the digests of shards may span several lines."""
    lines = value.splitlines() if value and key == "sha256" else [value or ""]
    return value and "\n".join(map(readable, lines))


def open_converted(folder: Path) -> Checkpoint:
    """Open the folder of a converted model."""
    model = read_config(folder)
    family = registry.of_config(model.config)
    weights, tied = file_in(folder, WEIGHTS_FILE, DAMAGED_HINT), family.tied(model.config)
    return Checkpoint(
        layout=FORMAT,
        config=model.config,
        dtype=model.dtype,
        files=family.files(folder, model.config),
        tensors=keymap.translate(open_safetensors(weights), keymap.SAME, str(weights), tied=tied),
        quantization=model.quantization,
        weights=(weights,),
        source=model.source,
    )

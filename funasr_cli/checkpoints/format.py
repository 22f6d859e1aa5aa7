"""A converted model's own layout: its reader, ``config.json``, safetensors in bounded memory, digests of files."""

import dataclasses
import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import keymap, quantize
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.quantize import Quantization
from funasr_cli.checkpoints.tensors import DTYPE_CODES, Shape, open_safetensors, size_bytes
from funasr_cli.checkpoints.untrusted import (
    DAMAGED_HINT,
    file_in,
    open_file,
    optional_file_in,
    quoted,
    read_json,
    read_limited,
    readable,
)
from funasr_cli.checkpoints.values import check_config, parse_dataclass, stated_in
from funasr_cli.errors import ModelError
from funasr_cli.families.fun_asr_nano.config import MODEL_TYPE, FunASRNanoConfig
from funasr_cli.options import DTYPES

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CTC_VOCABULARY_FILE = "multilingual.tiktoken"
README_FILE = "README.md"
GENERATION_FILE = "generation_config.json"
OPTIONAL_TOKENIZER_FILES = ("tokenizer_config.json", "vocab.json", "merges.txt", GENERATION_FILE)
SUMS_FILE = "SHA256SUMS"  # of all the others, as ``sha256sum --check`` reads it
SUMS_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
SUMS_LIMIT_BYTES = 1 << 16
SOURCE_AGAIN = "convert the source again"
OF_THE_DECODER = "copy it from the decoder's own repository"
FORMAT = "funasr-cli"  # also what the layout is called
FORMAT_VERSION = 1

Spec = tuple[str, Shape]  # type and shape of a tensor


@dataclass(frozen=True)
class ModelFile:
    """What ``config.json`` of a converted model says: ``dtype`` is the type of what is not quantized.

    Where it came from, its ``source``, is described in docs/porting.md.
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
    write_json(folder / CONFIG_FILE, content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as people read it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(folder: Path) -> ModelFile:
    """Read and check ``config.json``.

    Raises:
        ModelError: not a model of ours, of a newer format, or with fields missing, unknown or of a wrong type.
    """
    path = file_in(folder, CONFIG_FILE)
    content = read_json(path)
    if content.get("format") != FORMAT or content.get("model_type") != MODEL_TYPE:
        hint = "run: funasr convert on its source"
        raise ModelError(f"{path}: not a model converted by funasr", hint, code="model-unsupported")
    if (version := content.get("format_version")) != FORMAT_VERSION:
        message = f"{path}: format version {quoted(version)}, this funasr reads {FORMAT_VERSION}"
        hint = "upgrade funasr-cli, or convert the source again"
        raise ModelError(message, hint, code="model-unsupported")
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


def open_converted(folder: Path) -> Checkpoint:
    """Open a converted folder."""
    model = read_config(folder)
    weights, tied = file_in(folder, WEIGHTS_FILE, DAMAGED_HINT), model.config.llm.tie_word_embeddings
    files = tokenizer_files(folder, folder)
    if model.config.ctc is not None:
        files[CTC_VOCABULARY_FILE] = file_in(folder, CTC_VOCABULARY_FILE)
    return Checkpoint(
        layout=FORMAT,
        config=model.config,
        dtype=model.dtype,
        tensors=keymap.translate(open_safetensors(weights), keymap.OURS, str(weights), tied=tied),
        quantization=model.quantization,
        files=files,
        weights=(weights,),
        source=model.source,
    )


def tokenizer_files(root: Path, folder: Path) -> dict[str, Path]:
    """The tokenizer's files by name, in this folder of a checkpoint's; only the first has to be there."""
    inside = folder.relative_to(root)
    tokenizer = file_in(root, (inside / TOKENIZER_FILE).as_posix(), OF_THE_DECODER)
    found = {name: optional_file_in(root, (inside / name).as_posix()) for name in OPTIONAL_TOKENIZER_FILES}
    return {TOKENIZER_FILE: tokenizer} | {name: path for name, path in found.items() if path}


def write_safetensors(
    path: Path, specs: Mapping[str, Spec], contents: Iterable[memoryview], metadata: dict[str, str]
) -> str:
    """Write tensors one after the other, so that never more than one of them is in memory.

    The safetensors library takes all tensors at once; its format is a JSON header and the bare bytes.

    ``contents`` are the bytes of each tensor, in the order of ``specs``, made when asked for. Returns the file's
    SHA-256.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in specs.items():
        begin, end = end, end + size_bytes(dtype, shape)
        header[name] = {"dtype": DTYPE_CODES[dtype], "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header, ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)  # the data begins aligned
    begin_bytes = struct.pack("<Q", len(encoded)) + encoded
    digest = hashlib.sha256(begin_bytes)
    with path.open("xb") as file:
        file.write(begin_bytes)
        for (name, spec), content in zip(specs.items(), contents, strict=True):
            if content.nbytes != size_bytes(*spec):
                raise ValueError(f"{name}: {content.nbytes} bytes, expected {size_bytes(*spec)}")
            file.write(content)
            digest.update(content)
    return digest.hexdigest()


def sha256_of(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """Hex digest of a file; ``progress`` is told the bytes read since it was last called."""
    digest = hashlib.sha256()
    with open_file(path) as (file, _):
        while block := file.read(1 << 20):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def write_sums(folder: Path, known: Mapping[str, str]) -> None:
    """Write the list for all files in a folder; ``known`` are digests by name that need not be computed again."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    lines = [f"{known.get(name) or sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """Digests by name; none where there is no list, a `ModelError` where it is not such a list."""
    try:
        path = optional_file_in(folder, SUMS_FILE)
        content = read_limited(path, SUMS_LIMIT_BYTES) if path else b""
    except ModelError as error:  # it can be had from nowhere else
        raise ModelError(error.message, SOURCE_AGAIN, code="model-damaged") from error
    lines = content.decode(errors="replace").splitlines()
    matches = [SUMS_LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise ModelError(f"{path}: not a list of SHA-256 digests", SOURCE_AGAIN, code="model-damaged")
    return {match[2]: match[1] for match in matches if match}

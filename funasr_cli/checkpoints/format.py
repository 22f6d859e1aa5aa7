"""Files of a converted model: their names, reading and writing safetensors in bounded memory, and digests."""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from funasr_cli.checkpoints.tensors import DTYPE_CODES, Shape, size_bytes
from funasr_cli.checkpoints.untrusted import (
    DAMAGED_HINT,
    file_in,
    open_file,
    optional_file_in,
    read_limited,
    unreadable,
)
from funasr_cli.errors import ModelError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"  # index of sharded weights, as Hugging Face's libraries write it
TOKENIZER_FILE = "tokenizer.json"
CTC_VOCABULARY_FILE = "multilingual.tiktoken"
README_FILE = "README.md"
GENERATION_FILE = "generation_config.json"
OPTIONAL_TOKENIZER_FILES = ("tokenizer_config.json", "vocab.json", "merges.txt", GENERATION_FILE)
SUMS_FILE = "SHA256SUMS"  # digests of all other files, in the format of ``sha256sum --check``
KEPT_FOLDER = "native"  # what the native engine keeps about a model; not part of the model
SUMS_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
SUMS_LIMIT_BYTES = 1 << 16
CONVERT_AGAIN_HINT = "convert the source again"
DECODER_HINT = "copy it from the decoder's own repository"
FORMAT = "funasr-cli"  # also the name of the layout

LENGTH = struct.Struct("<Q")  # of a safetensors header

Spec = tuple[str, Shape]  # type and shape of a tensor


class Header(NamedTuple):
    """The header of a safetensors file."""

    raw: bytes
    metadata: Mapping[str, str]
    spans: Mapping[str, tuple[int, int]]  # where the bytes of each tensor begin and end in the file


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented for people to read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tokenizer_files(root: Path, folder: Path) -> dict[str, Path]:
    """Return the tokenizer's files by name, found in ``folder`` inside the checkpoint ``root``.

    Only ``tokenizer.json`` is required.
    """
    inside = folder.relative_to(root)
    tokenizer = file_in(root, (inside / TOKENIZER_FILE).as_posix(), DECODER_HINT)
    found = {name: optional_file_in(root, (inside / name).as_posix()) for name in OPTIONAL_TOKENIZER_FILES}
    return {TOKENIZER_FILE: tokenizer} | {name: path for name, path in found.items() if path}


def write_safetensors(
    path: Path,
    specs: Mapping[str, Spec],
    contents: Iterable[memoryview],
    metadata: dict[str, str],
    alignment: int = 8,
) -> str:
    """Write a safetensors file one tensor at a time, and return the file's SHA-256.

    At most one tensor is in memory. The safetensors library would need all of them at once. The format is a JSON
    header followed by the raw bytes.

    Args:
        path: the file to create.
        specs: type and shape of each tensor, by name.
        contents: the bytes of each tensor, in the order of ``specs``, produced lazily.
        metadata: entries for the header.
        alignment: where the data begins is a multiple of this number of bytes.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in specs.items():
        begin, end = end, end + size_bytes(dtype, shape)
        header[name] = {"dtype": DTYPE_CODES[dtype], "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header, ensure_ascii=False).encode()
    encoded += b" " * (-(LENGTH.size + len(encoded)) % alignment)
    begin_bytes = LENGTH.pack(len(encoded)) + encoded
    digest = hashlib.sha256(begin_bytes)
    with path.open("xb") as file:
        file.write(begin_bytes)
        for (name, spec), content in zip(specs.items(), contents, strict=True):
            if content.nbytes != size_bytes(*spec):
                raise ValueError(f"{name}: {content.nbytes} bytes, expected {size_bytes(*spec)}")
            file.write(content)
            digest.update(content)
    return digest.hexdigest()


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file, in file order, after the safetensors library has checked it.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "numpy") as checked, open_file(path) as (file, _):
            names, metadata = list(checked.offset_keys()), checked.metadata() or {}
            (length,) = LENGTH.unpack(file.read(LENGTH.size))
            raw = file.read(length)
        described, start = json.loads(raw), LENGTH.size + length
        offsets = {name: described[name]["data_offsets"] for name in names}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
    return Header(raw, metadata, {name: (start + begin, start + end) for name, (begin, end) in offsets.items()})


def sha256_of(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """Return the hex digest of a file. ``progress`` receives the number of bytes read since its last call."""
    digest = hashlib.sha256()
    with open_file(path) as (file, _):
        while block := file.read(1 << 20):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def write_sums(folder: Path, known: Mapping[str, str]) -> None:
    """Write `SUMS_FILE` for all files in a folder. ``known`` holds digests by name that are not computed again."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    lines = [f"{known.get(name) or sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """Return the digests in `SUMS_FILE` by name, or none without such a file.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        path = optional_file_in(folder, SUMS_FILE)
        content = read_limited(path, SUMS_LIMIT_BYTES) if path else b""
    except ModelError as error:  # only a conversion can create it
        raise ModelError(error.message, CONVERT_AGAIN_HINT, code="model-damaged") from error
    lines = content.decode(errors="replace").splitlines()
    matches = [SUMS_LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise ModelError(f"{path}: not a list of SHA-256 digests", CONVERT_AGAIN_HINT, code="model-damaged")
    return {match[2]: match[1] for match in matches if match}

"""The one place through which files of a checkpoint are opened: it may come from anybody.

What comes back is small enough, nested little enough and of one meaning; everything else is a `ModelError` in one
line. Headers of tensor files are looked at in `headers.py`, YAML in `plain_yaml.py`,
parts of a tokenizer in `plain_tokenizer.py`.
"""

import itertools
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from tokenizers import Tokenizer

from funasr_cli.checkpoints.plain_tokenizer import unknown_parts
from funasr_cli.errors import ModelError
from funasr_cli.vocabulary import CTCVocabulary

# Several times what real files take: Qwen3's tokenizer.json has 11 MB, a release's config.yaml 4 kB.
CONFIG_LIMIT_BYTES = 1 << 20
INDEX_LIMIT_BYTES = 1 << 24  # the index of shards
TOKENIZER_LIMIT_BYTES = 1 << 25
CTC_VOCABULARY_LIMIT_BYTES = 1 << 24
MOST_LEVELS = 32  # of objects and lists within each other
MOST_DIGITS = 20
SHOWN_CHARACTERS = 200  # of what somebody else wrote

LFS_POINTER = b"version https://git-lfs"  # what git leaves behind where git-lfs is not installed
DAMAGED_HINT = "copy or download it again"


def file_in(folder: Path, name: str, hint: str = "") -> Path:
    """A regular file in a checkpoint's folder that is not empty.

    Args:
        folder: the checkpoint's; it may itself be reached through a link.
        name: of the file, with forward slashes where it is further down.
        hint: what to do if it is missing.

    Raises:
        ModelError: there is no such file, it lies or leads elsewhere, or it is no file at all.
    """
    path = folder / _plain_name(folder, name)
    try:
        target = path.resolve(strict=True)
        status = target.stat()
        root = folder.resolve()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "a link that leads nowhere" if path.is_symlink() else "missing"
        raise ModelError(f"{path}: {what}", hint) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, before Python 3.13
        raise ModelError(f"{path}: cannot be read ({reason_in_a_line(error)})", hint) from error
    if not (target.is_relative_to(root) or _is_blob(target, root)):
        raise ModelError(f"{path}: a link that leads out of the folder", "put the file itself there")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path}: not a file")
    if not status.st_size:
        raise ModelError(f"{path}: empty", DAMAGED_HINT)
    return path


def optional_file_in(folder: Path, name: str) -> Path | None:
    """The same; None where nothing of that name is there.

    Raises:
        ModelError: something is there, but no file that `file_in` would give.
    """
    return file_in(folder, name) if os.path.lexists(folder / _plain_name(folder, name)) else None


def _plain_name(folder: Path, name: str) -> str:
    """The name, if it leads nowhere but down."""
    parts = name.split("/")
    is_drive = re.match("[A-Za-z]:", name)
    if is_drive or "\\" in name or not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise ModelError(f"{folder}: {quoted(name)} is not the name of a file in it")
    return name


def _is_blob(target: Path, root: Path) -> bool:
    """Whether Hugging Face's cache keeps it for this snapshot: ``snapshots/COMMIT/f -> ../../blobs/SHA``."""
    return root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"


@contextmanager
def open_file(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file to read; with its size in bytes.

    Raises:
        ModelError: it cannot be opened, it is a pipe or a device, or git-lfs has not fetched it.
    """
    try:
        # Non-blocking, since a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({reason_in_a_line(error)})") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ModelError(f"{path}: not a file")
    with open(descriptor, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ModelError(f"{path}: a pointer of git-lfs, not the file itself", "run: git lfs pull")
        file.seek(0)
        yield file, status.st_size


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """All of a file that has no business being large.

    Raises:
        ModelError: it is larger, or cannot be read.
    """
    with open_file(path) as (file, size_bytes):
        content = file.read(limit_bytes + 1) if size_bytes <= limit_bytes else b""
    if size_bytes > limit_bytes or len(content) > limit_bytes:
        raise ModelError(f"{path}: {size_bytes:,} bytes, more than the {limit_bytes:,} read of such a file")
    return content


def read_json(path: Path, limit_bytes: int = CONFIG_LIMIT_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: missing, unreadable, not an object, too large or too deep, or with a key or number that not
            every program reads alike.
    """
    return parse_json(read_limited(path, limit_bytes), str(path))


def read_index(path: Path) -> dict[str, str]:
    """Which file holds each tensor, as ``model.safetensors.index.json`` says; open those with `file_in`.

    Raises:
        ModelError: the index is damaged, or names something else than files beside it.
    """
    names = read_json(path, INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{path}: weight_map is not an object of file names")
    for name in set(names.values()):
        if "/" in _plain_name(path.parent, name):
            raise ModelError(f"{path}: {quoted(name)} is not beside it")
    return names


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """The same of what has been read already; ``where`` opens the message."""
    check_depth(content, where)
    try:
        parsed = json.loads(
            content.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_no_number,
        )
        if b"\\u" in content:
            json.dumps(parsed, ensure_ascii=False).encode()  # half a character could not be printed
    except ValueError as error:
        raise ModelError(f"{where}: cannot be read ({reason_in_a_line(error)})") from error
    if not isinstance(parsed, dict):
        raise ModelError(f"{where}: not a JSON object")
    return parsed


def check_depth(content: bytes, where: str) -> None:
    """Refuse JSON that is nested too deeply for parsers that call themselves, without parsing it.

    Raises:
        ModelError: it is.
    """
    unescaped = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = np.frombuffer(unescaped.translate(MARKS, NO_MARKS), np.int8)
    in_string = np.logical_xor.accumulate(marks == 0)
    levels = np.cumsum(np.where(in_string, np.int8(0), marks), dtype=np.int32)
    if levels.max(initial=0) > MOST_LEVELS:
        raise ModelError(f"{where}: nested deeper than {MOST_LEVELS} levels")


# An opening bracket is 1, a closing one -1, a quotation mark 0.
MARKS = bytes.maketrans(b'[{]}"', b"\x01\x01\xff\xff\x00")
NO_MARKS = bytes(set(range(256)) - set(b'[{]}"'))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"{quoted(key)} stands twice in one object")
        content[key] = value
    return content


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:MOST_DIGITS]}")
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"the number {name}")


def read_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """Read a ``tokenizer.json`` for a decoder with so many embeddings.

    Raises:
        ModelError: it is missing, damaged, another model's, or has parts that Qwen's has not.
    """
    content = read_limited(path, TOKENIZER_LIMIT_BYTES)
    unknown = next(unknown_parts(parse_json(content, str(path))), None)
    if unknown:  # before the library sees it, which applies them to added tokens at once
        raise ModelError(f"{path}: unlike Qwen's tokenizer: {readable(unknown)}", "copy the tokenizer of Qwen3")
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a bare Exception, or a panic of the Rust library, which is not even one
        raise ModelError(f"{path}: damaged ({reason_in_a_line(error)})", DAMAGED_HINT) from error
    tokens = tokenizer.get_vocab_size()
    if tokens > vocab_size:
        raise ModelError(f"{path}: {tokens} tokens, but the decoder has {vocab_size}", "it is another model's")
    ids = (token_id for token_id in range(vocab_size) if tokenizer.id_to_token(token_id) is not None)
    if len(list(itertools.islice(ids, tokens))) < tokens:  # such a row would be read from foreign memory
        raise ModelError(f"{path}: not every id is below the decoder's {vocab_size}", "it is another model's")
    tokenizer.no_truncation()  # a prompt is taken as it is, whatever the file says
    tokenizer.no_padding()
    return tokenizer


def read_ctc_vocabulary(path: Path) -> CTCVocabulary:
    """Read a ``multilingual.tiktoken``.

    Raises:
        ModelError: it is missing or damaged.
    """
    content = read_limited(path, CTC_VOCABULARY_LIMIT_BYTES)
    try:
        return CTCVocabulary(content.decode("ascii"))
    except ValueError as error:
        raise ModelError(f"{path}: damaged ({reason_in_a_line(error)})", DAMAGED_HINT) from error


def quoted(value: object) -> str:
    """What stands in a file, as it may enter a message: printable, in one line, not too long."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def reason_in_a_line(error: BaseException) -> str:
    """What a library says, in one line."""
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "strerror", None) or getattr(error, "problem", None) or str(error)
    line = " ".join(text.split()) or type(error).__name__
    return readable(line) + (f", line {mark.line + 1}" if mark else "")


def readable(text: str) -> str:
    """Printable, in one line, not too long."""
    letters = (letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return "".join(itertools.islice(letters, SHOWN_CHARACTERS))

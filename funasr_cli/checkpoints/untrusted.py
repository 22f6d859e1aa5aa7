"""Open and parse the files of a checkpoint, which may come from an untrusted source. No other module opens them.

A missing, damaged or unsafe file raises a `ModelError` with a one-line message, as does any error of a parser.
"""

import json
import os
import re
import reprlib
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from funasr_cli.errors import ModelError

# Several times the size of real files: 4 kB for a release's config.yaml, 0.2 MB for the index of a hundred shards.
# PyYAML takes half a minute for a megabyte of aliases.
YAML_LIMIT_BYTES = 1 << 17
CONFIG_LIMIT_BYTES = 1 << 20
INDEX_LIMIT_BYTES = 1 << 24
SHOWN_CHARACTERS = 200  # limit for untrusted text in messages

LFS_POINTER = b"version https://git-lfs"  # start of the placeholder that git checks out without git-lfs
DAMAGED_HINT = "copy or download it again"


def file_in(folder: Path, name: str, hint: str = "") -> Path:
    """Return the path of a non-empty regular file in a checkpoint's folder. Links must not lead out of the folder.

    The folder itself may be a link. A name in a subfolder has forward slashes. ``hint`` is shown if the file is
    missing.

    Raises:
        ModelError: the file is missing, empty, not a regular file, or outside the folder.
    """
    path = folder / _plain_name(folder, name)
    try:
        target, root = path.resolve(strict=True), folder.resolve()
        status = target.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "a broken link" if path.is_symlink() else "missing"
        raise ModelError(f"{path}: {what}", hint, code="model-missing") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links, before Python 3.13
        raise unreadable(path, error, hint) from error
    if not (target.is_relative_to(root) or _is_blob(target, root)):
        message = f"{path}: a link to a file outside the folder"
        raise ModelError(message, "replace the link with the file itself", code="model-path")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path}: not a file", code="model-path")
    if not status.st_size:
        raise ModelError(f"{path}: empty", DAMAGED_HINT, code="model-damaged")
    return path


def optional_file_in(folder: Path, name: str) -> Path | None:
    """Return the same as `file_in`, or None if nothing of that name exists."""
    return file_in(folder, name) if os.path.lexists(folder / _plain_name(folder, name)) else None


def _plain_name(folder: Path, name: str) -> str:
    """Return the name unchanged; raise a `ModelError` unless it stays inside the folder."""
    is_drive = re.match("[A-Za-z]:", name)
    if is_drive or "\\" in name or not name.isprintable() or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ModelError(f"{folder}: {quoted(name)} is not the name of a file in this folder", code="model-path")
    return name


def _is_blob(target: Path, root: Path) -> bool:
    """Return whether a link's target is in Hugging Face's cache: ``snapshots/COMMIT/f -> ../../blobs/SHA``."""
    return root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"


@contextmanager
def open_file(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading and yield it with its size in bytes.

    Raises:
        ModelError: the file is missing, a pipe, a device or a git-lfs pointer.
    """
    try:
        # Non-blocking, since opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing", code="model-missing") from error
    except OSError as error:
        raise unreadable(path, error) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ModelError(f"{path}: not a file", code="model-path")
    with open(descriptor, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ModelError(f"{path}: a git-lfs pointer, not the file", "run: git lfs pull", code="model-damaged")
        file.seek(0)
        yield file, status.st_size


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """Read a whole file; raise a `ModelError` if it is larger than such a file should be."""
    with open_file(path) as (file, size_bytes):
        if size_bytes > limit_bytes:
            what = f"{size_bytes:,} bytes exceed the limit of {limit_bytes:,} for this file"
            raise ModelError(f"{path}: {what}", code="model-damaged")
        return file.read(limit_bytes)


def read_json(path: Path, limit_bytes: int = CONFIG_LIMIT_BYTES) -> dict[str, Any]:
    """Read a JSON object."""
    return _parse(path, read_limited(path, limit_bytes), json.loads, "a JSON object")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Do not walk all of it: nested aliases can make it exponentially large."""
    import yaml  # not needed to load a converted model

    return _parse(path, read_limited(path, YAML_LIMIT_BYTES), yaml.safe_load, "a mapping")


def _parse(path: Path, content: bytes, parse: Callable[[str], Any], what: str) -> dict[str, Any]:
    try:
        parsed = parse(content.decode())
    except Exception as error:  # also RecursionError, and AttributeError and KeyError from yaml's constructors
        raise unreadable(path, error) from error
    if not isinstance(parsed, dict):
        raise ModelError(f"{path}: not {what}", code="model-config")
    return parsed


def read_index(path: Path) -> dict[str, str]:
    """Read ``model.safetensors.index.json``: the name, for `file_in`, of the file that holds each tensor."""
    names = read_json(path, INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{path}: weight_map is not an object of file names", code="model-damaged")
    for name in set(names.values()):
        if "/" in _plain_name(path.parent, name):
            raise ModelError(f"{path}: {quoted(name)} is not in the same folder", code="model-path")
    return names


def unreadable(path: Path, error: BaseException, hint: str = "") -> ModelError:
    """Return the error for a file that the system or a library cannot read."""
    return ModelError(f"{path}: cannot be read ({reason_in_a_line(error)})", hint, code="model-damaged")


_SHORT = reprlib.Repr()  # visits no more of a value than it shows
_SHORT.maxstring = _SHORT.maxother = SHOWN_CHARACTERS


def quoted(value: object) -> str:
    """Return an untrusted value for a message: printable, on one line, shortened."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def reason_in_a_line(error: BaseException) -> str:
    """Return a library's error message on one line."""
    mark = getattr(error, "problem_mark", None)  # position in a YAML error
    text = getattr(error, "strerror", None) or getattr(error, "problem", None) or str(error)
    line = " ".join(text.split()) or type(error).__name__
    return readable(line) + (f", line {mark.line + 1}" if mark else "")


def readable(text: str) -> str:
    """Return a text shortened, with unprintable characters and line ends replaced."""
    shown = text[:SHOWN_CHARACTERS]
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown)

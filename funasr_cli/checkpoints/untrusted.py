"""The one place through which files of a checkpoint are opened: it may come from anybody.

What is missing, damaged or refused is a `ModelError` in one line; so is what the parsers of libraries raise.
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

# Several times what real files take: a release's config.yaml has 4 kB, the index of a hundred shards 0.2 MB.
# PyYAML takes half a minute for a megabyte of aliases.
YAML_LIMIT_BYTES = 1 << 17
CONFIG_LIMIT_BYTES = 1 << 20
INDEX_LIMIT_BYTES = 1 << 24
SHOWN_CHARACTERS = 200  # of what somebody else wrote

LFS_POINTER = b"version https://git-lfs"  # what git leaves behind where git-lfs is not installed
DAMAGED_HINT = "copy or download it again"


def file_in(folder: Path, name: str, hint: str = "") -> Path:
    """A regular file in a checkpoint's folder that is not empty, and no link that leads elsewhere.

    The folder may itself be reached through a link; the name has forward slashes where the file is further down.
    The hint says what to do if it is missing.
    """
    path = folder / _plain_name(folder, name)
    try:
        target, root = path.resolve(strict=True), folder.resolve()
        status = target.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "a link that leads nowhere" if path.is_symlink() else "missing"
        raise ModelError(f"{path}: {what}", hint, code="model-missing") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, before Python 3.13
        raise unreadable(path, error, hint) from error
    if not (target.is_relative_to(root) or _is_blob(target, root)):
        message = f"{path}: a link that leads out of the folder"
        raise ModelError(message, "put the file itself there", code="model-path")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path}: not a file", code="model-path")
    if not status.st_size:
        raise ModelError(f"{path}: empty", DAMAGED_HINT, code="model-damaged")
    return path


def optional_file_in(folder: Path, name: str) -> Path | None:
    """The same; None where nothing of that name is there."""
    return file_in(folder, name) if os.path.lexists(folder / _plain_name(folder, name)) else None


def _plain_name(folder: Path, name: str) -> str:
    """The name, if it leads nowhere but down."""
    is_drive = re.match("[A-Za-z]:", name)
    if is_drive or "\\" in name or not name.isprintable() or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ModelError(f"{folder}: {quoted(name)} is not the name of a file in it", code="model-path")
    return name


def _is_blob(target: Path, root: Path) -> bool:
    """Whether Hugging Face's cache keeps it for this snapshot: ``snapshots/COMMIT/f -> ../../blobs/SHA``."""
    return root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"


@contextmanager
def open_file(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file to read, with its size in bytes: no pipe, no device, and no pointer of git-lfs."""
    try:
        # Non-blocking, since a pipe would wait for its other end.
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
            raise ModelError(f"{path}: a pointer of git-lfs", "run: git lfs pull", code="model-damaged")
        file.seek(0)
        yield file, status.st_size


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """All of a file that has no business being large."""
    with open_file(path) as (file, size_bytes):
        if size_bytes > limit_bytes:
            what = f"{size_bytes:,} bytes, more than the {limit_bytes:,} read of such a file"
            raise ModelError(f"{path}: {what}", code="model-damaged")
        return file.read(limit_bytes)


def read_json(path: Path, limit_bytes: int = CONFIG_LIMIT_BYTES) -> dict[str, Any]:
    """Read a JSON object."""
    return _parse(path, read_limited(path, limit_bytes), json.loads, "a JSON object")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Aliases share what they stand for: no caller may walk through all of it."""
    import yaml  # loading a converted model needs none

    return _parse(path, read_limited(path, YAML_LIMIT_BYTES), yaml.safe_load, "a mapping")


def _parse(path: Path, content: bytes, parse: Callable[[str], Any], what: str) -> dict[str, Any]:
    try:
        parsed = parse(content.decode())
    except Exception as error:  # RecursionError, and of yaml's constructors AttributeError and KeyError, too
        raise unreadable(path, error) from error
    if not isinstance(parsed, dict):
        raise ModelError(f"{path}: not {what}", code="model-config")
    return parsed


def read_index(path: Path) -> dict[str, str]:
    """Which file beside it holds each tensor, as ``model.safetensors.index.json`` says; for `file_in` to open."""
    names = read_json(path, INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{path}: weight_map is not an object of file names", code="model-damaged")
    for name in set(names.values()):
        if "/" in _plain_name(path.parent, name):
            raise ModelError(f"{path}: {quoted(name)} is not beside it", code="model-path")
    return names


def unreadable(path: Path, error: BaseException, hint: str = "") -> ModelError:
    """What to raise where the system or a library gives up on a file."""
    return ModelError(f"{path}: cannot be read ({reason_in_a_line(error)})", hint, code="model-damaged")


_SHORT = reprlib.Repr()  # looks at no more than it shows
_SHORT.maxstring = _SHORT.maxother = SHOWN_CHARACTERS


def quoted(value: object) -> str:
    """What stands in a file, as it may enter a message: printable, in one line, not too long."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def reason_in_a_line(error: BaseException) -> str:
    """What a library says, in one line."""
    mark = getattr(error, "problem_mark", None)  # of yaml's
    text = getattr(error, "strerror", None) or getattr(error, "problem", None) or str(error)
    line = " ".join(text.split()) or type(error).__name__
    return readable(line) + (f", line {mark.line + 1}" if mark else "")


def readable(text: str) -> str:
    """Printable, in one line, not too long."""
    shown = text[:SHOWN_CHARACTERS]
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown)

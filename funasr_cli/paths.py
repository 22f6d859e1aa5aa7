"""Paths in environment variables, text for messages, and disk space."""

import errno
import os
import shutil
from collections.abc import Callable
from math import ceil, floor
from pathlib import Path

import platformdirs

from funasr_cli.errors import OutputError, UsageError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # errors of a full disk and of an exceeded quota
REFERENCE_PYTHON = "FUNASR_REFERENCE_PYTHON"  # variable with the path of the Python that has FunASR installed


def shown(path: str | Path) -> str:
    """Return a path as printable text, since file names may contain bytes that are not valid UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Return the reason, for a message, why a text file cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    known = {errno.ENOENT: "no such file", errno.EISDIR: "is a folder"}
    return known.get(error.errno or 0, f"cannot be read ({error.strerror})")


def path_in_variable(variable: str) -> Path | None:
    """Return the path in an environment variable, or None if it is unset.

    Raises:
        UsageError: the home folder of a path such as ``~name`` cannot be found.
    """
    value = os.environ.get(variable)
    try:
        return Path(value).expanduser() if value else None
    except RuntimeError as error:
        hint = "set it to an existing path, or unset it"
        raise UsageError(f"{variable}={value}: {error}", hint, code="variable-value") from error


def cache_folder() -> Path:
    """Return the folder for models and what is kept about them: ``$FUNASR_HOME``, else the platform's cache."""
    return path_in_variable("FUNASR_HOME") or platformdirs.user_cache_path("funasr-cli")


def nearest_existing(path: Path) -> Path:
    """Return the path itself if it exists, otherwise its nearest existing parent."""
    return next(place for place in (path, *path.absolute().parents) if os.path.exists(place))


def size_in_words(size_bytes: int, rounded: Callable[[float], int] = ceil) -> str:
    """Return a size in GB with one decimal, or in whole MB if it is less than 1 GB."""
    return f"{rounded(size_bytes / 1e8) / 10:.1f} GB" if size_bytes >= 1e9 else f"{rounded(size_bytes / 1e6)} MB"


def require_space(folder: Path, bytes_needed: int, what_for: str, hint: str) -> None:
    """Fail early with an `OutputError` if the disk is too full.

    The folder need not exist yet. ``what_for`` names what will be written.
    """
    there = nearest_existing(folder)
    free = shutil.disk_usage(there).free
    if free < bytes_needed:
        sizes = f"needs {size_in_words(bytes_needed)}, only {size_in_words(free, floor)} are free"
        raise OutputError(f"{there}: {what_for} {sizes}", hint, code="disk-full")

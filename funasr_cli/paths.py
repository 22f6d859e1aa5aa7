"""Paths in variables of the environment, and room on disks."""

import errno
import os
import shutil
from pathlib import Path

from funasr_cli.errors import OutputError, UsageError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # what a full disk says, or a quota that is used up
REFERENCE_PYTHON = "FUNASR_REFERENCE_PYTHON"  # the variable that names the Python in which FunASR is installed


def shown(path: str | Path) -> str:
    """A path as text: file names may hold bytes that are none."""
    return os.fsencode(path).decode(errors="replace")


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Say why a text file that was named cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    known = {errno.ENOENT: "no such file", errno.EISDIR: "is a folder"}
    return known.get(error.errno or 0, f"cannot be read ({error.strerror})")


def path_in_variable(variable: str) -> Path | None:
    """The path that a variable holds, if it is set; a `UsageError` where that is in the home of no user."""
    value = os.environ.get(variable)
    try:
        return Path(value).expanduser() if value else None
    except RuntimeError as error:
        hint = "name a folder that exists, or unset it"
        raise UsageError(f"{variable}={value}: {error}", hint, code="variable-value") from error


def nearest_existing(path: Path) -> Path:
    """The path itself or the closest folder above it that exists; in the end, that is the root."""
    return next(place for place in (path, *path.absolute().parents) if os.path.exists(place))


def require_space(folder: Path, bytes_needed: int, what_for: str, hint: str) -> None:
    """Say at once, before any work, as an `OutputError`, that a disk is too full.

    The folder need not be there yet; ``what_for`` names what will be written.
    """
    there = nearest_existing(folder)
    free = shutil.disk_usage(there).free
    if free < bytes_needed:
        sizes = f"needs {bytes_needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
        raise OutputError(f"{there}: {what_for} {sizes}", hint, code="disk-full")

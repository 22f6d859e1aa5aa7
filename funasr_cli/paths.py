"""Paths in variables of the environment, and folders to write to."""

import os
from pathlib import Path

from funasr_cli.errors import OutputError, UsageError


def path_in_variable(variable: str) -> Path | None:
    """The path that a variable of the environment holds; None where it is unset or empty.

    Raises:
        UsageError: it is in the home of a user that there is not.
    """
    value = os.environ.get(variable)
    try:
        return Path(value).expanduser() if value else None
    except RuntimeError as error:
        raise UsageError(f"{variable}={value}: {error}", "name a folder that exists, or unset it") from error


def nearest_existing(path: Path) -> Path | None:
    """The path itself or the closest folder above it that is there."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), None)


def refuse_unwritable(folder: Path, hint: str) -> None:
    """Say at once, before any work, that nothing can be put into a folder, which need not be there yet.

    Raises:
        OutputError: it cannot.
    """
    there = nearest_existing(folder)
    if there and there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there}: nothing can be written there", hint)

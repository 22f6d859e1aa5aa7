"""Paths that stand in variables of the environment."""

import os
from pathlib import Path

from funasr_cli.errors import UsageError


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

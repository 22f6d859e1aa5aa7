"""Expected errors: identified by their code and the values they name, not by their wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from funasr_cli.errors import FunASRError


@contextmanager
def refused(code: str, *values: object) -> Iterator[pytest.ExceptionInfo[FunASRError]]:
    """Assert that the block raises an error with this code whose message or hint names these values."""
    with pytest.raises(FunASRError) as caught:
        yield caught
    text = f"{caught.value.message}\n{caught.value.hint}"
    assert caught.value.code == code, text
    assert [value for value in values if str(value) not in text] == [], text

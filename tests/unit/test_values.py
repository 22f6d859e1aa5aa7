"""Config dataclasses out of JSON: strictly, and where the fault stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from funasr_cli.checkpoints.values import parse_dataclass, stated_in
from funasr_cli.errors import ModelError


@dataclass(frozen=True)
class Inner:
    values: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    number: int
    share: float
    flag: bool
    name: str
    inner: Inner | None


GOOD: dict[str, Any] = {"number": 1, "share": 2, "flag": True, "name": "a", "inner": {"values": [1, 2]}}


def test_what_is_right() -> None:
    parsed = parse_dataclass(Outer, GOOD)
    assert parsed == Outer(1, 2.0, True, "a", Inner((1, 2)))
    assert type(parsed.share) is float
    assert parse_dataclass(Outer, {**GOOD, "inner": None}).inner is None


@pytest.mark.parametrize(
    ("change", "values"),
    [
        *(({"number": value}, ("number", repr(value))) for value in (True, 1.0, "1", None)),
        ({"number": 10**4000}, ("number",)),
        *(({"share": value}, ("share", repr(value))) for value in ("2", True)),
        ({"share": 10**4000}, ("share",)),
        ({"flag": 1}, ("flag", "1")),
        ({"name": 1}, ("name", "1")),
        ({"inner": []}, ("inner",)),
        ({"inner": {"values": 3}}, ("inner: ", "values")),
        ({"inner": {"values": [1, "2"]}}, ("inner: ", "values", "'2'")),
        ({"inner": {}}, ("inner: ", "'values'")),
        ({"b": 1, "a": 1}, ("a, b",)),
        ({"b\n": 1}, ("b\N{REPLACEMENT CHARACTER}",)),
    ],
)
def test_what_is_wrong(change: dict[str, Any], values: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as caught, stated_in("file"):
        parse_dataclass(Outer, {**GOOD, **change})
    assert caught.value.code == "model-config"
    assert caught.value.message.startswith("file: ")
    assert str(caught.value) == caught.value.message
    assert all(value in caught.value.message for value in values)


def test_what_is_missing() -> None:
    with pytest.raises(ModelError, match=r"^file: .*'number'"), stated_in("file"):
        parse_dataclass(Outer, {})

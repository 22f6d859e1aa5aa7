"""Read typed values from untrusted configurations, and check that they are consistent.

An unknown, unsupported or mistyped value raises a `ModelError`. A missing value raises a `KeyError`, which
`stated_in` turns into a `ModelError`. `stated_in` also adds the file's name to the message.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from funasr_cli.checkpoints.untrusted import quoted, readable
from funasr_cli.errors import ModelError

T = typing.TypeVar("T")
Options = dict[str, Any]

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
LARGEST_BITS = 63

MAY_BE_ZERO = ("memory_shift", "blank_id", "tp_blocks")
# Upper limits, several times the sizes of any real model. Sizes below them are checked against the
# checkpoint's tensors before anything is computed.
LARGEST = 1 << 20
MOST = {"sample_rate_hz": 1_000_000} | dict.fromkeys(
    ("blocks", "tp_blocks", "layers", "num_hidden_layers", "heads", "num_attention_heads", "num_key_value_heads",
     "mel_bins", "stack_frames"), 1000,
)  # fmt: skip
LARGEST_NUMBER = 1e12  # upper limit for floats; rope_theta reaches 1e9


class Misstated(ModelError):
    """A wrong value in a configuration. `stated_in` adds the place to the message."""


@contextmanager
def stated_in(where: str) -> Iterator[None]:
    """Prefix messages about wrong values with the file, or the part of it, that holds them."""
    try:
        yield
    except Misstated as error:
        error.message = f"{where}: {error.message}"
        error.args = (error.message,)
        raise
    except KeyError as error:
        raise Misstated(f"{where}: does not state {error}", code="model-config") from error
    except (TypeError, ValueError) as error:
        what = f"a value of the wrong type ({readable(str(error))})"
        raise Misstated(f"{where}: {what}", code="model-config") from error


def section(yaml: Options, name: str) -> Options:
    """Return a mapping in a configuration, empty if it is omitted."""
    content = yaml.get(name)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise Misstated(f"{name} is not a mapping", code="model-config")
    return content


def value(options: Options, name: str, default: Any) -> Any:
    """Return a value of the default's type, or the default if it is omitted.

    A default that is a type itself makes the value required.
    """
    kind: Any = default if isinstance(default, type) else type(default)
    found = options[name] if default is kind else options.get(name, default)
    if type(found) is not kind and not (kind is float and type(found) is int):  # isinstance takes True for an int
        what = f"a value of the wrong type ({name} is {quoted(found)}, not {KINDS[kind]})"
        raise Misstated(what, code="model-config")
    if type(found) is int and found.bit_length() > LARGEST_BITS:
        raise Misstated(f"{name} is {quoted(found)}", code="model-config")
    return kind(found)


def require(options: Options, name: str, supported: Any, default: Any = None) -> None:
    """Raise a `ModelError` unless the option has the only supported value."""
    found = options.get(name, default)
    if found != supported:
        hint = f"this version supports only {supported!r}"
        raise Misstated(f"{name} is {quoted(found)}: not supported", hint, code="model-unsupported")


def parse_dataclass(kind: type[T], options: Options) -> T:
    """Build a (nested) config dataclass. Unknown, missing or mistyped fields are errors."""
    hints = typing.get_type_hints(kind)
    if unknown := sorted(options.keys() - hints.keys()):
        raise Misstated(f"unknown field: {readable(', '.join(unknown))}", code="model-config")
    return kind(**{name: _field(options, name, hint) for name, hint in hints.items()})


def _field(options: Options, name: str, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):  # X | None
        return None if options[name] is None else _field(options, name, typing.get_args(hint)[0])
    if dataclasses.is_dataclass(hint):
        with stated_in(name):
            return parse_dataclass(typing.cast(type, hint), section(options, name))
    if typing.get_origin(hint) is tuple:
        if not isinstance(options[name], list):
            raise Misstated(f"{name} is not a list", code="model-config")
        return tuple(value({name: item}, name, typing.get_args(hint)[0]) for item in options[name])
    return value(options, name, hint)


def check_config(config: Any, where: str, misfits: Callable[[Any], Iterable[str]]) -> None:
    """Raise a `ModelError` for an impossible configuration, before it fails deep inside the computation.

    ``misfits`` returns the inconsistencies that are specific to the family. It is called only if all numbers are
    in range.
    """
    problems = [*_out_of_range(config, "")] or [*misfits(config)]  # `misfits` divides by these numbers
    if problems:
        raise ModelError(f"{where}: {'; '.join(problems)}", code="model-config")


def _out_of_range(config: Any, path: str) -> Iterator[str]:
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _out_of_range(value, f"{name}.")
        elif type(value) is int:
            least = 0 if field.name in MAY_BE_ZERO else 1
            if not least <= value <= MOST.get(field.name, LARGEST):
                yield f"{name} is {value}"
        elif type(value) is float and not 0 < value <= LARGEST_NUMBER:
            yield f"{name} is {value}"

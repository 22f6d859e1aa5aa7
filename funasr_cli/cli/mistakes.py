"""Mistakes on the command line, in clearer words than those of Click and Pydantic."""

import re
from typing import Any

# Patterns of their messages on values, what is wrong, and what is allowed.
VALUE_ERRORS = (
    (r"(?P<value>.+) is not one of (?P<names>.+)", "{value} is not allowed", "choose from {names}"),
    (r"Input should be a valid integer.*|.* is not a valid int.*", "{value} is not a whole number", ""),
    (r"Input should be a valid number.*|.* is not a valid float.*", "{value} is not a number", ""),
    (r"Input should be a valid bool.*|.* is not a valid bool.*", "{value} is neither true nor false", ""),
    (r"Input should be greater than or equal to (?P<least>\S+)", "{value} is too small", "use {least} or more"),
    (r"Input should be less than or equal to (?P<most>\S+)", "{value} is too large", "use {most} or less"),
    (r"(?P<value>\S+) is not in the range x>=(?P<least>\S+)", "{value} is too small", "use {least} or more"),
    (r"(?P<value>\S+) is not in the range x<=(?P<most>\S+)", "{value} is too large", "use {most} or less"),
    (
        r"(?P<value>\S+) is not in the range (?P<least>[^x<]+)<=x<=(?P<most>\S+)",
        "{value} is out of range",
        "use {least} to {most}",
    ),
)
# Patterns of other messages, and what is wrong.
USAGE_ERRORS = (
    (r"No such command '(?P<name>.+?)'(?:\. Did you mean '(?P<near>.+)'\?)?", "unknown command {name}"),
    (r"Missing command", "no command given"),
    (r"Got unexpected extra argument\S* \((?P<rest>\S*)\)", "unexpected argument: {rest}"),
    (r"Got unexpected extra argument\S* \((?P<rest>.*)\)", "unexpected arguments: {rest}"),
    (r"Option '(?P<name>.*)' requires an? .*", "{name} needs a value"),
    (r"Option '(?P<name>.*)' does not take a value", "{name} takes no value"),
)


def in_our_words(error: Any) -> tuple[str, str]:
    """Return what is wrong with a command line, and what is allowed; the latter may be empty."""
    parameter, kind = getattr(error, "param", None), type(error).__name__
    text = str(error.message or "").removeprefix("Value error, ").rstrip(".")
    if kind == "NoSuchOption":
        near = " or ".join(sorted(error.possibilities or ()))
        return f"unknown option {error.option_name}", f"did you mean {near}?" if near else ""
    if parameter is not None:
        name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.metavar
        if kind == "MissingParameter":
            return f"{name or parameter.name} is missing", ""
        problem, hint = _value_error(text, error.__cause__)
        return f"{name or parameter.name}: {problem}", hint
    for pattern, ours in USAGE_ERRORS:
        if found := re.fullmatch(pattern, text):
            near = (found.groupdict().get("near") or "").replace("'", "")
            return ours.format(**found.groupdict()), f"did you mean {near}?" if near else ""
    return text[:1].lower() + text[1:], ""


def _value_error(text: str, cause: Any) -> tuple[str, str]:
    """Return what is wrong with an option's value, and what is allowed, from Click's words or Pydantic's error."""
    for pattern, problem, hint in VALUE_ERRORS:
        if found := re.fullmatch(pattern, text):
            raw = cause.errors()[0]["input"] if hasattr(cause, "errors") else None
            quoted = re.match("'.*?'|\\S+", text)
            value = repr(raw) if raw is not None else quoted[0] if quoted else "the value"
            allowed = {name: part.replace("'", "") for name, part in found.groupdict().items() if part}
            values = allowed | {"value": re.sub(r"^'([-\d.]+)'$", r"\1", value)}
            return problem.format(**values), hint.format(**values)
    return text, ""

"""Mistakes on the command line, in clearer words than those of Click and Pydantic."""

import difflib
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
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
PROGRAM_OPTIONS = ("--version",)  # options that come before a command
MOST_NEAR, LEAST_SIMILARITY = 2, 0.65  # options that are suggested for an unknown one


def in_our_words(error: Any) -> tuple[str, str]:
    """Return what is wrong with a command line, and what is allowed; the latter may be empty."""
    parameter, kind = getattr(error, "param", None), type(error).__name__
    text = str(error.message or "").removeprefix("Value error, ").rstrip(".")
    if kind == "NoSuchOption":
        return f"unknown option {error.option_name}", _near_option(error.option_name, error.possibilities or ())
    if parameter is not None:
        name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.metavar
        if kind == "MissingParameter":
            return f"{name or parameter.name} is missing", ""
        problem, hint = _value_error(text, error.__cause__)
        return f"{name or parameter.name}: {problem}", hint
    for pattern, ours in USAGE_ERRORS:
        if found := re.fullmatch(pattern, text):
            near = (found.groupdict().get("near") or "").replace("'", "") or _meant(found.groupdict().get("name"))
            return ours.format(**found.groupdict()), f"did you mean {near}?" if near else ""
    return text[:1].lower() + text[1:], ""


def _near_option(name: str, options: Iterable[str]) -> str:
    """Return a hint that names the most similar options, the nearest first; empty if none is similar."""
    if name in PROGRAM_OPTIONS:
        return f"did you mean funasr {name}?"
    by_word = {option.lstrip("-"): option for option in options}
    near = difflib.get_close_matches(name.lstrip("-"), by_word, n=MOST_NEAR, cutoff=LEAST_SIMILARITY)
    return f"did you mean {' or '.join(by_word[word] for word in near)}?" if near else ""


def _meant(command: str | None) -> str:
    """Return the command that was probably meant by a word that is no command: a recording, or "help"."""
    if command == "help":
        return "funasr --help"
    is_recording = command and (os.path.exists(command) or Path(command).suffix)
    return f"funasr transcribe {shlex.quote(command)}" if command and is_recording else ""


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

"""The settings file: values of options, for all commands or for one.

    model = "nano"
    lang = "zh"

    [transcribe]
    format = ["srt", "json"]

They become the defaults of the commands' options (Click's ``default_map``). The command line overrides the
environment (``FUNASR_MODEL``, ...), and the environment overrides the file.
"""

import difflib
import os
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import platformdirs

from funasr_cli.errors import UsageError
from funasr_cli.paths import path_in_variable

if TYPE_CHECKING:
    from click import Group

CONFIG_VARIABLE = "FUNASR_CONFIG"
Defaults = dict[str, dict[str, Any]]  # by command and parameter


def config_file() -> Path:
    """Return the path in ``$FUNASR_CONFIG``, else ``config.toml`` in the user's configuration folder."""
    return path_in_variable(CONFIG_VARIABLE) or platformdirs.user_config_path("funasr-cli") / "config.toml"


def command_settings(group: "Group") -> Defaults:
    """Read the settings file, and return defaults for the parameters of each command.

    Raises:
        UsageError: the file cannot be read, a name is unknown, or a value has a wrong type.
    """
    path = config_file()
    settings = _read(path)
    tables = {name: table for name, table in settings.items() if isinstance(table, dict)}
    shared = {name: value for name, value in settings.items() if name not in tables}
    known = {  # options that also have a variable; the others, such as --force, are for a single run
        name: {_option_name(option): option for option in command.params if getattr(option, "envvar", None)}
        for name, command in group.commands.items()
    }
    _refuse_unknown(tables, known, f"{path}: unknown command")
    _refuse_unknown(shared, [name for options in known.values() for name in options], f"{path}: unknown option")
    defaults: Defaults = {}
    for command, options in known.items():
        own = tables.get(command, {})
        _refuse_unknown(own, options, f"{path}: unknown option in [{command}]:")
        defaults[command] = {
            str(options[name].name): _default(options[name], value, f"{path}: {name}")
            for name, value in (shared | own).items()
            if name in options
        }
    return defaults


def origins(context: Any, parameters: Iterable[Any]) -> list[str]:
    """Return the variables and the names in the settings file that set any of these parameters."""
    found = []
    for parameter in parameters:
        source = context.get_parameter_source(parameter.name or "")
        if source and source.name == "ENVIRONMENT":
            found.append(str(parameter.envvar))
        elif source and source.name == "DEFAULT_MAP":
            found.append(f"{_option_name(parameter)} in {config_file()}")
    return found


class Setting(NamedTuple):
    """An option whose value comes from a variable or the settings file, with the commands that it applies to."""

    option: str
    value: Any
    origin: str
    commands: tuple[str, ...]


def settings_in_force(group: "Group", defaults: Defaults) -> list[Setting]:
    """Return the options that variables or the settings file set; `defaults` come from `command_settings`."""
    commands: dict[tuple[str, Any, str], list[str]] = defaultdict(list)
    for command, definition in group.commands.items():
        for parameter in definition.params:
            name, variable = _option_name(parameter), parameter.envvar
            value = defaults.get(command, {}).get(str(parameter.name))
            if isinstance(variable, str) and os.environ.get(variable):
                commands[name, os.environ[variable], variable].append(command)
            elif value is not None:
                value = ",".join(value) if isinstance(value, list) else value
                commands[name, value, str(config_file())].append(command)
    return [Setting(*key, tuple(names)) for key, names in commands.items()]


def _read(path: Path) -> dict[str, Any]:
    """Return the contents of a settings file; empty if the default file does not exist."""
    is_named = bool(os.environ.get(CONFIG_VARIABLE))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and not is_named:
            return {}
        hint = f"correct it, or change {CONFIG_VARIABLE}" if is_named else "correct it, or remove it"
        reason = getattr(error, "strerror", None) or f"not TOML: {error}"
        raise UsageError(f"{path}: cannot be read ({reason})", hint, code="settings-unreadable") from error


def _option_name(parameter: Any) -> str:
    return next((name[2:] for name in parameter.opts if name.startswith("--")), parameter.name or "")


def _default(option: Any, value: Any, where: str) -> Any:
    """Return a value as the command line would pass it, so that Click checks it."""
    values = value if isinstance(value, list) and option.multiple else [value]
    for one in values:
        if isinstance(one, bool) != option.is_flag or not isinstance(one, str | int | float):
            expected = "true or false" if option.is_flag else "a text or a number"
            raise UsageError(f"{where} is {one!r}", f"use {expected}", code="settings-value")
    return [str(one) for one in values] if option.multiple else value if option.is_flag else str(value)


def _refuse_unknown(names: Iterable[str], known: Iterable[str], complaint: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            listed = "funasr COMMAND --help shows a variable for each option that can be set"
            hint = f"did you mean {near[0]}?" if near else listed
            raise UsageError(f"{complaint} {name!r}", hint, code="settings-unknown")

"""Settings that stand in a file: option names and values, for all commands or for one.

    model = "nano"
    lang = "zh"

    [transcribe]
    format = ["srt", "json"]

The command line goes before the environment (``FUNASR_MODEL``, ...), the environment before the file.
"""

import difflib
import os
import re
import tomllib
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from funasr_cli.errors import UsageError
from funasr_cli.paths import path_in_variable

if TYPE_CHECKING:
    from click import Command, Group, Parameter

CONFIG_VARIABLE = "FUNASR_CONFIG"


def config_file() -> Path:
    """``$FUNASR_CONFIG``, else ``config.toml`` in the user's folder for settings.

    Raises:
        UsageError: it is named in a home that does not exist.
    """
    return path_in_variable(CONFIG_VARIABLE) or platformdirs.user_config_path("funasr-cli") / "config.toml"


def read_settings(path: Path) -> dict[str, Any]:
    """Contents of a settings file; none where there is no such file, unless it has been named.

    Raises:
        UsageError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if os.environ.get(CONFIG_VARIABLE):
            raise UsageError(f"{path}: no such file", f"it is what {CONFIG_VARIABLE} says") from error
        return {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", "mend or remove it") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})", "mend or remove it") from error


def command_settings(group: "Group") -> dict[str, dict[str, Any]]:
    """What the file says, as defaults of each command's parameters.

    Raises:
        UsageError: it cannot be read, or a name is neither a command's nor an option's.
    """
    path = config_file()
    settings = read_settings(path)
    shared = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    tables = {name: value for name, value in settings.items() if isinstance(value, dict)}
    known = {command: _parameters(group.commands[command]) for command in group.commands}
    _refuse_unknown(tables, list(known), f"{path}: no command")
    settable = [name for names in known.values() for name in names]
    for own in (shared, *tables.values()):
        _refuse_single_runs(own, group, settable, path)
    _refuse_unknown(shared, settable, f"{path}: no option")
    defaults: dict[str, dict[str, Any]] = {}
    for command, names in known.items():
        own = tables.get(command, {})
        _refuse_unknown(own, list(names), f"{path}: [{command}] has no option")
        wanted = {key: value for key, value in shared.items() if key in names} | own
        defaults[command] = {names[key].name: _default(names[key], value) for key, value in wanted.items()}
    return defaults


def origins(context: Any, parameters: Iterable[Any], message: str | None = None) -> list[str]:
    """Variables, and names in the settings file, from which values come that have not been typed.

    With an error's message, those of them that it speaks of, by their names or values.
    """
    found = []
    for parameter in parameters:
        if message is not None and not _speaks_of(message, parameter, context.params.get(parameter.name)):
            continue
        source = context.get_parameter_source(parameter.name or "")
        if source and source.name == "ENVIRONMENT":
            found.append(str(parameter.envvar))
        elif source and source.name == "DEFAULT_MAP":
            found.append(f"{_typed_name(parameter)} in {config_file()}")
    return found


@dataclass(frozen=True)
class Setting:
    """An option that has its value from elsewhere than the command line, in these commands."""

    option: str
    value: Any
    origin: str
    commands: tuple[str, ...]


def settings_in_force(group: "Group", defaults: dict[str, dict[str, Any]]) -> list[Setting]:
    """Options whose value comes from a variable, or else from the file (`command_settings`)."""
    commands = defaultdict(list)
    values = {}
    for command, definition in group.commands.items():
        for parameter in definition.params:
            variable, own = parameter.envvar, defaults.get(command, {})
            if isinstance(variable, str) and os.environ.get(variable):
                found = _typed_name(parameter), os.environ[variable], variable
            elif parameter.name in own:
                found = _typed_name(parameter), _plain(own[parameter.name]), str(config_file())
            else:
                continue
            commands[str(found)].append(command)
            values[str(found)] = found
    return [Setting(*found, tuple(commands[key])) for key, found in values.items()]


def _speaks_of(message: str, parameter: Any, value: Any) -> bool:
    words = [_typed_name(parameter), _typed_name(parameter).replace("-", " ")]
    words += map(str, value if isinstance(value, list | tuple) else [value])
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message) for word in words if len(word) > 1)


def _typed_name(parameter: Any) -> str:
    return next((name[2:] for name in parameter.opts if name.startswith("--")), parameter.name or "")


def _default(option: "Parameter", value: Any) -> Any:
    """A repeatable option may be given a single value."""
    return [value] if getattr(option, "multiple", False) and not isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """As `_default` has found it."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _parameters(command: "Command") -> dict[str, "Parameter"]:
    """Options of a command that have a variable, too, by the name one types, without its dashes."""
    names = {}
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--") and getattr(parameter, "envvar", None):
                names[option.removeprefix("--")] = parameter
    return names


def _refuse_single_runs(given: Iterable[str], group: "Group", settable: Container[str], path: Path) -> None:
    """Refuse options that have no variable: nobody wants --force for good."""
    every = {_typed_name(parameter) for command in group.commands.values() for parameter in command.params}
    for name in given:
        if name in every and name not in settable:
            raise UsageError(f"{path}: {name!r} belongs to a single run", f"type --{name}")


def _refuse_unknown(given: dict[str, Any], known: list[str], complaint: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(f"{complaint} {name!r}", f"did you mean {near[0]}?" if near else "")

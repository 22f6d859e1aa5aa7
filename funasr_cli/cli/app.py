"""The app, ``--version``, and the one place that turns an exception into a message and an exit code."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from funasr_cli import __version__
from funasr_cli.cli import bench, console, convert, info, serve, transcribe
from funasr_cli.cli.mistakes import in_our_words
from funasr_cli.cli.settings import command_settings, origins
from funasr_cli.errors import ExitCode, FunASRError, ModelError, UnexpectedError, UsageError
from funasr_cli.paths import shown
from funasr_cli.writers import DATA_LOST, unwritable

EXIT_CODES = (
    f"Exit codes: {ExitCode.OK} success, {ExitCode.INPUT_FAILED} an input failed, {ExitCode.USAGE} wrong usage, "
    f"{ExitCode.MODEL} unusable model, {ExitCode.PARTIAL} incomplete text, "
    f"{ExitCode.ENVIRONMENT} something is not installed or unreachable, {ExitCode.NO_SPEECH} no speech found, "
    f"{ExitCode.UNEXPECTED} internal error, {ExitCode.INTERRUPTED} interrupted."
)
HELP = """Transcribe speech on your own machine, with the models Fun-ASR, SenseVoice, Paraformer and Whisper.

Start with: funasr transcribe recording.m4a

To test the installation in a clone of the repository, without a download:
funasr transcribe --model demo funasr_cli/demo/clips/*.flac

The demo model understands only synthetic speech.
"""
# Click's UsageError. Typer has its own copy of Click in some versions, so it cannot be imported by name.
BadCommandLine = cast(type[Exception], typer.BadParameter.__mro__[1])
NAMES = ("funasr", "funasr-cli")
PRINTING = ("bench", "models", "info")  # commands that only print
ENDINGS = (typer.Exit, typer.Abort, BrokenPipeError)  # exceptions that Typer handles itself
BUG_HINT = (
    f"set {console.TRACEBACK_VARIABLE}=1 to see where it happened, and report it with the output of funasr info"
)
TYPE_NAMES = {"<int>": "N", "<float>": "NUMBER", "<str>": "TEXT", "<path>": "PATH"}
# Errors that may be caused by a model named in a setting.
ABOUT_MODELS = ("option-unsupported", "language-unknown")


@contextmanager
def _boundary() -> Iterator[None]:
    """Report errors on stderr, and end the program with their exit code."""
    try:
        yield
    except ENDINGS:
        raise
    except KeyboardInterrupt as error:
        console.warn(f"interrupted{error}")
        raise SystemExit(ExitCode.INTERRUPTED) from error
    except Exception as error:
        ours = _as_our_error(error)
        console.report(ours)
        raise SystemExit(ours.exit_code) from error


def _as_our_error(error: Any) -> FunASRError:
    """Turn any exception into a FunASRError: a usage error, an error of the operating system, or a bug."""
    ours: FunASRError
    if isinstance(error, FunASRError):
        return error
    if isinstance(error, BadCommandLine):
        return _bad_command_line(error)
    if isinstance(error, OSError) and error.errno in DATA_LOST and error.filename is None:
        ours = unwritable("standard output", error)
    elif isinstance(error, OSError) and error.filename is not None:
        ours = FunASRError(f"{shown(error.filename)}: {error.strerror}", code="path-refused")
    else:
        message = f"unexpected {type(error).__name__}: {error}".rstrip(": ")
        ours = UnexpectedError(message, BUG_HINT, code="unexpected")
    return ours.with_traceback(error.__traceback__)


def _bad_command_line(error: Any) -> UsageError:
    """Turn Click's error into ours: what is wrong, what is allowed, and which setting the value comes from."""
    context, parameter = error.ctx, getattr(error, "param", None)
    see = f"see {context.command_path if context else NAMES[0]} --help"
    message, hint = in_our_words(error)
    settings = origins(context, [parameter]) if context and parameter else []
    if settings:
        hint = "\n  ".join(filter(None, (hint, f"the value comes from {settings[0]}")))
    elif hint.startswith("did you mean"):
        hint = f"{hint} Otherwise {see}"
    return UsageError(message, hint or see, code="command-line")


def _settings_to_check(error: FunASRError, context: Any, parameters: list[Any]) -> list[str]:
    """Return the settings that may have caused an error: its text names them, or it is about the model."""
    text = f"{error.message}\n{error.hint}"

    def is_involved(parameter: Any) -> bool:
        value = context.params.get(parameter.name)
        values = [str(each) for each in (value if isinstance(value, list | tuple) else [value])]
        if parameter.name == "model" and error.code == "model-missing":
            return any(each in error.message for each in values)  # not if the user declined to fetch it
        if parameter.name == "model" and (isinstance(error, ModelError) or error.code in ABOUT_MODELS):
            return True
        names = [*parameter.opts, *parameter.secondary_opts]
        if not isinstance(value, bool | int | float | None):
            names += filter(None, values)
        return any(re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/.-])", text) for name in names)

    return origins(context, filter(is_involved, parameters))


def _with_readable_types(parameters: list[Any], context: Any) -> list[Any]:
    """Set the types that the help shows: none for flags and arguments, a word such as N or PATH for others."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) or parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
        elif parameter.metavar is None and hasattr(parameter, "display_type_rich"):
            parameter.metavar = TYPE_NAMES.get(parameter.display_type_rich(context))
    return parameters


class Command(TyperCommand):
    """A command that reads the settings file, and names a setting that may have caused an error."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, in the form that the help shows."""
        return _with_readable_types(super().get_params(ctx), ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line; Typer would put required arguments in braces."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options. The settings file gives defaults, except for help, completion and ``funasr info``."""
        if not (ctx.resilient_parsing or ctx.info_name == "info" or set(args) & set(ctx.help_option_names)):
            ctx.default_map = command_settings(ctx.parent.command)[ctx.info_name]
        try:
            return super().parse_args(ctx, args)
        except BadCommandLine as error:
            error.ctx = error.ctx or ctx  # type: ignore[attr-defined]  # Click does not always set it
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        if ctx.info_name in PRINTING:
            console.refuse_closed_stdout()
        info.warn_of_unread_variables(ctx.parent.command)
        try:
            return super().invoke(ctx)
        except (UsageError, ModelError) as error:
            if settings := _settings_to_check(error, ctx, self.params):
                check = f"check the setting{'s' * (len(settings) > 1)} {', '.join(settings)}"
                error.hint = "\n  ".join(filter(None, (error.hint, check)))
            raise


class Boundary(TyperGroup):
    """The group of all commands. Every error ends here."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, in the form that the help shows."""
        return _with_readable_types(super().get_params(ctx), ctx)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the options of the program itself; show the help if there are no arguments."""
        if not args:
            return super().make_context(info_name, args, parent, **extra)
        with _boundary():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Read the options of a command, and run it."""
        with _boundary():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Boundary,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=HELP,
    epilog=EXIT_CODES,
)
app.command("transcribe", cls=Command, epilog=EXIT_CODES)(transcribe.transcribe)
app.command("convert", cls=Command, epilog=EXIT_CODES)(convert.convert)
app.command("serve", cls=Command, epilog=EXIT_CODES)(serve.serve)
app.command("bench", cls=Command, epilog=EXIT_CODES)(bench.bench)
app.command("models", cls=Command)(info.models)
app.command("info", cls=Command)(info.info)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.result(f"funasr-cli {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Declare the options of the program itself."""


def main() -> None:
    """Run the program. Errors outside of a command, as on a help page, are handled here."""
    console.prepare_streams()
    name = Path(sys.argv[0]).name
    try:
        with _boundary():
            app(prog_name=name if name in NAMES else NAMES[0])
    finally:
        console.forget_unwritten()

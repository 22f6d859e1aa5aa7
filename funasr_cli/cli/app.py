"""The app, ``--version``, and the one place where an exception becomes a message and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from funasr_cli import __version__
from funasr_cli.cli import bench, console, convert, info, transcribe
from funasr_cli.cli.settings import command_settings, origins
from funasr_cli.errors import ExitCode, FunASRError, ModelError, UnexpectedError, UsageError
from funasr_cli.paths import shown
from funasr_cli.writers import LOST, unwritable

EXIT_CODES = (
    f"Exit codes: {ExitCode.OK} done, {ExitCode.INPUT_FAILED} an input failed, {ExitCode.USAGE} wrong usage, "
    f"{ExitCode.MODEL} unusable model, {ExitCode.PARTIAL} a text is cut short, "
    f"{ExitCode.ENVIRONMENT} something is not installed or reachable, {ExitCode.NO_SPEECH} no speech found, "
    f"{ExitCode.UNEXPECTED} an unexpected error, {ExitCode.INTERRUPTED} interrupted."
)
# Click's UsageError, which Typer brings along under changing names.
BadCommandLine = cast(type[Exception], typer.BadParameter.__mro__[1])
NAMES = ("funasr", "funasr-cli")
PRINTING = ("bench", "models", "info")  # commands whose only result is what they print
ENDINGS = (typer.Exit, typer.Abort, BrokenPipeError)  # what Typer ends the program with
BUG_HINT = f"{console.TRACEBACK_VARIABLE}=1 shows where; please report it, with what funasr info prints"


@contextmanager
def _boundary() -> Iterator[None]:
    """Turn errors into a message on stderr, and end the program with an exit code."""
    try:
        yield
    except ENDINGS:
        raise
    except KeyboardInterrupt as error:
        console.warn(f"interrupted{error}")
        raise SystemExit(ExitCode.INTERRUPTED) from error
    except Exception as error:
        ours = _in_our_form(error)
        console.report(ours)
        raise SystemExit(ours.exit_code) from error


def _in_our_form(error: Any) -> FunASRError:
    """The same as an error of ours: a wrong command line, what the system refuses, or a fault of this program."""
    ours: FunASRError
    if isinstance(error, FunASRError):
        return error
    if isinstance(error, BadCommandLine):
        return _bad_command_line(error)
    if isinstance(error, OSError) and error.errno in LOST and error.filename is None:
        ours = unwritable("standard output", error)
    elif isinstance(error, OSError) and error.filename is not None:
        ours = FunASRError(f"{shown(error.filename)}: {error.strerror}", code="path-refused")
    else:
        message = f"unexpected {type(error).__name__}: {error}".rstrip(": ")
        ours = UnexpectedError(message, BUG_HINT, code="unexpected")
    return ours.with_traceback(error.__traceback__)


def _bad_command_line(error: Any) -> UsageError:
    """Click's error, with where the value comes from if it has not been typed."""
    context, parameter = error.ctx, getattr(error, "param", None)
    settings = origins(context, [parameter]) if context and parameter else []
    message, variable = error.format_message(), getattr(parameter, "envvar", None)
    command = context.command_path if context else "funasr"
    hint = f"it comes from {settings[0]}" if settings else f"see {command} --help"
    message = message.replace(f" (env var: {variable!r})", "").replace(": Value error, ", ": ")
    return UsageError(message, hint, code="command-line")


class Command(TyperCommand):
    """A command whose errors name the settings in force: what is wrong may not have been typed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read its options, behind the settings; help, completion and a report on settings do without them."""
        if not (ctx.resilient_parsing or ctx.info_name == "info" or set(args) & set(ctx.help_option_names)):
            ctx.default_map = command_settings(ctx.parent.command)[ctx.info_name]
        try:
            return super().parse_args(ctx, args)
        except BadCommandLine as error:
            error.ctx = error.ctx or ctx  # type: ignore[attr-defined]  # Click does not always say whose they are
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        if ctx.info_name in PRINTING:
            console.refuse_closed_stdout()
        info.warn_of_unread_variables(ctx.parent.command)
        try:
            return super().invoke(ctx)
        except (UsageError, ModelError) as error:
            if settings := origins(ctx, self.params):
                error.hint = "\n  ".join(filter(None, (error.hint, f"settings in force: {', '.join(settings)}")))
            raise


class Boundary(TyperGroup):
    """Reads the command line and runs a command; errors meant for the user end here."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the options of the program itself; without any arguments, this shows the help."""
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
    help="Speech transcription on your own machine: the Fun-ASR family on MLX.",
    epilog=EXIT_CODES,
)
app.command("convert", cls=Command, epilog=EXIT_CODES)(convert.convert)
app.command("transcribe", cls=Command, epilog=EXIT_CODES)(transcribe.transcribe)
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
    """Options of the program itself."""


def main() -> None:
    """Run the program; what happens outside of a command, as on a page of help, ends here, too."""
    console.prepare_streams()
    name = Path(sys.argv[0]).name
    try:
        with _boundary():
            app(prog_name=name if name in NAMES else NAMES[0])
    finally:
        console.forget_unwritten()

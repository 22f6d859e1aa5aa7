"""The app, ``--version``, and the one place where an exception becomes a message and an exit code."""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from funasr_cli import __version__
from funasr_cli.cli import bench, console, convert, info, models, transcribe
from funasr_cli.cli.settings import config_file, defaults_of_commands, read_settings
from funasr_cli.errors import ExitCode, FunASRError

EXIT_CODES = (
    f"Exit codes: {ExitCode.OK} done, {ExitCode.INPUT_FAILED} an input failed, {ExitCode.USAGE} wrong usage, "
    f"{ExitCode.MODEL} unusable model, {ExitCode.PARTIAL} a text is cut short, "
    f"{ExitCode.ENVIRONMENT} something is not installed or reachable, {ExitCode.NO_SPEECH} no speech found, "
    f"{ExitCode.INTERRUPTED} interrupted."
)


TRACEBACK_VARIABLE = "FUNASR_TRACEBACK"


class Boundary(TyperGroup):
    """Runs a command; errors meant for the user end here."""

    def invoke(self, ctx: Any) -> Any:
        """Turn errors into a message on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except FunASRError as error:
            if os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
                raise
            console.report(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            console.warn("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from error


app = typer.Typer(
    cls=Boundary,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Speech transcription on your own machine: the Fun-ASR family on MLX.",
)
app.command("convert")(convert.convert)
app.command("transcribe", epilog=EXIT_CODES)(transcribe.transcribe)
app.command("bench")(bench.bench)
app.command("models")(models.models)
app.command("info")(info.info)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.result(f"funasr-cli {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""
    path = config_file()
    context.default_map = defaults_of_commands(read_settings(path), context.command, path)  # type: ignore[arg-type]


def main() -> None:
    """Entry point of ``funasr`` and ``funasr-cli``."""
    console.prepare_stdout()
    app(prog_name="funasr")

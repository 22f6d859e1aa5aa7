"""The options of ``funasr convert``: names and help."""

from pathlib import Path
from typing import Annotated

import typer

from funasr_cli.cli import console
from funasr_cli.cli.completion import complete_codes, complete_sources, completer
from funasr_cli.options import DTYPES, ENCODER_BITS, GROUP_SIZE, GROUP_SIZES, RECIPES, VERIFICATIONS


def choices(values: tuple[object, ...]) -> str:
    """``[4|8]``, as help pages write it."""
    return f"[{'|'.join(map(str, values))}]"


def explain(asked: bool) -> None:
    """Print the rules of names and layouts, and end."""
    if asked:
        from funasr_cli.checkpoints.explain import explain as tables

        console.result(tables())
        raise typer.Exit


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder in a layout that --explain lists, converted model, hub id, or nano or mlt-nano for short.",
        autocompletion=complete_sources,
    ),
]
Out = Annotated[Path | None, typer.Argument(metavar="OUT", help="Folder to create. Default: the models folder.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
DType = Annotated[
    str,
    typer.Option(metavar=choices(DTYPES), help="Type of what is not quantized.", autocompletion=completer(DTYPES)),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        metavar=choices(RECIPES),
        help="Quantize the language model to so many bits, for GPUs. A CPU undoes it.",
        autocompletion=completer(RECIPES),
    ),
]
QuantizeEncoder = Annotated[
    int | None, typer.Option(metavar=choices(ENCODER_BITS), help="Quantize the encoder, too.")
]
GroupSize = Annotated[
    int | None,
    typer.Option(metavar=choices(GROUP_SIZES), help=f"Values that share a scale. Default: {GROUP_SIZE}."),
]
Languages = Annotated[
    str | None,
    typer.Option(
        metavar="CODES",
        help="What the model can write, as in zh,en,ja. Default: from the source's name.",
        autocompletion=complete_codes,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier conversion.")]
Verify = Annotated[
    str,
    typer.Option(
        metavar=choices(VERIFICATIONS),
        help="Decode a clip with source and result; full: each stage beside PyTorch, too.",
        autocompletion=completer(VERIFICATIONS),
    ),
]
Check = Annotated[bool, typer.Option("--check", help="Only look whether SOURCE, a converted model, is whole.")]
Explain = Annotated[
    bool, typer.Option("--explain", callback=explain, is_eager=True, help="Print what becomes of each tensor.")
]

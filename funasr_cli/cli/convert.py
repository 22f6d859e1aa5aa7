"""``funasr convert``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from funasr_cli.cli import console, parameters
from funasr_cli.cli.completion import complete_codes, complete_sources, completer
from funasr_cli.options import (
    CONVERT_DEFAULTS,
    DEFAULT_HUB,
    DTYPES,
    GROUP_SIZE,
    GROUP_SIZES,
    QUANTIZATION_BITS,
    ConvertOptions,
    Hub,
)

if TYPE_CHECKING:
    from funasr_cli.checkpoints.convert import Conversion
    from funasr_cli.checkpoints.format import ModelFile


def choices(values: tuple[object, ...]) -> str:
    """``[4|8]``, as help pages write it."""
    return f"[{'|'.join(map(str, values))}]"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder in FunASR's layout, hub id, or nano or mlt-nano for short.",
            autocompletion=complete_sources,
        ),
    ],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Folder to create. Default: the models folder.")
    ] = None,
    hub: parameters.HubOption = DEFAULT_HUB,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    dtype: Annotated[
        str,
        typer.Option(
            metavar=choices(DTYPES), help="Type of what is not quantized.", autocompletion=completer(DTYPES)
        ),
    ] = CONVERT_DEFAULTS.dtype,
    quantize: Annotated[
        int | None,
        typer.Option(
            metavar=choices(QUANTIZATION_BITS),
            help="Quantize the language model to so many bits, for GPUs. A CPU undoes it.",
            autocompletion=completer(QUANTIZATION_BITS),
        ),
    ] = CONVERT_DEFAULTS.quantize_bits,
    group_size: Annotated[
        int | None,
        typer.Option(metavar=choices(GROUP_SIZES), help=f"Values that share a scale. Default: {GROUP_SIZE}."),
    ] = CONVERT_DEFAULTS.group_size,
    languages: Annotated[
        str | None,
        typer.Option(
            metavar="CODES",
            help="What the model can write, as in zh,en,ja. Default: from the source's name.",
            autocompletion=complete_codes,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier conversion.")] = False,
    quiet: parameters.Quiet = False,
) -> None:
    """Convert a PyTorch checkpoint to MLX."""
    console.set_volume(quiet=quiet, verbose=False)
    options = ConvertOptions(
        dtype=dtype,
        quantize_bits=quantize,
        group_size=group_size,
        languages=tuple(languages.split(",")) if languages is not None else None,
    )
    from funasr_cli.checkpoints.convert import convert as run
    from funasr_cli.checkpoints.hub import DOWNLOADING

    with console.progress(bytes_done=True) as bar:
        tasks = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
                if what == DOWNLOADING and not console.shows_progress():
                    console.note(f"{what} {source}")
            bar.update(tasks[what], completed=done, total=total)

        conversion = run(source, out, options, revision=revision, hub=hub, force=force, progress=on_progress)
    _summarise(conversion)
    console.result(f"{conversion.folder}\n")


def _summarise(conversion: "Conversion") -> None:
    config = conversion.model.config
    console.note(f"{conversion.tensors} tensors, {conversion.size_bytes / 1e6:,.1f} MB, {conversion.model.dtype}")
    console.note(f"languages: {', '.join(config.prompt.languages)}")
    console.note(f"CTC branch: {ctc_branch(conversion.model)}")


def ctc_branch(model: "ModelFile") -> str:
    """Whether there is one; which hub has it, where that makes a difference."""
    from funasr_cli.checkpoints.hub import CTC_ON_MODELSCOPE

    hub = model.source.get("hub") if model.source.get("source") == CTC_ON_MODELSCOPE else None
    if model.config.ctc:
        return "yes, ModelScope's copy has one" if hub == Hub.MS else "yes"
    absent = "no, this source has no such tensors"
    return f"{absent}; ModelScope's copy has them: --hub ms" if hub == Hub.HF else absent

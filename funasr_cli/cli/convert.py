"""``funasr convert``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

import typer
from rich.progress import TaskID

from funasr_cli.cli import console, parameters
from funasr_cli.cli import conversion_report as report
from funasr_cli.cli import convert_parameters as own
from funasr_cli.errors import UsageError
from funasr_cli.options import CONVERT_DEFAULTS, DEFAULT_HUB, ConvertOptions

if TYPE_CHECKING:
    from funasr_cli.checkpoints.hub import Progress


def convert(
    context: typer.Context,
    source: own.Source,
    out: own.Out = None,
    hub: parameters.HubOption = DEFAULT_HUB,
    revision: own.Revision = None,
    dtype: own.DType = CONVERT_DEFAULTS.dtype,
    quantize: own.Quantize = CONVERT_DEFAULTS.quantize,
    quantize_encoder: own.QuantizeEncoder = CONVERT_DEFAULTS.quantize_encoder,
    group_size: own.GroupSize = CONVERT_DEFAULTS.group_size,
    languages: own.Languages = None,
    force: own.Force = False,
    verify: own.Verify = CONVERT_DEFAULTS.verify,
    check: own.Check = False,
    _: own.Explain = False,
    quiet: parameters.Quiet = False,
) -> None:
    """Convert a checkpoint to MLX, and prove what came out."""
    console.set_volume(quiet=quiet, verbose=False)
    options = ConvertOptions(
        dtype=dtype,
        quantize=quantize,
        quantize_encoder=quantize_encoder,
        group_size=group_size,
        languages=tuple(languages.split(",")) if languages is not None else None,
        verify=verify,
    )
    typed_hub = parameters.is_typed(context, "hub")  # from a variable it may stand for good
    if check:
        _refuse_others(options, {"OUT": out, "--hub": typed_hub, "--revision": revision, "--force": force})
        return _check(source)
    from funasr_cli.checkpoints.convert import convert as run
    from funasr_cli.checkpoints.hub import local_source
    from funasr_cli.verification.proof import verifier

    if typed_hub and (local := local_source(source)):
        raise UsageError(f"--hub {hub} with the local folder {local.folder}", "it applies to a hub id")
    with _progress(source) as on_progress:
        conversion = run(
            source, out, options, verifier, revision=revision, hub=hub, force=force, progress=on_progress
        )
    for line in report.conversion_lines(conversion):
        console.note(line)
    console.result(f"{conversion.folder}\n")


def _check(folder: str) -> None:
    from funasr_cli.checkpoints.hub import find_model
    from funasr_cli.verification.check import check_model

    with _progress(folder) as on_progress:
        checked = check_model(find_model(folder), on_progress)
    console.result("".join(f"{line}\n" for line in report.check_lines(checked)))


def _refuse_others(options: ConvertOptions, given: Mapping[str, object]) -> None:
    """`--check` converts nothing, so that no other option has a meaning."""
    stated = [name for name, value in given.items() if value]
    changed = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    stated += [f"--{name.replace('_', '-')}" for name in changed]
    if stated:
        raise UsageError(f"--check with {', '.join(stated)}", "it only looks at a model that has been converted")


@contextmanager
def _progress(source: str) -> Iterator["Progress"]:
    """Bars of bytes, one for each thing that is done; one that just moves for what is not counted in bytes."""
    from funasr_cli.checkpoints.hub import DOWNLOADING, VERIFYING

    with console.download_progress() as bar:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=None)
                if what == DOWNLOADING and not console.shows_progress():
                    console.note(f"{what} {source}")
            if what != VERIFYING:
                bar.update(tasks[what], completed=done, total=total)

        yield on_progress

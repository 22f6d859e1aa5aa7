"""``funasr convert``, and what it says of a conversion or of a model that it has looked at."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import TaskID

from funasr_cli.cli import console, parameters
from funasr_cli.errors import UsageError
from funasr_cli.languages import LANGUAGES
from funasr_cli.options import (
    CONVERT_DEFAULTS,
    DEFAULT_HUB,
    DTYPES,
    ENCODER_BITS,
    GROUP_SIZE,
    GROUP_SIZES,
    RECIPES,
    VERIFICATIONS,
    ConvertOptions,
    Hub,
)

if TYPE_CHECKING:
    from funasr_cli.checkpoints.checkpoint import Checkpoint
    from funasr_cli.conversion.convert import Conversion, Proof
    from funasr_cli.families.converted import ModelFile
    from funasr_cli.hubs.find import Progress
    from funasr_cli.verification.check import Checked

ON_MODELSCOPE = "ModelScope's copy has one: --hub ms"
STAGES = {"features": "features", "encoder": "encoder", "audio_embeddings": "adaptor", "logits": "logits"}


def _one_of(values: Sequence[object], help: str) -> Any:
    """Make an option of a few values, which its help and Tab offer; `ConvertOptions` refuses others."""
    names = list(map(str, values))
    return typer.Option(
        metavar=f"[{'|'.join(names)}]",
        help=help,
        autocompletion=lambda incomplete: [name for name in names if name.startswith(incomplete)],
    )


def _complete_sources(incomplete: str) -> list[str]:
    """Offer the checkpoints that have a short name, and their hub ids."""
    from funasr_cli.hubs.find import ALIASES

    names = dict.fromkeys((*ALIASES, *ALIASES.values()))  # a model may have several short names
    return [name for name in names if name.startswith(incomplete)]


def explain(asked: bool) -> None:
    """Print the rules of names and layouts, and end."""
    if asked:
        from funasr_cli.families.open import explain as tables

        console.result(tables())
        raise typer.Exit


_source = typer.Argument(
    metavar="SOURCE",
    help="Folder in a layout that --explain lists, converted model, hub id, or its short name, listed there.",
    autocompletion=_complete_sources,
)
_hub = parameters.option(None, "--hub", "Where to fetch a hub id: Hugging Face or ModelScope.")
_languages = typer.Option(
    metavar="CODES",
    help="What the model can write, as in zh,en,ja. Default: from the source's name.",
    autocompletion=parameters.behind_commas(*LANGUAGES),
)
QUANTIZE_HELP = "Quantize the weights: to 4 bits, 8 bits, or mixed. It pays on GPUs; a CPU undoes it."
VERIFY_HELP = "Decode a clip with source and result; full: each stage beside PyTorch, too."
_check = typer.Option("--check", help="Only look whether SOURCE, a converted model, is whole.")
_explain = typer.Option(
    "--explain", callback=explain, is_eager=True, help="Print what becomes of each tensor, and short names."
)


def convert(
    context: typer.Context,
    source: Annotated[str, _source],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Folder to create. Default: the models folder.")
    ] = None,
    hub: Annotated[Hub, _hub] = DEFAULT_HUB,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    dtype: Annotated[str, _one_of(DTYPES, "Type of what is not quantized.")] = CONVERT_DEFAULTS.dtype,
    quantize: Annotated[str | None, _one_of(RECIPES, QUANTIZE_HELP)] = CONVERT_DEFAULTS.quantize,
    quantize_encoder: Annotated[
        int | None, _one_of(ENCODER_BITS, "Quantize the encoder, too.")
    ] = CONVERT_DEFAULTS.quantize_encoder,
    group_size: Annotated[
        int | None, _one_of(GROUP_SIZES, f"Values that share a scale. Default: {GROUP_SIZE}.")
    ] = CONVERT_DEFAULTS.group_size,
    languages: Annotated[str | None, _languages] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier conversion.")] = False,
    verify: Annotated[str, _one_of(VERIFICATIONS, VERIFY_HELP)] = CONVERT_DEFAULTS.verify,
    check: Annotated[bool, _check] = False,
    _: Annotated[bool, _explain] = False,
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
        others = {"OUT": out, "--hub": typed_hub, "--revision": revision, "--force": force}
        stated = [name for name, value in others.items() if value]
        changed = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
        stated += [f"--{name.replace('_', '-')}" for name in changed]
        if stated:
            hint = "it only looks at a model that has been converted"
            raise UsageError(f"--check with {', '.join(stated)}", hint, code="options-conflict")
        from funasr_cli.hubs.find import find_model
        from funasr_cli.verification.check import check_model

        with _progress(source) as on_progress:
            checked = check_model(find_model(source), on_progress)
        console.result("".join(f"{line}\n" for line in check_lines(checked)))
        return
    from funasr_cli.conversion.convert import convert as run
    from funasr_cli.hubs.find import local_checkpoint
    from funasr_cli.verification.proof import verifier

    if typed_hub and (local := local_checkpoint(source)):
        raise UsageError(
            f"--hub {hub} with the local folder {local.folder}", "it applies to a hub id", code="options-conflict"
        )
    with _progress(source) as on_progress:
        conversion = run(
            source, out, options, verifier, revision=revision, hub=hub, force=force, progress=on_progress
        )
    for line in conversion_lines(conversion):
        console.note(line)
    console.result(f"{conversion.folder}\n")


@contextmanager
def _progress(source: str) -> Iterator["Progress"]:
    """Show bars of bytes, one for each thing that is done; one just moves for what is not counted in bytes."""
    from funasr_cli.hubs.find import DOWNLOADING, VERIFYING

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


def conversion_lines(conversion: "Conversion") -> Iterator[str]:
    """Tell what a conversion came to, for stderr."""
    model = conversion.model
    weights = _weights(model, conversion.size_bytes)
    stored = f", stored as {conversion.arrays}" if conversion.arrays != conversion.tensors else ""
    yield f"{conversion.tensors} tensors in the layout of {conversion.layout}{stored}, {weights}"
    yield from (f"note: {note}" for note in conversion.notes)
    yield from capabilities(model.config, model.source)
    yield from (f"SHA-256 of the source:  {digest}" for digest in str(model.source["sha256"]).splitlines())
    yield f"SHA-256 of the weights: {conversion.sha256}"
    if conversion.proof:
        yield from _proof_lines(conversion.proof)


def check_lines(checked: "Checked") -> Iterator[str]:
    """Describe a model that is whole, for stdout."""
    checkpoint = checked.checkpoint
    weights = _weights(checkpoint, checked.size_bytes)
    yield f"whole: {len(checkpoint.tensors)} arrays, {weights}; all values are numbers"
    yield f"SHA-256 of the weights: {checked.sha256}"
    yield f"SHA-256 of {checked.listed} files: as listed" if checked.listed else "no list of SHA-256 lies there"
    yield from (f"note: {note}" for note in checked.notes)
    yield from capabilities(checkpoint.config, checkpoint.source)


def capabilities(config: Any, source: Mapping[str, str | None]) -> Iterator[str]:
    """Tell what the model can do, by its configuration and by where it came from."""
    from funasr_cli.families import registry

    able = registry.capabilities(config)
    yield f"languages: {', '.join(able.languages)}"
    elsewhere = f"; {ON_MODELSCOPE}" if has_ctc_on_modelscope(source) else ""
    yield f"CTC head, and so word times: {'yes' if able.word_times else f'no, this model has none{elsewhere}'}"


def has_ctc_on_modelscope(source: Mapping[str, str | None]) -> bool:
    """Tell whether the other hub's copy of a model that has no CTC head has one."""
    from funasr_cli.hubs.find import CTC_ON_MODELSCOPE

    return CTC_ON_MODELSCOPE in (source.get("source"), source.get("origin")) and source.get("hub") != Hub.MS


def _proof_lines(proof: "Proof") -> Iterator[str]:
    from funasr_cli.checkpoints.untrusted import readable

    if not any(proof.errors.values()) and proof.source_text == proof.result_text:
        yield f"verified: {proof.clip} gives exactly what the source gives, in every stage"
    else:
        yield f"compared: of {proof.tokens} tokens for {proof.clip}, {proof.agreeing} agree with the source's"
        yield f"differences, relative: {_errors(proof.errors)}"
        yield f"the source writes: {readable(proof.source_text)}"
        yield f"the result writes: {readable(proof.result_text)}"
    if proof.is_doubtful:
        yield "most tokens are others: try it on recordings of your own before you use it, or take a finer recipe"
    if proof.port_errors:
        yield f"beside PyTorch: {proof.port_agreeing} of {proof.tokens} tokens are the same"
        yield f"differences, relative: {_errors(proof.port_errors)}"


def _errors(errors: dict[str, float]) -> str:
    return ", ".join(f"{STAGES[name]} {f'{error:.1e}' if error else 'none'}" for name, error in errors.items())


def _weights(model: "ModelFile | Checkpoint", size_bytes: int) -> str:
    recipe = f", {model.quantization}" if model.quantization else ""
    return f"{size_bytes / 1e6:,.1f} MB, {model.dtype}{recipe}"

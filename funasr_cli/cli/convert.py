"""``funasr convert``, and the lines it prints about a conversion or a checked model."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from funasr_cli.cli import console, parameters
from funasr_cli.errors import UsageError
from funasr_cli.languages import MLT_LANGUAGES, listed
from funasr_cli.options import (
    CONVERT_DEFAULTS,
    DEFAULT_HUB,
    DTYPES,
    ENCODER_BITS,
    ENCODER_INPUTS,
    GROUP_SIZE,
    GROUP_SIZES,
    RECIPES,
    VERIFICATIONS,
    ConvertOptions,
    Hub,
)

if TYPE_CHECKING:
    from rich.markdown import Markdown

    from funasr_cli.checkpoints.checkpoint import Checkpoint
    from funasr_cli.conversion.convert import Conversion, Proof
    from funasr_cli.families.converted import ModelFile
    from funasr_cli.verification.check import Checked

FETCHES_CTC = "fetches a copy with word times"  # follows a command
STAGES = {"features": "features", "encoder": "encoder", "audio_embeddings": "adaptor", "logits": "logits"}


def _one_of(values: Sequence[object], help: str) -> Any:
    """Make an option of a few values, which its help and Tab offer; `ConvertOptions` refuses other values."""
    names = list(map(str, values))
    return typer.Option(
        metavar=f"<{'|'.join(names)}>",
        help=help,
        autocompletion=lambda incomplete: [name for name in names if name.startswith(incomplete)],
    )


def _complete_sources(incomplete: str) -> list[str]:
    """Complete the short names of checkpoints, and their hub ids."""
    from funasr_cli.hubs.find import ALIASES

    names = dict.fromkeys((*ALIASES, *ALIASES.values()))  # a model may have several short names
    return [name for name in names if name.startswith(incomplete)]


_source = typer.Argument(
    metavar="SOURCE",
    help="What to convert: a short name (nano, sensevoice, ct-punc, ...), a hub id, or a local folder.",
    autocompletion=_complete_sources,
    show_default=False,
)
_hub = parameters.option(None, "--hub", "Hub to download from: Hugging Face (hf) or ModelScope (ms).")
_languages = typer.Option(
    metavar="CODES",
    help="Languages the model can write, such as zh,en,ja. Default: taken from the source's name.",
    autocompletion=parameters.comma_separated(*MLT_LANGUAGES),
)
QUANTIZE_HELP = (
    "Quantize the weights to 4 bits, 8 bits, or mixed (4 bits, and 8 where it matters most). This saves memory. "
    "On a GPU it saves time as well; on a CPU with the native engine, 4 bits and mixed do."
)
ENCODER_HELP = "Quantize the encoder as well."
PARTS_HELP = (
    "Encoder of FunASR-Qwen4B, which is put together from three parts: a file, or a folder of SenseVoiceSmall. "
    "Parts that are not named are looked for in SOURCE. With --adaptor, that is its folder; an argument is OUT."
)
INPUT_HELP = "What goes into the encoder of FunASR-Qwen4B. Its sources disagree: see docs/qwen4b.md."
VERIFY_HELP = (
    "Check the result. clip: transcribe a short clip with source and result, and compare. full: also compare each "
    "stage with FunASR on PyTorch."
)
_check = typer.Option("--check", help="Only check that SOURCE, a converted model, is intact.")
EXPLAIN_HELP = (
    "Only show the supported layouts, what happens to each tensor, and the short names. With a short name as "
    "SOURCE, show only its model."
)
_explain = typer.Option("--explain", help=EXPLAIN_HELP)


def convert(
    context: typer.Context,
    source: Annotated[str | None, _source] = None,
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="Folder to create. Default: a folder in the models folder."),
    ] = None,
    hub: Annotated[Hub, _hub] = DEFAULT_HUB,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    dtype: Annotated[
        str, _one_of(DTYPES, "Number type of weights that are not quantized.")
    ] = CONVERT_DEFAULTS.dtype,
    quantize: Annotated[str | None, _one_of(RECIPES, QUANTIZE_HELP)] = CONVERT_DEFAULTS.quantize,
    quantize_encoder: Annotated[
        int | None, _one_of(ENCODER_BITS, ENCODER_HELP)
    ] = CONVERT_DEFAULTS.quantize_encoder,
    group_size: Annotated[
        int | None, _one_of(GROUP_SIZES, f"Number of quantized values that share a scale. Default: {GROUP_SIZE}.")
    ] = CONVERT_DEFAULTS.group_size,
    languages: Annotated[str | None, _languages] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="PATH", help=PARTS_HELP),
    ] = CONVERT_DEFAULTS.encoder,
    adaptor: Annotated[str | None, typer.Option(metavar="FILE", help="Its adaptor.")] = CONVERT_DEFAULTS.adaptor,
    llm: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Its language model, a folder or a hub id.")
    ] = CONVERT_DEFAULTS.llm,
    encoder_input: Annotated[str | None, _one_of(ENCODER_INPUTS, INPUT_HELP)] = CONVERT_DEFAULTS.encoder_input,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier conversion.")] = False,
    verify: Annotated[str, _one_of(VERIFICATIONS, VERIFY_HELP)] = CONVERT_DEFAULTS.verify,
    check: Annotated[bool, _check] = False,
    explain: Annotated[bool, _explain] = False,
    quiet: parameters.Quiet = False,
) -> None:
    """Download a model, convert it to MLX, and check the result."""
    console.set_volume(quiet=quiet, verbose=False)
    if explain:
        _refuse_others(context, "explain", "it only prints tables")
        _explain_names(source)
        return
    if adaptor is not None and out is None:
        source, out = None, Path(source) if source is not None else None
    if source is None and not (encoder or adaptor or llm):
        hint = "try funasr convert nano, or see funasr convert --help"
        raise UsageError("SOURCE is missing", hint, code="command-line")
    options = ConvertOptions(
        dtype=dtype,
        quantize=quantize,
        quantize_encoder=quantize_encoder,
        group_size=group_size,
        languages=tuple(languages.split(",")) if languages is not None else None,
        encoder=encoder,
        adaptor=adaptor,
        llm=llm,
        encoder_input=encoder_input,
        verify=verify,
    )
    if check:
        _refuse_others(context, "check", "it only checks a converted model")
        from funasr_cli.hubs.find import find_model
        from funasr_cli.verification.check import check_model

        with console.progress() as on_progress:
            checked = check_model(find_model(source, kind=None), on_progress)
        console.result("".join(f"{line}\n" for line in check_lines(checked)))
        return
    from funasr_cli.conversion.convert import convert as run
    from funasr_cli.hubs.find import local_checkpoint
    from funasr_cli.verification.proof import verifier

    typed_hub = parameters.is_typed(context, "hub")  # not FUNASR_HUB, which may be set permanently
    if typed_hub and source is not None and (local := local_checkpoint(source)):
        message = f"cannot combine --hub {hub} with the local folder {local.folder}"
        raise UsageError(message, "it applies to a hub id", code="options-conflict")
    with console.progress(f"downloading {source}" if source else "converting") as on_progress:
        conversion = run(
            source, out, options, verifier, revision=revision, hub=hub, force=force, progress=on_progress
        )
    for line in conversion_lines(conversion):
        console.note(line)
    console.result(f"{conversion.folder}\n")


def _refuse_others(context: typer.Context, option: str, hint: str) -> None:
    """Raise a UsageError for anything else on the command line, which this option would ignore."""
    names = (name for name in context.params if name not in (option, "source", "quiet"))
    stated = [name for name in names if parameters.is_typed(context, name)]
    if stated:
        shown = ", ".join("OUT" if name == "out" else f"--{name.replace('_', '-')}" for name in stated)
        raise UsageError(f"cannot combine --{option} with {shown}", hint, code="options-conflict")


def _explain_names(source: str | None) -> None:
    """Print layouts, tensor names and short names of all families, or of the one that has a short name."""
    from funasr_cli.families import registry
    from funasr_cli.families.open import explain

    family = None if source is None else registry.of_hub_name(source)
    if source is not None and family is None:
        hint = f"leave it out, or use a short name: {', '.join(registry.aliases())}"
        raise UsageError(f"--explain: {source} is not a short name", hint, code="options-conflict")
    text = explain((family,) if family else registry.FAMILIES)
    if sys.stdout and sys.stdout.isatty():
        console.result(_rendered(text), shutil.get_terminal_size().columns)
    else:
        console.result(text)


def _rendered(text: str) -> "Markdown":
    """Render Markdown for a terminal. Long names in tables are wrapped, where Rich would cut them off."""
    from rich.markdown import Markdown, TableElement

    class WrappedTable(TableElement):
        def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
            for table in super().__rich_console__(console, options):
                for column in getattr(table, "columns", ()):
                    column.overflow = "fold"
                yield table

    class Wrapped(Markdown):
        elements: ClassVar = Markdown.elements | {"table_open": WrappedTable}

    return Wrapped(text)


def conversion_lines(conversion: "Conversion") -> Iterator[str]:
    """Describe a conversion, for stderr."""
    model = conversion.model
    weights = _weights(model, conversion.size_bytes)
    stored = f", stored as {conversion.arrays}" if conversion.arrays != conversion.tensors else ""
    yield f"{conversion.tensors} tensors in the layout of {conversion.layout}{stored}, {weights}"
    yield from (f"note: {note}" for note in conversion.notes)
    yield from capabilities(model.config, model.source)
    yield from (f"SHA-256 of the source:  {digest}" for digest in str(model.source["sha256"]).splitlines())
    yield f"SHA-256 of the weights: {conversion.sha256}"
    if conversion.proof:
        yield from _proof_lines(conversion.proof, model)


def check_lines(checked: "Checked") -> Iterator[str]:
    """Describe a model that is intact, for stdout."""
    checkpoint = checked.checkpoint
    weights = _weights(checkpoint, checked.size_bytes)
    yield f"intact: {len(checkpoint.tensors)} arrays, {weights}; all values are finite"
    yield f"SHA-256 of the weights: {checked.sha256}"
    yield (
        f"SHA-256 of {checked.listed} files: as listed in SHA256SUMS"
        if checked.listed
        else "the folder has no SHA256SUMS"
    )
    yield from (f"note: {note}" for note in checked.notes)
    yield from capabilities(checkpoint.config, checkpoint.source)


def capabilities(config: Any, source: Mapping[str, str | None]) -> Iterator[str]:
    """Describe what a model can do, from its configuration and its origin."""
    from funasr_cli.families import registry
    from funasr_cli.families.family import PUNCTUATION, SPEAKERS, TEXT
    from funasr_cli.hubs.find import ctc_copy

    able = registry.capabilities(config)
    kind = registry.of_config(config).kind
    if kind == SPEAKERS:
        yield "a model of voices: funasr transcribe tells speakers apart with it (--speakers auto)"
        return
    if kind == TEXT:
        yield "a chat model: funasr transcribe translates with it (--translate --translator)"
        return
    yield f"languages: {listed(able.languages)}"
    if kind == PUNCTUATION:
        yield "a punctuation model: funasr transcribe takes it when a speech model writes no marks (--punctuation)"
        return
    copy = ctc_copy(source)
    elsewhere = f"; {copy} {FETCHES_CTC}" if copy else ""
    if able.word_times and not able.alignment:
        yield "word times: yes, by the decoder's attention to the audio"
    else:
        has_head = "yes" if able.word_times else f"no, this model has none{elsewhere}"
        yield f"CTC head, needed for word times: {has_head}"


def _proof_lines(proof: "Proof", model: "ModelFile") -> Iterator[str]:
    from funasr_cli.checkpoints.untrusted import readable
    from funasr_cli.families import registry
    from funasr_cli.families.native import rounding

    if not any(proof.errors.values()) and proof.source_text == proof.result_text:
        yield f"verified: source and result agree exactly on {proof.clip}, in every stage"
    else:
        agreeing = (
            f": {proof.agreeing} of {proof.tokens} {proof.unit} agree with the source" if proof.tokens else ""
        )
        yield f"compared on {proof.clip}{agreeing}"
        yield f"relative differences: {_errors(proof.errors)}"
        if proof.tokens:
            yield f"text of the source: {readable(proof.source_text)}"
            yield f"text of the result: {readable(proof.result_text)}"
    if proof.is_doubtful:
        yield f"most {proof.unit} differ: test the model on your own recordings, or choose a recipe with more bits"
    if int8 := proof.int8:
        family = registry.of_config(model.config)
        what, same = rounding(family), len(int8.clips) - len(int8.differing)
        used, of = what if int8.holds else "float32", f"{same} of {len(int8.clips)} {family.compared}"
        yield f"same text with {what} as with float32 for {of}: a CPU uses {used}"
    if proof.port_errors:
        yield f"compared with PyTorch: {proof.port_agreeing} of {proof.tokens} {proof.unit} agree"
        yield f"relative differences: {_errors(proof.port_errors)}"


def _errors(errors: dict[str, float]) -> str:
    return ", ".join(f"{STAGES[name]} {f'{error:.1e}' if error else 'none'}" for name, error in errors.items())


def _weights(model: "ModelFile | Checkpoint", size_bytes: int) -> str:
    recipe = f", {model.quantization}" if model.quantization else ""
    return f"{size_bytes / 1e6:,.1f} MB, {model.dtype}{recipe}"

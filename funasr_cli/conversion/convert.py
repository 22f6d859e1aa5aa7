"""Convert a checkpoint: map names, cast, quantize, check, write."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from funasr_cli import __version__
from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints import quantize
from funasr_cli.checkpoints.adapters import open_adapter
from funasr_cli.checkpoints.checkpoint import Checkpoint, empty_model, stored_shapes
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.quantize import PACKED, Groups
from funasr_cli.checkpoints.tensors import is_finite, size_bytes, to_bytes
from funasr_cli.checkpoints.vocabularies import VOCABULARY_HINT
from funasr_cli.compute.backend import mx
from funasr_cli.conversion.place import check_place, how_to_choose, new_folder
from funasr_cli.errors import ModelError, UsageError
from funasr_cli.families import converted, registry
from funasr_cli.families.converted import ModelFile
from funasr_cli.families.family import PUNCTUATION, SPEAKERS, SPEECH, TEXT, Download, Family, Sources
from funasr_cli.families.kept import Int8Proof
from funasr_cli.families.native import kept_bytes
from funasr_cli.families.open import is_model, open_checkpoint
from funasr_cli.hubs import huggingface
from funasr_cli.hubs.find import (
    ALIASES,
    DOWNLOADING,
    VERIFYING,
    Progress,
    counter,
    fetch_checkpoint,
    local_checkpoint,
    models_folder,
    require_hub_id,
)
from funasr_cli.hubs.repository import CheckpointFolder
from funasr_cli.options import CONVERT_DEFAULTS, DEFAULT_HUB, ENCODER_INPUTS, FULL, OFF, ConvertOptions, Hub
from funasr_cli.paths import require_space

# Types of a family's `tables`, by that of the other tensors. Values of a table are small, so float16 represents
# them more precisely than bfloat16, and NumPy reads it.
TABLE_DTYPES = {"bfloat16": "float16"}
EXACT = "float32"  # of tensors that are never rounded
ASSEMBLED = "FunASR-Qwen4B"  # the name of a model whose parts are all named
UNVERIFIED = ConvertOptions(verify=OFF)  # for a model that is fetched and used at once


@dataclass(frozen=True)
class Proof:
    """A converted model compared with its source on a clip."""

    clip: str
    source_text: str
    result_text: str
    tokens: int  # tokens that the source wrote; for a CTC model, frames that are not blank
    agreeing: int  # how many of them the converted model also predicts after the same text
    errors: dict[str, float]  # relative errors (root mean square) of the converted model, by component
    port_errors: dict[str, float] | None = None  # errors of the source compared with PyTorch; None: not compared
    port_agreeing: int = 0  # how many of the source's tokens PyTorch also writes
    unit: str = "tokens"  # what `tokens` counts
    int8: Int8Proof | None = None  # the texts of the native engine in int8; None: not compared
    moved: float | None = None  # relative change of the source's logits by its adapter; None: it has none
    changed: int = 0  # how many of the tokens the source would not have written without the adapter

    @property
    def is_doubtful(self) -> bool:
        """Whether the converted model disagrees with its source most of the time."""
        return self.agreeing * 2 < self.tokens


Verify = Callable[[Path], tuple[Proof | None, tuple[str, ...]]]  # takes a converted folder; returns proof or notes


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion."""

    folder: Path
    model: ModelFile
    tensors: int
    arrays: int  # in the file; a quantized tensor is stored as three
    size_bytes: int
    sha256: str  # digest of the weights
    layout: str  # name of the source's layout
    notes: tuple[str, ...]
    proof: Proof | None  # None if it was not requested, or if there was not enough memory


def convert(
    name: str | None,
    out: Path | None,
    options: ConvertOptions,
    verifier: Callable[[Checkpoint, ConvertOptions], Verify],
    *,
    revision: str | None = None,
    hub: Hub = DEFAULT_HUB,
    force: bool = False,
    progress: Progress = lambda *_: None,
) -> Conversion:
    """Fetch a checkpoint and convert it to a folder that `load_model` reads.

    The folder is written under a temporary name next to ``out`` and renamed when it is complete. A failed
    conversion leaves no files.

    Args:
        name: folder, name of a converted model, hub id or short name, as `fetch_checkpoint` takes it. None: the
            options name the parts of the model, and others are in the adaptor's folder.
        out: folder to create; None takes the models folder, and a name made of the source's name and the recipe.
        options: how to convert.
        verifier: `verification.proof.verifier`, which compares the result with its source as the options say.
        revision: branch, tag or commit of a hub id.
        hub: the hub that has the hub id.
        force: replace ``out`` if it is a converted model.
        progress: called as the work proceeds.

    Raises:
        OutputError: ``out`` exists and may not be replaced, or a disk is too full.
        ModelError: the checkpoint cannot be found or fetched, or does not fit its configuration.
        SetupError: torch is needed and not installed, or the hub cannot be reached.
    """
    assembled = _assembled(options, revision) if name is None else None
    out = _place(name or ASSEMBLED, out, options, hub=hub, replace=force)
    _refuse_absent(options)
    found = assembled or fetch_checkpoint(name or "", revision, progress, hub)
    sources = _sources(found.folder, options, progress, hub)
    for part in filter(None, (sources.encoder, sources.adaptor, sources.llm)):
        check_place(out, part, replace=force, hub=hub)  # which must not contain a part
    return _convert(found, out, options, verifier, replace=force, progress=progress, sources=sources)


def _assembled(options: ConvertOptions, revision: str | None) -> CheckpointFolder:
    """Return the adaptor's folder, in which parts are looked for that are not named."""
    if revision is not None:
        message = f"cannot combine --revision {revision} with parts, which are named one by one"
        raise UsageError(message, "it applies to a hub id", code="options-conflict")
    if options.adaptor is None:
        message = "SOURCE is missing, the folder with the parts that are not named"
        raise UsageError(message, "name it, or all of --encoder, --adaptor and --llm", code="command-line")
    return CheckpointFolder(Path(options.adaptor).parent, ASSEMBLED, None)


def _refuse_absent(options: ConvertOptions) -> None:
    """Raise an error for an adapter or a part that is not where it is named, before anything is fetched."""
    if options.lora:
        open_adapter(options.lora)
    if options.adaptor is not None and not os.path.isfile(options.adaptor):
        raise ModelError(f"{options.adaptor}: no such file", "name the file of an adaptor", code="model-missing")
    for part in (options.encoder, options.llm):
        if part is not None and not (os.path.isfile(part) or local_checkpoint(part)):
            require_hub_id(part)


def _sources(folder: Path, options: ConvertOptions, progress: Progress, hub: Hub) -> Sources:
    """Return the parts that the options name. Folders may be on a hub."""

    def found(name: str | None) -> Path | None:
        if name is None or os.path.isfile(name):
            return None if name is None else Path(name)
        return fetch_checkpoint(name, None, progress, hub).folder

    adaptor = None if options.adaptor is None else Path(options.adaptor)
    chosen = options.encoder_input or ENCODER_INPUTS[0]
    return Sources(folder, found(options.encoder), adaptor, found(options.llm), chosen)


def fetch_model(download: Download, progress: Progress = lambda *_: None) -> tuple[Path, Conversion | None]:
    """Fetch a model from Hugging Face into the models folder, and convert it unless it can be used as it is.

    The result is not verified with a clip, which would take longer than the conversion. Instead, the SHA-256 of
    the download is compared with the hub's, and every tensor is checked by name and shape.

    Returns:
        The model's folder, and the conversion if there was one.

    Raises:
        FunASRError: as `convert` does.
    """
    out = place_of(download)
    converted_into = models_folder() if download.size_bytes is None else None
    found = huggingface.fetch(download.hub_id, None, partial(progress, DOWNLOADING), converted_into)
    if is_model(found.folder):
        return found.folder, None
    conversion = _convert(found, out, UNVERIFIED, lambda *_: lambda _: (None, ()), progress=progress)
    return conversion.folder, conversion


def place_of(download: Download) -> Path:
    """Return the folder that `fetch_model` creates. Raise an OutputError if it cannot be created."""
    return _place(download.hub_id, None, UNVERIFIED)


def _place(
    name: str, out: Path | None, options: ConvertOptions, *, hub: Hub = DEFAULT_HUB, replace: bool = False
) -> Path:
    """Return the folder to create. Refuse anything that cannot work, before gigabytes are downloaded."""
    local = local_checkpoint(name)
    if out is None:
        out = models_folder() / f"{local.name if local else ALIASES.get(name, name)}{options.suffix}"
    check_place(out, local.folder if local else None, replace=replace, hub=hub)
    if expected := registry.of_hub_name(name) if local is None else None:
        _refuse_unsupported(options, expected)
    return out


def _type(name: str, family: Family, dtype: str) -> str:
    """Return the type in which a tensor is stored."""
    if name.startswith(family.exact):
        return EXACT
    return TABLE_DTYPES.get(dtype, dtype) if name in family.tables else dtype


def _convert(
    found: CheckpointFolder,
    out: Path,
    options: ConvertOptions,
    verifier: Callable[[Checkpoint, ConvertOptions], Verify],
    *,
    replace: bool = False,
    progress: Progress,
    sources: Sources | None = None,
) -> Conversion:
    """Convert a checkpoint that is on disk."""
    checkpoint = open_checkpoint(found.folder, found.name, options.lora, sources)
    family = registry.of_config(checkpoint.config)
    _refuse_unsupported(options, family)
    checkpoint = _convertible(checkpoint, family, options)
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    chosen = quantize.plan(options, family.parts, shapes)
    verify = verifier(checkpoint, options)
    with new_folder(out, replace=replace) as folder:
        origin = _origin(checkpoint, found)
        dtype = family.half if options.dtype == CONVERT_DEFAULTS.dtype else options.dtype
        groups = checkpoint.quantized() | dict(chosen)
        kept = kept_bytes(checkpoint, family, groups, dtype) if options.verify != OFF else 0
        packed = quantize.arrays(checkpoint.quantized())
        types = {
            name: tensor.dtype if name in packed else _type(name, family, dtype)
            for name, tensor in checkpoint.tensors.items()
        }
        sha256 = _write_weights(folder, checkpoint, types, chosen, origin, progress, room=kept)
        origin["sha256"] = _hash_source(checkpoint.weights, progress)
        quantization = quantize.joined(checkpoint.quantization, quantize.summarise(chosen, family.parts), chosen)
        model = ModelFile(checkpoint.config, dtype, quantization, origin)
        for file, path in checkpoint.files.items():
            shutil.copyfile(path, folder / file)
        for file, text in checkpoint.texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        converted.write_config(folder, model)
        if options.verify != OFF:
            progress(VERIFYING, 0, 1)
        proof, note = verify(folder)
        (folder / files.README_FILE).write_text(_readme(model, family, checkpoint), encoding="utf-8")
        files.write_sums(folder, {files.WEIGHTS_FILE: sha256})
    return Conversion(
        folder=out,
        model=model,
        tensors=len(checkpoint.tensors),
        arrays=len(checkpoint.tensors) + 2 * len(chosen),  # each quantized tensor also has scales and biases
        size_bytes=(out / files.WEIGHTS_FILE).stat().st_size,
        layout=checkpoint.layout,
        notes=(*checkpoint.notes, *note),
        sha256=sha256,
        proof=proof,
    )


def _refuse_unsupported(options: ConvertOptions, family: Family) -> None:
    """Raise a `UsageError` for an option that this family of models does not support, naming both."""
    quantize.refuse_recipes(options, family.parts, family.title)
    if options.languages and family.with_languages is None:
        message = f"--languages: the languages of {family.title} are fixed"
        raise UsageError(message, "leave it out", code="option-unsupported")
    if options.lora and family.kind in (PUNCTUATION, SPEAKERS):
        message = f"--lora: {family.title} is not a model that adapters are made for"
        raise UsageError(message, "leave it out", code="option-unsupported")
    if options.encoder_input and not family.open_sources:
        message = f"--encoder-input: what goes into the encoder of {family.title} is known"
        raise UsageError(message, "leave it out", code="option-unsupported")
    if options.verify == FULL and family.upstream_options is None:
        message = f"--verify {FULL}: {family.title} cannot be compared with PyTorch"
        hint = "--verify clip compares the result with the source"
        raise UsageError(message, hint, code="option-unsupported")


def _convertible(checkpoint: Checkpoint, family: Family, options: ConvertOptions) -> Checkpoint:
    """Check that a checkpoint is complete; return it with the requested languages and tensors in model order."""
    if options.languages and family.with_languages:
        config = family.with_languages(checkpoint.config, options.languages)
        checkpoint = dataclasses.replace(checkpoint, config=config)
    # Otherwise `load_model` or `check_model` would refuse the result later.
    for file, problem in family.vocabulary_problems(checkpoint):
        message = f"{checkpoint.files.get(file, checkpoint.weights[0].parent / file)}: {problem}"
        raise ModelError(message, VOCABULARY_HINT, code="tokenizer-mismatch")
    if checkpoint.quantization and (options.quantize or not checkpoint.is_assembled):
        message = f"{checkpoint.where}: is already quantized, and its original weights are lost"
        hint = "use it as it is; to change the recipe, convert the checkpoint that it was made from"
        raise ModelError(message, hint, code="model-quantized")
    network = empty_model(checkpoint, family.network(checkpoint.config))
    shapes = stored_shapes(model_shapes(network), checkpoint.quantized())
    tensors = {name: checkpoint.tensors[name] for name in shapes}
    return dataclasses.replace(checkpoint, tensors=tensors)


def _origin(checkpoint: Checkpoint, found: CheckpointFolder) -> dict[str, str | None]:
    """Return a model's origin, for its config.json. A local conversion of ours passes on its own origin."""
    stated = checkpoint.source
    inherited = stated if checkpoint.layout == files.FORMAT and found.hub is None else {}
    origin = {
        "source": inherited.get("source") or found.name,
        "hub": inherited.get("hub") or found.hub,
        "revision": inherited.get("revision") or found.revision,
        "layout": checkpoint.layout,
        "tool_version": f"funasr-cli {__version__}",
    }
    adapted = checkpoint.adaptation.name if checkpoint.adaptation else None
    if adapters := [each for each in (inherited.get("adapter"), adapted) if each]:
        origin["adapter"] = ", ".join(adapters)
    first = stated.get("origin") or stated.get("source")
    return origin | ({"origin": first} if first and first != origin["source"] else {})


def _hash_source(weights: tuple[Path, ...], progress: Progress) -> str:
    """Return the SHA-256 of the file; for several files, one line each, as sha256sum writes them."""
    count = counter(progress, "checking", sum(path.stat().st_size for path in weights))
    sums = [(files.sha256_of(path, count), path.name) for path in weights]
    return sums[0][0] if len(sums) == 1 else "\n".join(f"{digest}  {name}" for digest, name in sums)


def _write_weights(
    folder: Path,
    checkpoint: Checkpoint,
    types: Mapping[str, str],
    chosen: Mapping[str, Groups],
    origin: Mapping[str, str | None],
    progress: Progress,
    room: int,
) -> str:
    """Write the tensors in the model's order, one in memory at a time; return the file's SHA-256.

    ``room`` is the number of bytes that the disk must have free in addition.
    """
    tensors = checkpoint.tensors
    shapes = stored_shapes({name: tensor.shape for name, tensor in tensors.items()}, chosen)
    # Scales and biases have the type of the matrix that they belong to.
    stored = {name: types.get(name) or types[f"{name.rpartition('.')[0]}.weight"] for name in shapes}
    stored |= {f"{module}.weight": PACKED for module in chosen}
    specs = {name: (stored[name], shape) for name, shape in shapes.items()}
    total = sum(size_bytes(*spec) for spec in specs.values())
    needed = total + room + sum(path.stat().st_size for path in checkpoint.files.values())
    needed += sum(len(text.encode()) for text in checkpoint.texts.values())
    hint = f"free some space, or {how_to_choose(folder)} a folder on another disk"
    require_space(folder.parents[1], needed, "the converted model", hint)

    count = counter(progress, "writing", total)

    def contents() -> Iterator[memoryview]:
        for name, tensor in tensors.items():
            values = tensor.read_in(types[name])
            raw = to_bytes(values)
            if types[name] != PACKED and not is_finite(raw, types[name]):
                message = f"{checkpoint.where}: {name} has values that are not finite numbers"
                raise ModelError(message, "the file is damaged: fetch it again", code="model-damaged")
            groups = chosen.get(name.removesuffix(".weight"))
            quantized = mx.quantize(values, **dataclasses.asdict(groups)) if groups else ()
            for content in map(to_bytes, quantized) if groups else (raw,):  # integers, scales, biases
                yield content.data
                count(content.nbytes)

    metadata = {"format": files.FORMAT, **{key: value for key, value in origin.items() if value}}
    return files.write_safetensors(folder / files.WEIGHTS_FILE, specs, contents(), metadata)


def _readme(model: ModelFile, family: Family, checkpoint: Checkpoint) -> str:
    source, capabilities = model.source, family.capabilities(model.config)
    weights = f"{model.dtype}, {model.quantization}" if model.quantization else model.dtype
    lines = "".join(f"- {line}\n" for line in family.readme(model.config))
    languages = f"- Languages: {', '.join(capabilities.languages)}\n" if capabilities.languages else ""
    able = f"- Capabilities: {', '.join(capabilities.names())}\n" if family.kind == SPEECH else ""
    adapter = f"- Merged into it: the adapter {source['adapter']}\n" if source.get("adapter") else ""
    use = {
        SPEECH: "`funasr transcribe --model FOLDER AUDIO`",
        PUNCTUATION: "`funasr transcribe --punctuation FOLDER AUDIO`",
        SPEAKERS: "`funasr transcribe --speakers auto --speaker-model FOLDER AUDIO`",
        TEXT: "`funasr transcribe --translate --translator FOLDER AUDIO`",
    }
    hashes = "".join(f"    {line}\n" for line in str(source["sha256"]).splitlines())
    return (
        f"# {source['source']}, converted to MLX\n\n"
        f"- Source: {source['source']}, revision {source['revision'] or 'unknown (a local folder)'}\n"
        f"- Its layout: {source['layout']}\n"
        f"{adapter}"
        f"- Converted by {source['tool_version']}; weights: {weights}\n"
        f"{languages}"
        f"{able}"
        f"{lines}"
        f"- SHA-256 of the source, {', '.join(path.name for path in checkpoint.weights)}:\n\n{hashes}\n"
        f"Use it with {use[family.kind]}; `funasr convert --check FOLDER` checks that it is intact. "
        "The license is that of the source.\n"
    )

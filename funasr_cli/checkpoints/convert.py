"""Source -> map -> cast -> quantize -> check -> atomic write."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli import __version__
from funasr_cli.backend import mx
from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.format import (
    CTC_VOCABULARY_FILE,
    FORMAT,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelFile,
    Quantization,
    TensorSpec,
    write_config,
    write_safetensors,
)
from funasr_cli.checkpoints.hub import Progress, Source, fetch_source, local_folder, models_folder, source_name
from funasr_cli.checkpoints.load import read_ctc_vocabulary, read_tokenizer
from funasr_cli.checkpoints.place import check_place, is_converted, new_folder
from funasr_cli.checkpoints.sources import Checkpoint, open_upstream, require_torch, sha256_of
from funasr_cli.decoding.languages import MLT_LANGUAGES, NANO_LANGUAGES
from funasr_cli.errors import ModelError
from funasr_cli.models.fun_asr_nano import FunASRNano
from funasr_cli.options import GROUP_SIZE, ConvertOptions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Conversion:
    """What came out."""

    folder: Path
    model: ModelFile
    tensors: int
    size_bytes: int


def convert(
    name: str,
    out: Path | None,
    options: ConvertOptions,
    *,
    revision: str | None = None,
    force: bool = False,
    progress: Progress = lambda *_: None,
) -> Conversion:
    """Fetch a checkpoint and convert it to a folder that `load_model` reads.

    ``out`` appears whole or not at all: see `new_folder`.

    Args:
        name: folder in FunASR's layout, hub id or alias.
        out: folder to create; None takes the models folder, and in it the source's name and recipe.
        options: type, recipe, languages.
        revision: branch, tag or commit of a hub id.
        force: replace ``out`` if it is a converted model.
        progress: told what is being done and how far it is.

    Raises:
        OutputError: ``out`` exists and may not be replaced, or cannot be written.
        ModelError: the checkpoint is not to be had, or does not fit its configuration.
        SetupError: torch is not installed, or the hub cannot be reached.
    """
    require_torch()
    if out is None:
        suffix = f"-{options.quantize_bits}bit" if options.quantize_bits else ""
        out = models_folder() / f"{source_name(name)}{suffix}"
    check_place(out, local_folder(name), replace=force)
    source = fetch_source(name, revision, progress)
    return _convert(source, out, options, force, progress)


def _convert(source: Source, out: Path, options: ConvertOptions, force: bool, progress: Progress) -> Conversion:
    if is_converted(source.folder):
        raise ModelError(f"{source.name}: converted already", "use it as it is: --model, and this name")
    checkpoint = open_upstream(source.folder, _languages(source, options))
    _check_vocabularies(checkpoint)
    tensors = _checked_tensors(checkpoint)
    recipe = _recipe(options)
    if recipe:
        _check_groups(tensors, recipe)
    size_bytes = checkpoint.weights.stat().st_size
    hashed = 0

    def on_hash(count: int) -> None:
        nonlocal hashed
        hashed += count
        progress("reading the source", hashed, size_bytes)

    model = ModelFile(
        config=checkpoint.config,
        dtype=options.dtype,
        quantization=recipe,
        source={
            "source": source.name,
            "revision": source.revision,
            "sha256": sha256_of(checkpoint.weights, on_hash),
            "tool_version": f"funasr-cli {__version__}",
        },
    )
    with new_folder(out, replace=force) as folder:
        specs = _write(folder, model, tensors, checkpoint, progress)
        size_bytes = (folder / WEIGHTS_FILE).stat().st_size
    return Conversion(out, model, len(specs), size_bytes)


def _languages(source: Source, options: ConvertOptions) -> tuple[str, ...]:
    """ISO codes; no file of a checkpoint states them, so that its name has to."""
    if options.languages is None:
        return MLT_LANGUAGES if "mlt" in source.name.casefold() else NANO_LANGUAGES
    return options.languages


def _check_vocabularies(checkpoint: Checkpoint) -> None:
    """Refuse here what `load_model` would refuse later."""
    read_tokenizer(checkpoint.files[TOKENIZER_FILE], checkpoint.config.llm.vocab_size)
    if CTC_VOCABULARY_FILE in checkpoint.files:
        read_ctc_vocabulary(checkpoint.files[CTC_VOCABULARY_FILE])


def _checked_tensors(checkpoint: Checkpoint) -> dict[str, "torch.Tensor"]:
    """The tensors that belong into the model, in its order, checked against what its config asks for.

    Raises:
        ModelError: with a list of what does not fit.
    """
    tensors = dict(checkpoint.tensors)
    if checkpoint.config.llm.tie_word_embeddings and keymap.LM_HEAD in tensors:
        _check_tied(tensors, checkpoint.weights)
        del tensors[keymap.LM_HEAD]
    expected = keymap.model_shapes(FunASRNano(checkpoint.config))
    found = {name: keymap.mlx_shape(name, tensor.shape) for name, tensor in tensors.items()}
    keymap.check_tensors(expected, found, str(checkpoint.weights))
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ModelError(f"{checkpoint.weights}: {name} is {tensor.dtype}, not a floating-point type")
    return {name: tensors[name] for name in expected}


def _check_tied(tensors: dict[str, "torch.Tensor"], where: Path) -> None:
    import torch

    head, embedding = tensors[keymap.LM_HEAD], tensors.get(keymap.EMBEDDING)
    if embedding is not None and not torch.equal(head, embedding):
        raise ModelError(
            f"{where}: the configuration ties {keymap.LM_HEAD} to {keymap.EMBEDDING}, but they differ",
            "set tie_word_embeddings in the decoder's config.json to false if the head was trained on its own",
        )


def _recipe(options: ConvertOptions) -> Quantization | None:
    bits = options.quantize_bits
    return Quantization(bits, options.group_size or GROUP_SIZE) if bits else None


def _is_quantized(name: str, dimensions: int) -> bool:
    """The decoder's matrices, its embedding table among them."""
    return name.startswith(keymap.LLM_PREFIX) and dimensions == 2


def _check_groups(tensors: dict[str, "torch.Tensor"], recipe: Quantization) -> None:
    for name, tensor in tensors.items():
        if _is_quantized(name, tensor.ndim) and tensor.shape[-1] % recipe.group_size:
            raise ModelError(
                f"{name}: rows of {tensor.shape[-1]} values do not divide into groups of {recipe.group_size}",
                "choose a smaller --group-size",
            )


def _write(
    folder: Path, model: ModelFile, tensors: dict[str, "torch.Tensor"], checkpoint: Checkpoint, progress: Progress
) -> list[TensorSpec]:
    specs = [spec for name, tensor in tensors.items() for spec in _specs(name, tensor, model)]
    total = sum(spec.size_bytes for spec in specs)

    def contents() -> Iterator[memoryview]:
        done = 0
        for name, tensor in tensors.items():
            for content in _encode(name, tensor, model):
                yield content
                done += content.nbytes
                progress("writing", done, total)

    metadata = {"format": FORMAT, **{key: value for key, value in model.source.items() if value}}
    write_safetensors(folder / WEIGHTS_FILE, specs, contents(), metadata)
    for name, path in checkpoint.files.items():
        shutil.copyfile(path, folder / name)
    write_config(folder, model)
    (folder / "README.md").write_text(_readme(model), encoding="utf-8")
    return specs


def _specs(name: str, tensor: "torch.Tensor", model: ModelFile) -> list[TensorSpec]:
    shape = keymap.mlx_shape(name, tensor.shape)
    recipe = model.quantization
    if recipe is None or not _is_quantized(name, tensor.ndim):
        return [TensorSpec(name, model.dtype, shape)]
    rows, columns = shape
    groups = (rows, columns // recipe.group_size)
    stem = name.removesuffix(".weight")
    return [
        TensorSpec(name, "uint32", (rows, columns * recipe.bits // 32)),
        TensorSpec(f"{stem}.scales", model.dtype, groups),
        TensorSpec(f"{stem}.biases", model.dtype, groups),
    ]


def _encode(name: str, tensor: "torch.Tensor", model: ModelFile) -> Iterator[memoryview]:
    """Bytes of a tensor as `_specs` announces them."""
    import torch

    if keymap.swaps_axes(name):
        tensor = tensor.transpose(-1, -2)
    tensor = tensor.to(getattr(torch, model.dtype))
    recipe = model.quantization
    if recipe is None or not _is_quantized(name, tensor.ndim):
        yield memoryview(tensor.flatten().view(torch.uint8).numpy())
        return
    matrix = mx.array(tensor.contiguous().view(torch.uint8).numpy()).view(getattr(mx, model.dtype))
    for part in mx.quantize(matrix, group_size=recipe.group_size, bits=recipe.bits):
        yield memoryview(part.view(mx.uint8)).cast("B")


def _readme(model: ModelFile) -> str:
    source, recipe = model.source, model.quantization
    weights = (
        f"{model.dtype}, decoder in {recipe.bits} bits (groups of {recipe.group_size})" if recipe else model.dtype
    )
    return (
        f"# {source['source']}, converted to MLX\n\n"
        f"- Source: {source['source']}, revision {source['revision'] or 'unknown (a local folder)'}\n"
        f"- SHA-256 of its model.pt: {source['sha256']}\n"
        f"- Converted by {source['tool_version']}; weights: {weights}\n"
        f"- Languages: {', '.join(model.config.prompt.languages)}\n"
        f"- CTC branch: {'yes' if model.config.ctc else 'no, the source has no such tensors'}\n\n"
        "Use it with `funasr transcribe --model FOLDER AUDIO`. The license is that of the source.\n"
    )

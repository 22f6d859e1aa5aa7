"""Check that a converted model is intact: hashes, names, shapes, values and vocabularies."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints.checkpoint import Checkpoint, empty_model, shortened
from funasr_cli.checkpoints.tensors import FLOATING, is_finite
from funasr_cli.checkpoints.untrusted import optional_file_in
from funasr_cli.errors import ModelError
from funasr_cli.families import registry
from funasr_cli.families.kept import Kept
from funasr_cli.families.open import open_model
from funasr_cli.hubs.find import Progress, counter

SHOWN_PROBLEMS = 8
DELETE_HINT = "delete that file: the model is intact, and the file is made again when it is needed"


@dataclass(frozen=True)
class Checked:
    """The result for an intact model."""

    checkpoint: Checkpoint
    size_bytes: int
    sha256: str  # digest of the weights
    listed: int  # number of files that match `SHA256SUMS`; 0 without such a list
    notes: tuple[str, ...] = ()


def check_model(folder: Path, progress: Progress = lambda *_: None) -> Checked:
    """Check everything in a folder that `load_model` reads.

    Raises:
        ModelError: something is wrong. The message lists the problems.
    """
    checkpoint = open_model(folder)
    family = registry.of_config(checkpoint.config)
    empty_model(checkpoint, family.network(checkpoint.config))  # raises unless names, shapes and types fit
    [weights] = checkpoint.weights
    size_bytes, sums = weights.stat().st_size, files.read_sums(folder)
    sha256 = files.sha256_of(weights, counter(progress, "hashing", size_bytes))
    problems = [f"{file}: {what}" for file, what in family.vocabulary_problems(checkpoint)]
    notes: tuple[str, ...] = ()
    if checkpoint.layout == files.FORMAT:  # `convert` always lists these
        written = {files.CONFIG_FILE, weights.name, *checkpoint.files} - {*files.OPTIONAL_TOKENIZER_FILES}
        problems += [f"{name}: {files.SUMS_FILE} does not list it" for name in sorted(written - sums.keys())]
    for name, digest in sums.items():
        path = optional_file_in(folder, name)
        if path is None:
            problems.append(f"{name}: {files.SUMS_FILE} lists it, but it is missing")
        elif (sha256 if name == weights.name else files.sha256_of(path)) != digest:
            if name == files.README_FILE:  # users may edit the model card
                notes = (f"{name} has been edited since",)
            else:
                problems.append(f"{name}: changed since the conversion (SHA-256 differs)")
    problems += _not_finite(checkpoint, progress)
    hint = files.CONVERT_AGAIN_HINT if problems else DELETE_HINT
    if packed := Kept.about(checkpoint, folder).packed_problem():
        problems.append(packed)
    if problems:
        lines = [f"{folder}: damaged or incomplete", *shortened(problems, SHOWN_PROBLEMS)]
        raise ModelError("\n  ".join(lines), hint, code="model-damaged")
    return Checked(checkpoint, size_bytes, sha256, len(sums) - len(notes), notes)


def _not_finite(checkpoint: Checkpoint, progress: Progress) -> Iterator[str]:
    total = sum(tensor.size_bytes for tensor in checkpoint.tensors.values())
    count = counter(progress, "checking values", total)
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype in FLOATING and not is_finite(tensor.raw(), tensor.dtype):
            yield f"{name}: has infinite or NaN values"
        count(tensor.size_bytes)

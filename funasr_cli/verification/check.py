"""Whether a converted model is still what was written: hashes, names, shapes, numbers, tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints.checkpoint import Checkpoint, empty_model, shortened
from funasr_cli.checkpoints.tensors import FLOATING, is_finite
from funasr_cli.checkpoints.untrusted import optional_file_in
from funasr_cli.errors import ModelError
from funasr_cli.families import registry
from funasr_cli.families.open import open_model
from funasr_cli.hubs.find import Progress, counter

SHOWN_PROBLEMS = 8


@dataclass(frozen=True)
class Checked:
    """A model that is whole."""

    checkpoint: Checkpoint
    size_bytes: int
    sha256: str  # of its weights
    listed: int  # files that are as listed; none where no list lies beside them
    notes: tuple[str, ...] = ()


def check_model(folder: Path, progress: Progress = lambda *_: None) -> Checked:
    """Look at everything in a folder that `load_model` reads.

    Raises:
        ModelError: naming what is wrong.
    """
    checkpoint = open_model(folder)
    family = registry.of_config(checkpoint.config)
    empty_model(checkpoint, family.network(checkpoint.config))  # whose names, shapes and types they have to be
    [weights] = checkpoint.weights
    size_bytes, sums = weights.stat().st_size, files.read_sums(folder)
    sha256 = files.sha256_of(weights, counter(progress, "hashing", size_bytes))
    problems = [f"{file}: {what}" for file, what in family.vocabulary_problems(checkpoint)]
    notes: tuple[str, ...] = ()
    if checkpoint.layout == files.FORMAT:  # `convert` lists these in any case
        written = {files.CONFIG_FILE, weights.name, *checkpoint.files} - {*files.OPTIONAL_TOKENIZER_FILES}
        problems += [f"{name}: {files.SUMS_FILE} does not list it" for name in sorted(written - sums.keys())]
    for name, digest in sums.items():
        path = optional_file_in(folder, name)
        if path is None:
            problems.append(f"{name}: {files.SUMS_FILE} lists it, and it is missing")
        elif (sha256 if name == weights.name else files.sha256_of(path)) != digest:
            if name == files.README_FILE:  # a model card is everyone's to edit
                notes = (f"{name} has been edited since",)
            else:
                problems.append(f"{name}: is another one than when it was converted, by its SHA-256")
    problems += _not_finite(checkpoint, progress)
    if problems:
        lines = [f"{folder}: is not whole", *shortened(problems, SHOWN_PROBLEMS)]
        raise ModelError("\n  ".join(lines), files.SOURCE_AGAIN, code="model-damaged")
    return Checked(checkpoint, size_bytes, sha256, len(sums) - len(notes), notes)


def _not_finite(checkpoint: Checkpoint, progress: Progress) -> Iterator[str]:
    total = sum(tensor.size_bytes for tensor in checkpoint.tensors.values())
    count = counter(progress, "looking at the values", total)
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype in FLOATING and not is_finite(tensor.raw(), tensor.dtype):
            yield f"{name}: has values that are not numbers"
        count(tensor.size_bytes)

"""Whether a converted model is still what was written: hashes, names, shapes, numbers, tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import (
    CONFIG_FILE,
    CTC_VOCABULARY_FILE,
    README_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
)
from funasr_cli.checkpoints.hashes import SOURCE_AGAIN, SUMS_FILE, read_sums, sha256_of
from funasr_cli.checkpoints.hub import Progress
from funasr_cli.checkpoints.layouts import converted
from funasr_cli.checkpoints.load import check_stored
from funasr_cli.checkpoints.sources import open_model
from funasr_cli.checkpoints.tensors import FLOATING, is_finite
from funasr_cli.checkpoints.untrusted import optional_file_in
from funasr_cli.checkpoints.vocabularies import vocabulary_problems
from funasr_cli.errors import ModelError
from funasr_cli.models.fun_asr_nano import FunASRNano

SHOWN_PROBLEMS = 8
CHANGED = "is another one than when it was converted, by its SHA-256"


@dataclass(frozen=True)
class Checked:
    """A model that is whole.

    Attributes:
        sha256: of its weights.
        listed: files that are as listed; none where no list lies beside them.
        notes: what the user should know about it.
    """

    checkpoint: Checkpoint
    size_bytes: int
    sha256: str
    listed: int
    notes: tuple[str, ...] = ()


def check_model(folder: Path, progress: Progress = lambda *_: None) -> Checked:
    """Look at everything in a folder that `load_model` reads.

    Args:
        folder: converted by us or by mlx-audio.
        progress: told what is being done and how far it is.

    Raises:
        ModelError: naming what is wrong.
    """
    checkpoint = open_model(folder)
    check_stored(checkpoint, keymap.model_shapes(FunASRNano(checkpoint.config)))
    [weights] = checkpoint.weights
    size_bytes, sums = weights.stat().st_size, read_sums(folder)
    hashed = 0

    def on_hash(count: int) -> None:
        nonlocal hashed
        hashed += count
        progress("hashing", hashed, size_bytes)

    sha256 = sha256_of(weights, on_hash)
    differing = dict(_differing(folder, sums, {weights.name: sha256}))
    is_edited = differing.get(README_FILE) == CHANGED  # a model card is everyone's to edit
    if is_edited:
        del differing[README_FILE]
    problems = [*vocabulary_problems(checkpoint)]
    if checkpoint.layout == converted.LAYOUT:  # `convert` lists these in any case
        vocabulary = (CTC_VOCABULARY_FILE,) if checkpoint.config.ctc else ()
        written = (WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE, *vocabulary)
        problems += [f"{name}: {SUMS_FILE} does not list it" for name in written if name not in sums]
    problems += [f"{name}: {what}" for name, what in differing.items()]
    problems += _not_finite(checkpoint, progress)
    if problems:
        shown, more = problems[:SHOWN_PROBLEMS], len(problems) - SHOWN_PROBLEMS
        lines = [f"{folder}: is not whole", *shown, *([f"and {more} more"] if more > 0 else [])]
        raise ModelError("\n  ".join(lines), SOURCE_AGAIN, code="model-damaged")
    notes = (f"{README_FILE} has been edited since",) if is_edited else ()
    return Checked(checkpoint, size_bytes, sha256, len(sums) - is_edited, notes)


def _differing(folder: Path, sums: dict[str, str], known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Files that are not as listed, and why; ``known`` are digests by name that need not be computed again."""
    for name, digest in sums.items():
        path = optional_file_in(folder, name)
        if path is None:
            yield name, f"{SUMS_FILE} lists it, and it is missing"
        elif (known.get(name) or sha256_of(path)) != digest:
            yield name, CHANGED


def _not_finite(checkpoint: Checkpoint, progress: Progress) -> Iterator[str]:
    total, done = sum(tensor.size_bytes for tensor in checkpoint.tensors.values()), 0
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype in FLOATING and not is_finite(tensor.raw(), tensor.dtype):
            yield f"{name}: has values that are not numbers"
        done += tensor.size_bytes
        progress("looking at the values", done, total)

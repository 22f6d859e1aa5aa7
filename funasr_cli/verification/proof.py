"""A converted model beside what it was converted from."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from funasr_cli import demo
from funasr_cli.backend import mx
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.load import load_checkpoint, load_model
from funasr_cli.checkpoints.sources import open_model
from funasr_cli.errors import ModelError
from funasr_cli.pipeline import Recognizer
from funasr_cli.verification.pytorch import run_reference
from funasr_cli.verification.stages import Stages, run_stages

DTYPE = "float32"  # of both: what differs then are the weights
# Relative errors that rounding explains, in float32. On CPUs none was seen where the values are the same, and 1e-4
# beside PyTorch; a layout misread gives 0.1 and more.
LARGEST_OF_THE_SAME = 1e-3
LARGEST_BESIDE_PYTORCH = 1e-2
COMPONENTS = ("features", "encoder", "audio_rows", "logits")


@dataclass(frozen=True)
class Proof:
    """What a clip showed.

    Attributes:
        clip: its name.
        source_text: what the source writes.
        result_text: what the converted model writes.
        tokens: how many the source wrote.
        agreeing: how many of them the result would write next, too, behind the same words.
        errors: relative errors of the result by component, of the root mean square.
        port_errors: the same of the source computed here, beside PyTorch; None where that was not asked for.
        port_agreeing: how many of the source's tokens PyTorch writes, too.
    """

    clip: str
    source_text: str
    result_text: str
    tokens: int
    agreeing: int
    errors: dict[str, float]
    port_errors: dict[str, float] | None = None
    port_agreeing: int = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether the result writes something else most of the time."""
        return self.agreeing * 2 < self.tokens


def prove(source: Checkpoint, result: Path, *, exact: bool, beside_pytorch: bool) -> Proof:
    """Take a bundled clip through the source and through the result.

    Args:
        source: opened; not quantized.
        result: the converted folder.
        exact: whether both hold the same values, so that nothing may differ but by rounding.
        beside_pytorch: compare the source with FunASR's own model, too.

    Raises:
        ModelError: something differs that must not, or is not a number.
        SetupError: there is not enough memory, or the reference is not installed.
    """
    _refuse_other_values(source, open_model(result))
    clip = _clip_for(source.config.prompt.languages)
    folder = source.weights[0].parent
    mx.clear_cache()
    before = run_stages(Recognizer(load_checkpoint(source, folder, DTYPE)), clip)
    mx.clear_cache()
    after = run_stages(Recognizer(load_model(result, DTYPE if exact else None)), clip, before.token_ids)
    mx.clear_cache()
    errors = _errors(after, before)
    _refuse_above(LARGEST_OF_THE_SAME if exact else sys.float_info.max, errors, "the result computes otherwise")
    port_errors, port_agreeing = _beside_pytorch(before, source, clip) if beside_pytorch else (None, 0)
    return Proof(
        clip=clip.name,
        source_text=before.text,
        result_text=after.text,
        tokens=len(before.token_ids),
        agreeing=int((after.logits.argmax(-1) == np.array(before.token_ids)).sum()),
        errors=errors,
        port_errors=port_errors,
        port_agreeing=port_agreeing,
    )


def _beside_pytorch(ours: Stages, source: Checkpoint, clip: Path) -> tuple[dict[str, float], int]:
    """Errors of our stages, and how many of our tokens PyTorch writes, too."""
    reference = run_reference(source, clip, ours.token_ids)
    errors = _errors(ours, reference)
    _refuse_above(LARGEST_BESIDE_PYTORCH, errors, "the source computes otherwise than in PyTorch")
    return errors, sum(a == b for a, b in zip(ours.token_ids, reference.token_ids, strict=False))


def _refuse_above(limit: float, errors: dict[str, float], what: str) -> None:
    if not all(error <= limit for error in errors.values()):
        raise ModelError(f"{what}: {_list(errors)}", "please report it")


def _refuse_other_values(source: Checkpoint, result: Checkpoint) -> None:
    """Read what was written back, and compare it with the source, bit for bit but for what is quantized."""
    quantized = {f"{module}.weight" for module in result.quantized()}
    for name, tensor in source.tensors.items():
        if name not in quantized:
            written = result.tensors[name]
            if not np.array_equal(tensor.raw_in(written.dtype), written.raw()):
                raise ModelError(
                    f"{result.where}: {name} is not what was to be written", "see whether the disk is sound"
                )


def _clip_for(languages: tuple[str, ...]) -> Path:
    """A bundled clip in one of the model's languages."""
    clips = demo.clips()
    return next((clip for clip in clips if clip.language == languages[0]), clips[0]).path


def _errors(got: Stages, wanted: Stages) -> dict[str, float]:
    return {name: relative_error(getattr(got, name), getattr(wanted, name)) for name in COMPONENTS}


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference, over that of what was wanted; infinite where shapes or numbers fail."""
    if got.shape != wanted.shape or not (np.isfinite(got).all() and np.isfinite(wanted).all()):
        return math.inf
    norm = float(np.linalg.norm(wanted.astype(np.float64)))
    difference = float(np.linalg.norm(got.astype(np.float64) - wanted))
    return difference / norm if norm else difference


def _list(errors: dict[str, float]) -> str:
    return ", ".join(f"{name} {error:.1e}" for name, error in errors.items())

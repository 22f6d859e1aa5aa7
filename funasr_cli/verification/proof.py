"""A converted model beside what it was converted from."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from funasr_cli import demo
from funasr_cli.backend import mx
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.load import load_checkpoint, load_model
from funasr_cli.errors import ModelError
from funasr_cli.pipeline import Recognizer
from funasr_cli.verification.pytorch import run_reference
from funasr_cli.verification.stages import Stages, run_stages

DTYPE = "float32"  # of both: what differs then are the weights
LARGEST_ERROR_OF_THE_PORT = 1e-3  # beside PyTorch in float32; 1e-5 was seen
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
    """

    clip: str
    source_text: str
    result_text: str
    tokens: int
    agreeing: int
    errors: dict[str, float]
    port_errors: dict[str, float] | None = None


def prove(source: Checkpoint, result: Path, *, exact: bool, beside_pytorch: bool) -> Proof:
    """Take a bundled clip through the source and through the result.

    Args:
        source: opened; not quantized.
        result: the converted folder.
        exact: whether both hold the same values, so that nothing may differ.
        beside_pytorch: compare the source with FunASR's own model, too.

    Raises:
        ModelError: something differs that must not, or is not a number.
        SetupError: there is not enough memory, or the reference is not installed.
    """
    clip = _clip_for(source.config.prompt.languages)
    folder = source.weights[0].parent
    before = run_stages(Recognizer(load_checkpoint(source, folder, DTYPE)), clip)
    mx.clear_cache()
    after = run_stages(Recognizer(load_model(result, DTYPE)), clip, before.token_ids)
    mx.clear_cache()
    errors = _errors(after, before)
    agreeing = int((after.logits.argmax(-1) == np.array(before.token_ids)).sum())
    _refuse(errors, agreeing < len(before.token_ids), exact=exact)
    port_errors = None
    if beside_pytorch:
        port_errors = _errors(before, run_reference(folder, clip, before.token_ids))
        if max(port_errors.values()) > LARGEST_ERROR_OF_THE_PORT:
            raise ModelError(f"the port differs from PyTorch: {_list(port_errors)}", "please report it")
    return Proof(clip.name, before.text, after.text, len(before.token_ids), agreeing, errors, port_errors)


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


def _refuse(errors: dict[str, float], other_tokens: bool, *, exact: bool) -> None:
    if not all(map(math.isfinite, errors.values())):
        raise ModelError(f"the converted model does not compute: {_list(errors)}", "please report it")
    if exact and (other_tokens or any(errors.values())):
        raise ModelError(f"the converted model differs from its source: {_list(errors)}", "please report it")


def _list(errors: dict[str, float]) -> str:
    return ", ".join(f"{name} {error:.1e}" for name, error in errors.items())

"""A converted model beside what it was converted from."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.untrusted import readable
from funasr_cli.compute.backend import mx
from funasr_cli.conversion.convert import Proof, Verify
from funasr_cli.errors import ModelError, SetupError, UsageError
from funasr_cli.families import registry
from funasr_cli.families.load import load_checkpoint, load_model
from funasr_cli.families.open import open_model
from funasr_cli.options import DEFAULTS, FULL, OFF, ConvertOptions, TranscribeOptions
from funasr_cli.speech_model import SpeechModel, Trace
from funasr_cli.verification.reference import reference_python, run_job

DTYPE = "float32"  # of both: what differs then are the weights
# Relative errors that rounding explains, in float32. On CPUs none was seen where the values are the same, and 1e-4
# beside PyTorch; a layout misread gives 0.1 and more.
LARGEST_OF_THE_SAME = 1e-3
LARGEST_BESIDE_PYTORCH = 1e-2
SENTENCE = replace(DEFAULTS, max_tokens=24)


def verifier(checkpoint: Checkpoint, options: ConvertOptions) -> Verify:
    """Say early what a conversion cannot be compared with; return what compares its folder with the checkpoint.

    That returns the proof, or a note that says why there is none.

    Raises:
        UsageError: PyTorch is asked for, and does not read the checkpoint's layout.
        SetupError: PyTorch is asked for, and FunASR is not installed.
    """
    if options.verify == FULL:
        if checkpoint.layout != funasr.LAYOUT:
            message = f"--verify {FULL} with a source in {checkpoint.layout}'s layout"
            hint = "FunASR's own code reads that layout alone: --verify clip compares the result with the source"
            raise UsageError(message, hint, code="options-conflict")
        reference_python()
    return partial(_verify, checkpoint, options)


def _verify(source: Checkpoint, options: ConvertOptions, result: Path) -> tuple[Proof | None, tuple[str, ...]]:
    if options.verify == OFF:
        return None, ()
    full, types = options.verify == FULL, {tensor.dtype for tensor in source.tensors.values()}
    dense = not (options.quantize or options.quantize_encoder)
    try:
        exact = dense and (options.dtype == "float32" or types == {options.dtype})
        return prove(source, result, exact=exact, beside_pytorch=full), ()
    except (SetupError, MemoryError, RuntimeError) as error:  # MLX raises the last when the device gives up
        if type(error) not in (SetupError, MemoryError, RuntimeError):  # a fault of ours
            raise
        reason = error.message if isinstance(error, SetupError) else readable(str(error))
        if not full:
            return None, (f"not verified: {reason}",)
        if isinstance(error, SetupError):
            raise
        raise SetupError(
            f"verifying failed: {reason}", "--verify clip takes less memory", code="memory-short"
        ) from error


def prove(source: Checkpoint, result: Path, *, exact: bool, beside_pytorch: bool) -> Proof:
    """Take a bundled clip through the source, which is not quantized, and through the converted folder.

    ``exact`` tells whether both hold the same values, so that nothing may differ but by rounding; with
    ``beside_pytorch``, the source is compared with FunASR's own model, too.

    Raises:
        ModelError: something differs that must not, or is not a number.
        SetupError: there is not enough memory, or the reference is not installed.
    """
    _refuse_other_values(source, open_model(result))
    clips = demo.clips()
    languages = registry.capabilities(source.config).languages
    clip = next((clip for clip in clips if clip.language == languages[0]), clips[0]).path
    mx.clear_cache()
    before = trace(load_checkpoint(source, source.weights[0].parent, DTYPE), clip)
    mx.clear_cache()
    after = trace(load_model(result, DTYPE if exact else None), clip, before.token_ids)
    mx.clear_cache()
    limit = LARGEST_OF_THE_SAME if exact else sys.float_info.max
    errors = _errors(after, before, limit, "the result computes otherwise")
    token_ids = np.array(before.token_ids)
    says = token_ids != before.blank_id  # (steps,)
    port_errors, port_agreeing = None, 0
    if beside_pytorch:
        theirs = run_reference(source, clip, before.token_ids)
        what = "the source computes otherwise than in PyTorch"
        port_errors = _errors(before, theirs, LARGEST_BESIDE_PYTORCH, what)
        pairs = zip(before.token_ids, theirs.token_ids, strict=False)
        port_agreeing = sum(a == b != before.blank_id for a, b in pairs)
    return Proof(
        clip=clip.name,
        source_text=before.text,
        result_text=after.text,
        tokens=int(says.sum()),
        agreeing=int((after.logits.argmax(-1) == token_ids)[says].sum()),
        errors=errors,
        port_errors=port_errors,
        port_agreeing=port_agreeing,
    )


def trace(
    model: SpeechModel, clip: Path, forced_ids: Sequence[int] | None = None, options: TranscribeOptions = SENTENCE
) -> Trace:
    """Take a clip through the model, as one segment; silence is not left out."""
    return model.trace(load_audio(clip, model.sample_rate_hz).samples, options, forced_ids)


def run_reference(checkpoint: Checkpoint, clip: Path, forced_ids: Sequence[int]) -> Trace:
    """Take a clip through FunASR's own model, in float32; see `run_job`."""
    case = {"name": "clip", "audio": str(clip.resolve()), "max_tokens": len(forced_ids)}
    reports, arrays = run_job(checkpoint, {"cases": [case | {"forced_ids": list(forced_ids)}]})
    stages = {name: arrays[f"clip/{name}"] for name in ("features", "encoder", "audio_embeddings")}
    written, logits = arrays["clip/generated_ids"], arrays["clip/forced_logits"]
    return Trace(stages, logits, tuple(written.tolist()), reports["clip"]["text"])


def _refuse_other_values(source: Checkpoint, result: Checkpoint) -> None:
    """Read what was written back, and compare it with the source, bit for bit but for what is quantized."""
    quantized = {f"{module}.weight" for module in result.quantized()}
    for name, tensor in source.tensors.items():
        if name not in quantized:
            written = result.tensors[name]
            if not np.array_equal(tensor.raw(written.dtype), written.raw()):
                message = f"{result.where}: {name} is not what was to be written"
                raise ModelError(message, "see whether the disk is sound", code="model-differs")


def _errors(got: Trace, wanted: Trace, limit: float, what: str) -> dict[str, float]:
    """Relative errors by component, refused above the limit."""
    arrays = {name: (got.stages[name], stage) for name, stage in wanted.stages.items()}
    arrays["logits"] = got.logits, wanted.logits
    errors = {name: relative_error(*pair) for name, pair in arrays.items()}
    if not all(error <= limit for error in errors.values()):
        shown = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        raise ModelError(f"{what}: {shown}", "please report it", code="model-differs")
    return errors


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference, over that of what was wanted; infinite where shapes or numbers fail."""
    if got.shape != wanted.shape or not (np.isfinite(got).all() and np.isfinite(wanted).all()):
        return math.inf
    norm = float(np.linalg.norm(wanted.astype(np.float64)))
    difference = float(np.linalg.norm(got.astype(np.float64) - wanted))
    return difference / norm if norm else difference

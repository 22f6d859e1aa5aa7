"""Compare a converted model with its source."""

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
from funasr_cli.families.family import PUNCTUATION, SPEAKERS, TEXT
from funasr_cli.families.int8 import PROMPT_TOKENS, PROMPTS, SENTENCE
from funasr_cli.families.kept import Int8Proof
from funasr_cli.families.load import (
    int8_proof,
    load_checkpoint,
    load_model,
    load_punctuation_checkpoint,
    load_speaker_checkpoint,
    load_text,
    load_text_checkpoint,
)
from funasr_cli.families.native import native_parts, rounding
from funasr_cli.families.open import open_model
from funasr_cli.options import FULL, INT8, MLX, OFF, ConvertOptions, TranscribeOptions
from funasr_cli.speech_model import SpeechModel, Trace
from funasr_cli.verification.reference import reference_python, run_job

DTYPE = "float32"  # for both models, so that only the weights differ
# Limits for relative errors caused by rounding in float32. Measured on CPUs: 0 between equal weights, and 1e-4
# compared with PyTorch. A misread layout gives 0.1 or more.
LARGEST_IF_EXACT = 1e-3
LARGEST_AGAINST_PYTORCH = 1e-2
LARGEST_IN_16_BITS = 0.05  # of embeddings, with weights in float16; measured: 0.002
DIFFERS = "the converted model's output differs from the source's"


def verifier(checkpoint: Checkpoint, options: ConvertOptions) -> Verify:
    """Return a function that compares a converted folder with its source. Fail early if that is impossible.

    The function returns the proof, or a note that explains why there is none.

    Raises:
        UsageError: a comparison with PyTorch was requested, but FunASR cannot read the checkpoint's layout.
        SetupError: a comparison with PyTorch was requested, but FunASR is not installed.
    """
    if options.verify == FULL:
        if checkpoint.layout != funasr.LAYOUT:
            message = f"cannot combine --verify {FULL} with a source in {checkpoint.layout}'s layout"
            hint = "FunASR reads only its own layout: use --verify clip to compare the result with the source"
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
        proof = prove(source, result, exact=exact, with_pytorch=full)
        int8, notes = _prove_int8(result)
        return replace(proof, int8=int8), notes
    except (SetupError, MemoryError, RuntimeError) as error:  # MLX raises RuntimeError if the device fails
        if type(error) not in (SetupError, MemoryError, RuntimeError):  # a subclass indicates a bug
            raise
        reason = error.message if isinstance(error, SetupError) else readable(str(error))
        if not full:
            return None, (f"not verified: {reason}",)
        if isinstance(error, SetupError):
            raise
        raise SetupError(
            f"verification failed: {reason}", "--verify clip needs less memory", code="memory-short"
        ) from error


def _prove_int8(result: Path) -> tuple[Int8Proof | None, tuple[str, ...]]:
    """Compare int8 with float32, if the CPU engine can compute the converted model; keep the result in its folder.

    Return what was found, or nothing; and a note if there is not enough memory. In that case, the comparison is
    made when the model is first used.
    """
    checkpoint = open_model(result)
    try:
        native_parts(checkpoint, registry.of_config(checkpoint.config), INT8)
    except (UsageError, SetupError):
        return None, ()
    try:
        return int8_proof(checkpoint, result), ()
    except SetupError as error:
        what = rounding(registry.of_config(checkpoint.config))
        return None, (f"{what} was not compared with float32: {error.message}",)


def prove(source: Checkpoint, result: Path, *, exact: bool, with_pytorch: bool) -> Proof:
    """Run a bundled clip through the source, which is not quantized, and through the converted folder.

    A punctuation model reads a sentence instead, a model of texts continues a prompt, and a model that describes
    voices has no text to compare.

    Args:
        source: the source checkpoint.
        result: the converted folder.
        exact: both have the same values, so only rounding errors are allowed.
        with_pytorch: also compare the source with FunASR's own model.

    Raises:
        ModelError: the results differ by more than allowed, or are not finite.
        SetupError: there is not enough memory, or the reference is not installed.
    """
    converted = open_model(result)
    _refuse_other_values(source, converted)
    limit = LARGEST_IF_EXACT if exact else sys.float_info.max
    kind = registry.of_config(source.config).kind
    if kind == PUNCTUATION:
        before = load_punctuation_checkpoint(source, source.weights[0].parent).trace()
        after = load_punctuation_checkpoint(converted, result).trace()
        return _proof("a sentence", before, after, _errors(after, before, limit, DIFFERS))
    if kind == TEXT:
        writer = load_text_checkpoint(source, source.weights[0].parent, DTYPE)
        name, message = next(iter(PROMPTS.items()))
        before = writer.trace(writer.chat(message), PROMPT_TOKENS)
        del writer
        mx.clear_cache()
        writer = load_text(result, DTYPE if exact else None, MLX)
        after = writer.trace(writer.chat(message), PROMPT_TOKENS, before.token_ids)
        return _proof(f"the prompt {name}", before, after, _errors(after, before, limit, DIFFERS))
    clips = demo.clips()
    if kind == SPEAKERS:
        before = load_speaker_checkpoint(source, source.weights[0].parent).trace()
        after = load_speaker_checkpoint(converted, result).trace()
        errors = _errors(after, before, LARGEST_IF_EXACT if exact else LARGEST_IN_16_BITS, DIFFERS)
        return Proof(clips[0].path.name, "", "", tokens=0, agreeing=0, errors=errors)
    languages = registry.capabilities(source.config).languages
    clip = next((clip for clip in clips if clip.language == languages[0]), clips[0]).path
    mx.clear_cache()
    before = trace(load_checkpoint(source, source.weights[0].parent, DTYPE), clip)
    mx.clear_cache()
    after = trace(load_model(result, DTYPE if exact else None, MLX), clip, before.token_ids)
    mx.clear_cache()
    found = _proof(clip.name, before, after, _errors(after, before, limit, DIFFERS))
    if with_pytorch:
        reference = run_reference(source, clip, before.token_ids)
        what = "the source's output differs from PyTorch's"
        port_errors = _errors(before, reference, LARGEST_AGAINST_PYTORCH, what)
        pairs = zip(before.token_ids, reference.token_ids, strict=False)
        port_agreeing = sum(a == b != before.blank_id for a, b in pairs)
        found = replace(found, port_errors=port_errors, port_agreeing=port_agreeing)
    return found


def _proof(clip: str, before: Trace, after: Trace, errors: dict[str, float]) -> Proof:
    token_ids = np.array(before.token_ids)
    is_text = token_ids != before.blank_id  # (steps,)
    return Proof(
        clip=clip,
        source_text=before.text,
        result_text=after.text,
        tokens=int(is_text.sum()),
        agreeing=int((after.logits.argmax(-1) == token_ids)[is_text].sum()),
        errors=errors,
        unit="frames" if before.blank_id in before.token_ids else "tokens",
    )


def trace(
    model: SpeechModel, clip: Path, forced_ids: Sequence[int] | None = None, options: TranscribeOptions = SENTENCE
) -> Trace:
    """Run a clip through the model as one segment, including silence."""
    return model.trace(load_audio(clip, model.sample_rate_hz).samples, options, forced_ids)


def run_reference(checkpoint: Checkpoint, clip: Path, forced_ids: Sequence[int]) -> Trace:
    """Run a clip through FunASR's own model in float32; see `run_job`."""
    case = {"name": "clip", "audio": str(clip.resolve()), "max_tokens": len(forced_ids)}
    reports, arrays = run_job(checkpoint, {"cases": [case | {"forced_ids": list(forced_ids)}]})
    stages = {name: arrays[f"clip/{name}"] for name in ("features", "encoder", "audio_embeddings")}
    written, logits = arrays["clip/generated_ids"], arrays["clip/forced_logits"]
    return Trace(stages, logits, tuple(written.tolist()), reports["clip"]["text"])


def _refuse_other_values(source: Checkpoint, result: Checkpoint) -> None:
    """Read the written tensors back and compare them with the source bit by bit, except quantized ones."""
    quantized = {f"{module}.weight" for module in result.quantized()}
    for name, tensor in source.tensors.items():
        if name not in quantized:
            written = result.tensors[name]
            if not np.array_equal(tensor.raw(written.dtype), written.raw()):
                message = f"{result.where}: {name} differs from what was written"
                raise ModelError(message, "check the disk for errors", code="model-differs")


def _errors(got: Trace, wanted: Trace, limit: float, what: str) -> dict[str, float]:
    """Return the relative errors by component; raise a `ModelError` above the limit."""
    arrays = {name: (got.stages[name], stage) for name, stage in wanted.stages.items()}
    arrays["logits"] = got.logits, wanted.logits
    errors = {name: relative_error(*pair) for name, pair in arrays.items()}
    if not all(error <= limit for error in errors.values()):
        shown = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        raise ModelError(f"{what}: {shown}", "please report it", code="model-differs")
    return errors


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the root mean square of the difference relative to that of ``wanted``.

    It is infinite if the shapes differ or a value is not finite.
    """
    if got.shape != wanted.shape or not (np.isfinite(got).all() and np.isfinite(wanted).all()):
        return math.inf
    norm = float(np.linalg.norm(wanted.astype(np.float64)))
    difference = float(np.linalg.norm(got.astype(np.float64) - wanted))
    return difference / norm if norm else difference

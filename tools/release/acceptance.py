"""Check every precision of a checkpoint, from conversion to speed and memory."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.compute.backend import on_accelerator
from funasr_cli.compute.device import use_device
from funasr_cli.conversion.convert import Conversion, Proof, convert
from funasr_cli.errors import FunASRError, ModelError, SetupError
from funasr_cli.families.open import open_checkpoint
from funasr_cli.hubs.find import Progress, fetch_checkpoint
from funasr_cli.languages import LANGUAGES
from funasr_cli.options import BENCH_TRIALS, CLIP, DEFAULT_HUB, FULL, RECIPES, ConvertOptions, Hub
from funasr_cli.paths import REFERENCE_PYTHON, path_in_variable
from funasr_cli.verification.check import check_model
from funasr_cli.verification.proof import LARGEST_AGAINST_PYTORCH, verifier
from funasr_cli.verification.reference import APART, reference_python, run_job
from tools.release.clips import Clip
from tools.release.judge import (
    Line,
    Targets,
    Verdict,
    cost_lines,
    reference_line,
    text_line,
)
from tools.release.measure import measure_apart

NONE = "none"  # name of the recipe without quantization
PRECISIONS = (NONE, *RECIPES)
PYTORCH = "PyTorch"
PACKAGES = ("torch", "transformers", "funasr")
TEXT_TOKENS = 256  # limit for each clip that the reference transcribes
CONVERTS, COMPUTES, SAME_STAGES = "is converted", "computes as its source", "computes as PyTorch"
IS_WHOLE, TRANSCRIBES = "is whole (--check)", "transcribes"


@dataclass(frozen=True)
class Plan:
    """The parameters of a run.

    Attributes:
        model: folder, hub id or alias.
        recipes: some of `PRECISIONS`.
        device: device to compute on; None lets MLX choose.
        keep: whether to keep the converted models.
    """

    model: str
    clips: tuple[Clip, ...]
    recipes: tuple[str, ...] = PRECISIONS
    hub: Hub = DEFAULT_HUB
    revision: str | None = None
    targets: Targets = field(default_factory=Targets)
    trials: int = BENCH_TRIALS
    device: str | None = None
    keep: bool = False


@dataclass(frozen=True)
class Reference:
    """PyTorch's text of each clip, or the reason why it is unknown: not installed, or failed."""

    texts: tuple[str, ...] = ()
    reason: str = ""
    failed: bool = False
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Facts about the model and the reference, known once all lines have been shown.

    Attributes:
        name: the model's hub id, or its folder's name.
        source: hub, revision and layout; after a successful conversion, everything that it records of the source.
        versions: of PyTorch and its packages, if they have run.
    """

    name: str
    source: dict[str, str | None]
    versions: dict[str, str]


def accept(plan: Plan, work: Path, show: Callable[[Line], None], tell: Callable[[str], None]) -> Found:
    """Run all checks. A failure becomes a line of the report.

    Args:
        plan: the parameters.
        work: folder for the converted models.
        show: called with each line as soon as it is known.
        tell: called with a description of each step; a module-level function, for use in another process.

    Raises:
        FunASRError: the model or device does not exist, or the Python that was named has no reference.
    """
    if plan.device:
        use_device(plan.device)
    tell(f"looking for {plan.model}")
    source = fetch_checkpoint(plan.model, plan.revision, _steps(tell), plan.hub)
    plan = replace(plan, revision=source.revision or plan.revision)  # the same commit for all recipes
    checkpoint = open_checkpoint(source.folder, source.name)
    reference = _ask_reference(checkpoint, plan.clips, tell)
    origin = {"hub": source.hub, "revision": plan.revision, "layout": checkpoint.layout}
    found = Found(source.name, origin, reference.versions)
    for line in _reference_lines(plan.clips, reference):
        show(line)
    for recipe in plan.recipes:
        options = _options(recipe, reference)
        folder = work / f"{source.name.rpartition('/')[2]}{options.suffix}"
        for line in _recipe_lines(plan, recipe, options, folder, reference, found.source, tell):
            show(line)
        if not plan.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return found


def _ask_reference(checkpoint: Checkpoint, clips: Sequence[Clip], tell: Callable[[str], None]) -> Reference:
    """Transcribe with PyTorch, if possible."""
    if checkpoint.layout != funasr.LAYOUT:
        return Reference(reason=f"PyTorch's FunASR does not read {checkpoint.layout}'s layout")
    try:
        python = reference_python()
    except SetupError:
        if path_in_variable(REFERENCE_PYTHON):
            raise
        return Reference(reason=f"it is not installed; {REFERENCE_PYTHON} names a Python that has it")
    tell("transcribing with PyTorch")
    versions = _reference_versions(python)
    try:
        texts = _reference_texts(checkpoint, clips)
    except ModelError as error:
        return Reference(reason=error.message, failed=True, versions=versions)
    return Reference(tuple(texts), versions=versions)


def _reference_texts(checkpoint: Checkpoint, clips: Sequence[Clip]) -> list[str]:
    """Return the reference's texts, without outer white space; each clip is read in one piece, in float32."""
    batches: list[dict[str, Any]] = [
        {
            "name": str(number),
            "audio": [str(clip.path.resolve())],
            "language": LANGUAGES[clip.language].prompt_name,
            "max_tokens": TEXT_TOKENS,
        }
        for number, clip in enumerate(clips)
    ]
    reports, _ = run_job(checkpoint, {"batches": batches})
    return [reports[batch["name"]]["texts"][0].strip() for batch in batches]


def _reference_versions(python: Path) -> dict[str, str]:
    """Return the versions of the reference's packages."""
    script = f"{APART}from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", script, *PACKAGES], capture_output=True, text=True)
    return dict(zip(PACKAGES, done.stdout.split(), strict=False))  # empty if one is missing


def _reference_lines(clips: Sequence[Clip], reference: Reference) -> Iterator[Line]:
    """Report PyTorch's own errors without judging them; a reference that cannot run is a failure."""
    if reference.texts:
        for clip, text in zip(clips, reference.texts, strict=True):
            yield replace(text_line(PYTORCH, clip, text), verdict=Verdict.NOT_JUDGED)
    else:
        verdict = Verdict.FAIL if reference.failed else Verdict.NOT_MEASURED
        yield Line(verdict, PYTORCH, TRANSCRIBES, reference.reason, "")


def _options(recipe: str, reference: Reference) -> ConvertOptions:
    """Return the options of a conversion. If possible, the dense model is compared with PyTorch stage by stage."""
    if recipe == NONE:
        return ConvertOptions(verify=FULL if reference.texts else CLIP)
    return ConvertOptions(quantize=recipe)


def _recipe_lines(
    plan: Plan,
    recipe: str,
    options: ConvertOptions,
    folder: Path,
    reference: Reference,
    about: dict[str, str | None],
    tell: Callable[[str], None],
) -> Iterator[Line]:
    """Yield every line about one recipe, until a step fails, and add facts about the source to `about`."""
    step = CONVERTS
    try:
        tell(f"converting: {recipe}")
        began = time.perf_counter()
        conversion = convert(
            plan.model,
            folder,
            options,
            verifier,
            revision=plan.revision,
            hub=plan.hub,
            force=True,
            progress=_steps(tell),
        )
        about |= conversion.model.source
        yield from _conversion_lines(recipe, conversion, time.perf_counter() - began)
        step = IS_WHOLE
        yield _check_line(recipe, folder)
        step = TRANSCRIBES
        measured = measure_apart(folder, plan.clips, plan.trials, plan.device, tell)
    except Exception as error:  # an unexpected error is also a result, and the other recipes must still run
        yield Line(Verdict.FAIL, recipe, step, _message(error), "no error")
        yield Line(Verdict.NOT_MEASURED, recipe, "later checks", f"failed at: {step}", "")
        return
    for clip, case in zip(plan.clips, measured.cases, strict=True):
        yield text_line(recipe, clip, case.texts[0])
    if reference.texts:
        for compared in zip(plan.clips, measured.whole_texts, reference.texts, strict=True):
            yield reference_line(recipe, *compared)
    else:
        yield Line(Verdict.NOT_MEASURED, recipe, "texts compared with PyTorch", reference.reason, "")
    yield from cost_lines(recipe, measured.cases, plan.targets, on_gpu=on_accelerator())


def _message(error: Exception) -> str:
    return error.message if isinstance(error, FunASRError) else f"unexpected {type(error).__name__}: {error}"


def _conversion_lines(recipe: str, conversion: Conversion, seconds: float) -> Iterator[Line]:
    """Report a successful conversion: `convert` raises if it deviates from its source or from PyTorch."""
    size = f"{conversion.tensors} tensors, {conversion.size_bytes / 1e6:,.1f} MB, in {seconds:.0f} s"
    yield Line(Verdict.PASS, recipe, CONVERTS, size, "no error")
    proof = conversion.proof
    if proof is None:
        yield Line(Verdict.NOT_MEASURED, recipe, COMPUTES, "; ".join(conversion.notes), "")
        return
    yield Line(Verdict.PASS, recipe, COMPUTES, _agreement(proof), "finite; identical where no value was rounded")
    if proof.port_errors:
        name, error = max(proof.port_errors.items(), key=lambda item: item[1])
        wanted = f"at most {LARGEST_AGAINST_PYTORCH:g}"
        yield Line(Verdict.PASS, recipe, SAME_STAGES, f"largest error {error:.1e} ({name})", wanted)


def _agreement(proof: Proof) -> str:
    """Describe the agreement on the clip that `convert` decodes."""
    if not any(proof.errors.values()):
        return f"nothing differs, {proof.tokens} tokens"
    return f"{proof.agreeing} of {proof.tokens} tokens agree, logits differ by {proof.errors['logits']:.1e}"


def _check_line(recipe: str, folder: Path) -> Line:
    checked = check_model(folder)
    what = f"{len(checked.checkpoint.tensors)} arrays, SHA-256 of {checked.listed} files"
    return Line(Verdict.PASS, recipe, IS_WHOLE, what, "as written, all values finite")


def _steps(tell: Callable[[str], None]) -> Progress:
    """Return a progress callback for `convert` and the hubs that reports the start of each step."""
    begun: set[str] = set()

    def progress(what: str, done: int, total: int) -> None:
        if what not in begun:
            begun.add(what)
            tell(what)

    return progress

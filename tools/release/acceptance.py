"""Every precision of one checkpoint, from the converter to speed and memory."""

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
from funasr_cli.verification.proof import LARGEST_BESIDE_PYTORCH, verifier
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

NONE = "none"  # what the recipe that quantizes nothing is called
PRECISIONS = (NONE, *RECIPES)
PYTORCH = "PyTorch"
PACKAGES = ("torch", "transformers", "funasr")
TEXT_TOKENS = 256  # of a clip at most, from the reference
CONVERTS, COMPUTES, SAME_STAGES = "is converted", "computes as its source", "computes as PyTorch"
IS_WHOLE, TRANSCRIBES = "is whole (--check)", "transcribes"


@dataclass(frozen=True)
class Plan:
    """What is to be accepted.

    Attributes:
        model: folder, hub id or alias.
        recipes: of `PRECISIONS`.
        device: where to compute; None lets MLX choose.
        keep: whether the converted models are kept.
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
    """What PyTorch makes of each clip, or why that is not known: it is not there, or has failed."""

    texts: tuple[str, ...] = ()
    reason: str = ""
    failed: bool = False
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What is known of a model and of the reference once all lines have been shown.

    Attributes:
        name: of the model, as a hub knows it, or its folder's own.
        source: hub, revision and layout; once a conversion has worked, all that this states of it.
        versions: of PyTorch and what goes with it, where that has run.
    """

    name: str
    source: dict[str, str | None]
    versions: dict[str, str]


def accept(plan: Plan, work: Path, show: Callable[[Line], None], tell: Callable[[str], None]) -> Found:
    """Go through everything; what fails becomes a line.

    Args:
        plan: what to do.
        work: a folder for the converted models.
        show: told each line as soon as it is known.
        tell: told what is being done; a function of a module, which another process can find.

    Raises:
        FunASRError: there is no such model or device to begin with, or the Python that was named has no reference.
    """
    if plan.device:
        use_device(plan.device)
    tell(f"looking for {plan.model}")
    source = fetch_checkpoint(plan.model, plan.revision, _steps(tell), plan.hub)
    plan = replace(plan, revision=source.revision or plan.revision)  # all recipes from one commit
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
    """Let PyTorch transcribe, if it can be asked."""
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
    """What the reference writes, each clip read in one piece, in float32; outer white space is left out."""
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
    """Versions of the packages that compute there."""
    script = f"{APART}from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", script, *PACKAGES], capture_output=True, text=True)
    return dict(zip(PACKAGES, done.stdout.split(), strict=False))  # of none of them, where one is missing


def _reference_lines(clips: Sequence[Clip], reference: Reference) -> Iterator[Line]:
    """PyTorch's own errors are shown, and are not this project's; a reference that breaks down is a failure."""
    if reference.texts:
        for clip, text in zip(clips, reference.texts, strict=True):
            yield replace(text_line(PYTORCH, clip, text), verdict=Verdict.NOT_JUDGED)
    else:
        verdict = Verdict.FAIL if reference.failed else Verdict.NOT_MEASURED
        yield Line(verdict, PYTORCH, TRANSCRIBES, reference.reason, "")


def _options(recipe: str, reference: Reference) -> ConvertOptions:
    """The dense model is also compared with PyTorch stage by stage, where that can be asked."""
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
    """Everything about one recipe; a step that fails ends it. Fills in what is known about the source."""
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
    except Exception as error:  # also what nobody has foreseen is a result, and the other recipes are still due
        yield Line(Verdict.FAIL, recipe, step, _message(error), "no error")
        yield Line(Verdict.NOT_MEASURED, recipe, "all that follows", f"it failed here: {step}", "")
        return
    for clip, case in zip(plan.clips, measured.cases, strict=True):
        yield text_line(recipe, clip, case.texts[0])
    if reference.texts:
        for compared in zip(plan.clips, measured.whole_texts, reference.texts, strict=True):
            yield reference_line(recipe, *compared)
    else:
        yield Line(Verdict.NOT_MEASURED, recipe, "texts beside PyTorch", reference.reason, "")
    yield from cost_lines(recipe, measured.cases, plan.targets, on_gpu=on_accelerator())


def _message(error: Exception) -> str:
    return error.message if isinstance(error, FunASRError) else f"unexpected {type(error).__name__}: {error}"


def _conversion_lines(recipe: str, conversion: Conversion, seconds: float) -> Iterator[Line]:
    """Nothing can fail here: `convert` has refused whatever departs from its source or from PyTorch."""
    size = f"{conversion.tensors} tensors, {conversion.size_bytes / 1e6:,.1f} MB, in {seconds:.0f} s"
    yield Line(Verdict.PASS, recipe, CONVERTS, size, "no error")
    proof = conversion.proof
    if proof is None:
        yield Line(Verdict.NOT_MEASURED, recipe, COMPUTES, "; ".join(conversion.notes), "")
        return
    yield Line(Verdict.PASS, recipe, COMPUTES, _agreement(proof), "finite; the same where no value was rounded")
    if proof.port_errors:
        name, error = max(proof.port_errors.items(), key=lambda item: item[1])
        wanted = f"at most {LARGEST_BESIDE_PYTORCH:g}"
        yield Line(Verdict.PASS, recipe, SAME_STAGES, f"largest error {error:.1e} ({name})", wanted)


def _agreement(proof: Proof) -> str:
    """What the clip that `convert` decodes has shown."""
    if not any(proof.errors.values()):
        return f"nothing differs, {proof.tokens} tokens"
    return f"{proof.agreeing} of {proof.tokens} tokens agree, logits differ by {proof.errors['logits']:.1e}"


def _check_line(recipe: str, folder: Path) -> Line:
    checked = check_model(folder)
    what = f"{len(checked.checkpoint.tensors)} arrays, SHA-256 of {checked.listed} files"
    return Line(Verdict.PASS, recipe, IS_WHOLE, what, "as written, all values finite")


def _steps(tell: Callable[[str], None]) -> Progress:
    """What `convert` and the hubs report to, as a word for each thing that is begun."""
    begun: set[str] = set()

    def progress(what: str, done: int, total: int) -> None:
        if what not in begun:
            begun.add(what)
            tell(what)

    return progress

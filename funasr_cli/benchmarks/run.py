"""From what is to be measured to what was: finds and makes the models and the audio, and runs the mode."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from funasr_cli import demo
from funasr_cli.backend import describe
from funasr_cli.benchmarks.cases import CaseCost, run_cases
from funasr_cli.benchmarks.memory import DURATIONS_S, MemoryCost, run_memory
from funasr_cli.benchmarks.report import Report, describe_machine, describe_versions
from funasr_cli.benchmarks.request import Mode, Request
from funasr_cli.benchmarks.scoring import reference_of
from funasr_cli.benchmarks.subjects import ModelCost, Subject, load_subjects, unambiguous
from funasr_cli.benchmarks.synthetic import write_synthetic
from funasr_cli.benchmarks.workloads import make_workloads, together
from funasr_cli.checkpoints.format import read_config
from funasr_cli.checkpoints.hub import find_model
from funasr_cli.device import use_device
from funasr_cli.errors import ModelError
from funasr_cli.languages import AUTO
from funasr_cli.stages import NO_CTC_HINT


def measure(request: Request, progress: Callable[[str], None]) -> Report:
    """Measure.

    Args:
        request: what.
        progress: told what is being done.

    Raises:
        ModelError: a model is not there, damaged, or lacks the CTC branch that drafts come from.
        AudioError: a recording cannot be read.
        UsageError: an option that a model does not go with, or a recording without a reference.
    """
    models: tuple[ModelCost, ...] = ()
    cases: tuple[CaseCost, ...] | tuple[MemoryCost, ...]
    if request.device:
        use_device(request.device)
    folders = [find_model(name) for name in request.models]
    started = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="funasr-bench-") as temporary:
        work = Path(temporary)
        for size in request.synthetic:
            progress(f"making a model of random weights: {size}")
            folders.append(write_synthetic(work, size))
        paths = request.audio
        if not paths and (request.mode != Mode.RTF or set(folders) == {demo.MODEL}):
            paths = tuple(clip.path for clip in demo.clips())  # other models' costs are not about speech
        for path in paths if request.references is not None else ():
            reference_of(path, request.references or {})
        if request.mode == Mode.MEMORY:
            cases = _memory(request, folders, paths, progress)
        else:
            subjects = load_subjects(folders, request.dtype, request.trials, progress)
            models = tuple(subject.cost for subject in subjects)
            cases = _in_turns(request, subjects, paths, work, progress)
    return Report(request, describe(), started, describe_machine(), describe_versions(), models, cases)


def _in_turns(
    request: Request,
    subjects: list[Subject],
    paths: tuple[Path, ...],
    work: Path,
    progress: Callable[[str], None],
) -> tuple[CaseCost, ...]:
    for subject in subjects if request.mode == Mode.DRAFTS else ():
        if not subject.recognizer.has_ctc:
            message = f"{subject.cost.model}: no drafts without a CTC branch"
            raise ModelError(message, NO_CTC_HINT, code="no-ctc")
    if request.mode in (Mode.BATCHES, Mode.DRAFTS):  # all recordings in one run
        workloads = [together(paths, request.recordings or len(paths))]
    else:
        copies, made = request.recordings or 1, make_workloads(paths, request.durations_s, work)
        workloads = [replace(each, recordings=each.recordings * copies, copies=copies) for each in made]
    sizes, options, trials = request.batch_sizes, request.options, request.trials
    return run_cases(subjects, workloads, sizes, request.drafts, options, trials, request.references, progress)


def _memory(
    request: Request, folders: list[Path], paths: Sequence[Path], progress: Callable[[str], None]
) -> tuple[MemoryCost, ...]:
    names = [read_config(folder).source.get("source") or folder.name for folder in folders]
    models = dict(zip(unambiguous(names, folders), folders, strict=True))
    given = {
        "--lang": request.options.language or AUTO,
        "--max-tokens": request.options.max_tokens,
        "--device": request.device,
        "--dtype": request.dtype,
    }
    options = [str(part) for option, value in given.items() if value for part in (option, value)]
    return run_memory(models, paths, request.durations_s or DURATIONS_S, options, progress)

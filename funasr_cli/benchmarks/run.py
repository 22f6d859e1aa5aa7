"""From what is to be measured to what was: finds and makes the models and the audio, and runs the mode."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from funasr_cli import demo
from funasr_cli.backend import describe
from funasr_cli.benchmarks.cases import CaseCost, run_cases
from funasr_cli.benchmarks.machine import describe_machine, describe_versions
from funasr_cli.benchmarks.memory import DURATIONS_S, MemoryCost, run_memory
from funasr_cli.benchmarks.report import Report
from funasr_cli.benchmarks.request import TOGETHER, Mode, Request
from funasr_cli.benchmarks.scoring import reference_of
from funasr_cli.benchmarks.subjects import ModelCost, Subject, load_subjects, unambiguous
from funasr_cli.benchmarks.synthetic import write_synthetic
from funasr_cli.benchmarks.workloads import Workload, make_workloads, together
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
        paths = request.audio or _default_clips(request.mode, folders)
        for path in paths if request.references is not None else ():
            reference_of(path, request.references or {})
        if request.mode == Mode.MEMORY:
            cases = _memory(request, folders, paths, progress)
        else:
            subjects = load_subjects(folders, request.dtype, request.trials, progress)
            if request.mode == Mode.DRAFTS:
                _refuse_without_ctc(subjects)
            models = tuple(subject.cost for subject in subjects)
            cases = _in_process(request, subjects, _workloads(request, paths, work), progress)
    return Report(request, describe(), started, describe_machine(), describe_versions(), models, cases)


def _refuse_without_ctc(subjects: list[Subject]) -> None:
    for subject in subjects:
        if not subject.recognizer.has_ctc:
            raise ModelError(f"{subject.cost.model}: no drafts without a CTC branch", NO_CTC_HINT)


def _default_clips(mode: Mode, folders: list[Path]) -> tuple[Path, ...]:
    """The demo model's, or none where generated ones do: the costs of other models are not about speech."""
    clips = tuple(clip.path for clip in demo.clips())
    return clips if mode != Mode.RTF or set(folders) == {demo.MODEL} else ()


def _workloads(request: Request, paths: tuple[Path, ...], work: Path) -> list[Workload]:
    if request.mode in TOGETHER:
        return [together(paths, request.recordings or len(paths))]
    return [each.repeated(request.recordings or 1) for each in make_workloads(paths, request.durations_s, work)]


def _in_process(
    request: Request, subjects: list[Subject], workloads: list[Workload], progress: Callable[[str], None]
) -> tuple[CaseCost, ...]:
    sizes, options, trials = request.batch_sizes, request.options, request.trials
    return run_cases(subjects, workloads, sizes, request.drafts, options, trials, request.references, progress)


def _memory(
    request: Request, folders: list[Path], paths: tuple[Path, ...], progress: Callable[[str], None]
) -> tuple[MemoryCost, ...]:
    names = [read_config(folder).source.get("source") or folder.name for folder in folders]
    labels = unambiguous(names, folders)
    options, durations_s = request.options, request.durations_s or DURATIONS_S
    models = dict(zip(labels, folders, strict=True))
    given = {"--device": request.device, "--dtype": request.dtype}
    more = [part for option, value in given.items() if value for part in (option, value)]
    return run_memory(models, paths, durations_s, options.language or AUTO, options.max_tokens, progress, more)

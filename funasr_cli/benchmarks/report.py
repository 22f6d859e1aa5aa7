"""Run a measurement and report it as JSON, with the context needed to compare it."""

import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from funasr_cli import __version__, demo
from funasr_cli.benchmarks import costs
from funasr_cli.benchmarks.cases import CaseCost, Gain, gains_of, run_cases
from funasr_cli.benchmarks.memory import DURATIONS_S, MemoryCost, run_memory
from funasr_cli.benchmarks.request import Mode, Request
from funasr_cli.benchmarks.scoring import reference_of
from funasr_cli.benchmarks.subjects import ModelCost, Subject, load_subjects, make_workloads, names_of, together
from funasr_cli.benchmarks.synthetic import write_synthetic
from funasr_cli.capabilities import refuse_missing, refuse_unsupported, supported
from funasr_cli.compute.backend import BLAS, describe, mx, on_accelerator
from funasr_cli.compute.device import use_device
from funasr_cli.families.load import choose_engine
from funasr_cli.families.open import capabilities
from funasr_cli.hubs.find import find_model
from funasr_cli.languages import AUTO

FORMAT = "funasr-bench"
FORMAT_VERSION = 1
PACKAGES = ("mlx", "numpy", "tokenizers", "mkl")
SETTINGS = ("language", "max_tokens", "exact_tokens", "itn")  # options that are the same for all cases


@dataclass(frozen=True)
class Report:
    """Results of a measurement, and its context."""

    request: Request
    device: str  # short description, including the BLAS
    started: str  # ISO 8601 with the time zone
    machine: dict[str, str | int | None]
    versions: dict[str, str]
    models: tuple[ModelCost, ...]  # empty for `Mode.MEMORY`, where each run loads its own model
    cases: tuple[CaseCost, ...] | tuple[MemoryCost, ...]  # the type depends on the mode

    @property
    def runs(self) -> list[CaseCost]:
        """The cases that were transcribed in this process."""
        return [case for case in self.cases if isinstance(case, CaseCost)]

    @property
    def gains(self) -> list[Gain]:
        """Gain of each case over the first batch size, or over no drafts. Empty in other modes."""
        if self.request.mode == Mode.DRAFTS:
            return gains_of(self.runs, lambda case: (case.model, case.audio, case.batch_size))
        return gains_of(self.runs, lambda case: case.model) if self.request.mode == Mode.BATCHES else []

    def as_json(self) -> dict[str, Any]:
        """Return everything for `json.dumps`."""
        request, cases = self.request, [asdict(case) for case in self.cases]
        for entry, case in zip(cases, self.runs, strict=False):
            entry["passes"] = case.decoder_calls  # former name, kept for one release
            if case.errors:
                entry["errors"] |= {"edits": case.errors.edits, "percent": case.errors.percent}
        for entry, gain in zip(cases, self.gains, strict=False):
            entry |= gain._asdict()
        settings = {name: getattr(request.options, name) for name in SETTINGS}
        settings |= {"drafts": list(request.drafts), "device": request.device, "dtype": request.dtype}
        settings["engine"] = request.engine
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "mode": str(request.mode),
            "started": self.started,
            "device": self.device,
            "machine": self.machine,
            "versions": self.versions,
            "settings": settings | {"trials": request.trials},
            "models": [asdict(model) for model in self.models],
            "cases": cases,
        }


def measure(request: Request, progress: Callable[[str], None]) -> Report:
    """Run the requested measurement. ``progress`` receives a description of each step.

    Raises:
        ModelError: a model is missing or damaged.
        AudioError: a recording cannot be read.
        UsageError: a model does not support an option or drafts, or a recording has no reference.
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
            progress(f"creating a model with random weights: {size}")
            folders.append(write_synthetic(work, size))
        paths = request.audio
        if not paths and (request.mode != Mode.RTF or set(folders) == {demo.MODEL}):
            paths = tuple(clip.path for clip in demo.clips())  # other models are measured on generated noise
        for path in paths if request.references is not None else ():
            reference_of(path, request.references or {})
        if request.mode == Mode.MEMORY:
            cases = _memory(request, folders, paths, progress)
        else:
            subjects = load_subjects(
                folders, request.dtype, request.trials, progress, request.engine, request.optional
            )
            models = tuple(subject.cost for subject in subjects)
            cases = _in_turns(request, subjects, paths, work, progress)
            has_usual_texts = not (request.options.max_tokens or request.options.exact_tokens)
            if paths and request.mode == Mode.RTF and has_usual_texts:
                costs.keep(_costs(folders, subjects, cases, started))
    return Report(request, describe(), started, describe_machine(), describe_versions(), models, cases)


def _costs(
    folders: Sequence[Path], subjects: Sequence[Subject], cases: Sequence[CaseCost], started: str
) -> list[tuple[Path, costs.Cost]]:
    """Return what each model costs, over all recordings."""
    found = []
    for folder, subject in zip(folders, subjects, strict=True):
        own = [case for case in cases if case.model == subject.cost.model]
        audio_s = sum(case.audio_s for case in own)
        rtf = sum(case.rtf.median * case.audio_s for case in own) / audio_s
        found.append((folder, costs.Cost(rtf, audio_s, subject.cost.engine, started, costs.processor())))
    return found


def _in_turns(
    request: Request, subjects: list[Subject], paths: tuple[Path, ...], work: Path, progress: Callable[[str], None]
) -> tuple[CaseCost, ...]:
    typed = request.typed
    for subject in subjects:
        able = subject.recognizer.capabilities
        if request.mode == Mode.DRAFTS:
            refuse_missing("--drafts", "drafts", able, subject.cost.model)
        subject.recognizer.refuse_unsupported(subject.recognizer.supported(request.options, typed), typed)
    if request.mode in (Mode.BATCHES, Mode.DRAFTS):  # all recordings in one run
        workloads = [together(paths, request.recordings or len(paths))]
    else:
        copies, made = request.recordings or 1, make_workloads(paths, request.durations_s, work)
        workloads = [replace(each, recordings=each.recordings * copies, copies=copies) for each in made]
    return run_cases(
        subjects, workloads, request.batch_sizes, request.drafts, request.options, request.trials,
        request.references, progress, typed,
    )  # fmt: skip


def _memory(
    request: Request, folders: list[Path], paths: Sequence[Path], progress: Callable[[str], None]
) -> tuple[MemoryCost, ...]:
    models = {}
    for name, folder in zip(names_of(folders), folders, strict=True):
        able = capabilities(folder)
        options = supported(request.options, able, typed=request.typed)
        refuse_unsupported(options, able, name, typed=request.typed)
        dtype, engine, *_ = choose_engine(folder, request.dtype, request.engine, request.optional, progress)
        flags = {
            "--lang": options.language or AUTO,
            "--max-tokens": options.max_tokens,
            "--device": request.device,
            "--dtype": dtype,
            "--engine": engine,
        }
        arguments = [str(part) for option, value in flags.items() if value for part in (option, value)]
        models[name] = ["-m", str(folder), *arguments]
    return run_memory(models, paths, request.durations_s or DURATIONS_S, progress)


def describe_machine() -> dict[str, str | int | None]:
    """Describe system, processor, cores available to this process, memory, GPU and BLAS."""
    device = mx.device_info() if on_accelerator() else {}
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": costs.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": str(device.get("device_name")) if device else None,
        "blas": BLAS and os.path.basename(BLAS),
        "threads": os.environ.get("OMP_NUM_THREADS"),  # None: the BLAS chooses
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the numerical packages."""
    versions = {"python": platform.python_version(), "funasr-cli": __version__}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions

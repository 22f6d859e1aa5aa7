"""Everything measured in a run, with what has to be known to compare it; and from there to JSON."""

import importlib.metadata
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from funasr_cli import __version__
from funasr_cli.backend import BLAS, mx, on_accelerator
from funasr_cli.benchmarks.cases import CaseCost, Gain, gains_of
from funasr_cli.benchmarks.memory import MemoryCost
from funasr_cli.benchmarks.request import Mode, Request
from funasr_cli.benchmarks.subjects import ModelCost

FORMAT = "funasr-bench"
FORMAT_VERSION = 1
PACKAGES = ("mlx", "numpy", "tokenizers", "mkl")
SETTINGS = ("language", "max_tokens", "exact_tokens", "itn")  # of the options, that are no case's own


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        device: device and BLAS in a few words.
        started: when, ISO 8601 with the time zone.
        models: empty for `Mode.MEMORY`, where each run loads its own.
        cases: all of the mode's kind.
    """

    request: Request
    device: str
    started: str
    machine: dict[str, str | int | None]
    versions: dict[str, str]
    models: tuple[ModelCost, ...]
    cases: tuple[CaseCost, ...] | tuple[MemoryCost, ...]

    @property
    def runs(self) -> list[CaseCost]:
        """The cases that were transcribed here."""
        return [case for case in self.cases if isinstance(case, CaseCost)]

    @property
    def gains(self) -> list[Gain]:
        """What batches save against the first size, and drafts against none, for each case; else empty."""
        if self.request.mode == Mode.DRAFTS:
            return gains_of(self.runs, lambda case: (case.model, case.audio, case.batch_size))
        return gains_of(self.runs, lambda case: case.model) if self.request.mode == Mode.BATCHES else []

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        request, cases = self.request, [asdict(case) for case in self.cases]
        for entry, case in zip(cases, self.runs, strict=False):
            if case.errors:
                entry["errors"] |= {"edits": case.errors.edits, "percent": case.errors.percent}
        for entry, gain in zip(cases, self.gains, strict=False):
            entry |= asdict(gain)
        settings = {name: getattr(request.options, name) for name in SETTINGS}
        settings |= {"drafts": list(request.drafts), "device": request.device, "dtype": request.dtype}
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


def describe_machine() -> dict[str, str | int | None]:
    """System, processor, cores that this process may use, memory, device, BLAS."""
    device = mx.device_info() if on_accelerator() else {}
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": str(device.get("device_name")) if device else None,
        "blas": BLAS and os.path.basename(BLAS),
        "threads": os.environ.get("OMP_NUM_THREADS"),  # None leaves the number to the BLAS
    }


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def describe_versions() -> dict[str, str]:
    """Python's, ours and those of the packages that compute."""
    versions = {"python": platform.python_version(), "funasr-cli": __version__}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions

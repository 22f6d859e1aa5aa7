"""What a measurement was taken on: the machine, and the versions of what computed."""

import importlib.metadata
import os
import platform
from contextlib import suppress
from pathlib import Path

from funasr_cli import __version__
from funasr_cli.backend import BLAS, mx, on_accelerator

PACKAGES = ("mlx", "numpy", "tokenizers", "mkl")


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

"""What suits this machine: where to compute, in which type, and whether there is room. See docs/performance.md."""

import os
import platform
import time
from collections.abc import Iterable

from funasr_cli.compute.backend import BLAS, describe, lacks_blas, mx, on_accelerator
from funasr_cli.compute.memory import available_bytes
from funasr_cli.errors import SetupError
from funasr_cli.options import AS_STORED

SLOW_GFLOPS = 8.0  # a core: the reference BLAS reaches 4 on a fast one, any other ten times that
PROBE_ROWS, PROBE_WIDTH = 256, 512
PROBES = 5  # at least: the first one also waits for the library to set itself up
PROBE_S = 0.5  # where a BLAS seems slow: other work on the cores passes, a slow BLAS stays


def use_device(name: str) -> None:
    """Let MLX compute there from now on, or raise a `SetupError`; models have to be loaded afterwards."""
    device = mx.Device(getattr(mx, name))
    if not mx.is_available(device):
        hint = "leave --device out, or install MLX's back end"
        raise SetupError(f"MLX cannot compute on the {name} here", hint, code="device-missing")
    mx.set_default_device(device)


def default_dtype() -> str:
    """Type to compute in: as stored on a GPU; float32 on a CPU, where MLX's own bf16 and integer code crawls."""
    return AS_STORED if on_accelerator() else "float32"


def gflops_a_core() -> float | None:
    """Billions of float32 operations in a matrix product for each second that a CPU's core works; None on a GPU.

    Time of the processor, not of the clock: a machine that is busy with something else is not a slow one. Threads
    that spin while they wait count as working, though, so a BLAS that seems slow is tried for longer.
    """
    if on_accelerator():
        return None
    x, weight = mx.ones((PROBE_ROWS, PROBE_WIDTH)), mx.ones((PROBE_WIDTH, PROBE_WIDTH))
    mx.eval(x, weight)
    began, probes, fastest = time.perf_counter(), 0, 0.0
    while probes < PROBES or (fastest < SLOW_GFLOPS and time.perf_counter() - began < PROBE_S):
        started = time.process_time()
        mx.eval(x @ weight)
        seconds = max(time.process_time() - started, 1e-6)
        probes, fastest = probes + 1, max(fastest, 2e-9 * PROBE_ROWS * PROBE_WIDTH**2 / seconds)
    return fastest


def slowness(gflops: float | None) -> str:
    """Why a CPU computes slowly, and what to do about it; empty where it does not.

    It is left to MLX's own BLAS if no other was found, or one without effect, if that was measured.
    """
    if not lacks_blas() and (gflops is None or gflops >= SLOW_GFLOPS):
        return ""
    found = f"{os.path.basename(BLAS)} computes only {gflops:.0f} GFLOP/s a core" if BLAS else "no fast BLAS found"
    mkl = "pip install mkl, or " if platform.machine() == "x86_64" else ""
    return (
        f"{found}, so this takes many times as long as it needs: {mkl}install OpenBLAS "
        "(Debian: libopenblas0-pthread), or name one with FUNASR_BLAS"
    )


def in_words(gflops: float | None) -> str:
    """Device, BLAS and speed, for logs."""
    return describe() if gflops is None else f"{describe()}, {gflops:.0f} GFLOP/s a core"


def keep_in_memory() -> None:
    """On Metal, let the system keep weights and caches in place up to what it recommends; elsewhere, nothing."""
    if on_accelerator() and mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def refuse_too_large(what: str, sizes_bytes: Iterable[int], hint: str) -> None:
    """Say, as a `SetupError`, that the tensors of something will not fit, before the system ends the program."""
    needed_bytes, there_bytes = sum(sizes_bytes), available_bytes()
    if needed_bytes > there_bytes:
        raise SetupError(
            f"{what}: takes {needed_bytes / 1e9:.1f} GB of memory, and {there_bytes / 1e9:.1f} GB are at hand",
            f"close other programs; {hint}",
            code="memory-short",
        )

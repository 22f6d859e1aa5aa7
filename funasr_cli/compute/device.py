"""Choice of device and type for this machine, and checks of its speed and memory. See docs/performance.md."""

import os
import platform
import time
from collections.abc import Iterable

from funasr_cli.compute.backend import BLAS, describe, lacks_blas, mx, on_accelerator
from funasr_cli.compute.memory import available_bytes
from funasr_cli.errors import SetupError
from funasr_cli.options import AS_STORED

SLOW_GFLOPS = 8.0  # per core: the reference BLAS reaches 4 on a fast core, any other BLAS ten times as many
PROBE_ROWS, PROBE_WIDTH = 256, 512
PROBES = 5  # fewest probes; the first one includes the library's initialisation
PROBE_S = 0.5  # duration of probing if a BLAS seems slow, to tell a slow BLAS from other load on the cores


def use_device(name: str) -> None:
    """Make this MLX's device, for models loaded afterwards; raise a `SetupError` if it is unavailable."""
    device = mx.Device(getattr(mx, name))
    if not mx.is_available(device):
        hint = "omit --device, or install MLX's back end for it"
        raise SetupError(f"MLX cannot use the {name} on this machine", hint, code="device-missing")
    mx.set_default_device(device)


def default_dtype() -> str:
    """Return the type to compute in: as stored on a GPU; float32 on a CPU, where other types are very slow."""
    return AS_STORED if on_accelerator() else "float32"


def gflops_a_core() -> float | None:
    """Measure the speed of a float32 matrix product, in GFLOP/s per CPU core; return None on a GPU.

    It measures CPU time, not elapsed time, since a busy machine is not a slow one. But threads that spin while
    they wait also use CPU time, so a BLAS that seems slow is measured for longer.
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
    """Explain why computing on the CPU is slow, and what to do about it; empty if it is not slow.

    It is slow if MLX uses its own BLAS: no other was found, or the one opened has no effect, as measured.
    """
    if not lacks_blas() and (gflops is None or gflops >= SLOW_GFLOPS):
        return ""
    found = (
        f"{os.path.basename(BLAS)} reaches only {gflops:.0f} GFLOP/s per core" if BLAS else "no fast BLAS found"
    )
    mkl = "pip install mkl, or " if platform.machine() == "x86_64" else ""
    return (
        f"{found}, so this is many times slower than it could be: {mkl}install OpenBLAS "
        "(Debian: libopenblas0-pthread), or set FUNASR_BLAS to the path of a BLAS library"
    )


def in_words(gflops: float | None) -> str:
    """Name the device, the BLAS and its speed, for logs."""
    return describe() if gflops is None else f"{describe()}, {gflops:.0f} GFLOP/s per core"


def keep_in_memory() -> None:
    """Keep weights and caches wired in memory on Metal, up to the recommended limit."""
    if on_accelerator() and mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def refuse_too_large(what: str, sizes_bytes: Iterable[int], hint: str) -> None:
    """Raise a `SetupError` if the tensors do not fit into memory, before the system kills the program."""
    needed_bytes, free_bytes = sum(sizes_bytes), available_bytes()
    if needed_bytes > free_bytes:
        raise SetupError(
            f"{what}: needs {needed_bytes / 1e9:.1f} GB of memory, only {free_bytes / 1e9:.1f} GB are available",
            f"close other programs; {hint}",
            code="memory-short",
        )

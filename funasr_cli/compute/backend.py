"""The only module that imports MLX, after it has opened a fast BLAS.

All other modules use ``from funasr_cli.compute.backend import mx, nn``. MLX's Linux CPU wheel is linked against
the slow reference BLAS. If another BLAS has been loaded globally before MLX, the dynamic linker uses its symbols,
so a fast one is opened first. macOS (Accelerate, Metal) does not need this; with a CUDA back end it is harmless.
"""

import ctypes
import ctypes.util
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from funasr_cli.errors import SetupError


def _blas_candidates() -> Iterator[str]:
    """Yield libraries that export ``cblas_sgemm``, best first; PyPI's ``mkl`` comes before system libraries."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("mkl") or []:
            if file.name.startswith("libmkl_rt.so"):
                yield str(file.locate().resolve())  # type: ignore[attr-defined]
    yield from ("libmkl_rt.so.3", "libmkl_rt.so.2", "libopenblas.so.0", "libopenblas.so", "libblis.so.4")


def _open_globally(path: str) -> bool:
    try:
        # Without this symbol, MLX would silently keep using the reference BLAS.
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL).cblas_sgemm  # noqa: B018
    except (OSError, AttributeError):
        return False
    return True


def _open_blas() -> str | None:
    """Open a fast BLAS for MLX's CPU back end and return its name; None if none is needed or found."""
    if sys.platform != "linux":
        return None
    wanted = os.environ.get("FUNASR_BLAS")
    if wanted:
        if _open_globally(wanted):
            return wanted
        raise SetupError(
            f"FUNASR_BLAS={wanted}: not a library that exports cblas_sgemm",
            "set it to the full path of libopenblas.so.0 or libmkl_rt.so.3, or unset it",
            code="blas-setting",
        )
    return next((path for path in _blas_candidates() if _open_globally(path)), None)


BLAS = _open_blas()
# Otherwise, on recent GPUs, MLX rounds the inputs of float32 products to 10 bits (TF32).
os.environ.setdefault("MLX_ENABLE_TF32", "0")

try:
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten
except ImportError as error:  # on Linux, plain `mlx` has no back end
    raise SetupError(
        f"MLX has no back end on this machine ({error})",
        "install again in the clone: uv tool install --force '.[cpu]', pipx install --force '.[cpu]' or "
        "pip install '.[cpu]'; with an NVIDIA card '.[cuda12]' or '.[cuda13]'",
        code="package-missing",
    ) from error


def on_accelerator() -> bool:
    """Return whether MLX computes on a GPU (Metal or CUDA), not on the CPU."""
    return bool(mx.default_device() == mx.gpu)


def describe() -> str:
    """Name the device and the BLAS, for logs and tables."""
    if on_accelerator():
        return "GPU"
    return f"CPU, {os.path.basename(BLAS)}" if BLAS else "CPU, MLX's own BLAS"


def lacks_blas() -> bool:
    """Return whether MLX uses the reference BLAS of its Linux wheel, which is many times slower than others."""
    return sys.platform == "linux" and BLAS is None and not on_accelerator()


__all__ = ["BLAS", "describe", "lacks_blas", "mx", "nn", "on_accelerator", "tree_flatten"]

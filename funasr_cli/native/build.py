"""Compile the C library; run by the build hook, and by ``python -m funasr_cli.native.build``.

Uses nothing but the standard library, since the package's dependencies are not there while it is built.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = FOLDER / "src"
LIBRARY = FOLDER / "libfunasr.so"
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow")
# Instruction sets of single files; which of them runs is decided on the machine that runs it, in cpu.c.
OF_FILES = {
    "kernels_avx2": "-mavx2 -mfma -mf16c",
    "kernels_avx512": "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c",
}
SWITCH = "FUNASR_NATIVE"  # "0" leaves the library out


def is_wanted() -> bool:
    """Return whether the library is used here: on Linux, unless FUNASR_NATIVE=0."""
    return sys.platform == "linux" and os.environ.get(SWITCH) != "0"


def compiler() -> str | None:
    """Return the C compiler: $CC, else cc or gcc; None if there is none."""
    named = os.environ.get("CC")
    return shutil.which(named) if named else shutil.which("cc") or shutil.which("gcc")


def compile_library(library: Path = LIBRARY, flags: Sequence[str] = ()) -> None:
    """Compile the sources, with further flags, to a shared library, which replaces an earlier one.

    Raises:
        RuntimeError: there is no compiler, or it fails; with what it printed.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("no C compiler: set CC, or install gcc")
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in sorted(SOURCES.glob("*.c")):
            objects.append(f"{folder}/{source.stem}.o")
            own = OF_FILES.get(source.stem, "").split() if is_x86 else []
            _run([command, *FLAGS, *own, *flags, "-c", str(source), "-o", objects[-1]])
        made = f"{folder}/{library.name}"
        _run([command, "-shared", *flags, *objects, "-o", made, "-lm", "-lpthread"])
        # A copy, then a rename: a process that has the old one open keeps it.
        copy = library.with_suffix(f".{os.getpid()}")
        shutil.copyfile(made, copy)
        copy.replace(library)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


if __name__ == "__main__":
    compile_library()
    print(LIBRARY)

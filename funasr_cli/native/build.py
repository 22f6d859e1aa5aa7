"""Compile the C library; run by the build hook, and by ``python -m funasr_cli.native.build``.

Uses only the standard library, since the package's dependencies are not installed while it is built.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = FOLDER / "src"
LIBRARY = FOLDER / "libfunasr.so"
MACHINE = platform.machine()
LOG = FOLDER / "build.log"  # why the library could not be compiled
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow")
# Instruction sets of single files, by machine. Which of these files run is decided at run time, in cpu.c. Where a
# compiler does not know a flag, such as gcc 10 those of AVX-VNNI and AMX, the file is compiled without any of its
# flags, and leaves its code out.
AVX2 = "-mavx2 -mfma -mf16c"
AVX512 = f"{AVX2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni"
OF_FILES = {
    "x86_64": {
        "kernels_avx2": AVX2,
        "kernels_avxvnni": f"{AVX2} -mavxvnni",
        "kernels_avx512": AVX512,
        "kernels_avx512bf16": f"{AVX512} -mavx512bf16",
        "kernels_amx": f"{AVX512} -mamx-tile -mamx-int8",
    },
    "aarch64": {"kernels_neon": "-march=armv8.2-a+dotprod"},
}
SWITCH = "FUNASR_NATIVE"  # "0" leaves the library out


def is_wanted() -> bool:
    """Return whether the library is used here: on Linux, unless FUNASR_NATIVE=0."""
    return sys.platform == "linux" and os.environ.get(SWITCH) != "0"


def compiler() -> list[str] | None:
    """Return the command of the C compiler: $CC, which may have options, else cc or gcc; None if there is none."""
    with suppress(ValueError):  # a quotation mark without its partner
        for command in [shlex.split(os.environ["CC"])] if os.environ.get("CC") else [["cc"], ["gcc"]]:
            if command and (found := shutil.which(command[0])):
                return [found, *command[1:]]
    return None


def sources_hash() -> str:
    """Return the SHA-256 of the C sources, which the library states: one compiled from others is refused."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def compile_library(library: Path = LIBRARY, flags: Sequence[str] = (), machine: str = MACHINE) -> None:
    """Compile the sources, with further flags, to a shared library for a machine, which replaces an earlier one.

    Raises:
        RuntimeError: there is no compiler, or it fails; with what it printed.
        OSError: the library cannot be written.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("no C compiler: set CC, or install gcc")
    stated = f'-DFN_SOURCES="{sources_hash()}"'
    with tempfile.TemporaryDirectory() as folder:

        def compiled(source: Path) -> str:
            made = f"{folder}/{source.stem}.o"
            own = OF_FILES.get(machine, {}).get(source.stem, "").split()
            own = own if _succeeds([*command, *own, "-fsyntax-only", "-x", "c", os.devnull]) else []
            _run([*command, *FLAGS, stated, *own, *flags, "-c", str(source), "-o", made])
            return made

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compiled, sorted(SOURCES.glob("*.c"))))
        made = f"{folder}/{library.name}"
        _run([*command, "-shared", *flags, *objects, "-o", made, "-lm", "-lpthread"])
        # A copy, then a rename: a process that has the old one open keeps it.
        copy = library.with_suffix(f".{os.getpid()}")
        try:
            shutil.copyfile(made, copy)
            copy.replace(library)
        finally:
            copy.unlink(missing_ok=True)


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}".rstrip())


def build(folder: Path = FOLDER) -> str | None:
    """Compile the library into a folder. If that fails, write a log instead, and return what it says."""
    library, log = folder / LIBRARY.name, folder / LOG.name
    try:
        compile_library(library)
        log.unlink(missing_ok=True)
    except (RuntimeError, OSError) as error:
        with suppress(OSError):  # the folder may be read-only
            library.unlink(missing_ok=True)  # of an earlier build
            log.write_text(f"{error}\n", encoding="utf-8")
        return str(error)
    return None


if __name__ == "__main__":
    if problem := build():
        sys.exit(problem)
    print(LIBRARY)

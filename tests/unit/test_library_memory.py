"""The C library's memory: a C program runs it with each allocation failing once, and nothing leaks."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from funasr_cli.native import build

PROGRAM = Path(__file__).parents[1] / "support" / "native_memory.c"
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
WRAPPED = [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc", "aligned_alloc")]


@pytest.mark.skipif(not build.is_wanted() or build.compiler() is None, reason="no C compiler")
@pytest.mark.process
def test_allocations_that_fail(tmp_path: Path) -> None:
    """The call that needs it says so, nothing else has changed, and all memory is given back at the end."""
    library, program = tmp_path / "libfunasr.so", tmp_path / "program"
    build.compile_library(library, [*SANITIZERS, *WRAPPED])
    compiler = shlex.split(os.environ.get("CC") or "cc")
    command = [*compiler, *SANITIZERS, "-Wall", "-Wextra", f"-I{build.SOURCES}", str(PROGRAM), str(library)]
    subprocess.run([*command, "-rdynamic", *WRAPPED, "-lm", "-o", str(program)], check=True)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=1"}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("allocations") == 8

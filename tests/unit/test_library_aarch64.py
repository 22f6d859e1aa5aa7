"""The C library on 64-bit ARM, by a cross compiler and an emulator: its inner loops against those in plain C.

Debian's packages are gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from funasr_cli.native import build

COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64-static" if shutil.which("qemu-aarch64-static") else "qemu-aarch64"  # newer releases
PROGRAM = Path(__file__).parents[1] / "support" / "native_kernels.c"
STRICT = ("-g", "-O1", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
MISSING = [command for command in (COMPILER, EMULATOR) if shutil.which(command) is None]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program that compares the inner loops, compiled for ARM with the library's own build."""
    folder = tmp_path_factory.mktemp("aarch64")
    library, made = folder / "libfunasr.so", folder / "program"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", COMPILER)
        build.compile_library(library, [*STRICT, "-fvisibility=default"], "aarch64")
    command = [
        COMPILER,
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        *STRICT,
        f"-I{build.SOURCES}",
        str(PROGRAM),
        str(library),
    ]
    subprocess.run([*command, f"-Wl,-rpath,{folder}", "-lm", "-o", str(made)], check=True)
    return made


def run(program: Path, cpu: str) -> subprocess.CompletedProcess[str]:
    command = [EMULATOR, "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", str(program)]
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # which an emulator cannot do
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("cpu", "sets"),
    [("max", ["neon", "scalar"]), ("neoverse-n1", ["neon", "scalar"]), ("cortex-a72", ["scalar"])],
)
def test_the_inner_loops_agree(cpu: str, sets: list[str], program: Path) -> None:
    """Where the CPU has the dot product of bytes; where it has not, plain C computes."""
    done = run(program, cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == sets

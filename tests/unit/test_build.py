"""Compiling the CPU engine: with sanitizers, in odd places, and where there is no compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.native import NAMED

from funasr_cli.native import build
from funasr_cli.native.library import instruction_sets, load

TESTS = Path(__file__).parents[1]
SANITIZERS = (
    "-g",
    "-O1",
    "-fvisibility=default",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
)
HAS_COMPILER = build.compiler() is not None
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler")


@needs_compiler
@pytest.mark.process
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """In all that the library's own tests do."""
    library = tmp_path / "libfunasr.so"
    build.compile_library(library, SANITIZERS)
    compiler = str(build.compiler())
    runtimes = [
        subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        for name in ("libasan.so", "libubsan.so")
    ]
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=quick",
            *map(str, sorted((TESTS / "unit").glob("test_native_*.py"))),
        ],
        env=os.environ | {
            NAMED: str(library),
            "LD_PRELOAD": " ".join(runtime.strip() for runtime in runtimes),
            "ASAN_OPTIONS": "detect_leaks=0",  # of Python itself
        },
        cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@needs_compiler
@pytest.mark.process
def test_in_a_folder_with_spaces(tmp_path: Path) -> None:
    """An earlier library is replaced, also while it is open."""
    library = tmp_path / "a folder, with spaces" / "libfunasr.so"
    library.parent.mkdir()
    build.compile_library(library)
    first = load(library)
    build.compile_library(library)
    assert instruction_sets(load(library)) == instruction_sets(first)
    assert [path.name for path in library.parent.iterdir()] == [library.name]


@pytest.mark.process
@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_working_compiler(compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(RuntimeError):
        build.compile_library(tmp_path / "libfunasr.so")
    assert not list(tmp_path.iterdir())


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    assert not build.is_wanted()


@pytest.mark.skipif(sys.platform != "linux" or not HAS_COMPILER, reason="it is built on Linux")
def test_it_was_built_with_this_package() -> None:
    """Or the tests of it would be skipped unnoticed."""
    assert build.LIBRARY.is_file()

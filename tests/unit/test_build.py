"""Compiling the CPU engine: with sanitizers, in odd places, where there is no compiler, and for a wheel."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support.native import EMULATING, NAMED

from funasr_cli.native import build, library
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
    """In all that the library's own tests do, with AMX emulated."""
    library = tmp_path / "libfunasr.so"
    build.compile_library(library, [*SANITIZERS, EMULATING])
    compiler = build.compiler()
    assert compiler
    runtimes = [
        subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        for name in ("libasan.so", "libubsan.so")
    ]
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=quick",
            *map(str, sorted((TESTS / "unit").glob("test_native_*.py"))), "-m", "not process",
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
    load(build.LIBRARY)


@needs_compiler
@pytest.mark.process
def test_a_compiler_with_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = build.compiler()
    assert command
    monkeypatch.setenv("CC", f"{command[0]} -pipe '-DUNUSED=two words'")
    build.compile_library(tmp_path / "libfunasr.so")
    load(tmp_path / "libfunasr.so")


@needs_compiler
@pytest.mark.process
@pytest.mark.skipif(build.MACHINE != "x86_64", reason="flags of x86-64")
def test_a_compiler_that_lacks_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As gcc 9: AVX-VNNI, AMX and bfloat16 are left out, and the rest is as usual."""
    [command, *_] = build.compiler() or []
    old = tmp_path / "old-gcc"
    refused = 'case "$each" in -mavxvnni | -mamx-* | -mavx512bf16) exit 1 ;; esac'
    old.write_text(f'#!/bin/sh\nfor each; do {refused}; done\nexec {command} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("CC", str(old))
    build.compile_library(tmp_path / "libfunasr.so")
    usual = instruction_sets(load(build.LIBRARY))
    expected = tuple(name for name in usual if name not in ("avxvnni", "amx", "avx512bf16"))
    assert instruction_sets(load(tmp_path / "libfunasr.so")) == expected


@pytest.mark.parametrize("named", ["gcc 'unfinished", "  "])
def test_a_compiler_that_is_not_a_command(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", named)
    assert build.compiler() is None


@needs_compiler
@pytest.mark.process
@pytest.mark.parametrize(
    "source", ["int fn_other(void) { return 0; }", 'const char *fn_sources(void) { return "old"; }']
)
def test_a_library_of_other_sources(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one without a function that is called: neither is used, and `info` says why."""
    stale = tmp_path / "libfunasr.so"
    (tmp_path / "stale.c").write_text(source)
    subprocess.run([*(build.compiler() or []), "-shared", "-fPIC", "-o", stale, tmp_path / "stale.c"], check=True)
    with pytest.raises(OSError, match="other sources"):
        load(stale)
    monkeypatch.setattr(library, "_loaded", lambda: load(stale))
    assert "other sources" in str(library.why_missing())
    assert library.library() is None


@pytest.mark.skipif(sys.platform != "linux", reason="it exists for Linux only")
def test_why_it_was_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler printed is kept, for a reason that names its file, until it succeeds."""
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "libfunasr.so")
    monkeypatch.setattr(library, "LOG", tmp_path / "build.log")
    assert "not compiled" in str(library.why_missing())
    assert "build.log" not in str(library.why_missing())
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no C compiler" in str(build.build(tmp_path))
    assert "no C compiler" in (tmp_path / "build.log").read_text()
    assert str(tmp_path / "build.log") in str(library.why_missing())
    if HAS_COMPILER:
        monkeypatch.delenv("CC")
        assert build.build(tmp_path) is None
        assert [path.name for path in tmp_path.iterdir()] == ["libfunasr.so"]


def hook(root: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> Any:
    """Load the build hook, with a stand-in for hatchling, which only installers have."""
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", TESTS.parent / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.NativeLibrary()
    made.root, made.app = str(root), SimpleNamespace(display_warning=warnings.append)
    return made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a source tree with the library and the log of earlier builds."""
    folder = tmp_path / "funasr_cli/native"
    folder.mkdir(parents=True)
    (folder / "build.py").write_bytes((build.FOLDER / "build.py").read_bytes())
    (folder / "src").symlink_to(build.SOURCES)
    for name in ("libfunasr.so", "build.log"):
        (folder / name).write_text("old")
    return tmp_path


def arrange(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that lead to this outcome of a build."""
    if outcome == "compiled" and not HAS_COMPILER:
        pytest.skip("no C compiler")
    if outcome == "failed":
        monkeypatch.setenv("CC", "false")
    if outcome == "switched off":
        monkeypatch.setenv(build.SWITCH, "0")


@pytest.mark.skipif(sys.platform != "linux", reason="it is built on Linux")
@pytest.mark.process
@pytest.mark.parametrize("outcome", ["compiled", "failed", "switched off"])
def test_a_wheel(outcome: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the library, or the log of what failed, and the source tree stays as it is."""
    arrange(outcome, monkeypatch)
    warnings: list[str] = []
    made, data = hook(tree, monkeypatch, warnings), {"force_include": {}, "pure_python": True}
    made.initialize("standard", data)
    name = {"compiled": "libfunasr.so", "failed": "build.log"}.get(outcome)
    assert list(data["force_include"].values()) == ([f"funasr_cli/native/{name}"] if name else [])
    assert ("tag" in data, data["pure_python"]) == ((True, False) if outcome == "compiled" else (False, True))
    assert len(warnings) == (outcome == "failed")
    [*paths] = map(Path, data["force_include"])
    assert all(path.stat().st_size for path in paths)
    made.finalize("standard", data, "")
    assert not any(path.exists() for path in paths)
    for old in ("libfunasr.so", "build.log"):
        assert (tree / "funasr_cli/native" / old).read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="it is built on Linux")
@pytest.mark.process
@pytest.mark.parametrize("outcome", ["compiled", "failed", "switched off"])
def test_an_editable_install(outcome: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library or the log is made in the source tree; what an earlier build left is removed."""
    arrange(outcome, monkeypatch)
    warnings: list[str] = []
    made, data = hook(tree, monkeypatch, warnings), {"force_include": {}, "pure_python": True}
    made.initialize("editable", data)
    made.finalize("editable", data, "")
    assert data == {"force_include": {}, "pure_python": True}
    names = {"compiled": ["libfunasr.so"], "failed": ["build.log"], "switched off": []}[outcome]
    folder = tree / "funasr_cli/native"
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(["build.py", *names])
    assert all(
        name not in ("libfunasr.so", "build.log") or (folder / name).read_bytes() != b"old" for name in names
    )
    assert len(warnings) == (outcome == "failed")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(build, "compile_library", no_space)
    assert build.build(tmp_path / "missing") == "read-only"


@pytest.mark.skipif(sys.platform != "linux", reason="it exists for Linux only")
@pytest.mark.parametrize(("machine", "part"), [("x86_64", "AVX2"), ("aarch64", "asimddp"), ("riscv64", "riscv64")])
def test_a_cpu_that_it_is_slow_on(machine: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LIBRARY", Path(__file__))
    monkeypatch.setattr(library, "_loaded", lambda: None)
    monkeypatch.setattr(library, "instruction_sets", lambda _: (library.SLOWEST,))
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert part in str(library.why_missing())

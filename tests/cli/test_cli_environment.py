"""The program and its machine: start-up, imports, BLAS, MLX, encodings."""

import json
import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
from support.expected import summary
from support.running import COMMAND, PYTHON, environment, funasr, invoke

import funasr_cli

HEAVY = {*"mlx numpy torch librosa soundfile soxr tokenizers huggingface_hub safetensors yaml".split()}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no BLAS is opened")


MODULES = """
import json, sys
from funasr_cli.cli.app import main
for line in json.loads(sys.argv[1]):
    sys.argv = ["funasr", *line]
    try:
        main()
    except SystemExit:
        pass
print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)
"""


def modules_of(*lines: list[str], **env: str) -> set[str]:
    """Return the top-level packages that these runs import, one after the other in a process."""
    command = [PYTHON, "-c", MODULES, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, check=True, env=environment(**env))
    return set(json.loads(done.stderr.decode().splitlines()[-1]))


def test_nothing_heavy_is_imported_for_help_and_usage_errors() -> None:
    typed = (
        "--help", "--version", "transcribe --help", "convert -h", "bench --help", "transcribe a.wav --top-k 3",
        "convert x --dtype float16",
    )  # fmt: skip
    imported = modules_of(*(line.split() for line in typed))
    assert "funasr_cli" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("line", ["funasr transcribe --lang z", "funasr transcribe -f srt,"])
def test_nothing_heavy_is_imported_to_complete(line: str) -> None:
    """Completion must be fast."""
    typed = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    assert not modules_of([], **typed, _FUNASR_COMPLETE="complete_bash") & HEAVY


def test_transcribing_imports_nothing_that_converts_or_draws(
    small_model: Path, short_wav: Path, tmp_path: Path
) -> None:
    options = ["--max-tokens", "1", "-f", "all", "-o", str(tmp_path)]
    imported = modules_of(["transcribe", "-m", str(small_model), str(short_wav), *options])
    assert {"mlx", "soundfile"} <= imported
    assert not imported & {
        "torch", "librosa", "huggingface_hub", "yaml", "matplotlib", "numba", "scipy", "sklearn",
    }  # fmt: skip


@pytest.mark.parametrize("error", [RuntimeError("[malloc] Unable to allocate"), MemoryError(), KeyError("a")])
def test_an_unexpected_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The message and the exit code are distinct from others; the traceback is printed only on request."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("funasr_cli.cli.transcribe.find_inputs", fail)
    invoke("transcribe", "a.wav").assert_error(70, "unexpected", type(error).__name__, str(error))
    traced = invoke("transcribe", "a.wav", env={"FUNASR_TRACEBACK": "1"})
    assert (traced.exit_code, traced.stdout) == (70, "")
    assert traced.stderr.startswith("Traceback (most recent call last):\n")
    assert "in fail\n" in traced.stderr


def test_help_calls_the_program_funasr() -> None:
    result = funasr("--help", env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert "Usage: funasr [OPTIONS] COMMAND [ARGS]..." in result.stdout
    assert "__main__" not in result.stdout
    assert "\x1b" not in result.stdout
    for command in ("convert", "transcribe", "bench"):
        assert f"Usage: funasr {command} " in invoke(command, "-h").stdout


@pytest.mark.parametrize(
    "command", [COMMAND, *([str(Path(PYTHON).with_name(name))] for name in ("funasr", "funasr-cli"))]
)
def test_version(command: list[str]) -> None:
    if not Path(command[0]).exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run([*command, "--version"], capture_output=True, check=True, env=environment())
    assert done.stdout.decode() == f"funasr-cli {funasr_cli.__version__}\n"


def test_no_arguments() -> None:
    """The help is printed as an error, because nothing was done."""
    result = funasr()
    assert (result.exit_code, result.stderr) == (2, "")
    assert "Usage: funasr" in result.stdout


@linux_only
@pytest.mark.parametrize("library", ["/nowhere/libblas.so", "not-a-library", find_library("m"), os.devnull])
def test_a_blas_that_is_not_one(library: str, small_model: Path, short_wav: Path) -> None:
    env = {"FUNASR_BLAS": library}
    arguments = ("bench", "--rtf", "-m", small_model) if library == os.devnull else ("transcribe", short_wav)
    funasr(*arguments, env=env).assert_fails(5, f"FUNASR_BLAS={library}: ")


@linux_only
def test_a_chosen_blas(small_model: Path, short_wav: Path) -> None:
    """The library that is loaded by default can be named, and an empty name is ignored."""
    from funasr_cli.compute.backend import BLAS

    arguments = ("bench", "--rtf", "-m", small_model, short_wav, "--trials", 1, "--max-tokens", 1, "--json")
    device = json.loads(funasr(*arguments).stdout)["device"]
    assert json.loads(funasr(*arguments, env={"FUNASR_BLAS": ""}).stdout)["device"] == device
    if BLAS:
        assert json.loads(funasr(*arguments, env={"FUNASR_BLAS": BLAS}).stdout)["device"] == device
        assert os.path.basename(BLAS) in device or device == "GPU"


@pytest.mark.parametrize("command", ["transcribe -m demo a.wav", "bench --rtf -m demo", "convert Nano out"])
def test_mlx_cannot_be_imported(command: str, small_checkpoint: Path, short_wav: Path, tmp_path: Path) -> None:
    """Plain `mlx` from PyPI has no back end on Linux."""
    (tmp_path / "Nano").symlink_to(small_checkpoint)
    (tmp_path / "a.wav").symlink_to(short_wav)
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx/__init__.py").touch()
    (tmp_path / "mlx/core.py").write_text("raise ImportError('libmlx.so: cannot open shared object file')")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(funasr_cli.__file__).parents[1]}"}
    funasr(*command.split(), env=env, cwd=tmp_path).assert_fails(5, "'.[cpu]'", "'.[cuda12]'")
    report = funasr("info", env=env, cwd=tmp_path)
    assert report.exit_code == 0
    assert funasr_cli.__version__ in report.stdout
    assert "MLX has no back end" in report.stderr


def run_in(encoding: str, *arguments: object) -> tuple[int, bytes, bytes]:
    env = environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, env=env)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("options", [(), ("--stream",), ("--format", "json")])
def test_locales_without_the_characters_of_the_text(
    stopping_model: Path, zh_wav: Path, options: tuple[str, ...]
) -> None:
    """Characters that the terminal's encoding lacks are escaped; no transcript is lost to an exception."""
    text = funasr_cli.load(str(stopping_model)).transcribe(zh_wav, vad=False).text
    assert not text.isascii()
    code, stdout, stderr = run_in("ascii", "transcribe", "-m", stopping_model, zh_wav, "--no-vad", *options)
    assert (code, stderr.decode()) == (0, summary("0:06"))
    assert text.encode("ascii", "backslashreplace") in stdout


@pytest.mark.skipif(sys.platform != "linux", reason="file names must be text there")
def test_file_names_that_are_not_text(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    """The name is printed as its original bytes; JSON and files get an escaped form."""
    clip = os.fsencode(tmp_path) + b"/a\xff.wav"
    Path(os.fsdecode(clip)).write_bytes(short_wav.read_bytes())
    base = ("transcribe", "-m", small_model, "--max-tokens", 1)
    named = funasr(*base, os.fsdecode(clip), os.fsdecode(clip))
    assert named.stdout.startswith(os.fsdecode(clip) + ": ")
    data = funasr(*base, os.fsdecode(clip), "-f", "json")
    assert json.loads(data.stdout)["source"] == f"{tmp_path}/a\ufffd.wav"
    written = funasr(*base, os.fsdecode(clip), "-f", "json", "-o", tmp_path / "out")
    assert {named.exit_code, data.exit_code, written.exit_code} == {1}, "cut short"
    assert b"a\xff.json" in os.listdir(os.fsencode(tmp_path / "out"))
    funasr("transcribe", "-m", small_model, os.fsdecode(clip) + "x").assert_fails(1, "a\ufffd.wavx: no such file")

"""The process environment: closed or full streams, terminals, unusual settings."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.hub_server import Hub, serving
from support.running import COMMAND, Result, environment, funasr, invoke, tree
from support.terminal import on_terminal, screen

from funasr_cli import demo
from funasr_cli.benchmarks.memory import run_memory
from funasr_cli.cli import app

CLIP = demo.clips()[0]
BASE = ("transcribe", "-m", "demo", CLIP.path)


def in_shell(line: str) -> Result:
    """Run a command in a shell that redirects its streams."""
    command = ["sh", "-c", line.replace("funasr ", f"{' '.join(COMMAND)} ", 1)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
    return Result(done.returncode, done.stdout, done.stderr)


MEASURE = "bench --rtf --synthetic demo --durations 1 --trials 1"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
@pytest.mark.parametrize(
    "arguments", ["", "--help", "transcribe --help", "--version", "models", "info", MEASURE, f"{MEASURE} --json"]
)
def test_output_to_a_full_device(arguments: str) -> None:
    in_shell(f"funasr {arguments} > /dev/full").assert_error(1, "disk-full", os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("redirected", ["2>/dev/full", "<&-"])
def test_streams_that_do_not_matter(redirected: str) -> None:
    """A lost message does not affect the result. An opened file must not get the descriptor of a closed stream."""
    result = in_shell(f"funasr transcribe -m demo {CLIP.path} {redirected}")
    assert (result.exit_code, result.stdout) == (0, f"{CLIP.written}\n")


def test_standard_output_that_is_closed(tmp_path: Path) -> None:
    """Text would be lost, so this is an error, found immediately. Results in files are still written."""
    for command in ("transcribe -q", "bench --rtf"):
        in_shell(f"funasr {command} -m nowhere {CLIP.path} >&-").assert_error(1, "stdout-closed")
    assert in_shell(f"funasr transcribe -m demo {CLIP.path} -q -o {tmp_path} >&-") == Result(0, "", "")
    assert (tmp_path / f"{CLIP.path.stem}.txt").read_text() == f"{CLIP.written}\n"


def test_ctrl_c_before_there_is_a_program(tmp_path: Path) -> None:
    """Ctrl-C works from the first moment, even while modules are being imported."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    result = funasr(*BASE, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"})
    assert result == Result(130, "", "warning: interrupted\n")


@pytest.mark.parametrize("name", ["funasr", "funasr-cli"])
def test_usage_shows_the_name_it_was_called_by(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [f"/somewhere/{name}", "transcribe"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"see {name} transcribe --help\n")


def test_paths_that_the_system_rejects() -> None:
    name = "a" * 300
    result = invoke(*BASE, "-o", name)
    result.assert_error(1, "output-unwritable", name, "--output-dir")
    assert "inputs failed" not in result.stderr, "it is reported once, before any input is read"
    invoke("models", env={"FUNASR_HOME": name}).assert_error(1, "path-refused", f"{name}/models")


# --- settings ---


@pytest.mark.slow
def test_home_in_settings(tmp_path: Path) -> None:
    """No shell expands ~ in a settings file."""
    (tmp_path / "words.txt").write_text("seven\n")
    config = tmp_path / "config.toml"
    config.write_text('[transcribe]\noutput-dir = "~/out"\nhotwords-file = "~/words.txt"\n')
    env = {"HOME": str(tmp_path)}
    assert invoke(*BASE, env=env | {"FUNASR_CONFIG": str(config)}).exit_code == 0
    assert invoke(*BASE, "--force", env=env | {"FUNASR_OUTPUT_DIR": "~/out"}).exit_code == 0
    assert set(tree(tmp_path / "out")) == {f"{CLIP.path.stem}.txt"}


@pytest.mark.process
def test_measuring_ignores_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_OUTPUT_DIR", str(tmp_path / "out"))
    for _ in range(2):
        [cost] = run_memory(
            {"demo": ["-m", str(demo.MODEL), "--max-tokens", "2"]}, [CLIP.path], [2.0], lambda _: None
        )
        assert cost.peak_bytes > 1 << 20
    assert not (tmp_path / "out").exists()


# --- devices and types ---


def test_a_missing_device() -> None:
    import mlx.core

    if mlx.core.is_available(mlx.core.gpu):
        pytest.skip("there is a GPU")
    for command in (BASE, ("bench", "--rtf", "-m", "demo", CLIP.path)):
        funasr(*command, "--device", "gpu").assert_error(5, "device-missing", "gpu")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "stored"])
def test_types_to_compute_in(dtype: str) -> None:
    result = invoke(*BASE, "--dtype", dtype, "--device", "cpu", "-v")
    assert (result.exit_code, result.stdout) == (0, f"{CLIP.written}\n")
    weights = "float32 (stored as bfloat16)" if dtype == "float32" else "bfloat16"
    lines = result.stderr.splitlines()
    assert lines[0].startswith("warning: --dtype") == (dtype != "float32"), "it is slow on a CPU"
    assert lines[dtype != "float32"].endswith(f", {weights}")


# --- downloads on a terminal ---


def test_a_download_on_a_terminal(small_checkpoint: Path, tmp_path: Path) -> None:
    """One line is redrawn and removed at the end. The hub's client prints nothing."""
    source = tmp_path / "source"
    shutil.copytree(small_checkpoint, source)
    with serving(Hub(source)) as hub:
        code, shown, _ = on_terminal(
            "convert", "owner/model", str(tmp_path / "out"), "--verify", "off",
            HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="0",
            HF_HUB_DISABLE_TELEMETRY="1", NO_PROXY="127.0.0.1",
        )  # fmt: skip
    assert code == 0
    assert re.search(r"downloading +(\x1b\[[\d;]*m)*[━╸╺ ]+", shown)
    assert "Fetching" not in shown
    assert "Reconstruct" not in shown
    lines = screen(shown)
    starts = (
        "87 tensors in the layout of FunASR, ", "languages: zh, en, ja", "CTC head, ", "SHA-256 of the source: ",
        "SHA-256 of the weights: ", str(tmp_path / "out"),
    )  # fmt: skip
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines

"""`pip install .` of what an sdist holds: with a compiler, without one, switched off; in a folder with spaces."""

import json
import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.native import SETS

from funasr_cli.demo import clips
from funasr_cli.native import build

ROOT = Path(__file__).parents[2]
CLIP = clips()[0]
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it is compiled on Linux"),
    pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed"),
    pytest.mark.process,
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the source tree of an sdist."""
    folder = tmp_path_factory.mktemp("a folder, with spaces")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    [archive] = folder.iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()
    [unpacked] = folder.iterdir()
    return unpacked


def install(tree: Path, folder: Path, **variables: str) -> None:
    """Install into a folder, without the network."""
    options = [
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--no-compile",
        "--quiet",
        "--target",
        str(folder),
    ]
    command = [sys.executable, "-m", "pip", "install", *options, "."]
    subprocess.run(command, cwd=tree, env=os.environ | variables, capture_output=True, check=True)


def run(folder: Path, *arguments: str) -> str:
    """Run the installed program; return its results."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "funasr_cli", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout


@pytest.mark.skipif(build.compiler() is None, reason="no C compiler")
def test_with_a_compiler(tree: Path, tmp_path: Path) -> None:
    installed = tmp_path / "another folder, with spaces"
    install(tree, installed)
    [wheel] = installed.glob("*.dist-info/WHEEL")
    assert f"Tag: py3-none-linux_{build.MACHINE}\n" in wheel.read_text()
    facts = json.loads(run(installed, "info", "--json"))
    assert facts["native engine"].startswith(", ".join(SETS))
    if len(SETS) > 1:  # of plain C only, it is not used
        result = json.loads(
            run(installed, "transcribe", "-m", "demo", "--engine", "native", "-f", "jsonl", str(CLIP.path))
        )
        assert result["text"] == CLIP.written
        assert result["engine"].startswith("native int8")
        assert result["engine"].endswith(SETS[0])


@pytest.mark.parametrize(
    ("variables", "log"), [({"PATH": "", "CC": ""}, "no C compiler"), ({build.SWITCH: "0"}, None)]
)
def test_without_the_engine(variables: dict[str, str], log: str | None, tree: Path, tmp_path: Path) -> None:
    """The wheel is for every system, MLX computes, and `info` says what is missing."""
    install(tree, tmp_path, **variables)
    [wheel] = tmp_path.glob("*.dist-info/WHEEL")
    assert "Tag: py3-none-any\n" in wheel.read_text()
    written = tmp_path / "funasr_cli/native/build.log"
    assert written.is_file() == (log is not None)
    assert log is None or log in written.read_text()
    reason = json.loads(run(tmp_path, "info", "--json"))["native engine"]
    assert reason.startswith("not available")
    assert (str(written) in reason) == (log is not None)
    result = json.loads(run(tmp_path, "transcribe", "-m", "demo", "-f", "jsonl", str(CLIP.path)))
    assert (result["text"], result["engine"]) == (CLIP.written, "mlx float32, CPU")

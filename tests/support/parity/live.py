"""Run the PyTorch reference on a checkpoint, once, and pair its results with our own model."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoints import CheckpointSpec, write_checkpoint
from support.small import convert, once

from funasr_cli.families.load import load_model
from funasr_cli.options import MLX
from funasr_cli.pipeline import Recognizer

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / "tests/support/parity/record.py"
LAYOUTS_SCRIPT = REPOSITORY / "tests/support/parity/reference_layouts.py"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": ""}
VARIABLE = "REFERENCE_PYTHON"

Jobs = list[dict[str, Any]]


def reference_python() -> Path:
    """Return the Python that has FunASR. If it is missing, fail in CI or if it was named explicitly, else skip."""
    stated = os.environ.get(VARIABLE)
    python = Path(stated) if stated else REPOSITORY / ".venv-reference/bin/python"
    if not python.is_file():
        reason = f"no PyTorch reference: {python} does not exist; `make test` sets it up, or set {VARIABLE}"
        (pytest.fail if stated or os.environ.get("CI") else pytest.skip)(reason)
    return python


def run_reference(*arguments: Path | str) -> None:
    """Run a script in the reference's environment."""
    done = subprocess.run(
        [reference_python(), *arguments], env=os.environ | OFFLINE, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, arguments))} failed:\n{done.stderr[-4000:]}")


def in_reference(command: str, source: Path, out: Path, *more: str) -> Path:
    """Run one of the commands of `reference_layouts.py`, and return the folder it has written."""
    run_reference(LAYOUTS_SCRIPT, command, source, out, *more)
    return out


@dataclass(frozen=True)
class Case:
    """An input of the reference, and all of its results."""

    job: dict[str, Any]
    report: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """The case's name in the job."""
        return self.job["name"]


@dataclass(frozen=True)
class Pair:
    """A converted checkpoint and the reference's results on the original."""

    model: Path
    cases: dict[str, Case]  # including batches

    def recognizer(self, engine: str = MLX) -> Recognizer:
        """A freshly loaded model in float32, which a test may modify."""
        return Recognizer(load_model(self.model, "float32", engine))


def run_pair(
    factory: pytest.TempPathFactory, name: str, spec: CheckpointSpec, cases: Jobs, batches: Jobs | None = None
) -> Pair:
    """Write a random checkpoint, convert it in float32 and run the reference on it: once, for all workers.

    `name` is the name of the folder. Cases and batches have the format of `funasr_cli/verification/reference.py`.
    """
    # Threads do not speed up matrices this small, and on a busy machine they wait for each other very long.
    content = {"threads": 1, "cases": cases, "batches": batches or []}

    def make(folder: Path) -> None:
        checkpoint, job = write_checkpoint(folder / name, spec), folder / "job.json"
        stated = json.dumps({"checkpoint": str(checkpoint), **content}, default=str, ensure_ascii=False)
        job.write_text(stated, encoding="utf-8")
        run_reference(SCRIPT, job, folder / "answers")
        convert(checkpoint, folder / "mlx", dtype="float32")

    folder = once(factory, f"pair-{name}", make)
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    arrays: dict[str, dict[str, np.ndarray]] = {asked: {} for asked in answers}
    with np.load(folder / "answers.npz") as stored:
        for path in stored.files:
            asked, _, what = path.rpartition("/")
            arrays[asked][what] = stored[path]
    jobs = {job["name"]: job for job in (*cases, *(batches or []))}
    return Pair(folder / "mlx", {asked: Case(job, answers[asked], arrays[asked]) for asked, job in jobs.items()})

"""Runs the PyTorch reference on a checkpoint, once, and pairs what it says with our own model."""

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
from funasr_cli.pipeline import Recognizer

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / "tests/support/parity/record.py"
LAYOUTS_SCRIPT = REPOSITORY / "tests/support/parity/reference_layouts.py"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": ""}
VARIABLE = "REFERENCE_PYTHON"

Jobs = list[dict[str, Any]]


def reference_python() -> Path:
    """Interpreter that has FunASR; where it may be missing the test is skipped, elsewhere it fails."""
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
    """Run one of the commands of `reference_layouts.py`, and return where it has written."""
    run_reference(LAYOUTS_SCRIPT, command, source, out, *more)
    return out


@dataclass(frozen=True)
class Case:
    """What was asked of the reference, and everything it answered."""

    job: dict[str, Any]
    report: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """As in the job."""
        return self.job["name"]


@dataclass(frozen=True)
class Pair:
    """A checkpoint's conversion and the reference's answers on the checkpoint itself."""

    model: Path
    cases: dict[str, Case]  # batches among them

    def recognizer(self) -> Recognizer:
        """A freshly loaded one, in float32: free to be tampered with."""
        return Recognizer(load_model(self.model, "float32"))


def run_pair(
    factory: pytest.TempPathFactory, name: str, spec: CheckpointSpec, cases: Jobs, batches: Jobs | None = None
) -> Pair:
    """Write a random checkpoint, convert it in float32 and run the reference on it: once, for all workers.

    The folder has that name. Cases and batches are as `funasr_cli/verification/reference.py` takes them.
    """
    # Matrices this small gain nothing from threads, which wait for each other for ever on a busy machine.
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

"""FunASR's own model on PyTorch, in a process of its own."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from funasr_cli.errors import ModelError
from funasr_cli.verification.reference_python import reference_python
from funasr_cli.verification.stages import Stages

SCRIPT = Path(__file__).with_name("reference.py")
CASE = "clip"
ARRAYS = ("features", "encoder", "audio_rows", "generated_ids", "forced_logits")


def run_reference(folder: Path, clip: Path, forced_ids: Sequence[int]) -> Stages:
    """A clip's way through the reference, in float32.

    Args:
        folder: a checkpoint in FunASR's layout.
        clip: to read.
        forced_ids: whose logits are wanted.

    Raises:
        SetupError: the reference is not installed.
        ModelError: it failed.
    """
    python = reference_python()
    with tempfile.TemporaryDirectory(prefix="funasr-reference-") as temporary:
        job, out = Path(temporary, "job.json"), Path(temporary, "out")
        case = {"name": CASE, "audio": str(clip), "max_tokens": len(forced_ids), "forced_ids": list(forced_ids)}
        job.write_text(json.dumps({"checkpoint": str(folder.resolve()), "cases": [case]}), encoding="utf-8")
        command = [python, SCRIPT, job, out]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=_environment(), cwd=temporary
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"{folder}: the PyTorch reference failed ({last})", "see whether it runs by itself")
        report = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))[CASE]
        with np.load(out.with_suffix(".npz")) as arrays:
            found = {name: arrays[f"{CASE}/{name}"] for name in ARRAYS}
    return Stages(
        features=found["features"],
        encoder=found["encoder"],
        audio_rows=found["audio_rows"],
        token_ids=tuple(found["generated_ids"].tolist()),
        logits=found["forced_logits"],
        text=report["text"],
    )


def _environment() -> dict[str, str]:
    """Nobody asks the network, and this package is not in the way of the one that is called FunASR."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

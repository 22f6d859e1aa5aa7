"""FunASR's own model on PyTorch, in a process of its own."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from funasr_cli.decoding.languages import LANGUAGES
from funasr_cli.errors import ModelError
from funasr_cli.verification.reference_python import reference_python
from funasr_cli.verification.stages import Stages

SCRIPT = Path(__file__).with_name("reference.py")
CASE = "clip"
ARRAYS = ("features", "encoder", "audio_rows", "generated_ids", "forced_logits")
TEXT_TOKENS = 256  # of a clip at most, where only its text is wanted


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
    case = {"name": CASE, "audio": str(clip), "max_tokens": len(forced_ids), "forced_ids": list(forced_ids)}
    reports, arrays = _run(folder, {"cases": [case]})
    found = {name: arrays[f"{CASE}/{name}"] for name in ARRAYS}
    return Stages(
        features=found["features"],
        encoder=found["encoder"],
        audio_rows=found["audio_rows"],
        token_ids=tuple(found["generated_ids"].tolist()),
        logits=found["forced_logits"],
        text=reports[CASE]["text"],
    )


def reference_texts(folder: Path, clips: Sequence[tuple[Path, str]]) -> list[str]:
    """What the reference writes for clips, each read in one piece, in float32; outer white space is left out.

    Args:
        folder: a checkpoint in FunASR's layout.
        clips: paths and the ISO codes of their languages.

    Raises:
        SetupError: the reference is not installed.
        ModelError: it failed.
    """
    batches: list[dict[str, Any]] = [
        {
            "name": str(number),
            "audio": [str(path.resolve())],
            "language": LANGUAGES[code].prompt_name,
            "max_tokens": TEXT_TOKENS,
        }
        for number, (path, code) in enumerate(clips)
    ]
    reports, _ = _run(folder, {"batches": batches})
    return [reports[batch["name"]]["texts"][0].strip() for batch in batches]


def _run(folder: Path, work: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the script reports on a job, and its arrays."""
    python = reference_python()
    with tempfile.TemporaryDirectory(prefix="funasr-reference-") as temporary:
        job, out = Path(temporary, "job.json"), Path(temporary, "out")
        job.write_text(json.dumps({"checkpoint": str(folder.resolve()), **work}), encoding="utf-8")
        command = [python, SCRIPT, job, out]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=_environment(), cwd=temporary
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"{folder}: the PyTorch reference failed ({last})", "see whether it runs by itself")
        reports = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(out.with_suffix(".npz")) as arrays:
            return reports, dict(arrays)


def _environment() -> dict[str, str]:
    """Nobody asks the network, and this package is not in the way of the one that is called FunASR."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

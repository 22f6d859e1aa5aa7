"""FunASR's own model on PyTorch, in a process of its own."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.export import LLM_FOLDER
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE
from funasr_cli.checkpoints.layouts.funasr import UPSTREAM_CONFIG, UPSTREAM_WEIGHTS
from funasr_cli.checkpoints.untrusted import readable, reason_in_a_line
from funasr_cli.checkpoints.upstream import upstream_options
from funasr_cli.errors import ModelError, SetupError
from funasr_cli.languages import LANGUAGES
from funasr_cli.verification.reference_python import reference_python
from funasr_cli.verification.stages import Stages

SCRIPT = Path(__file__).with_name("reference.py")
CASE = "clip"
ARRAYS = ("features", "encoder", "audio_rows", "generated_ids", "forced_logits")
TEXT_TOKENS = 256  # of a clip at most, where only its text is wanted
NOT_PASSED_ON = ("PYTHONPATH", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")  # torch refuses this one beside its opposite
TEMPORARY_HINT = "make room there, or name another folder in TMPDIR"


def run_reference(checkpoint: Checkpoint, clip: Path, forced_ids: Sequence[int]) -> Stages:
    """A clip's way through the reference, in float32.

    Args:
        checkpoint: opened; in FunASR's layout.
        clip: to read.
        forced_ids: whose logits are wanted.

    Raises:
        SetupError: the reference is not installed, or the temporary folder cannot be written.
        ModelError: it failed.
    """
    case = {
        "name": CASE,
        "audio": str(clip.resolve()),
        "max_tokens": len(forced_ids),
        "forced_ids": list(forced_ids),
    }
    reports, arrays = _run(checkpoint, {"cases": [case]})
    found = {name: arrays[f"{CASE}/{name}"] for name in ARRAYS}
    return Stages(
        features=found["features"],
        encoder=found["encoder"],
        audio_rows=found["audio_rows"],
        token_ids=tuple(found["generated_ids"].tolist()),
        logits=found["forced_logits"],
        text=reports[CASE]["text"],
    )


def reference_texts(checkpoint: Checkpoint, clips: Sequence[tuple[Path, str]]) -> list[str]:
    """What the reference writes for clips, each read in one piece, in float32; outer white space is left out.

    Args:
        checkpoint: opened; in FunASR's layout.
        clips: paths and the ISO codes of their languages.

    Raises:
        SetupError: the reference is not installed, or the temporary folder cannot be written.
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
    reports, _ = _run(checkpoint, {"batches": batches})
    return [reports[batch["name"]]["texts"][0].strip() for batch in batches]


def _run(checkpoint: Checkpoint, work: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the script reports on a job, and its arrays."""
    python = reference_python()
    with _temporary_folder() as temporary:
        job, out, folder = (temporary / name for name in ("job.json", "out", "checkpoint"))
        _write_checkpoint(checkpoint, folder)
        job.write_text(json.dumps({"checkpoint": str(folder), **work}), encoding="utf-8")
        done = subprocess.run(
            [python, SCRIPT, job, out], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", check=False, env=_environment(), cwd=temporary,
        )  # fmt: skip
        if done.returncode:
            last = readable((done.stderr.strip().splitlines() or ["no message"])[-1])
            where = checkpoint.weights[0].parent
            raise ModelError(f"{where}: the PyTorch reference failed ({last})", "see whether it runs by itself")
        reports = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(out.with_suffix(".npz")) as arrays:
            return reports, dict(arrays)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Raises SetupError for what cannot be written there."""
    try:
        with tempfile.TemporaryDirectory(prefix="funasr-reference-") as folder:
            yield Path(folder)
    except OSError as error:
        where = tempfile.tempdir or "the temporary folder"
        raise SetupError(f"{where}: cannot be written ({reason_in_a_line(error)})", TEMPORARY_HINT) from error


def _write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """The checkpoint as the reference may see it.

    FunASR obeys a ``config.yaml`` that asks for code to be imported and packages to be installed, and transformers
    one of a decoder: theirs are written anew from what has been checked, beside links to files that have been.
    """
    options, llm_options = upstream_options(checkpoint.config, LLM_FOLDER)
    decoder = folder / LLM_FOLDER
    decoder.mkdir(parents=True)
    (folder / UPSTREAM_WEIGHTS).symlink_to(checkpoint.weights[0].resolve())
    for name, path in checkpoint.files.items():
        (folder if name == CTC_VOCABULARY_FILE else decoder).joinpath(name).symlink_to(path.resolve())
    if checkpoint.config.ctc:
        options["dataset_conf"]["ctc_tokenizer_conf"]["vocab_path"] = str(folder / CTC_VOCABULARY_FILE)
    (folder / UPSTREAM_CONFIG).write_text(yaml.safe_dump(options), encoding="utf-8")
    (decoder / "config.json").write_text(json.dumps(llm_options | {"torch_dtype": "float32"}), encoding="utf-8")


def _environment() -> dict[str, str]:
    """Nobody asks the network or unpickles code, and this package is not in the way of the one called FunASR."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    return kept | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}

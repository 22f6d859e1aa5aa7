"""The C library on a random decoder of the release's size: int8 compared with float32, and the memory it takes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT
from support.running import COMMAND, environment

from funasr_cli import demo
from funasr_cli.benchmarks.synthetic import write_synthetic
from funasr_cli.compute.backend import mx
from funasr_cli.families.load import load_model
from funasr_cli.verification.proof import Trace, trace

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(LIBRARY is None, reason=WITHOUT),
]
CLIPS = [clip.path for clip in demo.clips()][:2]
# Over the positions of these texts, of each position's logits. Measured: 0.99967 and 0.99999998.
COSINES = {"int8": 0.9995, "float32": 0.999999}
PEAK_BYTES = 2_200_000_000  # measured: 1.8e9


@pytest.fixture(scope="module")
def release_sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of 1.7 GB in our own layout."""
    return write_synthetic(tmp_path_factory.mktemp("native"), "full")


@pytest.fixture(scope="module")
def exact(release_sized: Path) -> list[Trace]:
    """What MLX computes in float32."""
    return traces(release_sized, "float32", "mlx", [None] * len(CLIPS))


def traces(folder: Path, dtype: str, engine: str, forced: list[tuple[int, ...] | None]) -> list[Trace]:
    """Load a model, run each clip through it, and free it: two would take too much memory."""
    model = load_model(folder, dtype, engine)
    try:
        return [trace(model, clip, ids) for clip, ids in zip(CLIPS, forced, strict=True)]
    finally:
        del model
        gc.collect()
        mx.clear_cache()


@pytest.mark.parametrize("dtype", COSINES)
def test_logits(dtype: str, release_sized: Path, exact: list[Trace]) -> None:
    found = traces(release_sized, dtype, "native", [each.token_ids for each in exact])
    for ours, theirs in zip(found, exact, strict=True):
        a, b = ours.logits.astype(np.float64), theirs.logits.astype(np.float64)
        cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)  # (steps,)
        assert len(cosines) == 24
        assert cosines.min() > COSINES[dtype]


def test_peak_memory_of_a_transcription(release_sized: Path, zh_wav: Path) -> None:
    """File pages count, too: what the process ever holds, from its first import on."""
    options = ["--engine", "native", "--dtype", "int8", "--max-tokens", "8", "-f", "json"]
    command = [*COMMAND, "transcribe", "-m", str(release_sized), "--no-vad", *options, str(zh_wav)]
    # A shell starts the process: Linux also counts the memory of the program that it replaces, here pytest.
    shell = ["sh", "-c", '"$0" "$@"; exit $?', *command]
    process = subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
    assert process.stdout
    content = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert content["engine"].startswith("native int8")
    assert 1_000_000_000 < usage.ru_maxrss * 1024 < PEAK_BYTES

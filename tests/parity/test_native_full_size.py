"""The C library on random networks of the release's size: int8 and bfloat16 compared with float32, and memory."""

from __future__ import annotations

import gc
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_map_with_path
from support.native import LIBRARY, WITHOUT
from support.native_arrays import Arrays
from support.running import COMMAND, environment

from funasr_cli import demo
from funasr_cli.benchmarks.synthetic import RELEASE, write_synthetic
from funasr_cli.compute.backend import mx
from funasr_cli.families.load import load_model
from funasr_cli.models.sanm import SANMEncoder, SANMLayer
from funasr_cli.native.encoder import NativeEncoder
from funasr_cli.native.library import BFLOAT16
from funasr_cli.native.networks import NativeSANM
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


def large_encoder(sharpness: float) -> SANMEncoder:
    """Make the release's encoder with random weights that lead to residuals above 1,000.

    The weights are bfloat16, as those of the release. ``sharpness`` is the factor of the attention's scores, whose
    standard deviation is about 1 without it.
    """
    network = SANMEncoder(RELEASE.encoder)
    mx.random.seed(5)

    def draw(path: str, value: mx.array) -> mx.array:
        if "norm" in path:
            drawn = 0.3 * mx.random.normal(value.shape) + (1 if path.endswith("weight") else 0)
        else:
            drawn = mx.random.normal(value.shape) * (value.shape[1] ** -0.5 if value.ndim > 1 else 0.1)
        if any(name in path for name in ("w_2", "linear_out", "fsmn")):
            drawn = drawn * 100  # what a layer adds to the residual
        if path.endswith("linear_q_k_v.weight"):
            drawn[: 2 * RELEASE.encoder.width] *= sharpness**0.5
        drawn = drawn.astype(mx.bfloat16).astype(mx.float32)
        mx.eval(drawn)
        return drawn

    network.update(tree_map_with_path(draw, network.parameters()))
    return network


@pytest.mark.parametrize("sharpness", [1, 4])
def test_an_encoder_with_large_values(sharpness: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of bfloat16, of residuals in float32. Measured: 0.999995 and 0.99996."""
    network = large_encoder(sharpness)
    peaks, original = list[float](), SANMLayer.__call__

    def recording(self: SANMLayer, x: mx.array, valid: mx.array | None) -> mx.array:
        out = original(self, x, valid)
        peaks.append(float(mx.abs(out).max()))
        return out

    monkeypatch.setattr(SANMLayer, "__call__", recording)
    features = np.random.default_rng(1).standard_normal((60, RELEASE.encoder.input_dim)).astype(np.float32)
    expected = np.array(network(mx.array(features)[None])[0]).astype(np.float64)  # (60, 512)
    assert max(peaks) > 1_000
    [found] = NativeSANM(NativeEncoder(LIBRARY), Arrays(network, BFLOAT16), RELEASE.encoder)([features])
    cosines = (found * expected).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() > 0.9999


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

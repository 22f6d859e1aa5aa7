"""Random models of the published sizes, 829.8 million and 4.45 billion parameters: conversion, transcription."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from safetensors import safe_open
from support.checkpoints import release_spec, write_checkpoint
from support.native import LIBRARY
from support.qwen4b import write_full
from support.running import COMMAND, environment, funasr

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's"),
]
RELEASE_PARAMETERS = 829_800_000
MEMORY_LIMIT_BYTES = 2_000_000_000


@pytest.fixture(scope="module")
def release_sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two gigabytes in bfloat16, in the release's layout."""
    return write_checkpoint(tmp_path_factory.mktemp("full") / "Fun-ASR-Nano-full", release_spec())


def peak_anonymous_bytes(process: subprocess.Popen[bytes]) -> int:
    """Return the largest RssAnon of a process until it ended."""
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if found := re.search(r"RssAnon:\s+(\d+) kB", status):
            peak = max(peak, 1024 * int(found[1]))
        time.sleep(0.01)
    return peak


@pytest.mark.parametrize("recipe", [(), ("--quantize", "4")])
def test_conversion_stays_below_two_gigabytes(
    release_sized: Path, tmp_path: Path, recipe: tuple[str, ...]
) -> None:
    command = [*COMMAND, "convert", str(release_sized), str(tmp_path / "out"), "--verify", "off", *recipe]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        peak = peak_anonymous_bytes(process)
    assert process.returncode == 0
    assert 10_000_000 < peak < MEMORY_LIMIT_BYTES


def test_it_transcribes(release_sized: Path, zh_wav: Path, tmp_path: Path) -> None:
    """The process never needs much more memory than the weights take in float32."""
    out = tmp_path / "out"
    assert funasr("convert", release_sized, out, "--verify", "off").exit_code == 0
    with safe_open(out / "model.safetensors", "np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    parameters = sum(map(math.prod, shapes))
    assert abs(parameters - RELEASE_PARAMETERS) < 100_000
    assert len(shapes) == 1260  # 1,261 without the tied head
    result = funasr("transcribe", "-m", out, zh_wav, "--lang", "zh", "--max-tokens", 4, "-f", "json")
    assert result.exit_code == 1
    transcript = json.loads(result.stdout)
    assert len(transcript["segments"]) == 2
    for segment in transcript["segments"]:
        assert (segment["tokens"], segment["stop_reason"]) == (4, "budget")
        assert -100 < segment["mean_logprob"] < 0


def test_four_billion_parameters_in_four_bits(zh_wav: Path, tmp_path: Path) -> None:
    """FunASR-Qwen4B: 10 GB of sources, and 3 GB of result, of which little more is in memory."""
    source, out = write_full(tmp_path / "source"), tmp_path / "out"
    command = [*COMMAND, "convert", str(source), str(out), "--verify", "off", "--quantize", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        peak = peak_anonymous_bytes(process)
    assert process.returncode == 0
    assert peak < 3_000_000_000
    assert sum(path.stat().st_size for path in out.iterdir() if path.is_file()) < 3_000_000_000
    shutil.rmtree(source)
    engine = ("--engine", "native", "--dtype", "int8") if LIBRARY else ("--dtype", "stored")
    options = ("--max-tokens", "4", "--no-vad", "-f", "json")
    command = [*COMMAND, "transcribe", "-m", str(out), str(zh_wav), *options, *engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        peak = peak_anonymous_bytes(process)
        content = process.communicate()[0]
    assert process.returncode == 1
    [segment] = json.loads(content)["segments"]
    assert (segment["tokens"], segment["stop_reason"]) == (4, "budget")
    assert peak < 3_700_000_000

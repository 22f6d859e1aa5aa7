"""Measure the memory needed for recordings of several lengths, each in a separate process."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.benchmarks.subjects import write_recording
from funasr_cli.errors import ExitCode, FunASRError
from funasr_cli.measure import reset_peak_process

DURATIONS_S = (600.0, 3600.0, 10800.0)
ACCEPTED = (ExitCode.OK, ExitCode.PARTIAL)
CUT_SHORT = (*ACCEPTED, ExitCode.INPUT_FAILED)  # with a token limit, every text may be incomplete
KEPT = ("FUNASR_BLAS", "FUNASR_TRACEBACK")  # other FUNASR_* variables are user settings for transcribing


@dataclass(frozen=True)
class MemoryCost:
    """Cost of transcribing a recording of one length."""

    case: str  # identifies the case, also in other measurements
    model: str
    audio_s: float
    peak_bytes: int  # peak resident memory of the process
    wall_s: float  # duration of the whole command, including loading the model


def run_memory(
    models: Mapping[str, Sequence[str]],
    paths: Sequence[Path],
    durations_s: Sequence[float],
    progress: Callable[[str], None],
) -> tuple[MemoryCost, ...]:
    """Transcribe files of several lengths with the ``funasr`` command.

    The files contain the clips, repeated, with pauses in between. ``models`` holds the command's arguments for
    each model: its folder and options.

    Raises:
        AudioError: a clip cannot be read.
        FunASRError: the command failed.
    """
    costs = []
    with tempfile.TemporaryDirectory() as work:
        for duration_s in durations_s:
            length = f"{duration_s / 60:g} min" if duration_s >= 60 else f"{duration_s:g} s"
            file = Path(work) / f"{duration_s:g}s.flac"
            progress(f"writing {length}")
            write_recording(file, paths, duration_s)
            for model, arguments in models.items():
                progress(f"transcribing {length}: {model}")
                peak_bytes, wall_s = _run([str(file), *arguments])
                costs.append(MemoryCost(f"{model}, {length}", model, duration_s, peak_bytes, wall_s))
            file.unlink()
    return tuple(costs)


def _run(arguments: list[str]) -> tuple[int, float]:
    """Return the peak resident memory of a transcription in bytes, and its duration in seconds."""
    command = [sys.executable, "-m", "funasr_cli", "transcribe", *arguments]
    kept = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith("FUNASR_")}
    variables = kept | {"FUNASR_CONFIG": os.devnull}
    reset_peak_process()  # a child process inherits the peak of its parent
    started = time.perf_counter()
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=variables)
        _, status, usage = os.wait4(process.pid, 0)  # the only way to get the peak of a single child
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (CUT_SHORT if "--max-tokens" in arguments else ACCEPTED):
            stderr.seek(0)
            message = f"funasr transcribe failed with exit code {process.returncode}: {stderr.read().decode()}"
            raise FunASRError(message, code="command-failed")
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024  # Linux counts in KiB
    return peak, time.perf_counter() - started

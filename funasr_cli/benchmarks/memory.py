"""How much memory recordings of several lengths take, each in a process of its own."""

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
CUT_SHORT = (*ACCEPTED, ExitCode.INPUT_FAILED)  # a limit on the tokens may leave not a single text complete
KEPT = ("FUNASR_BLAS", "FUNASR_TRACEBACK")  # the others are somebody's settings for transcribing


@dataclass(frozen=True)
class MemoryCost:
    """What a recording of some length costs."""

    case: str  # what tells it from the others, also from those of another day
    model: str
    audio_s: float
    peak_bytes: int  # most memory that the process had resident
    wall_s: float  # the whole command, loading the model included


def run_memory(
    models: Mapping[str, Sequence[str]],
    paths: Sequence[Path],
    durations_s: Sequence[float],
    progress: Callable[[str], None],
) -> tuple[MemoryCost, ...]:
    """Transcribe files of several lengths, clips repeated with pauses, with the command itself.

    ``models`` has for each what the command is given, its folder and options.

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
    """Most memory that a transcription had resident, and its seconds."""
    command = [sys.executable, "-m", "funasr_cli", "transcribe", *arguments]
    kept = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith("FUNASR_")}
    variables = kept | {"FUNASR_CONFIG": os.devnull}
    reset_peak_process()  # a new process is charged with the peak of the one that it comes from
    started = time.perf_counter()
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=complaints, env=variables)
        _, status, usage = os.wait4(process.pid, 0)  # the only way to one child's own peak
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (CUT_SHORT if "--max-tokens" in arguments else ACCEPTED):
            complaints.seek(0)
            message = f"funasr transcribe ended with {process.returncode}: {complaints.read().decode()}"
            raise FunASRError(message, code="command-failed")
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024  # Linux counts in KiB
    return peak, time.perf_counter() - started

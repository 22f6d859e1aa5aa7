"""How much memory recordings of several lengths take, each in a process of its own."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import soundfile

from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.errors import ExitCode, FunASRError

DURATIONS_S = (600.0, 3600.0, 10800.0)
PAUSE_S = 1.0
ACCEPTED = (ExitCode.OK, ExitCode.PARTIAL)
CUT_SHORT = (*ACCEPTED, ExitCode.INPUT_FAILED)  # a limit on the tokens may leave not a single text complete


@dataclass(frozen=True)
class MemoryCost:
    """What a recording of some length costs.

    Attributes:
        peak_bytes: most memory that the process had resident.
        wall_s: the whole command, loading the model included.
    """

    duration_s: float
    peak_bytes: int
    wall_s: float


def run_memory(
    folder: Path,
    paths: list[Path],
    durations_s: tuple[float, ...],
    language: str,
    max_tokens: int | None,
    progress: Callable[[str], None],
) -> tuple[MemoryCost, ...]:
    """Transcribe files of several lengths with the command itself.

    Args:
        folder: a converted model.
        paths: clips of speech; they are repeated with pauses until the length is reached.
        durations_s: lengths of the files.
        language: as for a transcription.
        max_tokens: the same.
        progress: told what is being measured.

    Raises:
        AudioError: a clip cannot be read.
        FunASRError: the command failed.
    """
    limit = [] if max_tokens is None else ["--max-tokens", str(max_tokens)]
    options = ["-m", str(folder), "--lang", language, *limit]
    with tempfile.TemporaryDirectory() as work:
        return tuple(_cost(paths, duration_s, options, progress, Path(work)) for duration_s in durations_s)


def _cost(
    paths: list[Path],
    duration_s: float,
    options: list[str],
    progress: Callable[[str], None],
    work: Path,
) -> MemoryCost:
    file = work / f"{duration_s:.0f}s.flac"
    progress(f"writing {duration_s / 60:g} minutes of audio")
    write_recording(file, paths, duration_s)
    progress(f"transcribing {duration_s / 60:g} minutes of audio")
    command = [sys.executable, "-m", "funasr_cli", "transcribe", str(file), *options]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=complaints)
        _, status, usage = os.wait4(process.pid, 0)  # the only way to one child's own peak
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (CUT_SHORT if "--max-tokens" in options else ACCEPTED):
            complaints.seek(0)
            raise FunASRError(f"funasr transcribe ended with {process.returncode}: {complaints.read().decode()}")
    file.unlink()
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024  # Linux counts in KiB
    return MemoryCost(duration_s, peak, time.perf_counter() - started)


def write_recording(file: Path, paths: list[Path], duration_s: float) -> None:
    """Write clips one after the other with pauses in between, as 16 kHz FLAC of exactly this length."""
    missing = round(duration_s * SAMPLE_RATE_HZ)
    with soundfile.SoundFile(file, "w", SAMPLE_RATE_HZ, 1) as out:
        for piece in _pieces(paths):
            out.write(piece[:missing])
            missing -= len(piece[:missing])
            if not missing:
                return


def _pieces(paths: list[Path]) -> Iterator[np.ndarray]:
    """(samples,) float32 without end."""
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE_HZ), np.float32)
    for samples in cycle([load_audio(path, SAMPLE_RATE_HZ).samples for path in paths]):
        yield samples
        yield pause

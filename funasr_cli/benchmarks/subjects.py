"""Load the models to be measured, and prepare the recordings."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import default_rng  # here, not when first used: see `cli.bench`

from funasr_cli.audio.decode import Audio, from_array, load_audio
from funasr_cli.audio.recording import Source, open_recording
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.compute.backend import mx
from funasr_cli.families.converted import read_config
from funasr_cli.families.load import choose_engine, load_model
from funasr_cli.measure import Spread
from funasr_cli.options import AUTO_ENGINE
from funasr_cli.pipeline import Recognizer

GENERATED_DURATIONS_S = (5.0, 10.0, 20.0)
PAUSE_S = 1.0


@dataclass(frozen=True)
class ModelCost:
    """A model, and the cost of loading it."""

    model: str  # its name in the cases
    weights: str
    engine: str  # what computes it, and how
    parameters: int
    mlx_bytes: int  # memory allocated by MLX for the loaded model
    native_bytes: int  # packed weights of the native engine
    load_s: Spread


@dataclass(frozen=True, eq=False)
class Subject:
    """A loaded model, and the cost of loading it."""

    recognizer: Recognizer
    cost: ModelCost


def load_subjects(
    folders: list[Path],
    dtype: str | None,
    trials: int,
    progress: Callable[[str], None],
    engine: str = AUTO_ENGINE,
    optional: Collection[str] = (),
) -> list[Subject]:
    """Load each model ``trials`` times and keep the last instance, so that all models are in memory.

    ``optional`` names what is ignored for a model that it does not suit, as `choose_engine` takes it.
    """
    subjects = []
    for name, folder in zip(names_of(folders), folders, strict=True):
        chosen = choose_engine(folder, dtype, engine, optional, progress)
        before, seconds, recognizer = mx.get_active_memory(), [], None
        for trial in range(trials):
            progress(f"loading {folder.name}, {trial + 1} of {trials}")
            recognizer = None  # free its memory before loading the next one
            started = time.perf_counter()
            recognizer = Recognizer(load_model(folder, chosen.dtype, chosen.engine))
            seconds.append(time.perf_counter() - started)
        assert recognizer is not None
        mlx_bytes = int(mx.get_active_memory()) - before
        model = recognizer.model
        cost = ModelCost(
            model=name,
            weights=model.weights_type,
            engine=model.engine,
            parameters=model.parameters,
            mlx_bytes=mlx_bytes,
            native_bytes=model.native_bytes,
            load_s=Spread.of(seconds),
        )
        subjects.append(Subject(recognizer, cost))
    return subjects


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return a name for each model: its source, with the folder if two models have the same source."""
    names = [read_config(folder).source.get("source") or folder.name for folder in folders]
    pairs = zip(names, folders, strict=True)
    return [name if names.count(name) == 1 else f"{name} in {folder.name}" for name, folder in pairs]


@dataclass(frozen=True)
class Workload:
    """One or more recordings that are transcribed in one run."""

    name: str  # name of the whole workload
    recordings: tuple[Source, ...]
    paths: tuple[Path, ...] = ()  # their files; empty for generated recordings
    vad: bool = True  # use voice activity detection
    copies: int = 1  # number of times that each recording occurs


def make_workloads(paths: tuple[Path, ...], durations_s: tuple[float, ...], work: Path) -> list[Workload]:
    """Create a workload for each recording or, if durations are given, for each duration.

    For a duration, the recordings are joined in a file in ``work``. Without recordings, noise is generated.

    Raises:
        AudioError: a recording cannot be read.
    """
    if not paths:
        clips = [generated_clip(duration_s) for duration_s in durations_s or GENERATED_DURATIONS_S]
        return [Workload(clip.name, (clip,), vad=False) for clip in clips]
    if not durations_s:
        return [Workload(str(path), (open_recording(path, SAMPLE_RATE_HZ),), (path,)) for path in paths]
    workloads = []
    for duration_s in durations_s:
        name = f"joined {duration_s:g} s"
        file = work / f"{name}.flac"
        write_recording(file, paths, duration_s)
        workloads.append(Workload(name, (open_recording(file, SAMPLE_RATE_HZ, name=name),)))
    return workloads


def together(paths: tuple[Path, ...], count: int) -> Workload:
    """Create one workload of ``count`` recordings. They are repeated, or the last ones are dropped, as needed."""
    used = paths[:count]
    recordings = [open_recording(path, SAMPLE_RATE_HZ) for path in used]
    return Workload(f"{count} recordings", tuple(islice(cycle(recordings), count)), used)


def generated_clip(duration_s: float) -> Audio:
    """Generate noise with the spectral slope and syllable rate (4 Hz) of speech.

    Processing it takes as long as processing speech.
    """
    samples = default_rng(0).standard_normal(int(duration_s * SAMPLE_RATE_HZ)).cumsum()
    samples -= np.convolve(samples, np.full(400, 1 / 400), mode="same")  # keep the slope, lose the drift
    envelope = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(len(samples)) / SAMPLE_RATE_HZ)
    loud = samples * envelope
    loud *= 0.3 / np.abs(loud).max()
    return from_array(loud, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, f"generated {duration_s:g} s")


def write_recording(file: Path, paths: Iterable[Path], duration_s: float) -> None:
    """Write the clips, repeated and with pauses in between, as 16 kHz FLAC of exactly this duration."""
    missing, pause = round(duration_s * SAMPLE_RATE_HZ), np.zeros(round(PAUSE_S * SAMPLE_RATE_HZ), np.float32)
    clips = cycle([load_audio(path, SAMPLE_RATE_HZ).samples for path in paths])
    with soundfile.SoundFile(file, "w", SAMPLE_RATE_HZ, 1) as out:
        while missing:
            piece = np.concatenate([next(clips), pause])[:missing]  # (samples,)
            out.write(piece)
            missing -= len(piece)

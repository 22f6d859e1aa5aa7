"""Timed transcriptions: warm-up, trials, and what each stage costs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from funasr_cli.audio.decode import Audio, from_array, load_audio
from funasr_cli.backend import describe
from funasr_cli.checkpoints.load import load_model
from funasr_cli.measure import Spread, peak_mlx_bytes, peak_process_bytes, reset_peak_mlx, rtf
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer

GENERATED_DURATIONS_S = (5, 10, 20)


@dataclass(frozen=True)
class ClipCost:
    """What one clip costs.

    Attributes:
        stages: seconds of read_s, features_s, encoder_s, prefill_s, decode_s, first_token_s and total_s.
        tokens: tokens decoded.
        peak_mlx_bytes: most memory that MLX had allocated during the trials.
    """

    name: str
    duration_s: float
    stages: dict[str, Spread]
    tokens: int
    tokens_per_s: Spread
    rtf: Spread
    peak_mlx_bytes: int


@dataclass(frozen=True)
class Benchmark:
    """A model's costs on this machine."""

    model: str
    weights: str
    device: str
    trials: int
    load_s: float
    peak_process_bytes: int
    clips: tuple[ClipCost, ...]


def generated_clip(duration_s: float, sample_rate_hz: int) -> Audio:
    """Noise with the slope and the four syllables a second of speech: costs what speech costs, says nothing."""
    samples = np.random.default_rng(0).standard_normal(int(duration_s * sample_rate_hz)).cumsum()
    samples -= np.convolve(samples, np.full(400, 1 / 400), mode="same")  # keep the slope, lose the drift
    envelope = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(len(samples)) / sample_rate_hz)
    loud = samples * envelope
    return from_array(
        0.3 * loud / np.abs(loud).max(), sample_rate_hz, sample_rate_hz, f"generated {duration_s:g} s"
    )


def run_benchmark(
    folder: Path,
    paths: list[Path],
    options: TranscribeOptions,
    trials: int,
    progress: Callable[[str], None],
) -> Benchmark:
    """Load a model and time it on each clip.

    Args:
        folder: a converted model.
        paths: recordings; none of them takes generated clips.
        options: as for a transcription.
        trials: timed runs of each clip, behind one that is not timed.
        progress: told the name of the clip before each run.

    Raises:
        AudioError: a clip cannot be read.
    """
    started = time.perf_counter()
    loaded = load_model(folder)
    load_s = time.perf_counter() - started
    recognizer = Recognizer(loaded)
    rate_hz = recognizer.sample_rate_hz
    readers: list[Callable[[], Audio]] = [lambda path=path: load_audio(path, rate_hz) for path in paths]  # type: ignore[misc]
    if not paths:
        clips = [generated_clip(duration_s, rate_hz) for duration_s in GENERATED_DURATIONS_S]
        readers = [lambda clip=clip: clip for clip in clips]  # type: ignore[misc]
    costs = tuple(_clip_cost(recognizer, read, options, trials, progress) for read in readers)
    return Benchmark(
        model=loaded.name,
        weights=loaded.weights_type,
        device=describe(),
        trials=trials,
        load_s=load_s,
        peak_process_bytes=peak_process_bytes(),
        clips=costs,
    )


def _clip_cost(
    recognizer: Recognizer,
    read: Callable[[], Audio],
    options: TranscribeOptions,
    trials: int,
    progress: Callable[[str], None],
) -> ClipCost:
    clip = read()
    progress(clip.name)
    recognizer.transcribe(clip, options)  # warm-up: compiled kernels, allocated buffers
    reset_peak_mlx()
    runs: list[dict[str, float]] = []
    for _ in range(trials):
        progress(clip.name)
        started = time.perf_counter()
        clip = read()
        read_s = time.perf_counter() - started
        timings = recognizer.transcribe(clip, options).timings
        runs.append(
            {
                "read_s": read_s,
                "features_s": timings.features_s,
                "encoder_s": timings.encoder_s,
                "prefill_s": timings.prefill_s,
                "decode_s": timings.decode_s,
                "first_token_s": read_s + timings.first_token_s,
                "total_s": read_s + timings.total_s,
                "tokens_per_s": timings.tokens_per_s,
            }
        )
    spreads = {name: Spread.of([run[name] for run in runs]) for name in runs[0]}
    return ClipCost(
        name=clip.name,
        duration_s=clip.duration_s,
        tokens_per_s=spreads.pop("tokens_per_s"),
        stages=spreads,
        tokens=timings.tokens,
        rtf=Spread.of([rtf(run["total_s"], clip.duration_s) for run in runs]),
        peak_mlx_bytes=peak_mlx_bytes(),
    )

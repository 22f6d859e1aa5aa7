"""What one clip costs: warm-up, trials, and each stage's share."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from funasr_cli.audio.decode import Audio, from_array
from funasr_cli.audio.recording import Source, open_recording
from funasr_cli.backend import describe
from funasr_cli.checkpoints.load import load_model
from funasr_cli.measure import Spread, peak_mlx_bytes, peak_process_bytes, reset_peak_mlx, rtf
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Transcript

GENERATED_DURATIONS_S = (5, 10, 20)
STAGES = ("read_s", "vad_s", "features_s", "encoder_s", "prefill_s", "decode_s", "first_token_s", "total_s")


@dataclass(frozen=True)
class ClipCost:
    """What one clip costs.

    Attributes:
        stages: seconds of each of `STAGES`.
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
        paths: recordings; none of them takes generated clips, without looking for speech in them.
        options: as for a transcription.
        trials: timed runs of each clip, behind one that is not timed.
        progress: told the name of the clip before each run.

    Raises:
        AudioError: a clip cannot be read.
    """
    started = time.perf_counter()
    recognizer = Recognizer(load_model(folder))
    load_s = time.perf_counter() - started
    if not paths:
        options = replace(options, vad=False)
    costs = tuple(
        _clip_cost(recognizer, source, options, trials, progress) for source in sources(recognizer, paths)
    )
    return Benchmark(
        model=recognizer.loaded.name,
        weights=recognizer.loaded.weights_type,
        device=describe(),
        trials=trials,
        load_s=load_s,
        peak_process_bytes=peak_process_bytes(),
        clips=costs,
    )


def sources(recognizer: Recognizer, paths: list[Path]) -> list[Source]:
    """The recordings, or generated ones where there are none."""
    rate_hz = recognizer.sample_rate_hz
    if not paths:
        return [generated_clip(duration_s, rate_hz) for duration_s in GENERATED_DURATIONS_S]
    return [open_recording(path, rate_hz) for path in paths]


def _clip_cost(
    recognizer: Recognizer,
    source: Source,
    options: TranscribeOptions,
    trials: int,
    progress: Callable[[str], None],
) -> ClipCost:
    def run() -> Transcript:
        progress(source.name)
        return recognizer.transcribe(source, options)

    run()  # warm-up: compiled kernels, allocated buffers
    reset_peak_mlx()
    transcripts = [run() for _ in range(trials)]
    duration_s = transcripts[0].duration_s
    timings = [transcript.timings for transcript in transcripts]
    return ClipCost(
        name=source.name,
        duration_s=duration_s,
        stages={name: Spread.of([getattr(timing, name) for timing in timings]) for name in STAGES},
        tokens=timings[0].tokens,
        tokens_per_s=Spread.of([timing.tokens_per_s for timing in timings]),
        rtf=Spread.of([rtf(timing.total_s, duration_s) for timing in timings]),
        peak_mlx_bytes=peak_mlx_bytes(),
    )

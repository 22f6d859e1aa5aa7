"""What transcribing costs: models x recordings x batch sizes, in turns, each stage by itself."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from funasr_cli.benchmarks.scoring import ErrorRate, error_rate, reference_of
from funasr_cli.benchmarks.subjects import Subject
from funasr_cli.benchmarks.workloads import Workload
from funasr_cli.measure import (
    Spread,
    peak_mlx_bytes,
    peak_process_bytes,
    reset_peak_mlx,
    reset_peak_process,
    rtf,
)
from funasr_cli.options import TranscribeOptions
from funasr_cli.transcript import Transcript

PARTS = ("read_s", "vad_s", "features_s", "encoder_s", "prefill_s", "decode_s")
STAGES = (*PARTS, "first_token_s", "total_s")


@dataclass(frozen=True)
class CaseCost:
    """What a model needs for a workload with a batch size.

    Attributes:
        case: what tells it from the others, also from those of another day.
        audio: the recording's file, or what was made.
        recordings: how often it was transcribed side by side.
        batch_size: None where it went by the memory at hand.
        segments: of all recordings.
        tokens: decoded for all of them.
        stages: seconds of each of `STAGES`: `PARTS` are added up over the recordings, the first two run in a
            thread beside the others; from opening the first recording to its first token; the whole run.
        tokens_per_s: behind the first token of each segment, in the time of the decoding alone.
        peak_mlx_bytes: most memory that MLX had allocated at once, other models left out.
        peak_process_bytes: most memory that the process had resident, all models included; since its start where
            the system does not tell it for a run (macOS).
        errors: against the references, where there are some.
    """

    case: str
    model: str
    audio: str
    recordings: int
    batch_size: int | None
    audio_s: float
    segments: int
    tokens: int
    stages: dict[str, Spread]
    tokens_per_s: Spread
    rtf: Spread
    peak_mlx_bytes: int
    peak_process_bytes: int
    errors: ErrorRate | None
    texts: tuple[str, ...]


@dataclass(frozen=True)
class _Run:
    """One trial of a case."""

    total_s: float
    transcripts: list[Transcript]
    peak_mlx_bytes: int
    peak_process_bytes: int

    def stage(self, name: str) -> float:
        """Seconds of one of `STAGES`."""
        if name == "total_s":
            return self.total_s
        seconds = [getattr(transcript.timings, name) for transcript in self.transcripts]
        return seconds[0] if name == "first_token_s" else sum(seconds)

    @property
    def audio_s(self) -> float:
        return sum(transcript.duration_s for transcript in self.transcripts)

    @property
    def segments(self) -> int:
        return sum(len(transcript.segments) for transcript in self.transcripts)

    @property
    def tokens(self) -> int:
        return sum(transcript.timings.tokens for transcript in self.transcripts)

    @property
    def tokens_per_s(self) -> float:
        decode_s = self.stage("decode_s")
        return max(0, self.tokens - self.segments) / decode_s if decode_s else 0.0


@dataclass(frozen=True)
class _Case:
    """A model, a workload, a batch size."""

    label: str
    subject: Subject
    workload: Workload
    batch_size: int | None

    def run(self, options: TranscribeOptions, others_bytes: int = 0) -> _Run:
        options = replace(options, batch_size=self.batch_size, vad=self.workload.vad)
        reset_peak_mlx()
        reset_peak_process()
        started = time.perf_counter()
        transcripts = self.subject.recognizer.transcribe_batch(self.workload.recordings, options)
        total_s = time.perf_counter() - started
        return _Run(total_s, transcripts, peak_mlx_bytes() - others_bytes, peak_process_bytes())


def run_cases(
    subjects: list[Subject],
    workloads: list[Workload],
    batch_sizes: Sequence[int | None],
    options: TranscribeOptions,
    trials: int,
    references: Mapping[str, str] | None,
    progress: Callable[[str], None],
) -> tuple[CaseCost, ...]:
    """Run every combination once to warm up, then all of them in turns.

    Raises:
        AudioError: a recording cannot be read.
        UsageError: the language is not one of a model's.
    """
    cases = _cases(subjects, workloads, batch_sizes)
    all_bytes = sum(subject.cost.mlx_bytes for subject in subjects)
    for case in cases:
        progress(f"warming up: {case.label}")
        case.run(options)
    runs: list[list[_Run]] = [[] for _ in cases]
    for trial in range(trials):
        for case, own in zip(cases, runs, strict=True):
            progress(f"{trial + 1} of {trials}: {case.label}")
            own.append(case.run(options, all_bytes - case.subject.cost.mlx_bytes))
    return tuple(_cost(case, own, references) for case, own in zip(cases, runs, strict=True))


def _cases(subjects: list[Subject], workloads: list[Workload], batch_sizes: Sequence[int | None]) -> list[_Case]:
    """Workloads change slowest, so that what is compared runs close together."""
    short = Counter(Path(workload.name).name for workload in workloads)
    cases = []
    for workload in workloads:
        name = Path(workload.name).name
        audio = name if short[name] == 1 else workload.name
        if workload.copies > 1:
            audio += f" x {workload.copies}"
        for size in batch_sizes:
            batch = f", batch of {size}" if size else ""
            cases += [_Case(f"{own.cost.model}, {audio}{batch}", own, workload, size) for own in subjects]
    return cases


def _cost(case: _Case, runs: list[_Run], references: Mapping[str, str] | None) -> CaseCost:
    last = runs[-1]
    texts = tuple(transcript.text for transcript in last.transcripts)
    return CaseCost(
        case=case.label,
        model=case.subject.cost.model,
        audio=case.workload.name,
        recordings=len(case.workload.recordings),
        batch_size=case.batch_size,
        audio_s=last.audio_s,
        segments=last.segments,
        tokens=last.tokens,
        stages={name: Spread.of([run.stage(name) for run in runs]) for name in STAGES},
        tokens_per_s=Spread.of([run.tokens_per_s for run in runs]),
        rtf=Spread.of([rtf(run.total_s, run.audio_s) for run in runs]),
        peak_mlx_bytes=max(run.peak_mlx_bytes for run in runs),
        peak_process_bytes=max(run.peak_process_bytes for run in runs),
        errors=None if references is None else _errors(case.workload, texts, references),
        texts=texts,
    )


def _errors(workload: Workload, texts: tuple[str, ...], references: Mapping[str, str]) -> ErrorRate:
    """Each file counts once, however often it was transcribed."""
    wanted = [reference_of(path, references) for path in workload.paths]
    return error_rate(zip(wanted, texts, strict=False))

"""What transcribing costs: models x recordings x batch sizes x drafts, in turns, each stage by itself."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
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
from funasr_cli.transcript import STAGES as PIPELINE_STAGES
from funasr_cli.transcript import Transcript

PARTS = tuple(f"{stage}_s" for stage in PIPELINE_STAGES)
TEXT_PARTS = PARTS[PARTS.index("ctc_s") :]  # from what has been heard to the text: what drafts change
STAGES = (*PARTS, "text_s", "first_token_s", "total_s")


@dataclass(frozen=True)
class CaseCost:
    """What a model needs for a workload with a batch size.

    Attributes:
        case: what tells it from the others, also from those of another day.
        audio: the recording's file, or what was made.
        recordings: how often it was transcribed side by side.
        batch_size: None where it went by the memory at hand.
        draft: of `DRAFTS`.
        segments: of all recordings.
        tokens: decoded for all of them.
        passes: runs of the decoder that these took, counted for each segment.
        drafted: tokens of drafts that were tried.
        accepted: of these, those that the decoder would have written itself.
        stages: seconds of each of `STAGES`: `PARTS` are added up over the recordings, the first two run in a
            thread beside the others; `TEXT_PARTS` together; from opening the first recording to its first token;
            the whole run.
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
    draft: str
    audio_s: float
    segments: int
    tokens: int
    passes: int
    drafted: int
    accepted: int
    stages: dict[str, Spread]
    tokens_per_s: Spread
    rtf: Spread
    peak_mlx_bytes: int
    peak_process_bytes: int
    errors: ErrorRate | None
    texts: tuple[str, ...]

    @property
    def tokens_per_pass(self) -> float:
        """Of each segment by itself, whatever is beside it."""
        return self.tokens / self.passes if self.passes else 0.0

    @property
    def acceptance(self) -> float | None:
        """Share of the drafted tokens that were right; None where none was drafted."""
        return self.accepted / self.drafted if self.drafted else None


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
        if name == "text_s":
            return sum(map(self.stage, TEXT_PARTS))
        seconds = [getattr(transcript.timings, name) for transcript in self.transcripts]
        return seconds[0] if name == "first_token_s" else sum(seconds)

    @property
    def audio_s(self) -> float:
        return sum(transcript.duration_s for transcript in self.transcripts)

    @property
    def segments(self) -> int:
        return sum(len(transcript.segments) for transcript in self.transcripts)

    def count(self, name: str) -> int:
        """Of "tokens", "passes", "drafted" or "accepted"."""
        return sum(getattr(transcript.timings, name) for transcript in self.transcripts)

    @property
    def tokens_per_s(self) -> float:
        decode_s = self.stage("decode_s")
        return max(0, self.count("tokens") - self.segments) / decode_s if decode_s else 0.0


@dataclass(frozen=True)
class _Case:
    """A model, a workload, a batch size, with or without drafts."""

    label: str
    subject: Subject
    workload: Workload
    batch_size: int | None
    draft: str

    def run(self, options: TranscribeOptions, others_bytes: int = 0) -> _Run:
        options = replace(options, batch_size=self.batch_size, draft=self.draft, vad=self.workload.vad)
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
    drafts: Sequence[str],
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
    cases = _cases(subjects, workloads, batch_sizes, drafts)
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


def _cases(
    subjects: list[Subject], workloads: list[Workload], batch_sizes: Sequence[int | None], drafts: Sequence[str]
) -> list[_Case]:
    """Workloads change slowest, so that what is compared runs close together."""
    short = Counter(Path(workload.name).name for workload in workloads)
    cases = []
    for workload in workloads:
        name = Path(workload.name).name
        audio = name if short[name] == 1 else workload.name
        if workload.copies > 1:
            audio += f" x {workload.copies}"
        for size, own, draft in product(batch_sizes, subjects, drafts):
            batch = f", batch of {size}" if size else ""
            drafted = f", draft {draft}" if len(drafts) > 1 else ""
            label = f"{own.cost.model}, {audio}{batch}{drafted}"
            cases.append(_Case(label, own, workload, size, draft))
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
        draft=case.draft,
        audio_s=last.audio_s,
        segments=last.segments,
        tokens=last.count("tokens"),
        passes=last.count("passes"),
        drafted=last.count("drafted"),
        accepted=last.count("accepted"),
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

"""What transcribing costs: models x recordings x batch sizes x drafts, in turns; what batches and drafts save."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from funasr_cli.benchmarks.request import PARTS, STAGES, TEXT_PARTS
from funasr_cli.benchmarks.scoring import ErrorRate, error_rate, reference_of
from funasr_cli.benchmarks.subjects import Subject, Workload
from funasr_cli.capabilities import NOBODY_TYPED
from funasr_cli.compute.backend import mx
from funasr_cli.measure import Spread, peak_process_bytes, reset_peak_process
from funasr_cli.options import TranscribeOptions
from funasr_cli.transcript import Transcript

COUNTS = ("tokens", "decoder_calls", "drafted", "accepted")  # of a transcript's timings


@dataclass(frozen=True)
class CaseCost:
    """What a model needs for a workload with a batch size.

    Seconds are those of each of `STAGES`, and of `TEXT_PARTS` together as "text_s". `PARTS` are added up over the
    recordings; the first two run in a thread beside the others. The first token's are from opening the first
    recording. The process's peak includes all models; macOS tells it since the start of the process only.
    """

    case: str  # what tells it from the others, also from those of another day
    model: str
    audio: str  # the recording's file, or what was made
    recordings: int  # how often it was transcribed side by side
    batch_size: int | None  # None where it went by the memory at hand
    draft: str
    audio_s: float
    segments: int  # of all recordings
    tokens: int  # decoded for all of them
    decoder_calls: int  # runs of the decoder that these took, counted for each segment
    drafted: int  # tokens of drafts that were tried
    accepted: int  # of these, those that the decoder would have written itself
    stages: dict[str, Spread]
    tokens_per_s: Spread  # behind the first token of each segment, in the time of the decoding alone
    rtf: Spread
    peak_mlx_bytes: int  # most memory that MLX had allocated at once, other models left out
    peak_process_bytes: int  # most memory that the process had resident
    errors: ErrorRate | None  # against the references, where there are some
    texts: tuple[str, ...]

    @property
    def tokens_per_call(self) -> float:
        """Of each segment by itself, whatever is beside it."""
        return self.tokens / self.decoder_calls if self.decoder_calls else 0.0

    @property
    def acceptance(self) -> float | None:
        """Share of the drafted tokens that were right; None where none was drafted."""
        return self.accepted / self.drafted if self.drafted else None


class Gain(NamedTuple):
    """A case against another one of the same recordings."""

    times_faster: float
    text_times_faster: float  # of all that is done behind the encoder
    same_texts: int  # how many recordings have the text that they have there


def gains_of(costs: Sequence[CaseCost], group: Callable[[CaseCost], Hashable]) -> list[Gain]:
    """Compare each case with the first of its group; 1 where neither has anything to do, as in silence."""
    bases = {group(cost): cost for cost in reversed(costs)}
    gains = []
    for cost in costs:
        base = bases[group(cost)]
        pairs = ((base.stages[stage].median, cost.stages[stage].median) for stage in ("total_s", "text_s"))
        total, text = (before_s / now_s if now_s else 1.0 for before_s, now_s in pairs)
        gains.append(Gain(total, text, sum(map(str.__eq__, cost.texts, base.texts))))
    return gains


class _Run(NamedTuple):
    """One trial of a case."""

    transcripts: list[Transcript]
    stages: dict[str, float]
    peak_mlx_bytes: int
    peak_process_bytes: int


@dataclass(frozen=True)
class _Case:
    """A model, a workload, a batch size, with or without drafts."""

    label: str
    subject: Subject
    workload: Workload
    batch_size: int | None
    draft: str

    def run(self, options: TranscribeOptions, typed: Mapping[str, str], others_bytes: int = 0) -> _Run:
        options = self.subject.recognizer.supported(options, typed)
        options = replace(options, batch_size=self.batch_size, draft=self.draft, vad=self.workload.vad)
        mx.reset_peak_memory()
        reset_peak_process()
        started = time.perf_counter()
        done = self.subject.recognizer.transcribe_batch(self.workload.recordings, options)
        total_s = time.perf_counter() - started
        peaks = int(mx.get_peak_memory()) - others_bytes, peak_process_bytes()
        stages = _sums(done, PARTS)
        stages |= {"text_s": sum(stages[name] for name in TEXT_PARTS), "total_s": total_s}
        stages["first_token_s"] = done[0].timings.first_token_s
        return _Run(done, stages, *peaks)

    def cost(self, runs: Sequence[_Run], references: Mapping[str, str] | None) -> CaseCost:
        done = runs[-1].transcripts
        texts, audio_s = tuple(each.text for each in done), sum(each.duration_s for each in done)
        counts, segments = _sums(done, COUNTS), sum(len(each.segments) for each in done)
        errors, further_tokens = None, max(0, counts["tokens"] - segments)
        if references is not None:  # each file counts once, however often it was transcribed
            wanted = [reference_of(path, references) for path in self.workload.paths]
            errors = error_rate(zip(wanted, texts, strict=False))
        seconds = {name: [run.stages[name] for run in runs] for name in (*STAGES, "text_s")}
        return CaseCost(
            case=self.label,
            model=self.subject.cost.model,
            audio=self.workload.name,
            recordings=len(self.workload.recordings),
            batch_size=self.batch_size,
            draft=self.draft,
            audio_s=audio_s,
            segments=segments,
            stages={name: Spread.of(values) for name, values in seconds.items()},
            tokens_per_s=Spread.of([further_tokens / spent if spent else 0.0 for spent in seconds["decode_s"]]),
            rtf=Spread.of([spent / audio_s for spent in seconds["total_s"]]),
            peak_mlx_bytes=max(run.peak_mlx_bytes for run in runs),
            peak_process_bytes=max(run.peak_process_bytes for run in runs),
            errors=errors,
            texts=texts,
            **counts,
        )


def _sums(transcripts: Sequence[Transcript], names: Sequence[str]) -> dict[str, Any]:
    """Of attributes of their timings."""
    return {name: sum(getattr(each.timings, name) for each in transcripts) for name in names}


def run_cases(
    subjects: list[Subject],
    workloads: list[Workload],
    batch_sizes: Sequence[int | None],
    drafts: Sequence[str],
    options: TranscribeOptions,
    trials: int,
    references: Mapping[str, str] | None,
    progress: Callable[[str], None],
    typed: Mapping[str, str] = NOBODY_TYPED,
) -> tuple[CaseCost, ...]:
    """Run every combination once to warm up, then all of them in turns.

    What a model cannot honour and nobody has ``typed`` is left out of its ``options``.

    Raises:
        AudioError: a recording cannot be read.
        UsageError: a model cannot honour what has been typed, or does not know the language.
    """
    cases = []
    names = [Path(workload.name).name for workload in workloads]
    # Workloads change slowest, so that what is compared runs close together.
    for workload, size, subject, draft in product(workloads, batch_sizes, subjects, drafts):
        name = Path(workload.name).name
        label = f"{subject.cost.model}, {name if names.count(name) == 1 else workload.name}"
        label += f" x {workload.copies}" if workload.copies > 1 else ""
        label += f", batch of {size}" if size else ""
        label += f", draft {draft}" if len(drafts) > 1 else ""
        cases.append(_Case(label, subject, workload, size, draft))
    all_bytes = sum(subject.cost.mlx_bytes for subject in subjects)
    for case in cases:
        progress(f"warming up: {case.label}")
        case.run(options, typed)
    runs: list[list[_Run]] = [[] for _ in cases]
    for trial in range(trials):
        for case, own in zip(cases, runs, strict=True):
            progress(f"{trial + 1} of {trials}: {case.label}")
            own.append(case.run(options, typed, all_bytes - case.subject.cost.mlx_bytes))
    return tuple(case.cost(own, references) for case, own in zip(cases, runs, strict=True))

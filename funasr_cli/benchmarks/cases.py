"""Measure every combination of models, recordings, batch sizes and drafts, in turns, and compare the results."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from funasr_cli.benchmarks.request import PARTS, STAGES, TEXT_PARTS
from funasr_cli.benchmarks.scoring import ErrorRate, error_rate, reference_of
from funasr_cli.benchmarks.subjects import Subject, Workload
from funasr_cli.capabilities import NOTHING_TYPED
from funasr_cli.compute.backend import mx
from funasr_cli.measure import Spread, peak_process_bytes, reset_peak_process
from funasr_cli.options import TranscribeOptions
from funasr_cli.transcript import Transcript

COUNTS = ("tokens", "decoder_calls", "drafted", "accepted")  # fields of a transcript's timings


@dataclass(frozen=True)
class CaseCost:
    """Cost of transcribing a workload with one model and batch size.

    ``stages`` holds the seconds of each of `STAGES`, and of `TEXT_PARTS` together as "text_s". `PARTS` are summed
    over the recordings; the first two run in a separate thread, parallel to the others. The time to the first
    token starts when the first recording is opened. The process's peak memory includes all models; on macOS it is
    the peak since the process started.
    """

    case: str  # identifies the case, also in other measurements
    model: str
    audio: str  # the recording's file, or the name of generated audio
    recordings: int  # number of recordings transcribed together
    batch_size: int | None  # None if derived from the available memory
    draft: str
    audio_s: float
    segments: int  # in all recordings
    tokens: int  # decoded for all recordings
    decoder_calls: int  # calls of the decoder for these tokens, counted for each segment
    drafted: int  # draft tokens that were checked
    accepted: int  # draft tokens that the decoder accepted
    stages: dict[str, Spread]
    tokens_per_s: Spread  # decoding speed after the first token of each segment
    rtf: Spread  # real-time factor
    peak_mlx_bytes: int  # peak memory allocated by MLX, without other models
    peak_process_bytes: int  # peak resident memory of the process
    errors: ErrorRate | None  # None if there are no references
    texts: tuple[str, ...]

    @property
    def tokens_per_call(self) -> float:
        """Tokens per decoder call of a segment, independent of the batch."""
        return self.tokens / self.decoder_calls if self.decoder_calls else 0.0

    @property
    def acceptance(self) -> float | None:
        """Share of the draft tokens that were accepted; None if there were no drafts."""
        return self.accepted / self.drafted if self.drafted else None


class Gain(NamedTuple):
    """Comparison of a case with a baseline on the same recordings."""

    times_faster: float
    text_times_faster: float  # for everything after the encoder
    same_texts: int  # number of recordings with the same text as in the baseline


def gains_of(costs: Sequence[CaseCost], group: Callable[[CaseCost], Hashable]) -> list[Gain]:
    """Compare each case with the first one of its group. A stage that takes no time, as for silence, gives 1."""
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
    """A combination of model, workload, batch size and draft setting."""

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
        if references is not None:  # each file counts once, even if it was transcribed repeatedly
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
    """Return the sum over all transcripts for each of these fields of their timings."""
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
    typed: Mapping[str, str] = NOTHING_TYPED,
) -> tuple[CaseCost, ...]:
    """Run every combination once to warm up, then all of them ``trials`` times in turns.

    ``typed`` names the options given on the command line. Any other option is ignored for a model that does not
    support it.

    Raises:
        AudioError: a recording cannot be read.
        UsageError: a model does not support the language or an option given on the command line.
    """
    cases = []
    names = [Path(workload.name).name for workload in workloads]
    # Workloads change slowest, so that cases to be compared run close together.
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

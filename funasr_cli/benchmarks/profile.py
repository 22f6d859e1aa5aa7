"""Where the time goes within a stage, and how many operations and evaluations MLX is given for a token."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from funasr_cli.audio.recording import Source
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.backend import mx
from funasr_cli.benchmarks.counting import Work, counting, timing_modules
from funasr_cli.benchmarks.subjects import Subject
from funasr_cli.benchmarks.workloads import Workload
from funasr_cli.decoding.generate import BatchDecoder
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.measure import Spread
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer

STAGES = ("features", "encoder", "prefill", "decode")
DECODE_STEPS = 16
ELSEWHERE = "outside of modules"

Watch = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class StageProfile:
    """One stage; of the decoding, one step: a token for each row.

    Attributes:
        operations: nodes of the graphs given to MLX, all kinds together; of a step the median.
        computing: those of them that are more than a view of memory.
        evaluations: how often it was told to compute some of them.
        kinds: operations by kind, of a step those of the median step.
        modules: seconds in modules of each kind, each evaluated by itself, without the modules in them.
    """

    stage: str
    seconds: Spread
    operations: int
    computing: int
    evaluations: int
    kinds: dict[str, int]
    modules: dict[str, float]


@dataclass(frozen=True)
class ProfileCost:
    """A model, a clip, a batch of so many copies of it.

    Attributes:
        operations_per_token: those of a decoding step, shared out among its rows.
        computing_per_token: the same of those that are more than views.
        evaluations_per_token: the same of evaluations.
    """

    case: str
    model: str
    audio: str
    batch_size: int
    audio_s: float
    steps: int
    operations_per_token: float
    computing_per_token: float
    evaluations_per_token: float
    stages: tuple[StageProfile, ...]


@dataclass
class _Pass:
    """What one way through all stages showed; every step of the decoding is an item of its own."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    work: dict[str, list[Work]] = field(default_factory=lambda: defaultdict(list))
    modules: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def run_profile(
    subjects: list[Subject],
    workloads: list[Workload],
    batch_sizes: Sequence[int | None],
    options: TranscribeOptions,
    trials: int,
    progress: Callable[[str], None],
) -> tuple[ProfileCost, ...]:
    """Profile every combination of models, recordings (what a segment holds of them) and batch sizes.

    Raises:
        AudioError: a recording cannot be read.
        UsageError: the language is not one of a model's.
    """
    costs = []
    for workload in workloads:
        samples = _beginning(workload.recordings[0], options.max_segment_s)
        for size in (size or 1 for size in batch_sizes):
            for subject in subjects:
                audio, model = Path(workload.name).name, subject.cost.model
                case = f"{model}, {audio}, batch of {size}"
                progress(case)
                cost = _profile(subject.recognizer, [samples] * size, options, trials)
                costs.append(replace(cost, case=case, model=model, audio=workload.name))
    return tuple(costs)


def _beginning(source: Source, longest_s: float) -> np.ndarray:
    """(samples,) of what one segment can hold."""
    blocks, missing = [], round(longest_s * SAMPLE_RATE_HZ)
    for block in source.blocks():
        blocks.append(block[:missing])
        missing -= len(blocks[-1])
        if not missing:
            break
    return np.concatenate(blocks)


def _profile(
    recognizer: Recognizer, batch: list[np.ndarray], options: TranscribeOptions, trials: int
) -> ProfileCost:
    seen, steps = _Pass(), options.exact_tokens or DECODE_STEPS

    @contextmanager
    def timing(stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seen.seconds[stage].append(time.perf_counter() - started)

    @contextmanager
    def counted(stage: str) -> Iterator[None]:
        with counting() as work:
            yield
        seen.work[stage].append(work)

    @contextmanager
    def by_module(stage: str) -> Iterator[None]:
        started = time.perf_counter()
        with timing_modules(recognizer.loaded.model) as seconds:
            yield
        elsewhere_s = time.perf_counter() - started - sum(seconds.values())
        seen.modules[stage] += Counter(seconds) + Counter({ELSEWHERE: elsewhere_s})

    _run_stages(recognizer, batch, options, steps, lambda stage: nullcontext())
    for _ in range(trials):
        _run_stages(recognizer, batch, options, steps, timing)
    _run_stages(recognizer, batch, options, steps, counted)
    _run_stages(recognizer, batch, options, steps, by_module)
    return _summary(seen, len(batch), len(batch[0]) / SAMPLE_RATE_HZ, steps)


def _run_stages(
    recognizer: Recognizer, batch: list[np.ndarray], options: TranscribeOptions, steps: int, watch: Watch
) -> None:
    with watch("features"):
        rows = [recognizer.frontend(recognizer.at_model_rate(samples)) for samples in batch]
        mx.eval(rows)  # copying them into NumPy arrays would evaluate them unseen
        features = [np.array(each) for each in rows]
    with watch("encoder"):
        encoded = recognizer.encode(features)
    decoder = BatchDecoder(recognizer.loaded.model.llm, make_sampler(options))
    with watch("prefill"):
        decoder.add(recognizer.prompts(encoded, options))
    decoder.step()  # what the prefill has computed; on a GPU, it also starts the first step
    for _ in range(steps):
        with watch("decode"):
            decoder.step()


def _summary(seen: _Pass, rows: int, audio_s: float, steps: int) -> ProfileCost:
    stages = []
    for stage in STAGES:
        work = sorted(seen.work[stage], key=lambda each: each.operations.total())
        median = work[len(work) // 2]
        modules = {name: taken_s / len(work) for name, taken_s in seen.modules[stage].most_common()}
        stages.append(
            StageProfile(
                stage=stage,
                seconds=Spread.of(seen.seconds[stage]),
                operations=median.operations.total(),
                computing=median.computing,
                evaluations=median.evaluations,
                kinds=dict(median.operations.most_common()),
                modules=modules,
            )
        )
    step = stages[-1]
    return ProfileCost(
        case="", model="", audio="", batch_size=rows, audio_s=audio_s, steps=steps,
        operations_per_token=step.operations / rows, computing_per_token=step.computing / rows,
        evaluations_per_token=step.evaluations / rows, stages=tuple(stages),
    )  # fmt: skip

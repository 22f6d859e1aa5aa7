"""Profile each stage: time per kind of module, and operations and evaluations per token.

python -m tools.profile --model nano a.wav
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np

from funasr_cli import demo
from funasr_cli.audio.recording import Source, open_recording
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.benchmarks.request import Size
from funasr_cli.benchmarks.subjects import Subject, load_subjects
from funasr_cli.benchmarks.synthetic import write_synthetic
from funasr_cli.cli import console
from funasr_cli.compute.backend import mx
from funasr_cli.compute.device import use_device
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.errors import ExitCode, FunASRError
from funasr_cli.families.fun_asr_nano.model import NanoModel
from funasr_cli.hubs.find import find_model
from funasr_cli.languages import AUTO
from funasr_cli.measure import Spread
from funasr_cli.options import BENCH_TRIALS, SEGMENT_S, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from tools.counting import Work, counting, timing_modules

STAGES = ("features", "encoder", "prefill", "decode")
DECODE_STEPS = 16
ELSEWHERE = "outside of modules"

Watch = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class StageProfile:
    """A stage; for decoding, one step, which produces a token for each row.

    Attributes:
        operations: nodes of the graphs given to MLX, of all kinds; for decoding, the median step's.
        computing: operations that are more than a view of memory.
        evaluations: number of times MLX was asked to evaluate some of them.
        kinds: operations by kind; for decoding, the median step's.
        modules: seconds in modules of each kind, excluding nested modules, each evaluated separately.
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
    """A model, a clip, and a batch of `batch_size` copies of it.

    Attributes:
        operations_per_token: operations of a decoding step, divided by its rows.
        computing_per_token: likewise, without views.
        evaluations_per_token: evaluations of a decoding step, divided by its rows.
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
    """The measurements of one pass through all stages. Every decoding step has its own entry."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    work: dict[str, list[Work]] = field(default_factory=lambda: defaultdict(list))
    modules: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def run_profile(
    subjects: Sequence[Subject],
    sources: Sequence[Source],
    batch_sizes: Sequence[int],
    options: TranscribeOptions,
    trials: int,
    progress: Callable[[str], None],
) -> list[ProfileCost]:
    """Profile every combination of models, recordings (up to the length of a segment) and batch sizes.

    Raises:
        AudioError: a recording cannot be read.
        UsageError: a model does not support the language.
    """
    costs = []
    for source in sources:
        samples = _beginning(source, options.max_segment_s or SEGMENT_S)
        for size, subject in product(batch_sizes, subjects):
            audio, model = Path(source.name).name, subject.cost.model
            case = f"{model}, {audio}, batch of {size}"
            progress(case)
            cost = _profile(_nano(subject.recognizer), [samples] * size, options, trials)
            costs.append(replace(cost, case=case, model=model, audio=source.name))
    return costs


def _beginning(source: Source, longest_s: float) -> np.ndarray:
    """Return as many samples, (samples,), as fit into one segment."""
    blocks, missing = [], round(longest_s * SAMPLE_RATE_HZ)
    for block in source.blocks():
        blocks.append(block[:missing])
        missing -= len(blocks[-1])
        if not missing:
            break
    return np.concatenate(blocks)


def _profile(model: NanoModel, batch: list[np.ndarray], options: TranscribeOptions, trials: int) -> ProfileCost:
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
        with timing_modules(model.network) as seconds:
            yield
        elsewhere_s = time.perf_counter() - started - sum(seconds.values())
        seen.modules[stage] += Counter(seconds) + Counter({ELSEWHERE: elsewhere_s})

    _run_stages(model, batch, options, steps, lambda stage: nullcontext())
    for _ in range(trials):
        _run_stages(model, batch, options, steps, timing)
    _run_stages(model, batch, options, steps, counted)
    _run_stages(model, batch, options, steps, by_module)
    return _summary(seen, len(batch), len(batch[0]) / SAMPLE_RATE_HZ, steps)


def _nano(recognizer: Recognizer) -> NanoModel:
    assert isinstance(recognizer.model, NanoModel), "only Fun-ASR-Nano has these stages"
    return recognizer.model


def _run_stages(
    model: NanoModel, batch: list[np.ndarray], options: TranscribeOptions, steps: int, watch: Watch
) -> None:
    with watch("features"):
        rows = [model.frontend(model.at_model_rate(samples)) for samples in batch]
        mx.eval(rows)  # copying unevaluated arrays to NumPy would hide their evaluation
        features = [np.array(each) for each in rows]
    with watch("encoder"):
        encoded = model.encoded(features)
    decoder = BatchDecoder(model.network.llm, make_sampler(options))
    with watch("prefill"):
        decoder.add(model.prompts(encoded, options))
    decoder.step()  # returns the token of the prefill; on a GPU, it also starts the first step
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


def tables(costs: Sequence[ProfileCost], trials: int) -> str:
    """Return the counts and the shares of modules as Markdown."""
    parts = []
    for cost in costs:
        parts += [_counts(cost), _modules(cost)]
    parts += [
        "Computing: operations except those that only return another view of the same memory.\n",
        "Modules: time in modules of each kind, excluding nested modules, each evaluated separately.\n",
        f"Seconds: medians of {trials} runs after a warm-up, with {costs[0].steps} decoding steps each.\n",
    ]
    return "\n".join(parts)


def _counts(cost: ProfileCost) -> str:
    lines = [f"| {cost.case} | seconds | operations | computing | evaluations |", "|---|---:|---:|---:|---:|"]
    for stage in cost.stages:
        name = "decode, one step" if stage.stage == "decode" else stage.stage
        counts = f"{stage.operations} | {stage.computing} | {stage.evaluations}"
        lines.append(f"| {name} | {stage.seconds.median:.4f} | {counts} |")
    token = (
        f"For each further token: {cost.operations_per_token:g} operations, {cost.computing_per_token:g} of them "
        f"computing; evaluations: {cost.evaluations_per_token:g}."
    )
    return "\n".join([*lines, "", token, ""])


def _modules(cost: ProfileCost) -> str:
    """Return the share of each kind of module in each stage, largest first."""
    names = dict.fromkeys(name for stage in cost.stages for name in stage.modules)
    totals = [sum(stage.modules.values()) or 1.0 for stage in cost.stages]
    shares = {
        name: [stage.modules.get(name, 0.0) / total for stage, total in zip(cost.stages, totals, strict=True)]
        for name in names
    }
    headings = " | ".join(f"{stage.stage} %" for stage in cost.stages)
    lines = [f"| {cost.case} | {headings} |", "|---|" + "---:|" * len(cost.stages)]
    for name in sorted(names, key=lambda name: -sum(shares[name])):
        cells = " | ".join(f"{100 * share:.1f}" if share else "-" for share in shares[name])
        lines.append(f"| {name} | {cells} |")
    return "\n".join([*lines, ""])


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line, profile, and print the result."""
    parser = argparse.ArgumentParser(prog="python -m tools.profile", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("audio", nargs="*", help="recordings; without them, a clip of the demo model")
    parser.add_argument("-m", "--model", action="append", help="a converted model; repeatable")
    parser.add_argument("--synthetic", choices=list(map(str, Size)), help="also a model of random weights")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1], help="copies of the clip per batch")
    parser.add_argument("--steps", type=int, default=DECODE_STEPS, help="tokens after the first, for each row")
    parser.add_argument("--trials", type=int, default=BENCH_TRIALS, help="timed runs after a warm-up")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: chosen by MLX")
    parser.add_argument("--dtype", help="float32, bfloat16 or stored; default: depends on the device")
    parser.add_argument("-l", "--lang", default=AUTO, help="language of the recordings")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    given = parser.parse_args(words)
    try:
        costs = _run(given)
    except FunASRError as error:
        console.report(error)
        return error.exit_code
    content = [dataclasses.asdict(cost) for cost in costs]
    print(json.dumps(content, indent=2, ensure_ascii=False) if given.json else tables(costs, given.trials))
    return ExitCode.OK


def _run(given: argparse.Namespace) -> list[ProfileCost]:
    if given.device:
        use_device(given.device)
    names = given.model or ([] if given.synthetic else [None])
    folders = [find_model(name) for name in names]
    audio = given.audio or [demo.clips()[0].path]
    options = TranscribeOptions(language=given.lang, exact_tokens=given.steps)
    with tempfile.TemporaryDirectory(prefix="funasr-profile-") as work:
        if given.synthetic:
            folders.append(write_synthetic(Path(work), given.synthetic))
        subjects = load_subjects(folders, given.dtype, 1, _tell)
        sources = [open_recording(path, SAMPLE_RATE_HZ) for path in audio]
        return run_profile(subjects, sources, given.batch_sizes, options, given.trials, _tell)


def _tell(doing: str) -> None:
    print(doing, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

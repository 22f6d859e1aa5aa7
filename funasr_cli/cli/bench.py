"""``funasr bench``."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from funasr_cli.benchmarks.request import (
    BATCH_SIZES,
    BATCHED_RECORDINGS,
    SYNTHETIC_SIZES,
    SYNTHETIC_TOKENS,
    Mode,
    Request,
)
from funasr_cli.cli import bench_parameters as given
from funasr_cli.cli import console, measurements, parameters
from funasr_cli.cli.run import warn_if_slow
from funasr_cli.errors import UsageError
from funasr_cli.languages import AUTO
from funasr_cli.options import BENCH_TRIALS, DEFAULTS, TranscribeOptions

if TYPE_CHECKING:
    from funasr_cli.benchmarks.comparison import Comparison
    from funasr_cli.benchmarks.report import Report

# Options that have an effect in some modes only.
IDLE = {
    Mode.RTF: (),
    Mode.BATCHES: ("durations",),
    Mode.DRAFTS: ("durations", "draft"),
    Mode.MEMORY: ("batch_sizes", "recordings", "trials", "exact_tokens", "draft", "itn", "refs"),
}


def bench(
    context: typer.Context,
    audio: given.Audio = None,
    rtf: given.RTF = False,
    batches: given.Batches = False,
    drafts: given.Drafts = False,
    memory: given.Memory = False,
    model: parameters.Models = None,
    synthetic: given.Synthetic = None,
    device: parameters.DeviceOption = None,
    dtype: parameters.DTypeOption = None,
    batch_sizes: given.BatchSizes = None,
    durations: given.Durations = None,
    recordings: given.Recordings = None,
    trials: given.Trials = BENCH_TRIALS,
    lang: parameters.Lang = AUTO,
    itn: parameters.ITN = DEFAULTS.itn,
    max_tokens: parameters.MaxTokens = DEFAULTS.max_tokens,
    exact_tokens: given.ExactTokens = DEFAULTS.exact_tokens,
    draft: parameters.DraftOption = parameters.DEFAULT_DRAFT,
    refs: given.Refs = None,
    compare: given.Compare = None,
    plot: given.Plot = None,
    as_json: given.JSON = False,
    as_markdown: given.Markdown = False,
) -> None:
    """Measure what transcribing costs."""
    wanted = zip(Mode, (rtf, batches, drafts, memory), strict=True)
    mode = _mode([mode for mode, is_wanted in wanted if is_wanted])
    _refuse_idle_options(context, mode)
    if as_json and as_markdown:
        raise UsageError("--json with --markdown", "choose one")
    options = TranscribeOptions(
        language=lang, itn=itn, max_tokens=max_tokens, exact_tokens=exact_tokens, draft=draft
    )
    sizes = _sizes(batch_sizes, mode)
    request = Request(
        mode=mode,
        models=tuple(map(str, model or [])) if model or synthetic else (None,),
        synthetic=_synthetic(synthetic or []),
        device=device,
        dtype=dtype,
        audio=tuple(audio or []),
        options=_limited(options, mode, synthetic=bool(synthetic)),
        batch_sizes=sizes,
        durations_s=_numbers("--durations", durations, 0.1),
        recordings=recordings or _recordings(mode, sizes),
        trials=trials,
        references=_references(refs, exact_tokens, durations, synthetic),
    )
    _show(*_measure(request, compare, plot), as_json=as_json, as_markdown=as_markdown)


def _mode(wanted: list[Mode]) -> Mode:
    if len(wanted) != 1:
        *others, last = (f"--{mode}" for mode in Mode)
        raise UsageError("say what to measure", f"one of {', '.join(others)} and {last}")
    return wanted[0]


def _refuse_idle_options(context: typer.Context, mode: Mode) -> None:
    for name in IDLE[mode]:
        if parameters.is_typed(context, name):
            raise UsageError(f"--{name.replace('_', '-')} with --{mode}", "it has no effect there")


def _limited(options: TranscribeOptions, mode: Mode, *, synthetic: bool) -> TranscribeOptions:
    """The same with the limit on tokens that goes with the mode and the models."""
    if not synthetic or options.max_tokens or options.exact_tokens:
        return options
    if mode == Mode.MEMORY:
        return replace(options, max_tokens=SYNTHETIC_TOKENS)
    return replace(options, exact_tokens=SYNTHETIC_TOKENS)


def _recordings(mode: Mode, sizes: tuple[int | None, ...]) -> int | None:
    """As many as fill the largest batch, if each is a single segment; drafts profit from what is repeated."""
    if mode == Mode.DRAFTS:
        return None
    return BATCHED_RECORDINGS if mode == Mode.BATCHES else max(size or 1 for size in sizes)


def _synthetic(sizes: list[str]) -> tuple[str, ...]:
    if unknown := [size for size in sizes if size not in SYNTHETIC_SIZES]:
        raise UsageError(f"--synthetic {unknown[0]}", f"choose from {', '.join(SYNTHETIC_SIZES)}")
    return tuple(dict.fromkeys(sizes))


def _sizes(text: str | None, mode: Mode) -> tuple[int | None, ...]:
    sizes = _numbers("--batch-sizes", text, 1)
    if broken := [size for size in sizes if size != int(size)]:
        raise UsageError(f"--batch-sizes {text}", f"{broken[0]:g} is no whole number")
    return tuple(map(int, sizes)) or BATCH_SIZES.get(mode, (None,))


def _numbers(option: str, text: str | None, least: float) -> tuple[float, ...]:
    """Numbers with commas in between, each once."""
    try:
        numbers = tuple(dict.fromkeys(float(part) for part in text.split(","))) if text is not None else ()
    except ValueError:
        raise UsageError(f"{option} {text}", "it takes numbers with commas in between, such as 1,4,16") from None
    if any(not least <= number < float("inf") for number in numbers):
        raise UsageError(f"{option} {text}", f"each must be at least {least:g}")
    return numbers


def _references(
    path: Path | None, exact_tokens: int | None, durations: str | None, synthetic: list[str] | None
) -> dict[str, str] | None:
    if path is None:
        return None
    unfit = {"--exact-tokens": exact_tokens, "--durations": durations, "--synthetic": synthetic}
    for option, value in unfit.items():
        if value:
            raise UsageError(f"--refs with {option}", "there are no texts to compare")
    from funasr_cli.benchmarks.scoring import read_references

    return read_references(path)


def _measure(request: Request, earlier: Path | None, plot: Path | None) -> "tuple[Report, Comparison | None]":
    """Measure, compare and draw; what cannot work is refused before anything is measured."""
    from funasr_cli.benchmarks.comparison import compare, read_report
    from funasr_cli.benchmarks.plot import draw
    from funasr_cli.benchmarks.run import measure
    from funasr_cli.device import gflops_a_core
    from funasr_cli.pictures import check_picture

    warn_if_slow(gflops_a_core())
    before = read_report(earlier, request.mode) if earlier else None
    if plot:
        check_picture(plot)
    with console.busy("loading") as tell:
        report = measure(request, tell)
    if plot:
        draw(report, plot)
    return report, compare(before, report.as_json()) if before else None


def _show(report: "Report", comparison: "Comparison | None", *, as_json: bool, as_markdown: bool) -> None:
    if as_json:
        content: dict[str, Any] = report.as_json()
        if comparison:
            content["comparison"] = asdict(comparison)
        console.result(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return
    grids = measurements.grids(report, comparison)
    if as_markdown:
        console.result("\n".join(grid.markdown() for grid in grids))
    else:
        measurements.show(grids, measurements.bars(report))

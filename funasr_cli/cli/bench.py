"""``funasr bench``."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from funasr_cli.benchmarks.request import BATCH_SIZES, BATCHED_RECORDINGS, SYNTHETIC_TOKENS, Mode, Request, Size
from funasr_cli.cli import console, parameters, tables
from funasr_cli.cli.run import warn_if_slow
from funasr_cli.errors import UsageError
from funasr_cli.languages import AUTO
from funasr_cli.options import BENCH_TRIALS, DEFAULTS, TranscribeOptions

if TYPE_CHECKING:
    from funasr_cli.benchmarks.comparison import Comparison
    from funasr_cli.benchmarks.report import Report

# Options that have no effect in a mode.
IDLE = {
    Mode.RTF: (),
    Mode.BATCHES: ("durations",),
    Mode.DRAFTS: ("durations", "draft"),
    Mode.MEMORY: ("batch_sizes", "recordings", "trials", "exact_tokens", "draft", "itn", "refs"),
}
AUDIO_HELP = "Recordings. Default: the demo model's clips; with --rtf and other models, generated ones."
DRAFTS_HELP = "What drafts save: each case with --draft off and auto in turns. Needs models with a CTC branch."
SYNTHETIC_HELP = "A model of random weights, full (830 million parameters) or demo. Repeatable."
BATCH_SIZES_HELP = (
    "Segments decoded side by side. Default: by the memory at hand; with --batches 1,4,16; with --drafts 1,16."
)
DURATIONS_HELP = (
    "Join the recordings to these lengths, or generate them, in seconds. Default: as they are; with --memory "
    "600,3600,10800."
)
RECORDINGS_HELP = (
    "How many are transcribed in a run; they are repeated. Default: with --batches 32, with --drafts each once, "
    "else the largest of --batch-sizes."
)
EXACT_TOKENS_HELP = (
    "Write exactly so many tokens for each segment, whatever they are. "
    f"Default with --synthetic: {SYNTHETIC_TOKENS}."
)
REFS_HELP = "Count errors against these texts: a file name, a tab and its text on each line."

_what = partial(typer.Option, rich_help_panel="What to measure")
_cases = partial(typer.Option, rich_help_panel="Cases")
_result = partial(typer.Option, rich_help_panel="Result")

Audio = Annotated[list[Path] | None, typer.Argument(metavar="AUDIO", help=AUDIO_HELP)]
RTF = Annotated[bool, _what("--rtf", help="The real-time factor, each stage's time, memory.")]
Batches = Annotated[bool, _what("--batches", help="The throughput of several batch sizes.")]
Drafts = Annotated[bool, _what("--drafts", help=DRAFTS_HELP)]
Memory = Annotated[bool, _what("--memory", help="The memory of long recordings, each in a process of its own.")]
Synthetic = Annotated[list[Size] | None, _cases(help=SYNTHETIC_HELP)]
BatchSizes = Annotated[str | None, _cases(metavar="N,N,...", help=BATCH_SIZES_HELP)]
Durations = Annotated[str | None, _cases(metavar="S,S,...", help=DURATIONS_HELP)]
Recordings = Annotated[int | None, _cases(min=1, help=RECORDINGS_HELP)]
Trials = Annotated[int, _cases(min=1, help="Timed runs of each case, after a warm-up.")]
ExactTokens = Annotated[
    int | None, typer.Option(rich_help_panel=parameters.DECODING, help=f"{EXACT_TOKENS_HELP}{SYNTHETIC_TOKENS}.")
]
Refs = Annotated[Path | None, _result(metavar="FILE", help=REFS_HELP)]
Compare = Annotated[Path | None, _result(metavar="FILE", help="Show ratios to what --json printed earlier.")]
Plot = Annotated[Path | None, _result(metavar="FILE", help="Draw a picture: .png or .svg.")]
JSON = Annotated[bool, _result("--json", help="Print everything measured as JSON.")]
Markdown = Annotated[bool, _result("--markdown", help="Print tables as Markdown.")]


def bench(
    context: typer.Context,
    audio: Audio = None,
    rtf: RTF = False,
    batches: Batches = False,
    drafts: Drafts = False,
    memory: Memory = False,
    model: parameters.Models = None,
    synthetic: Synthetic = None,
    device: parameters.DeviceOption = None,
    dtype: parameters.DTypeOption = None,
    batch_sizes: BatchSizes = None,
    durations: Durations = None,
    recordings: Recordings = None,
    trials: Trials = BENCH_TRIALS,
    lang: parameters.Lang = AUTO,
    itn: parameters.ITN = DEFAULTS.itn,
    max_tokens: parameters.MaxTokens = DEFAULTS.max_tokens,
    exact_tokens: ExactTokens = DEFAULTS.exact_tokens,
    draft: parameters.DraftOption = parameters.DEFAULT_DRAFT,
    refs: Refs = None,
    compare: Compare = None,
    plot: Plot = None,
    as_json: JSON = False,
    as_markdown: Markdown = False,
) -> None:
    """Measure what transcribing costs."""
    mode = _mode(rtf, batches, drafts, memory)
    for name in IDLE[mode]:
        if parameters.is_typed(context, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} with --{mode}", "it has no effect there", code="options-conflict")
    if as_json and as_markdown:
        raise UsageError("--json with --markdown", "choose one", code="options-conflict")
    sizes = _numbers("--batch-sizes", batch_sizes, int, 1) or BATCH_SIZES.get(mode, (None,))
    options = TranscribeOptions(
        language=lang, itn=itn, max_tokens=max_tokens, exact_tokens=exact_tokens, draft=draft
    )
    if synthetic and not max_tokens and not exact_tokens:
        limit: dict[str, Any] = {"max_tokens" if mode == Mode.MEMORY else "exact_tokens": SYNTHETIC_TOKENS}
        options = replace(options, **limit)
    many = {Mode.BATCHES: BATCHED_RECORDINGS, Mode.DRAFTS: None}  # drafts would profit from what is repeated
    unfit = {"--exact-tokens": exact_tokens, "--durations": durations, "--synthetic": synthetic}
    request = Request(
        mode=mode,
        models=tuple(map(str, model or [])) if model or synthetic else (None,),
        synthetic=tuple(dict.fromkeys(synthetic or [])),
        device=device,
        dtype=dtype,
        audio=tuple(audio or []),
        options=options,
        batch_sizes=sizes,
        durations_s=_numbers("--durations", durations, float, 0.1),
        recordings=recordings or many.get(mode, max(size or 1 for size in sizes)),
        trials=trials,
        references=_references(refs, [option for option, value in unfit.items() if value]),
    )
    report, comparison = _measure(request, compare, plot)
    if as_json:
        content: dict[str, Any] = report.as_json() | ({"comparison": asdict(comparison)} if comparison else {})
        console.result(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    elif as_markdown:
        console.result("\n".join(grid.markdown() for grid in tables.grids(report, comparison)))
    else:
        tables.show(report, comparison)


def _mode(*wanted: bool) -> Mode:
    modes = [mode for mode, is_wanted in zip(Mode, wanted, strict=True) if is_wanted]
    if len(modes) != 1:
        *others, last = (f"--{mode}" for mode in Mode)
        raise UsageError("say what to measure", f"one of {', '.join(others)} and {last}", code="options-conflict")
    return modes[0]


def _numbers(option: str, text: str | None, kind: type[int] | type[float], least: float) -> tuple[Any, ...]:
    """Numbers with commas in between, each once."""
    try:
        numbers = tuple(dict.fromkeys(map(kind, text.split(",")))) if text is not None else ()
    except ValueError:
        whole = "whole " if kind is int else ""
        hint = f"it takes {whole}numbers with commas in between, such as 1,4,16"
        raise UsageError(f"{option} {text}", hint, code="option-value") from None
    if any(not least <= number < float("inf") for number in numbers):
        raise UsageError(f"{option} {text}", f"each must be at least {least:g}", code="option-value")
    return numbers


def _references(path: Path | None, unfit: list[str]) -> dict[str, str] | None:
    if path is None:
        return None
    if unfit:
        raise UsageError(f"--refs with {unfit[0]}", "there are no texts to compare", code="options-conflict")
    from funasr_cli.benchmarks.scoring import read_references

    return read_references(path)


def _measure(request: Request, earlier: Path | None, plot: Path | None) -> "tuple[Report, Comparison | None]":
    """Measure, compare and draw; what cannot work is refused before anything is measured."""
    from funasr_cli.benchmarks.comparison import compare, read_report
    from funasr_cli.benchmarks.plot import draw
    from funasr_cli.benchmarks.report import measure
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

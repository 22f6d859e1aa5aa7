"""``funasr bench``."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from funasr_cli.benchmarks.request import BATCH_SIZES, BATCHED_RECORDINGS, SYNTHETIC_TOKENS, Mode, Request, Size
from funasr_cli.cli import console, parameters, tables
from funasr_cli.cli.run import warn_if_slow
from funasr_cli.errors import UsageError
from funasr_cli.languages import AUTO
from funasr_cli.options import BENCH_TRIALS, DEFAULTS, TranscribeOptions

OPTIONS = {name: (name,) for name in ("itn", "max_tokens", "exact_tokens", "draft")}  # of `TranscribeOptions`
# Options that have no effect in a mode.
IDLE = {
    Mode.RTF: (),
    Mode.BATCHES: ("durations",),
    Mode.DRAFTS: ("durations", "draft"),
    Mode.MEMORY: ("batch_sizes", "recordings", "trials", "exact_tokens", "draft", "itn", "refs"),
}
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
    "Write exactly this number of tokens for each segment, whatever they are. "
    f"Default with --synthetic: {SYNTHETIC_TOKENS}."
)

_what = partial(typer.Option, rich_help_panel="What to measure")
_cases = partial(typer.Option, rich_help_panel="Cases")
_result = partial(typer.Option, rich_help_panel="Result")
_exact = typer.Option(rich_help_panel=parameters.DECODING, help=EXACT_TOKENS_HELP)
_refs = _result(
    metavar="FILE", help="Count errors against these texts: a file name, a tab and its text on each line."
)
_audio = typer.Argument(
    metavar="AUDIO",
    help="Recordings. Default: the demo model's clips; with --rtf and other models, generated ones.",
)


def bench(
    context: typer.Context,
    audio: Annotated[list[Path] | None, _audio] = None,
    rtf: Annotated[bool, _what("--rtf", help="The real-time factor, each stage's time, memory.")] = False,
    batches: Annotated[bool, _what("--batches", help="The throughput of several batch sizes.")] = False,
    drafts: Annotated[bool, _what("--drafts", help=DRAFTS_HELP)] = False,
    memory: Annotated[
        bool, _what("--memory", help="The memory of long recordings, each in a process of its own.")
    ] = False,
    model: parameters.Models = None,
    synthetic: Annotated[list[Size] | None, _cases(help=SYNTHETIC_HELP)] = None,
    device: parameters.Device = None,
    dtype: parameters.DType = None,
    engine: parameters.Engine = parameters.DEFAULT_ENGINE,
    batch_sizes: Annotated[str | None, _cases(metavar="N,N,...", help=BATCH_SIZES_HELP)] = None,
    durations: Annotated[str | None, _cases(metavar="S,S,...", help=DURATIONS_HELP)] = None,
    recordings: Annotated[int | None, _cases(min=1, help=RECORDINGS_HELP)] = None,
    trials: Annotated[int, _cases(min=1, help="Timed runs of each case, after a warm-up.")] = BENCH_TRIALS,
    lang: parameters.Lang = AUTO,
    itn: parameters.ITN = DEFAULTS.itn,
    max_tokens: parameters.MaxTokens = DEFAULTS.max_tokens,
    exact_tokens: Annotated[int | None, _exact] = DEFAULTS.exact_tokens,
    draft: parameters.Draft = parameters.DEFAULT_DRAFT,
    refs: Annotated[Path | None, _refs] = None,
    compare: Annotated[
        Path | None, _result(metavar="FILE", help="Show ratios to what --json printed earlier.")
    ] = None,
    plot: Annotated[Path | None, _result(metavar="FILE", help="Draw a picture: .png or .svg.")] = None,
    as_json: Annotated[bool, _result("--json", help="Print everything measured as JSON.")] = False,
    as_markdown: Annotated[bool, _result("--markdown", help="Print tables as Markdown.")] = False,
) -> None:
    """Measure what transcribing costs."""
    modes = [mode for mode, wanted in zip(Mode, (rtf, batches, drafts, memory), strict=True) if wanted]
    if len(modes) != 1:
        *others, last = (f"--{mode}" for mode in Mode)
        raise UsageError("say what to measure", f"one of {', '.join(others)} and {last}", code="options-conflict")
    [mode] = modes
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
    textless = {"--exact-tokens": exact_tokens, "--durations": durations, "--synthetic": synthetic}
    if refs and (typed := [option for option, value in textless.items() if value]):
        raise UsageError(f"--refs with {typed[0]}", "there are no texts to compare", code="options-conflict")
    from funasr_cli.benchmarks.scoring import read_references

    request = Request(
        mode=mode,
        models=tuple(map(str, model or [])) if model or synthetic else (None,),
        synthetic=tuple(dict.fromkeys(synthetic or [])),
        device=device,
        dtype=dtype,
        engine=engine,
        audio=tuple(audio or []),
        options=options,
        batch_sizes=sizes,
        durations_s=_numbers("--durations", durations, float, 0.1),
        recordings=recordings or many.get(mode, max(size or 1 for size in sizes)),
        trials=trials,
        references=read_references(refs) if refs else None,
        typed=parameters.typed(context, OPTIONS),
    )
    from funasr_cli.benchmarks import comparison as comparing
    from funasr_cli.benchmarks import plot as plotting
    from funasr_cli.benchmarks.report import measure
    from funasr_cli.compute.device import gflops_a_core
    from funasr_cli.pictures import check_picture

    # What cannot work is refused before anything is measured.
    warn_if_slow(gflops_a_core())
    before = comparing.read_report(compare, mode) if compare else None
    if plot:
        check_picture(plot)
    with console.busy("loading") as tell:
        report = measure(request, tell)
    comparison = comparing.compare(before, report.as_json()) if before else None
    if as_json:
        content: dict[str, Any] = report.as_json() | ({"comparison": asdict(comparison)} if comparison else {})
        console.result(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    elif as_markdown:
        console.result("\n".join(grid.markdown() for grid in tables.grids(report, comparison)))
    else:
        tables.show(report, comparison)
    if plot:  # last: if it fails, what has been measured is not lost
        plotting.draw(report, plot)


def _numbers(option: str, text: str | None, kind: type[int] | type[float], least: float) -> tuple[Any, ...]:
    """Read numbers with commas in between, each once."""
    try:
        numbers = tuple(dict.fromkeys(map(kind, text.split(",")))) if text is not None else ()
    except ValueError:
        whole = "whole " if kind is int else ""
        hint = f"it takes {whole}numbers with commas in between, such as 1,4,16"
        raise UsageError(f"{option} {text}", hint, code="option-value") from None
    if any(not least <= number < float("inf") for number in numbers):
        raise UsageError(f"{option} {text}", f"each must be at least {least:g}", code="option-value")
    return numbers

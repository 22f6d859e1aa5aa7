"""``funasr bench``: measure speed and memory."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from funasr_cli.benchmarks.request import BATCH_SIZES, BATCHED_RECORDINGS, SYNTHETIC_TOKENS, Mode, Request, Size
from funasr_cli.cli import console, parameters, tables
from funasr_cli.cli.run import warn_if_slow
from funasr_cli.errors import ModelError, UsageError
from funasr_cli.languages import AUTO
from funasr_cli.options import BENCH_TRIALS, DEFAULTS, TranscribeOptions

# Fields of `TranscribeOptions`, and their parameters.
OPTIONS = {name: (name,) for name in ("itn", "max_tokens", "exact_tokens", "draft")}
# Options that have no effect in a mode, and are refused there.
IDLE = {
    Mode.RTF: (),
    Mode.BATCHES: ("durations",),
    Mode.DRAFTS: ("durations", "draft"),
    Mode.MEMORY: ("batch_sizes", "recordings", "trials", "exact_tokens", "draft", "itn", "refs"),
}
RTF_HELP = "Speed on each recording: time of each stage, seconds per second of audio (RTF), memory."
BATCHES_HELP = "Throughput of several batch sizes."
DRAFTS_HELP = "Time that drafts save: compare --draft off with auto. Needs a model with a CTC branch."
MEMORY_HELP = "Peak memory on long recordings, each in its own process."
SYNTHETIC_HELP = (
    "Measure a model with random weights: full (830 million parameters), qwen4b (4.45 billion, in 4 bits) or "
    "demo. Repeatable."
)
BATCH_SIZES_HELP = (
    "Number of segments decoded together. Default: chosen by available memory; 1,4,16 with --batches; 1,16 with "
    "--drafts."
)
DURATIONS_HELP = (
    "Length of the recordings in seconds: they are joined, repeated or generated. Default: the recordings as they "
    "are; 600,3600,10800 with --memory."
)
RECORDINGS_HELP = (
    "Number of recordings in a run; they are repeated as needed. Default: 32 with --batches, each once with "
    "--drafts, else the largest batch size."
)
EXACT_TOKENS_HELP = (
    "Decode exactly this number of tokens for each segment, which makes the texts meaningless. "
    f"Default: {SYNTHETIC_TOKENS} with --synthetic."
)

_measured = partial(typer.Option, rich_help_panel="What to measure")
_cases = partial(typer.Option, rich_help_panel="Cases")
_result = partial(typer.Option, rich_help_panel="Result")
_exact = typer.Option(rich_help_panel=parameters.DECODING, metavar="N", help=EXACT_TOKENS_HELP)
_refs = _result(
    metavar="FILE", help="Report error rates against these texts; each line is a file name, a tab and its text."
)
_audio = typer.Argument(
    metavar="AUDIO",
    help="Recordings. Default: the clips of the demo model; generated audio with --rtf and other models.",
)


def bench(
    context: typer.Context,
    audio: Annotated[list[Path] | None, _audio] = None,
    rtf: Annotated[bool, _measured("--rtf", help=RTF_HELP)] = False,
    batches: Annotated[bool, _measured("--batches", help=BATCHES_HELP)] = False,
    drafts: Annotated[bool, _measured("--drafts", help=DRAFTS_HELP)] = False,
    memory: Annotated[bool, _measured("--memory", help=MEMORY_HELP)] = False,
    model: parameters.Models = None,
    synthetic: Annotated[list[Size] | None, _cases(metavar="<full|qwen4b|demo>", help=SYNTHETIC_HELP)] = None,
    device: parameters.Device = None,
    dtype: parameters.DType = parameters.DEFAULT_DTYPE,
    engine: parameters.Engine = parameters.DEFAULT_ENGINE,
    batch_sizes: Annotated[str | None, _cases(metavar="N,N,...", help=BATCH_SIZES_HELP)] = None,
    durations: Annotated[str | None, _cases(metavar="S,S,...", help=DURATIONS_HELP)] = None,
    recordings: Annotated[int | None, _cases(min=1, metavar="N", help=RECORDINGS_HELP)] = None,
    trials: Annotated[
        int, _cases(min=1, metavar="N", help="Timed runs of each case, after one warm-up run.")
    ] = BENCH_TRIALS,
    lang: parameters.Lang = AUTO,
    itn: parameters.ITN = DEFAULTS.itn,
    max_tokens: parameters.MaxTokens = DEFAULTS.max_tokens,
    exact_tokens: Annotated[int | None, _exact] = DEFAULTS.exact_tokens,
    draft: parameters.Draft = parameters.DEFAULT_DRAFT,
    refs: Annotated[Path | None, _refs] = None,
    compare: Annotated[
        Path | None, _result(metavar="FILE", help="Compare with an earlier report, a file written by --json.")
    ] = None,
    plot: Annotated[
        Path | None, _result(metavar="FILE", help="Draw a chart of the results: a .png or .svg file.")
    ] = None,
    as_json: Annotated[bool, _result("--json", help="Print the results as JSON.")] = False,
    as_markdown: Annotated[bool, _result("--markdown", help="Print the tables as Markdown.")] = False,
) -> None:
    """Measure speed and memory on this machine.

    For example: funasr bench --rtf recording.wav
    """
    modes = [mode for mode, wanted in zip(Mode, (rtf, batches, drafts, memory), strict=True) if wanted]
    if len(modes) != 1:
        *others, last = (f"--{mode}" for mode in Mode)
        problem = f"{len(modes)} measurements chosen" if modes else "no measurement chosen"
        raise UsageError(problem, f"choose one of {', '.join(others)} and {last}", code="options-conflict")
    [mode] = modes
    for name in IDLE[mode]:
        if parameters.is_typed(context, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} has no effect with --{mode}", "leave it out", code="options-conflict")
    if as_json and as_markdown:
        raise UsageError("cannot combine --json with --markdown", "choose one", code="options-conflict")
    sizes = _numbers("--batch-sizes", batch_sizes, int, 1) or BATCH_SIZES.get(mode, (None,))
    options = TranscribeOptions(
        language=lang, itn=itn, max_tokens=max_tokens, exact_tokens=exact_tokens, draft=draft
    )
    if synthetic and not max_tokens and not exact_tokens:
        limit: dict[str, Any] = {"max_tokens" if mode == Mode.MEMORY else "exact_tokens": SYNTHETIC_TOKENS}
        options = replace(options, **limit)
    repeats = {Mode.BATCHES: BATCHED_RECORDINGS, Mode.DRAFTS: None}  # repeated recordings would favour drafts
    textless = {"--exact-tokens": exact_tokens, "--durations": durations, "--synthetic": synthetic}
    if refs and (conflicts := [option for option, value in textless.items() if value]):
        raise UsageError(
            f"cannot combine --refs with {conflicts[0]}",
            "there would be no texts to compare",
            code="options-conflict",
        )
    from funasr_cli.benchmarks.scoring import read_references

    request = Request(
        mode=mode,
        models=tuple(map(str, model or [])) if model or synthetic else (None,),
        synthetic=tuple(dict.fromkeys(synthetic or [])),
        device=device,
        dtype=dtype,
        engine=engine,
        optional=parameters.optional_computing(context),
        audio=tuple(audio or []),
        options=options,
        batch_sizes=sizes,
        durations_s=_numbers("--durations", durations, float, 0.1),
        recordings=recordings or repeats.get(mode, max(size or 1 for size in sizes)),
        trials=trials,
        references=read_references(refs) if refs else None,
        typed=parameters.typed(context, OPTIONS),
    )

    with console.uninterrupted():  # numpy.random, which these import, would swallow a Ctrl-C meanwhile
        from funasr_cli.benchmarks import comparison as comparing
        from funasr_cli.benchmarks import plot as plotting
        from funasr_cli.benchmarks.report import measure
    from funasr_cli.compute.device import gflops_a_core
    from funasr_cli.pictures import check_picture, require_matplotlib

    # Refuse bad files before measuring, which takes time.
    warn_if_slow(gflops_a_core())
    before = comparing.read_report(compare, mode) if compare else None
    if plot:
        check_picture(plot)
        require_matplotlib()
    try:
        with console.busy("loading the model") as show:
            report = measure(request, show)
    except ModelError as error:
        if error.code == "model-missing" and not model:
            error.hint = f"{error.hint}; or measure random weights with --synthetic full"
        raise
    comparison = comparing.compare(before, report.as_json()) if before else None
    if as_json:
        content: dict[str, Any] = report.as_json() | ({"comparison": asdict(comparison)} if comparison else {})
        console.result(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    elif as_markdown:
        console.result("\n".join(grid.markdown() for grid in tables.grids(report, comparison)))
    else:
        tables.show(report, comparison)
    if plot:  # last, so that a failure does not lose the results
        plotting.draw(report, plot)


def _numbers(option: str, text: str | None, kind: type[int] | type[float], least: float) -> tuple[Any, ...]:
    """Read numbers separated by commas, without duplicates."""
    try:
        numbers = tuple(dict.fromkeys(map(kind, text.split(",")))) if text is not None else ()
    except ValueError:
        whole = "whole " if kind is int else ""
        hint = f"write {whole}numbers separated by commas, such as 1,4,16"
        raise UsageError(f"{option} {text}: not a list of {whole}numbers", hint, code="option-value") from None
    if any(not least <= number < float("inf") for number in numbers):
        hint = f"each number must be at least {least:g}"
        raise UsageError(f"{option} {text}: out of range", hint, code="option-value")
    return numbers

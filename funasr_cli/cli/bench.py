"""``funasr bench``."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from funasr_cli.cli import console, parameters, tables
from funasr_cli.decoding.languages import AUTO
from funasr_cli.errors import UsageError
from funasr_cli.options import BENCH_RECORDINGS, BENCH_TRIALS, DEFAULTS, TranscribeOptions

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPED_WIDTH = 160


def bench(
    audio: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="AUDIO",
            help="Recordings. Default: the demo model's clips; with --rtf and other models, generated ones.",
        ),
    ] = None,
    rtf: Annotated[bool, typer.Option("--rtf", help="Report the real-time factor and each stage's time.")] = False,
    batches: Annotated[
        bool, typer.Option("--batches", help="Compare the throughput of several batch sizes.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Measure the memory that 10 minutes, 1 hour and 3 hours take.")
    ] = False,
    model: parameters.Model = None,
    lang: parameters.Lang = AUTO,
    trials: Annotated[
        int, typer.Option(min=1, help="Timed runs, after a warm-up; not with --memory.")
    ] = BENCH_TRIALS,
    recordings: Annotated[
        int, typer.Option(min=1, help="How many recordings a run of --batches takes; they are repeated.")
    ] = BENCH_RECORDINGS,
    max_tokens: parameters.MaxTokens = DEFAULTS.max_tokens,
    exact_tokens: Annotated[
        int | None, typer.Option(help="Write exactly so many tokens for each segment, whatever they are.")
    ] = DEFAULTS.exact_tokens,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything measured as JSON.")] = False,
) -> None:
    """Measure what transcribing costs."""
    if rtf + batches + memory != 1:
        raise UsageError("say what to measure", "one of --rtf, --batches and --memory")
    if memory and exact_tokens is not None:
        raise UsageError("--exact-tokens with --memory", "--max-tokens limits the tokens there")
    options = TranscribeOptions(language=lang, max_tokens=max_tokens, exact_tokens=exact_tokens)
    from funasr_cli import demo
    from funasr_cli.checkpoints.hub import find_model

    folder = find_model(model)
    paths = audio or []
    if not paths and (not rtf or folder == demo.MODEL):
        paths = [clip.path for clip in demo.clips()]
    if rtf:
        result, shown = _rtf(folder, paths, options, trials)
    elif batches:
        result, shown = _batches(folder, paths, options, recordings, trials)
    else:
        result, shown = _memory(folder, paths, lang, max_tokens)
    if as_json:
        console.result(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    else:
        _print(*shown)


def _rtf(folder: Path, paths: list[Path], options: TranscribeOptions, trials: int) -> "tuple[Any, Any]":
    from funasr_cli.benchmarks.clips import run_benchmark

    with console.busy("loading") as tell:
        result = run_benchmark(folder, paths, options, trials, lambda name: tell(f"timing {name}"))
    return dataclasses.asdict(result), tables.clips(result)


def _batches(
    folder: Path, paths: list[Path], options: TranscribeOptions, recordings: int, trials: int
) -> "tuple[Any, Any]":
    from funasr_cli.benchmarks.batches import run_batches

    with console.busy("loading") as tell:
        costs = run_batches(folder, paths, options, recordings, trials, tell)
    return [dataclasses.asdict(cost) for cost in costs], tables.batches(costs, recordings)


def _memory(folder: Path, paths: list[Path], language: str, max_tokens: int | None) -> "tuple[Any, Any]":
    from funasr_cli.benchmarks.memory import DURATIONS_S, run_memory

    with console.busy("writing audio") as tell:
        costs = run_memory(folder, paths, DURATIONS_S, language, max_tokens, tell)
    return [dataclasses.asdict(cost) for cost in costs], tables.memory(costs)


def _print(table: "RenderableType", footer: str) -> None:
    from rich.console import Console

    out = Console(markup=False, highlight=False)
    if not out.is_terminal:
        out.width = PIPED_WIDTH
    out.print(table)
    console.result(footer + "\n")

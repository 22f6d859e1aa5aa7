"""``funasr bench``."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from funasr_cli.cli import console
from funasr_cli.decoding.languages import AUTO
from funasr_cli.options import BENCH_TRIALS, DEFAULTS, TranscribeOptions

if TYPE_CHECKING:
    from rich.table import Table

    from funasr_cli.benchmark import Benchmark

PIPED_WIDTH = 160
STAGE_HEADINGS = {
    "audio_s": "audio",
    "read_s": "read",
    "features_s": "feat.",
    "encoder_s": "encoder",
    "prefill_s": "prefill",
    "decode_s": "decode",
    "total_s": "total",
}


def bench(
    audio: Annotated[
        list[Path] | None,
        typer.Argument(metavar="AUDIO", help="Recordings. Default: generated clips, or the demo model's own."),
    ] = None,
    rtf: Annotated[bool, typer.Option("--rtf", help="Report the real-time factor and each stage's time.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder, hub id or alias of a converted model, or demo.")
    ] = None,
    lang: Annotated[str, typer.Option("--lang", "-l", help="Language to write.")] = AUTO,
    trials: Annotated[int, typer.Option(min=1, help="Timed runs of each clip, after a warm-up.")] = BENCH_TRIALS,
    max_tokens: Annotated[
        int | None, typer.Option(help="Stop each segment after so many tokens. Default: by its length.")
    ] = DEFAULTS.max_tokens,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything measured as JSON.")] = False,
) -> None:
    """Measure what transcribing costs on this machine."""
    if not rtf:
        raise typer.BadParameter("say what to measure: --rtf", param_hint="bench")
    options = TranscribeOptions(language=lang, max_tokens=max_tokens)
    from funasr_cli import demo
    from funasr_cli.benchmark import run_benchmark
    from funasr_cli.checkpoints.hub import find_model

    folder = find_model(model)
    with console.busy("loading") as tell:
        if not audio and folder == demo.MODEL:
            audio = [clip.path for clip in demo.clips()]
        result = run_benchmark(folder, audio or [], options, trials, lambda name: tell(f"timing {name}"))
    if as_json:
        console.result(json.dumps(dataclasses.asdict(result), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(result)


def _print(result: "Benchmark") -> None:
    from rich.console import Console

    out = Console(markup=False, highlight=False)
    if not out.is_terminal:
        out.width = PIPED_WIDTH
    out.print(_table(result))
    spread = max((clip.rtf.high - clip.rtf.low) / clip.rtf.median for clip in result.clips)
    console.result(
        f"{result.model}, {result.weights}, {result.device}: loaded in {result.load_s:.2f} s, "
        f"process peak {result.peak_process_bytes / 1e9:.2f} GB.\n"
        f"Seconds; medians of {result.trials} behind a warm-up; RTF spread at most {spread:.0%}.\n"
    )


def _table(result: "Benchmark") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
    table.add_column("clip", overflow="fold")
    for heading in (*STAGE_HEADINGS.values(), "tok/s", "RTF", "GB"):
        table.add_column(f" {heading}", justify="right", no_wrap=True)
    for clip in result.clips:
        seconds = {"audio_s": clip.duration_s, **{name: spread.median for name, spread in clip.stages.items()}}
        numbers = [*(seconds[name] for name in STAGE_HEADINGS), clip.tokens_per_s.median, clip.rtf.median]
        table.add_row(Path(clip.name).name, *map(_three_digits, [*numbers, clip.peak_mlx_bytes / 1e9]))
    return table


def _three_digits(value: float) -> str:
    """At least three digits, but never more than three behind the point."""
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1}f}"

"""``funasr bench``."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from funasr_cli.cli import console
from funasr_cli.options import DEFAULTS, TranscribeOptions

if TYPE_CHECKING:
    from rich.table import Table

    from funasr_cli.benchmark import Benchmark


def bench(
    audio: Annotated[
        list[Path] | None, typer.Argument(metavar="[AUDIO]", help="Recordings. Default: generated clips.")
    ] = None,
    rtf: Annotated[bool, typer.Option("--rtf", help="Report the real-time factor and each stage's time.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder, hub id or alias of a converted model.")
    ] = None,
    lang: Annotated[str, typer.Option("--lang", "-l", help="Language to write.")] = "auto",
    trials: Annotated[int, typer.Option(min=1, help="Timed runs of each clip, behind one warm-up.")] = 3,
    max_tokens: Annotated[int, typer.Option(help="Stop after so many tokens.")] = DEFAULTS.max_tokens,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything measured as JSON.")] = False,
) -> None:
    """Measure what transcribing costs on this machine."""
    if not rtf:
        raise typer.BadParameter("say what to measure: --rtf", param_hint="bench")
    options = TranscribeOptions(language=lang, max_tokens=max_tokens)
    from funasr_cli.benchmark import run_benchmark
    from funasr_cli.checkpoints.hub import find_model

    folder = find_model(model)
    with console.stderr().status("loading") as status:
        result = run_benchmark(folder, audio or [], options, trials, lambda name: status.update(f"timing {name}"))
    if as_json:
        console.result(json.dumps(dataclasses.asdict(result), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(result)


def _print(result: "Benchmark") -> None:
    from rich.console import Console

    table = _table(result)
    out = Console(markup=False, highlight=False)
    out.print(table, soft_wrap=not out.is_terminal)
    out.print(
        f"{result.model}, {result.dtype}, {result.device}: loaded in {result.load_s:.2f} s, "
        f"process peak {result.peak_process_bytes / 1e9:.2f} GB; medians of {result.trials}, seconds",
        soft_wrap=True,
    )


def _table(result: "Benchmark") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("clip", overflow="fold")
    for heading in (
        "audio",
        "read",
        "features",
        "encoder",
        "prefill",
        "decode",
        "total",
        "tok/s",
        "RTF",
        "low-high",
        "MLX GB",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for clip in result.clips:
        stages = [
            clip.stages[name].median
            for name in ("read_s", "features_s", "encoder_s", "prefill_s", "decode_s", "total_s")
        ]
        table.add_row(
            Path(clip.name).name,
            f"{clip.duration_s:.1f}",
            *(f"{seconds:.3f}" for seconds in stages),
            f"{clip.tokens_per_s.median:.1f}",
            f"{clip.rtf.median:.3f}",
            f"{clip.rtf.low:.3f}-{clip.rtf.high:.3f}",
            f"{clip.peak_mlx_bytes / 1e9:.2f}",
        )
    return table

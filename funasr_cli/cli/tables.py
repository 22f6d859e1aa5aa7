"""Measurements as tables, each with what has to be known to read it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.cli.console import CONTROLS
from funasr_cli.formats import clock

if TYPE_CHECKING:
    from rich.table import Table

    from funasr_cli.benchmarks.batches import BatchCost
    from funasr_cli.benchmarks.clips import Benchmark
    from funasr_cli.benchmarks.memory import MemoryCost
    from funasr_cli.cli.outcome import Outcome

MOST_ROWS = 20
OUTCOME_HEADINGS = (  # from so many columns of a terminal on, so that some are left for a name
    (72, ("audio", "speech", "segments", "repaired", "failed", "")),
    (40, ("audio", "failed", "")),
    (0, ("",)),
)
STAGE_HEADINGS = {
    "audio_s": "audio",
    "read_s": "read",
    "vad_s": "VAD",
    "features_s": "feat.",
    "encoder_s": "encoder",
    "prefill_s": "prefill",
    "decode_s": "decode",
    "total_s": "total",
}


def clips(result: "Benchmark") -> "tuple[Table, str]":
    """A row for each clip."""
    table = _table("clip", *STAGE_HEADINGS.values(), "tok/s", "RTF", "GB")
    for clip in result.clips:
        seconds = {"audio_s": clip.duration_s, **{name: spread.median for name, spread in clip.stages.items()}}
        numbers = [*(seconds[name] for name in STAGE_HEADINGS), clip.tokens_per_s.median, clip.rtf.median]
        table.add_row(Path(clip.name).name, *map(_three_digits, [*numbers, clip.peak_mlx_bytes / 1e9]))
    spread = max((clip.rtf.high - clip.rtf.low) / clip.rtf.median for clip in result.clips)
    return table, (
        f"{result.model}, {result.weights}, {result.device}: loaded in {result.load_s:.2f} s, "
        f"process peak {result.peak_process_bytes / 1e9:.2f} GB.\n"
        f"Seconds; medians of {result.trials} behind a warm-up; RTF spread at most {spread:.0%}."
    )


def batches(costs: "tuple[BatchCost, ...]", recordings: int) -> "tuple[Table, str]":
    """A row for each batch size."""
    table = _table("batch", "seconds", "audio s/s", "tok/s", "times faster", "same texts")
    for cost in costs:
        wall_s = cost.wall_s.median
        numbers = wall_s, cost.audio_s / wall_s, cost.tokens / wall_s, cost.times_faster
        table.add_row(str(cost.batch_size), *map(_three_digits, numbers), str(cost.same_texts))
    spread = max((cost.wall_s.high - cost.wall_s.low) / cost.wall_s.median for cost in costs)
    return table, (
        f"{recordings} recordings, {costs[0].audio_s:.0f} s of audio, {costs[0].tokens} tokens.\n"
        f"Medians of runs that took turns; spread at most {spread:.0%}."
    )


def memory(costs: "tuple[MemoryCost, ...]") -> "tuple[Table, str]":
    """A row for each length."""
    table = _table("minutes", "peak GB", "more, MB", "seconds", "RTF")
    for cost in costs:
        more = (cost.peak_bytes - costs[0].peak_bytes) / 1e6
        row = cost.peak_bytes / 1e9, more, cost.wall_s, cost.wall_s / cost.duration_s
        table.add_row(f"{cost.duration_s / 60:g}", *map(_three_digits, row))
    return table, "Each with a process of its own: most memory resident, and the whole command's time."


def outcome(result: "Outcome", names: Sequence[str], width: int) -> "Table":
    """A row for each input, of many inputs those with problems; a narrow terminal gets fewer columns."""
    shown = next(headings for least, headings in OUTCOME_HEADINGS if width >= least)
    table = _table("input", *shown)
    by_need = sorted(result.rows, key=lambda row: (row.state in ("done", "silent"), row.source))
    for row in sorted(by_need[:MOST_ROWS], key=lambda row: row.source):
        ledger = row.ledger
        seconds = {
            "audio": row.duration_s,
            "speech": ledger.speech_s,
            "repaired": ledger.repaired_s,
            "failed": ledger.failed_s,
        }
        cells = {name: clock(value) if value else "-" for name, value in seconds.items()}
        cells |= {"segments": str(row.segments), "": row.state}
        table.add_row(names[row.source].translate(CONTROLS), *(cells[heading] for heading in shown))
    if len(result.rows) > MOST_ROWS:
        table.add_row(f"and {len(result.rows) - MOST_ROWS} more")
    table.caption, table.caption_justify, table.caption_style = result.costs(), "left", ""
    return table


def _table(*headings: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(f" {heading}", justify="right", no_wrap=True)
    return table


def _three_digits(value: float) -> str:
    """At least three digits, but never more than three behind the point."""
    return f"{value:.{3 if abs(value) < 1 else 2 if abs(value) < 10 else 1}f}"

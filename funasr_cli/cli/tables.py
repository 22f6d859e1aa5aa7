"""Tables, and the one of a run's inputs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from funasr_cli.cli.console import CONTROLS
from funasr_cli.formats import clock

if TYPE_CHECKING:
    from rich.table import Table

    from funasr_cli.cli.outcome import Outcome

MOST_ROWS = 20
OUTCOME_HEADINGS = (  # from so many columns of a terminal on, so that some are left for a name
    (72, ("audio", "speech", "segments", "repaired", "failed", "")),
    (40, ("audio", "failed", "")),
    (0, ("",)),
)


def outcome(result: "Outcome", names: Sequence[str], width: int) -> "Table":
    """A row for each input, of many inputs those with problems; a narrow terminal gets fewer columns."""
    shown = next(headings for least, headings in OUTCOME_HEADINGS if width >= least)
    table = plain("input", *shown)
    by_need = sorted(result.rows, key=lambda row: (row.state in ("done", "silent"), row.source))
    for row in sorted(by_need[:MOST_ROWS], key=lambda row: row.source):
        seconds = {"audio": row.duration_s}
        seconds |= {name: getattr(row.ledger, f"{name}_s") for name in ("speech", "repaired", "failed")}
        cells = {name: clock(value) if value else "-" for name, value in seconds.items()}
        cells |= {"segments": str(row.segments), "": row.state}
        table.add_row(names[row.source].translate(CONTROLS), *(cells[heading] for heading in shown))
    if len(result.rows) > MOST_ROWS:
        table.add_row(f"and {len(result.rows) - MOST_ROWS} more")
    table.caption, table.caption_justify, table.caption_style = result.costs(), "left", ""
    return table


def plain(*headings: str) -> "Table":
    """An empty table: a column of names, and columns of numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(f" {heading}", justify="right", no_wrap=True)
    return table

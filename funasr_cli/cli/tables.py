"""Tables: of a run's inputs, and of measurements, with bars and with what has to be known to read them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from funasr_cli.benchmarks.request import PARTS, STAGES, Mode
from funasr_cli.cli import console
from funasr_cli.formats import clock

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from funasr_cli.benchmarks.comparison import Comparison
    from funasr_cli.benchmarks.memory import MemoryCost
    from funasr_cli.benchmarks.report import Report
    from funasr_cli.cli.outcome import Outcome
    from funasr_cli.measure import Spread

MOST_ROWS = 20
OUTCOME_HEADINGS = (  # from this width of a terminal on, so that columns are left for a name
    (72, ("audio", "speech", "segments", "repaired", "failed", "")),
    (40, ("audio", "failed", "")),
    (0, ("",)),
)
PIPED_WIDTH = 200
MOST_NAME = 48  # columns of a case's name, before it is folded
LEAST_BAR, MOST_BAR = 20, 100
BAR_STYLES = {  # of the stages' bars
    "read_s": "black on white", "vad_s": "black on yellow", "features_s": "black on cyan",
    "encoder_s": "white on blue", "ctc_s": "black on bright_blue", "prefill_s": "white on magenta",
    "decode_s": "black on green",
}  # fmt: skip
COMPARED = {  # as far as a mode has it
    "stages.total_s": "total", **{f"stages.{name}": STAGES[name] for name in list(STAGES)[3:-1]},
    "stages.text_s": "CTC to decode", "tokens_per_s": "tok/s", "decoder_calls": "calls", "accepted": "accepted",
    "peak_mlx_bytes": "MLX memory", "peak_process_bytes": "process memory", "peak_bytes": "peak",
    "wall_s": "seconds",
}  # fmt: skip


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
        table.add_row(names[row.source].translate(console.CONTROLS), *(cells[heading] for heading in shown))
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


@dataclass
class Grid:
    """A table: names in the first column, numbers in the others, and notes below it."""

    headings: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table of GitHub's Markdown."""
        rule = ["---", *["---:"] * (len(self.headings) - 1)]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in (self.headings, rule, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return "\n".join([*lines, "", *(f"{note}\n" for note in self.notes)])

    def fitted(self, width: int) -> "Iterator[Table]":
        """The same as Rich draws it, in as few tables below each other as a terminal has columns for."""
        from rich.console import Console

        def drawn(start: int, end: int) -> "Table":
            table = plain(self.headings[0], *self.headings[start:end])
            table.columns[0].max_width = MOST_NAME
            for row in self.rows:
                table.add_row(row[0], *row[start:end])
            return table

        console, start = Console(width=PIPED_WIDTH, markup=False, emoji=False), 1
        while start < len(self.headings):
            ends = range(len(self.headings), start, -1)
            fitting = (end for end in ends if console.measure(drawn(start, end)).maximum <= width)
            end = next(fitting, start + 1)
            yield drawn(start, end)
            start = end


def grids(report: "Report", comparison: "Comparison | None") -> list[Grid]:
    """Everything that is shown of a measurement."""
    make = {Mode.RTF: _cases, Mode.BATCHES: _batches, Mode.DRAFTS: _drafts, Mode.MEMORY: _memory}
    grid = make[report.request.mode](report)
    grid.notes = [*_about(report), *grid.notes, *_errors(report)]
    return [grid, _comparison(comparison)] if comparison else [grid]


def _cases(report: "Report") -> Grid:
    scored = report.request.references is not None
    rates = ["tok/s", "tok/call", "RTF", "MLX GB", "process GB", *(["errors %"] if scored else [])]
    grid = Grid(["case", "audio", "segments", *STAGES.values(), "spread", *rates])
    for case in report.runs:
        stages = [_digits(case.stages[stage].median) for stage in STAGES]
        numbers = case.tokens_per_s.median, case.tokens_per_call, case.rtf.median
        sizes = case.peak_mlx_bytes / 1e9, case.peak_process_bytes / 1e9
        row = [_name(report, case.case), _digits(case.audio_s), str(case.segments), *stages]
        row += [_spread(case.stages["total_s"]), *map(_digits, numbers + sizes)]
        grid.rows.append(row + ([f"{case.errors.percent:.2f}"] if case.errors else []))
    trials = report.request.trials
    what = "in turns; spread: of the total, highest less lowest."
    grid.notes = [f"Seconds: medians of {trials} after a warm-up, {what}"]
    return grid


def _batches(report: "Report") -> Grid:
    grid = Grid(["case", "seconds", "spread", "audio s/s", "tok/s", "times faster", "same texts"])
    for case, gain in zip(report.runs, report.gains, strict=True):
        total_s = case.stages["total_s"]
        rates = case.audio_s / total_s.median, case.tokens / total_s.median, gain.times_faster
        row = [_name(report, case.case), _digits(total_s.median), _spread(total_s)]
        grid.rows.append([*row, *map(_digits, rates), str(gain.same_texts)])
    grid.notes = [_together(report)]
    return grid


def _drafts(report: "Report") -> Grid:
    headings = ["calls", "tok/call", "accepted %", "seconds", "spread", "times faster", "in all", "same texts"]
    grid = Grid(["case", *headings])
    for case, gain in zip(report.runs, report.gains, strict=True):
        text_s = case.stages["text_s"]
        accepted = "-" if case.acceptance is None else f"{100 * case.acceptance:.1f}"
        faster = map(_digits, (gain.text_times_faster, gain.times_faster))
        row = [_name(report, case.case), str(case.decoder_calls), _digits(case.tokens_per_call), accepted]
        row += [_digits(text_s.median), _spread(text_s), *faster, f"{gain.same_texts} of {case.recordings}"]
        grid.rows.append(row)
    what = "Seconds and times faster: CTC, prefill and decode, all that drafts change; in all: of the total."
    grid.notes = [_together(report), what]
    return grid


def _together(report: "Report") -> str:
    """What all cases read and wrote."""
    base, tokens = report.runs[0], sorted({case.tokens for case in report.runs})
    return (
        f"{base.recordings} recordings, {base.audio_s:.0f} s of audio, {' or '.join(map(str, tokens))} tokens; "
        f"medians of {report.request.trials} after a warm-up, in turns."
    )


def _memory(report: "Report") -> Grid:
    cases: tuple[MemoryCost, ...] = report.cases  # type: ignore[assignment]
    grid = Grid(["case", "peak GB", "more, MB", "seconds", "RTF"])
    least = {case.model: case.peak_bytes for case in reversed(cases)}
    for case in cases:
        more_mb = (case.peak_bytes - least[case.model]) / 1e6
        numbers = case.peak_bytes / 1e9, more_mb, case.wall_s, case.wall_s / case.audio_s
        grid.rows.append([_plain(case.case), *map(_digits, numbers)])
    grid.notes = ["Each in a process of its own: most memory resident, and the whole command's time."]
    return grid


def _comparison(comparison: "Comparison") -> Grid:
    measured = {name for ratios in comparison.ratios.values() for name in ratios}
    metrics = [name for name in COMPARED if name in measured]
    grid = Grid(["now / earlier", *(COMPARED[name] for name in metrics)])
    for case, ratios in comparison.ratios.items():
        row = [_plain(case)]
        for ratio in map(ratios.get, metrics):
            is_doubtful = ratio and ratio.within_spread and ratio.now != ratio.earlier
            known = ratio.now_to_earlier if ratio else None
            row.append("-" if known is None else f"{'~' if is_doubtful else ''}{known:.2f}")
        grid.rows.append(row)
    grid.notes = ["Below 1, it is less than it was; ~: the ranges overlap, there may be no difference."]
    grid.notes += [f"Not measured earlier: {_plain(case)}" for case in comparison.only_now]
    grid.notes += [f"Not measured now: {_plain(case)}" for case in comparison.only_earlier]
    grid.notes += [f"Changed: {_plain(change)}" for change in comparison.changes]
    return grid


def _about(report: "Report") -> Iterator[str]:
    """Models, machine, and what was asked for."""
    for model in report.models:
        yield (
            f"{_plain(model.model)}: {model.parameters / 1e6:.1f} million parameters, {model.weights}, "
            f"computed by {model.engine}, {(model.mlx_bytes + model.native_bytes) / 1e9:.2f} GB, "
            f"loaded in {model.load_s.median:.2f} s."
        )
    machine, exact_tokens = report.machine, report.request.options.exact_tokens
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield f"{machine['gpu'] or machine['processor']}, {machine['cores']} cores; {report.device}; {versions}."
    if exact_tokens:
        yield f"Exactly {exact_tokens} tokens for each segment: texts mean nothing."


def _errors(report: "Report") -> Iterator[str]:
    for case in report.runs:
        if rate := case.errors:
            yield (
                f"{_plain(case.case)}: {rate.percent:.2f} % errors, {rate.edits} of {rate.total} "
                f"({rate.substitutions} wrong, {rate.deletions} missing, {rate.insertions} too many)."
            )
    if report.request.references is not None:
        yield "Errors: NFKC, case-folded, a unit for each CJK character and each other word, no punctuation."


def show(report: "Report", comparison: "Comparison | None") -> None:
    """Print tables, and bars below the first of them."""
    from rich.console import Console, Group

    stdout = Console()
    width = stdout.width if stdout.is_terminal else PIPED_WIDTH
    for index, grid in enumerate(grids(report, comparison)):
        bars = list(_bars(report, width)) if report.runs and not index else []
        console.result(Group(*grid.fitted(width), *bars), width)
        console.result("\n".join(["", *grid.notes, ""] if bars else [*grid.notes, ""]))


def _bars(report: "Report", width: int) -> "Iterator[Text]":
    """The stages of each case one behind the other, for each second of audio; all to the same scale."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    names = [_name(report, case.case) for case in report.runs]
    lengths = [[case.stages[part].median / case.audio_s for part in PARTS] for case in report.runs]
    label = min(max(map(cell_len, names)), MOST_NAME)
    room = min(MOST_BAR, max(LEAST_BAR, width - label - 2))
    longest = max(map(sum, lengths)) or 1.0
    for name, own in zip(names, lengths, strict=True):
        line = Text(set_cell_size(name, label) + " ")
        end = 0.0
        for part, length in zip(PARTS, own, strict=True):
            start, end = end, end + length / longest * room
            columns = round(end) - round(start)
            line.append(f"|{STAGES[part]}"[:columns].ljust(columns, "-"), BAR_STYLES[part])
        yield line


def _name(report: "Report", case: str) -> str:
    """A case without its model, where there is only one."""
    models = {model.model for model in report.models}
    return _plain(case.removeprefix(f"{next(iter(models))}, ") if len(models) == 1 else case)


def _plain(text: str) -> str:
    return text.translate(console.CONTROLS)


def _spread(spread: "Spread") -> str:
    if spread.low == spread.high:  # of a single trial, say
        return "-"
    share = (spread.high - spread.low) / spread.median if spread.median else 0.0
    return f"{share:.0%}"


def _digits(value: float) -> str:
    """At least three digits, but never more than three behind the point."""
    return f"{value:.{3 if abs(value) < 1 else 2 if abs(value) < 10 else 1}f}"

"""Tables: the inputs of a run, and measurements with their bars and notes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from funasr_cli.benchmarks.request import PARTS, STAGES, Mode
from funasr_cli.cli import console
from funasr_cli.cli.names import short_names
from funasr_cli.formats import clock

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from funasr_cli.benchmarks.cases import CaseCost
    from funasr_cli.benchmarks.comparison import Comparison
    from funasr_cli.benchmarks.memory import MemoryCost
    from funasr_cli.benchmarks.report import Report
    from funasr_cli.cli.outcome import Outcome
    from funasr_cli.measure import Spread

MOST_ROWS = 20
OUTCOME_HEADINGS = (  # least width of a terminal, and headings that leave room for the names of inputs
    (72, ("audio", "speech", "segments", "repaired", "failed", "status")),
    (40, ("audio", "failed", "status")),
    (0, ("status",)),
)
PIPED_WIDTH = 200
MOST_NAME = 48  # columns of a case's name; longer names are folded
LEAST_BAR, MOST_BAR = 20, 100
BAR_STYLES = {  # by stage
    "read_s": "black on white", "vad_s": "black on yellow", "features_s": "black on cyan",
    "encoder_s": "white on blue", "ctc_s": "black on bright_blue", "prefill_s": "white on magenta",
    "decode_s": "black on green",
}  # fmt: skip
UNITS = ("s", "MB", "GB", "%")  # may be the second line of a heading
TOKENS_PER_S = "tokens\nper s"
SPREAD = "Spread: the longest minus the shortest time, relative to the median."
COMPARED = {  # metrics and their headings; each mode has some of them
    "stages.total_s": "total", **{f"stages.{name}": STAGES[name] for name in list(STAGES)[3:-1]},
    "stages.text_s": "CTC to decode", "tokens_per_s": TOKENS_PER_S, "decoder_calls": "calls",
    "accepted": "accepted", "peak_mlx_bytes": "MLX memory", "peak_process_bytes": "process memory",
    "peak_bytes": "peak", "wall_s": "total",
}  # fmt: skip


def outcome(result: "Outcome", names: Sequence[str], width: int) -> "RenderableType":
    """Return a table of all inputs, or of those with problems if there are many.

    The table is empty if the only input could not be read. A narrow terminal gets fewer columns.
    """
    from rich.console import Group

    if result.is_unreadable:
        return Group()
    shown = next(headings for least, headings in OUTCOME_HEADINGS if width >= least)
    table, names = plain("input", *shown), short_names(names)
    by_need = sorted(result.rows, key=lambda row: (row.state in ("done", "silent"), row.source))
    for row in sorted(by_need[:MOST_ROWS], key=lambda row: row.source):
        seconds = {"audio": row.duration_s}
        seconds |= {name: getattr(row.ledger, f"{name}_s") for name in ("speech", "repaired", "failed")}
        cells = {name: clock(value) if value else "-" for name, value in seconds.items()}
        cells |= {"segments": str(row.segments), "status": row.state}
        table.add_row(names[row.source].translate(console.CONTROLS), *(cells[heading] for heading in shown))
    if len(result.rows) > MOST_ROWS:
        table.add_row(f"and {len(result.rows) - MOST_ROWS} more")
    table.caption, table.caption_justify, table.caption_style = result.costs(), "left", ""
    return table


def plain(*headings: str) -> "Table":
    """Return an empty table: a column of names, and right-aligned columns of numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column("\n".join(f" {line}" for line in heading.split("\n")), justify="right", no_wrap=True)
    return table


@dataclass
class Grid:
    """A table of measurements: names in the first column, numbers in the others.

    Attributes:
        headings: one per column; a second line holds the unit.
        rows: one cell per heading.
        notes: explanations below the table.
        title: what was measured, and how.
    """

    headings: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    title: str = ""

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        rule = ["---", *["---:"] * (len(self.headings) - 1)]
        headings = list(map(_in_one_line, self.headings))
        cells = [[cell.replace("|", "\\|") for cell in row] for row in (headings, rule, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        title = [self.title, ""] if self.title else []
        return "\n".join([*title, *lines, "", *(f"{note}\n" for note in self.notes)])

    def fitted(self, width: int) -> "Iterator[Table]":
        """Yield tables that fit a terminal of this width, as few as possible, to be printed below each other."""
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


def _in_one_line(heading: str) -> str:
    name, _, rest = heading.partition("\n")
    return f"{name} ({rest})" if rest in UNITS else f"{name} {rest}".rstrip()


def grids(report: "Report", comparison: "Comparison | None") -> list[Grid]:
    """Return the tables of a measurement."""
    make = {Mode.RTF: _cases, Mode.BATCHES: _batches, Mode.DRAFTS: _drafts, Mode.MEMORY: _memory}
    grid = make[report.request.mode](report)
    grid.notes = [*grid.notes, *_about(report), *_errors(report)]
    return [grid, _comparison(comparison)] if comparison else [grid]


def _cases(report: "Report") -> Grid:
    scored = report.request.references is not None
    stages = [f"{name}\ns" for name in STAGES.values()]
    rates = [TOKENS_PER_S, "tokens\nper call", "RTF", "MLX\nGB", "process\nGB", *(["errors\n%"] if scored else [])]
    grid = Grid(["case", "audio\ns", "segments", *stages, "spread\n%", *rates])
    grid.title = f"Time of each stage and peak memory: {_trials(report)}."
    for case in report.runs:
        seconds = [_digits(case.stages[stage].median) for stage in STAGES]
        numbers = case.tokens_per_s.median, case.tokens_per_call, case.rtf.median
        sizes = case.peak_mlx_bytes / 1e9, case.peak_process_bytes / 1e9
        row = [_name(report, case.case), _digits(case.audio_s), str(case.segments), *seconds]
        row += [_spread(case.stages["total_s"]), *map(_digits, numbers + sizes)]
        grid.rows.append(row + ([f"{case.errors.percent:.2f}"] if case.errors else []))
    grid.notes = [*hours(report.runs), f"RTF: total time for each second of audio. {SPREAD}"]
    return grid


def hours(cases: "Sequence[CaseCost]") -> Iterator[str]:
    """Yield a note for each model: how long an hour of audio takes, by its fastest case."""
    for model in dict.fromkeys(case.model for case in cases):
        fastest = min((case for case in cases if case.model == model), key=lambda case: case.rtf.median)
        minutes = math.ceil(60 * fastest.rtf.median)
        takes = f"{minutes} minute{'s' * (minutes != 1)}" if minutes < 120 else f"{minutes / 60:.1f} hours"
        yield f"An hour of audio takes about {takes} on this machine, at the speed of: {_plain(fastest.case)}."


def _trials(report: "Report") -> str:
    trials = report.request.trials
    runs = "one run" if trials == 1 else f"median of {trials} runs"
    return f"{runs} after a warm-up"


def _batches(report: "Report") -> Grid:
    headings = ["total\ns", "spread\n%", "audio s\nper s", TOKENS_PER_S, "times\nfaster", "same\ntexts"]
    grid = Grid(["case", *headings], title=f"Throughput by batch size: {_trials(report)}.")
    for case, gain in zip(report.runs, report.gains, strict=True):
        total_s = case.stages["total_s"]
        rates = case.audio_s / total_s.median, case.tokens / total_s.median, gain.times_faster
        row = [_name(report, case.case), _digits(total_s.median), _spread(total_s)]
        grid.rows.append([*row, *map(_digits, rates), str(gain.same_texts)])
    what = "Times faster and same texts: compared with the first batch size."
    grid.notes = [_together(report), f"{what} {SPREAD}"]
    return grid


def _drafts(report: "Report") -> Grid:
    headings = [
        "decoder\ncalls", "tokens\nper call", "accepted\n%", "text\ns", "spread\n%", "times\nfaster",
        "faster\nin all", "same\ntexts",
    ]  # fmt: skip
    grid = Grid(["case", *headings], title=f"What drafts save: {_trials(report)}.")
    for case, gain in zip(report.runs, report.gains, strict=True):
        text_s = case.stages["text_s"]
        accepted = "-" if case.acceptance is None else f"{100 * case.acceptance:.1f}"
        faster = map(_digits, (gain.text_times_faster, gain.times_faster))
        row = [_name(report, case.case), str(case.decoder_calls), _digits(case.tokens_per_call), accepted]
        row += [_digits(text_s.median), _spread(text_s), *faster, f"{gain.same_texts} of {case.recordings}"]
        grid.rows.append(row)
    what = "Text, spread and times faster: of CTC, prefill and decode, the stages that drafts change."
    grid.notes = [_together(report), f"{what} Faster in all: of the total time. {SPREAD}"]
    return grid


def _together(report: "Report") -> str:
    """Return the number of recordings and tokens of all cases, in words."""
    base, tokens = report.runs[0], sorted({case.tokens for case in report.runs})
    recordings = f"{base.recordings} recording{'s' * (base.recordings != 1)}"
    return f"Each run: {recordings}, {base.audio_s:.0f} s of audio, {' or '.join(map(str, tokens))} tokens."


def _memory(report: "Report") -> Grid:
    cases: tuple[MemoryCost, ...] = report.cases  # type: ignore[assignment]
    grid = Grid(["case", "peak\nGB", "more\nMB", "total\ns", "RTF"])
    grid.title = "Peak memory of long recordings: one process for each."
    least = {case.model: case.peak_bytes for case in reversed(cases)}
    for case in cases:
        more_mb = (case.peak_bytes - least[case.model]) / 1e6
        numbers = case.peak_bytes / 1e9, more_mb, case.wall_s, case.wall_s / case.audio_s
        grid.rows.append([_plain(case.case), *map(_digits, numbers)])
    grid.notes = [
        "Peak: the most resident memory. More: compared with the first case of the model. Total: of the whole "
        "command. RTF: total time for each second of audio."
    ]
    return grid


def _comparison(comparison: "Comparison") -> Grid:
    measured = {name for ratios in comparison.ratios.values() for name in ratios}
    metrics = [name for name in COMPARED if name in measured]
    grid = Grid(["case", *(COMPARED[name] for name in metrics)])
    grid.title = "Compared with the earlier report: now divided by earlier."
    for case, ratios in comparison.ratios.items():
        row = [_plain(case)]
        for ratio in map(ratios.get, metrics):
            is_doubtful = ratio and ratio.within_spread and ratio.now != ratio.earlier
            known = ratio.now_to_earlier if ratio else None
            row.append("-" if known is None else f"{'~' if is_doubtful else ''}{known:.2f}")
        grid.rows.append(row)
    grid.notes = ["Below 1: less than before. ~: the ranges overlap, so there may be no difference."]
    grid.notes += [f"Not measured earlier: {_plain(case)}" for case in comparison.only_now]
    grid.notes += [f"Not measured now: {_plain(case)}" for case in comparison.only_earlier]
    grid.notes += [f"Changed: {_plain(change)}" for change in comparison.changes]
    return grid


def _about(report: "Report") -> Iterator[str]:
    """Yield notes on the models, the machine and the number of tokens."""
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
        yield f"Exactly {exact_tokens} tokens for each segment, so the texts have no meaning."


def _errors(report: "Report") -> Iterator[str]:
    for case in report.runs:
        if rate := case.errors:
            yield (
                f"{_plain(case.case)}: {rate.percent:.2f} % errors, {rate.edits} of {rate.total} "
                f"({rate.substitutions} substituted, {rate.deletions} deleted, {rate.insertions} inserted)."
            )
    if report.request.references is not None:
        yield (
            "Errors are counted in words, or in characters for Chinese and Japanese, after NFKC and case folding, "
            "without punctuation."
        )


def show(report: "Report", comparison: "Comparison | None") -> None:
    """Print the tables, with bars below the first one."""
    from rich.console import Console, Group

    stdout = Console()
    width = stdout.width if stdout.is_terminal else PIPED_WIDTH
    for index, grid in enumerate(grids(report, comparison)):
        bars = list(_bars(report, width)) if report.runs and not index else []
        console.result(f"{console.wrapped(grid.title, width)}\n")
        console.result(Group(*grid.fitted(width)), width)
        if bars:
            console.result("Time for each second of audio, by stage:\n")
            console.result(Group(*bars), width)
            console.result("\n")
        console.result("".join(f"{console.wrapped(note, width)}\n" for note in grid.notes) + "\n")


def _bars(report: "Report", width: int) -> "Iterator[Text]":
    """Yield a bar for each case: its stages in order, per second of audio. All have the same scale."""
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
    """Return the name of a case, without the model's name if there is only one model."""
    models = {model.model for model in report.models}
    return _plain(case.removeprefix(f"{next(iter(models))}, ") if len(models) == 1 else case)


def _plain(text: str) -> str:
    return text.translate(console.CONTROLS)


def _spread(spread: "Spread") -> str:
    if spread.low == spread.high:  # for example, after a single trial
        return "-"
    share = (spread.high - spread.low) / spread.median if spread.median else 0.0
    return f"{100 * share:.0f}"


def _digits(value: float) -> str:
    """Write a number with at least three digits, and at most three decimals."""
    return f"{value:.{3 if abs(value) < 1 else 2 if abs(value) < 10 else 1}f}"

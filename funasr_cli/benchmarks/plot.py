"""Measurements as a picture: where the time goes, and cost curves over duration and batch size."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.benchmarks.cases import CaseCost
from funasr_cli.benchmarks.memory import MemoryCost
from funasr_cli.benchmarks.report import Report
from funasr_cli.benchmarks.request import PARTS, STAGES
from funasr_cli.measure import Spread
from funasr_cli.pictures import drawing, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_WIDTH, PANEL_HEIGHT = 6.4, 4.0  # inches

Point = tuple[str, float, Spread]  # a line's name, x, and y with its range


def draw(report: Report, path: Path) -> None:
    """Draw what was measured: the stages, and a curve for each thing that was varied.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    cases, curves = report.runs, _curves(report)
    panels = len(curves) + bool(cases)
    with drawing():
        figure = Figure((PANEL_WIDTH * panels, PANEL_HEIGHT), layout="constrained")
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        if cases:
            _draw_stages(axes.pop(0), cases)
        for own, (x_label, y_label, points) in zip(axes, curves, strict=True):
            _draw_curves(own, points)
            own.set_xlabel(x_label)
            own.set_ylabel(y_label)
        figure.suptitle(f"{report.device}, {report.started}", fontsize="small")
        save(figure, path)


def _curves(report: Report) -> list[tuple[str, str, list[Point]]]:
    """Labels of the axes, and the points, of each thing that was varied."""
    cases, curves = report.runs, []
    memory = [case for case in report.cases if isinstance(case, MemoryCost)]
    if memory:
        points = [(case.model, case.audio_s / 60, Spread.of([case.peak_bytes / 1e9])) for case in memory]
        curves.append(("minutes of audio", "GB at the peak of the process", points))
    lengths_s = [case.audio_s / case.recordings for case in cases]
    if len(set(lengths_s)) > 1:
        names = [case.model + (f", batch of {case.batch_size}" if case.batch_size else "") for case in cases]
        points = [*zip(names, lengths_s, (case.stages["total_s"] for case in cases), strict=True)]
        curves.append(("seconds of audio in a recording", "seconds", points))
    if len({case.batch_size for case in cases}) > 1:
        points = []
        for case in cases:
            name = f"{case.model}, {Path(case.audio).name}"
            name += f", draft {case.draft}" if len({other.draft for other in cases}) > 1 else ""
            speed = Spread(1 / case.rtf.median, 1 / case.rtf.high, 1 / case.rtf.low)
            points += [(name, float(case.batch_size), speed)] if case.batch_size else []
        curves.append(("segments side by side", "seconds of audio a second", points))
    return curves


def _draw_stages(axes: "Axes", cases: list[CaseCost]) -> None:
    """A bar for each case, of its stages one behind the other."""
    names = [case.case for case in cases]
    starts = [0.0] * len(cases)
    for part in PARTS:
        widths = [case.stages[part].median / case.audio_s for case in cases]
        axes.barh(names, widths, left=starts, label=STAGES[part])
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds for each second of audio")
    axes.tick_params(axis="y", labelsize="x-small")
    axes.legend(fontsize="x-small")


def _draw_curves(axes: "Axes", points: Iterable[Point]) -> None:
    """Medians joined by a line for each name, with their ranges around them."""
    lines: dict[str, list[tuple[float, Spread]]] = defaultdict(list)
    for name, x, y in points:
        lines[name].append((x, y))
    for name, line in lines.items():
        line.sort(key=lambda point: point[0])
        errors = [[y.median - y.low for _, y in line], [y.high - y.median for _, y in line]]
        medians = [y.median for _, y in line]
        axes.errorbar([x for x, _ in line], medians, yerr=errors, marker="o", capsize=3, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="x-small")

"""Plot measurements: time per stage, and cost over duration and batch size."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from funasr_cli.benchmarks.cases import CaseCost
from funasr_cli.benchmarks.memory import MemoryCost
from funasr_cli.benchmarks.report import Report
from funasr_cli.benchmarks.request import PARTS, STAGES
from funasr_cli.measure import Spread
from funasr_cli.pictures import drawing, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_WIDTH, PANEL_HEIGHT = 6.4, 4.0  # inches

Point = tuple[str, float, Spread]  # name of the line, x, y with its range


def draw(report: Report, path: Path) -> None:
    """Plot the stages, and a curve for each quantity that was varied; raise an OutputError if writing fails."""
    from matplotlib.figure import Figure

    panels = [partial(_draw_stages, report.runs)] if report.runs else []
    panels += [partial(_draw_curves, *curve) for curve in _curves(report)]
    with drawing():
        figure = Figure((PANEL_WIDTH * len(panels), PANEL_HEIGHT), layout="constrained")
        for draw_panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            draw_panel(axes)
            axes.legend(fontsize="x-small")
        figure.suptitle(f"{report.device}, {report.started}", fontsize="small")
        save(figure, path)


def _curves(report: Report) -> list[tuple[str, str, list[Point]]]:
    """Return the axis labels and the points for each quantity that was varied."""
    cases, curves = report.runs, []
    memory = [case for case in report.cases if isinstance(case, MemoryCost)]
    if memory:
        points = [(case.model, case.audio_s / 60, Spread.of([case.peak_bytes / 1e9])) for case in memory]
        curves.append(("minutes of audio", "peak memory of the process, GB", points))
    lengths_s = [case.audio_s / case.recordings for case in cases]
    if len(set(lengths_s)) > 1:
        names = [case.model + (f", batch of {case.batch_size}" if case.batch_size else "") for case in cases]
        points = [*zip(names, lengths_s, (case.stages["total_s"] for case in cases), strict=True)]
        curves.append(("seconds of audio per recording", "seconds", points))
    if len({case.batch_size for case in cases}) > 1:
        points = []
        for case in cases:
            name = f"{case.model}, {Path(case.audio).name}"
            name += f", draft {case.draft}" if len({other.draft for other in cases}) > 1 else ""
            speed = Spread(1 / case.rtf.median, 1 / case.rtf.high, 1 / case.rtf.low)
            points += [(name, float(case.batch_size), speed)] if case.batch_size else []
        curves.append(("batch size, segments", "seconds of audio per second", points))
    return curves


def _draw_stages(cases: list[CaseCost], axes: "Axes") -> None:
    """Draw a horizontal bar for each case, stacked from its stages."""
    names = [case.case for case in cases]
    starts = np.zeros(len(cases))
    for part in PARTS:
        widths = [case.stages[part].median / case.audio_s for case in cases]
        axes.barh(names, widths, left=starts, label=STAGES[part])
        starts += widths
    axes.invert_yaxis()
    axes.set_xlabel("seconds per second of audio")
    axes.tick_params(axis="y", labelsize="x-small")


def _draw_curves(x_label: str, y_label: str, points: list[Point], axes: "Axes") -> None:
    """Draw a line through the medians for each name, with error bars for the ranges."""
    for name in dict.fromkeys(name for name, _, _ in points):
        line = sorted((x, y.median, y.median - y.low, y.high - y.median) for of, x, y in points if of == name)
        x, median, below, above = zip(*line, strict=True)
        axes.errorbar(x, median, yerr=[below, above], marker="o", capsize=3, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)

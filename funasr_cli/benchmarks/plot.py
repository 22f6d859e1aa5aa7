"""Measurements as a picture: where the time goes, and cost curves over duration and batch size."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.benchmarks.cases import PARTS, CaseCost
from funasr_cli.benchmarks.memory import MemoryCost
from funasr_cli.benchmarks.report import Report
from funasr_cli.measure import Spread
from funasr_cli.pictures import drawing, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_WIDTH, PANEL_HEIGHT = 6.4, 4.0  # inches

Draw = Callable[["Axes"], None]


def draw(report: Report, path: Path) -> None:
    """Draw what was measured.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    panels = _panels(report)
    with drawing():
        figure = Figure((PANEL_WIDTH * len(panels), PANEL_HEIGHT), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            panel(axes)
        figure.suptitle(f"{report.device}, {report.started}", fontsize="small")
        save(figure, path)


def _panels(report: Report) -> list[Draw]:
    """One for the stages, and one for each thing that was varied."""
    memory = [case for case in report.cases if isinstance(case, MemoryCost)]
    cases = [case for case in report.cases if isinstance(case, CaseCost)]
    if memory:
        return [lambda axes: _memory(axes, memory)]
    shares = {case.case: {part[:-2]: case.stages[part].median / case.audio_s for part in PARTS} for case in cases}
    panels: list[Draw] = [lambda axes: _stages(axes, shares, "seconds for each second of audio")]
    if len({case.audio_s / case.recordings for case in cases}) > 1:
        panels.append(lambda axes: _durations(axes, cases))
    if len({case.batch_size for case in cases}) > 1:
        panels.append(lambda axes: _batch_sizes(axes, cases))
    return panels


def _stages(axes: "Axes", bars: dict[str, dict[str, float]], label: str) -> None:
    """A bar for each case, of its stages one behind the other."""
    starts = dict.fromkeys(bars, 0.0)
    for stage in next(iter(bars.values())):
        widths = [stages[stage] for stages in bars.values()]
        axes.barh(list(bars), widths, left=list(starts.values()), label=stage)
        starts = {case: starts[case] + stages[stage] for case, stages in bars.items()}
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.tick_params(axis="y", labelsize="x-small")
    axes.legend(fontsize="x-small")


def _durations(axes: "Axes", cases: list[CaseCost]) -> None:
    lines: dict[str, list[tuple[float, Any]]] = defaultdict(list)
    for case in cases:
        name = case.model + (f", batch of {case.batch_size}" if case.batch_size else "")
        lines[name].append((case.audio_s / case.recordings, case.stages["total_s"]))
    _curves(axes, lines, "seconds of audio in a recording", "seconds")


def _batch_sizes(axes: "Axes", cases: list[CaseCost]) -> None:
    lines: dict[str, list[tuple[float, Any]]] = defaultdict(list)
    for case in cases:
        if case.batch_size:
            name = f"{case.model}, {Path(case.audio).name}"
            if len({other.draft for other in cases}) > 1:
                name += f", draft {case.draft}"
            slow = case.rtf
            lines[name].append((case.batch_size, Spread(1 / slow.median, 1 / slow.high, 1 / slow.low)))
    _curves(axes, lines, "segments side by side", "seconds of audio a second")


def _memory(axes: "Axes", cases: list[MemoryCost]) -> None:
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for case in cases:
        lines[case.model].append((case.audio_s / 60, case.peak_bytes / 1e9))
    _curves(axes, lines, "minutes of audio", "GB at the peak of the process")


def _curves(axes: "Axes", lines: dict[str, Any], x_label: str, y_label: str) -> None:
    """Points joined by lines; of a spread the median, with the range around it."""
    for name, points in lines.items():
        points = sorted(points, key=lambda point: point[0])
        xs, ys = [x for x, _ in points], [getattr(y, "median", y) for _, y in points]
        below = [y - getattr(spread, "low", y) for y, (_, spread) in zip(ys, points, strict=True)]
        above = [getattr(spread, "high", y) - y for y, (_, spread) in zip(ys, points, strict=True)]
        axes.errorbar(xs, ys, yerr=_both(below, above), marker="o", capsize=3, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="x-small")


def _both(below: Sequence[float], above: Sequence[float]) -> list[list[float]]:
    return [list(below), list(above)]

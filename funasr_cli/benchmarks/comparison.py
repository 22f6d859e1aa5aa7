"""A measurement against an earlier one: ratios, case by case, of everything that is a number in both."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.benchmarks.report import FORMAT, FORMAT_VERSION
from funasr_cli.errors import UsageError

NO_METRICS = ("recordings", "batch_size", "audio_s", "steps")  # what tells cases apart, or does not vary
CONTEXT = ("device", "machine", "versions", "settings")


@dataclass(frozen=True)
class Ratio:
    """Of two measurements.

    Attributes:
        now_to_earlier: below 1, it is less than it was; None where it was 0.
        within_spread: the ranges of the two overlap, so that there may be no difference.
    """

    earlier: float
    now: float
    now_to_earlier: float | None
    within_spread: bool


@dataclass(frozen=True)
class Comparison:
    """What has changed.

    Attributes:
        ratios: of each case that stands on both sides, by the metric's name, such as "stages.total_s".
        only_now: cases without an earlier measurement.
        only_earlier: cases that have not been measured this time.
        changes: what else differs, such as a library's version: "versions.mlx: 0.32.4, then 0.33.0".
    """

    ratios: dict[str, dict[str, Ratio]]
    only_now: list[str]
    only_earlier: list[str]
    changes: list[str]


def read_report(path: Path, mode: str) -> dict[str, Any]:
    """Read what ``funasr bench --json`` printed in the same mode.

    Raises:
        UsageError: it cannot be read, is something else, or of another mode.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", "--compare takes what --json printed") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path}: not a measurement", "--compare takes what --json printed")
    if content.get("format_version") != FORMAT_VERSION:
        raise UsageError(f"{path}: format version {content.get('format_version')}, not {FORMAT_VERSION}")
    if content.get("mode") != mode:
        raise UsageError(f"{path}: of --{content.get('mode')}, not of --{mode}", "compare like with like")
    parts = [(content.get("models"), "model", "weights"), (content.get("cases"), "case", "case")]
    for entries, *names in parts:
        if not isinstance(entries, list) or not all(_has(entry, names) for entry in entries):
            raise UsageError(f"{path}: not a whole measurement", "--compare takes what --json printed")
    return content


def _has(entry: Any, names: list[str]) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)


def compare(earlier: dict[str, Any], now: dict[str, Any]) -> Comparison:
    """Two reports as JSON has them."""
    before, after = ({case["case"]: case for case in report["cases"]} for report in (earlier, now))
    return Comparison(
        ratios={case: _ratios(before[case], after[case]) for case in after if case in before},
        only_now=[case for case in after if case not in before],
        only_earlier=[case for case in before if case not in after],
        changes=[*_changes(earlier, now)],
    )


def _ratios(earlier: dict[str, Any], now: dict[str, Any]) -> dict[str, Ratio]:
    before, after = dict(_metrics(earlier)), dict(_metrics(now))
    return {name: _ratio(before[name], after[name]) for name in after if name in before}


def _metrics(value: Any, name: str = "") -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Median, lowest and highest of every number in a case, by its path."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield name, (value, value, value)
    elif isinstance(value, dict) and value.keys() == {"median", "low", "high"}:
        yield name, (value["median"], value["low"], value["high"])
    elif isinstance(value, dict):
        for key, inner in value.items():
            if name or key not in NO_METRICS:
                yield from _metrics(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict) and "stage" in inner:
                yield from _metrics(inner, f"{name}.{inner['stage']}")


def _ratio(earlier: tuple[float, float, float], now: tuple[float, float, float]) -> Ratio:
    overlap = earlier[1] <= now[2] and now[1] <= earlier[2]
    return Ratio(earlier[0], now[0], now[0] / earlier[0] if earlier[0] else None, overlap)


def _changes(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    before, after = (
        dict(_leaves({name: report.get(name) for name in CONTEXT} | {"weights": _weights(report)}))
        for report in (earlier, now)
    )
    for name in before | after:
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name)}, then {after.get(name)}"


def _weights(report: dict[str, Any]) -> dict[str, Any]:
    return {model["model"]: model["weights"] for model in report["models"]}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}".lstrip("."))
    else:
        yield name, value

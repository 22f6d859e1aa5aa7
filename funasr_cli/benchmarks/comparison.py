"""Compare a measurement with an earlier one: for each case, the ratios of all numbers that both contain."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.benchmarks.report import FORMAT, FORMAT_VERSION
from funasr_cli.errors import UsageError

NO_METRICS = ("recordings", "batch_size", "audio_s", "passes")  # inputs of a case, and a former name
CONTEXT = ("device", "machine", "versions", "settings")
SPREAD = {"median", "low", "high"}
REPORT_HINT = "--compare needs a file with the output of funasr bench --json"


@dataclass(frozen=True)
class Ratio:
    """Ratio of two measured values."""

    earlier: float
    now: float
    now_to_earlier: float | None  # below 1 if the value has decreased; None if it was 0
    within_spread: bool  # the two ranges overlap, so the difference may be noise


@dataclass(frozen=True)
class Comparison:
    """Differences between two measurements: common cases, cases that one of them lacks, and their context."""

    ratios: dict[str, dict[str, Ratio]]  # by case and metric, such as "stages.total_s"
    only_now: list[str]
    only_earlier: list[str]
    changes: list[str]  # such as "versions.mlx: 0.32.4, then 0.33.0"


def read_report(path: Path, mode: str) -> dict[str, Any]:
    """Read the output of ``funasr bench --json``; raise a `UsageError` for other files and other modes."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", REPORT_HINT, code="file-unreadable") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path}: not a measurement", REPORT_HINT, code="not-a-measurement")
    if (version := content.get("format_version")) != FORMAT_VERSION:
        raise UsageError(f"{path}: format version {version}, not {FORMAT_VERSION}", code="not-a-measurement")
    if content.get("mode") != mode:
        message = f"{path}: measured with --{content.get('mode')}, not --{mode}"
        raise UsageError(message, "compare measurements of the same mode", code="options-conflict")
    try:
        names = [*(case["case"] for case in content["cases"]), *_weights(content), *_weights(content).values()]
    except (LookupError, TypeError):
        names = [None]
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path}: incomplete measurement", REPORT_HINT, code="not-a-measurement")
    return content


def compare(earlier: dict[str, Any], now: dict[str, Any]) -> Comparison:
    """Compare two reports, given as JSON data."""
    reports = earlier, now
    before, after = ({case["case"]: case for case in report["cases"]} for report in reports)
    stated = ({name: report.get(name) for name in CONTEXT} | {"weights": _weights(report)} for report in reports)
    then, today = (dict(_leaves(each)) for each in stated)
    return Comparison(
        ratios={name: _ratios(before[name], case) for name, case in after.items() if name in before},
        only_now=[case for case in after if case not in before],
        only_earlier=[case for case in before if case not in after],
        changes=[
            f"{name}: {then.get(name)}, then {today.get(name)}"
            for name in then | today
            if then.get(name) != today.get(name)
        ],
    )


def _ratios(earlier: dict[str, Any], now: dict[str, Any]) -> dict[str, Ratio]:
    before, ratios = dict(_leaves(earlier)), {}
    before.setdefault("decoder_calls", before.get("passes"))
    for name, value in _leaves(now):
        then, today = _range(before.get(name)), _range(value)
        if then and today and name not in NO_METRICS:
            overlap = then[1] <= today[2] and today[1] <= then[2]
            ratios[name] = Ratio(then[0], today[0], today[0] / then[0] if then[0] else None, overlap)
    return ratios


def _range(value: Any) -> tuple[float, float, float] | None:
    """Return the median, minimum and maximum of a spread or number, or None for anything else."""
    if isinstance(value, dict):
        return value["median"], value["low"], value["high"]
    return (value,) * 3 if isinstance(value, int | float) and not isinstance(value, bool) else None


def _weights(report: dict[str, Any]) -> dict[str, Any]:
    return {model["model"]: model["weights"] for model in report["models"]}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values with their dotted paths. A spread counts as one value."""
    if isinstance(value, dict) and value.keys() != SPREAD:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}".lstrip("."))
    else:
        yield name, value

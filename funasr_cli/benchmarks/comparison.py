"""A measurement against an earlier one: ratios, case by case, of everything that is a number in both."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funasr_cli.benchmarks.report import FORMAT, FORMAT_VERSION
from funasr_cli.errors import UsageError

NO_METRICS = ("recordings", "batch_size", "audio_s", "passes")  # what tells cases apart, and an earlier name
CONTEXT = ("device", "machine", "versions", "settings")
SPREAD = {"median", "low", "high"}
WANTED = "--compare takes what --json printed"


@dataclass(frozen=True)
class Ratio:
    """Of two measurements."""

    earlier: float
    now: float
    now_to_earlier: float | None  # below 1, it is less than it was; None where it was 0
    within_spread: bool  # the ranges of the two overlap, so that there may be no difference


@dataclass(frozen=True)
class Comparison:
    """What has changed in the cases of both, which cases one side lacks, and what else differs."""

    ratios: dict[str, dict[str, Ratio]]  # by case and metric, such as "stages.total_s"
    only_now: list[str]
    only_earlier: list[str]
    changes: list[str]  # such as "versions.mlx: 0.32.4, then 0.33.0"


def read_report(path: Path, mode: str) -> dict[str, Any]:
    """Read what ``funasr bench --json`` printed; a `UsageError` for anything else, or another mode's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", WANTED, code="file-unreadable") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path}: not a measurement", WANTED, code="not-a-measurement")
    if (version := content.get("format_version")) != FORMAT_VERSION:
        raise UsageError(f"{path}: format version {version}, not {FORMAT_VERSION}", code="not-a-measurement")
    if content.get("mode") != mode:
        message = f"{path}: of --{content.get('mode')}, not of --{mode}"
        raise UsageError(message, "compare like with like", code="options-conflict")
    try:
        names = [*(case["case"] for case in content["cases"]), *_weights(content), *_weights(content).values()]
    except (LookupError, TypeError):
        names = [None]
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path}: not a whole measurement", WANTED, code="not-a-measurement")
    return content


def compare(earlier: dict[str, Any], now: dict[str, Any]) -> Comparison:
    """Two reports as JSON has them."""
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
    """Median, lowest and highest of what is a number."""
    if isinstance(value, dict):
        return value["median"], value["low"], value["high"]
    return (value,) * 3 if isinstance(value, int | float) and not isinstance(value, bool) else None


def _weights(report: dict[str, Any]) -> dict[str, Any]:
    return {model["model"]: model["weights"] for model in report["models"]}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Values by their paths; a spread is one."""
    if isinstance(value, dict) and value.keys() != SPREAD:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}".lstrip("."))
    else:
        yield name, value

"""The output of a release acceptance: a line for each check, and a block of Markdown for an issue."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from funasr_cli.options import Hub
from tools.release.judge import Line, Verdict, summary

WIDTHS = {"verdict": max(map(len, Verdict)), "recipe": 7, "what": 38}
HEADINGS = {"verdict": "result", "recipe": "recipe", "what": "check", "found": "found", "wanted": "wanted"}


@dataclass(frozen=True)
class Setting:
    """The circumstances of a run.

    Attributes:
        source: hub, revision, layout, and the SHA-256 computed by a conversion.
        versions: of packages, including PyTorch's and FunASR's if the reference has run.
    """

    started: str
    device: str
    machine: Mapping[str, str | int | None]
    versions: Mapping[str, str]
    source: Mapping[str, str | None]


def headings() -> str:
    """Return the heading line."""
    return _columns({name: HEADINGS[name] for name in WIDTHS}, HEADINGS["found"], HEADINGS["wanted"])


def show(line: Line) -> None:
    """Print a line as soon as it is known."""
    print(_columns({name: getattr(line, name) for name in WIDTHS}, line.found, line.wanted), flush=True)


def _columns(cells: Mapping[str, str], found: str, wanted: str) -> str:
    padded = [f"{cells[name]:<{width}}" for name, width in WIDTHS.items()]
    return "  ".join([*padded, found]) + (f"  [{wanted}]" if wanted else "")


def tell(doing: str) -> None:
    """Print progress to stderr."""
    print(f"{datetime.now(UTC):%H:%M:%S} {doing}", file=sys.stderr, flush=True)


def markdown(name: str, lines: Sequence[Line], setting: Setting) -> str:
    """Return the block for an issue. Paths in the user's home are shortened to ~.

    Args:
        name: the model's hub id, or its folder's name.
        lines: all results.
        setting: the circumstances.
    """
    machine, source = setting.machine, setting.source
    hub = f" from {Hub(hub).label}" if (hub := source.get("hub")) else ", a local folder"
    memory_gb = int(machine["memory_bytes"] or 0) / 1e9
    facts = {
        "model": f"{name}{hub}, {source['layout']}'s layout",
        "revision": source.get("revision") or "unknown",
        "SHA-256 of the source": (source.get("sha256") or "unknown").replace("\n", ", "),
        "device": f"{setting.device}{f', {gpu}' if (gpu := machine['gpu']) else ''}",
        "machine": f"{machine['processor']}, {machine['cores']} cores, {memory_gb:.0f} GB, {machine['system']}",
        "versions": ", ".join(f"{package} {version}" for package, version in setting.versions.items()),
        "started": setting.started,
    }
    names = [field.name for field in fields(Line)]
    rows = [[getattr(line, name) for name in names] for line in lines]
    about = _table(["", ""], [list(fact) for fact in facts.items()])
    looked_at = _table([HEADINGS[name] for name in names], rows)
    return "\n".join([f"## Release acceptance: {summary(lines)}", "", *about, "", *looked_at])


def _table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table in GitHub's Markdown."""
    rule = ["---"] * len(headings)
    return [f"| {' | '.join(map(_cell, row))} |" for row in (headings, rule, *rows)]


def _cell(text: str) -> str:
    return text.replace(str(Path.home()), "~").replace("|", "\\|").replace("\n", " ")

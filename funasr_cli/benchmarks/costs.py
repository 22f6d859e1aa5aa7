"""What each model costs on this machine, as ``funasr bench --rtf`` last measured it on recordings.

The figures are in one small file in the cache folder, and ``funasr models`` shows them, if the weights and the
processor are still the same.
"""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints.format import WEIGHTS_FILE, write_json
from funasr_cli.checkpoints.untrusted import read_json
from funasr_cli.errors import ModelError
from funasr_cli.paths import cache_folder

COSTS_FILE = "costs.json"
MOST_COSTS = 100  # the oldest are dropped


@dataclass(frozen=True)
class Cost:
    """The time that a model took for recordings."""

    rtf: float  # seconds of computation per second of audio
    audio_s: float  # length of the recordings
    engine: str  # what computed it, and how
    measured: str  # date and time, ISO 8601
    processor: str

    def in_words(self) -> str:
        """Return the figure with what it depends on, for a list."""
        return f"{self.rtf:.3g} s per second of audio ({self.engine}; {self.measured[:10]})"


def keep(costs: Sequence[tuple[Path, Cost]]) -> None:
    """Write the cost of models, by their folders; do nothing if that is not possible."""
    known = _known()
    for folder, cost in costs:
        known.pop(key := str(folder.resolve()), None)
        known[key] = asdict(cost) | {"weights_ns": _weights_ns(folder)}
    path = cache_folder() / COSTS_FILE
    part = path.with_name(f".{COSTS_FILE}.{os.getpid()}.part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(part, dict([*known.items()][-MOST_COSTS:]))
        part.replace(path)


def cost_of(folder: Path, processor: str) -> Cost | None:
    """Return what a model in a folder costs on a processor; None if that is not known."""
    with suppress(KeyError, TypeError, ValueError, OSError):
        stated = _known()[str(folder.resolve())]
        rtf, audio_s = float(stated["rtf"]), float(stated["audio_s"])
        cost = Cost(rtf, audio_s, *(str(stated[name]) for name in ("engine", "measured", "processor")))
        if cost.processor == processor and stated["weights_ns"] == _weights_ns(folder):
            return cost
    return None


def processor() -> str:
    """Return the name of the processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _known() -> dict[str, Any]:
    with suppress(ModelError):
        return dict(read_json(cache_folder() / COSTS_FILE))
    return {}


def _weights_ns(folder: Path) -> int:
    """Return when a model's weights were written."""
    return (folder / WEIGHTS_FILE).stat().st_mtime_ns

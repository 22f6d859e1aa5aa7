"""Everything measured in a run, with what has to be known to compare it; and from there to JSON."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from funasr_cli.benchmarks.cases import CaseCost
from funasr_cli.benchmarks.gains import Gain, batch_gains, draft_gains
from funasr_cli.benchmarks.memory import MemoryCost
from funasr_cli.benchmarks.request import Mode, Request
from funasr_cli.benchmarks.subjects import ModelCost

FORMAT = "funasr-bench"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        device: device and BLAS in a few words.
        started: when, ISO 8601 with the time zone.
        models: empty for `Mode.MEMORY`, where each run loads its own.
        cases: all of the mode's kind.
    """

    request: Request
    device: str
    started: str
    machine: dict[str, str | int | None]
    versions: dict[str, str]
    models: tuple[ModelCost, ...]
    cases: tuple[CaseCost, ...] | tuple[MemoryCost, ...]

    @property
    def gains(self) -> list[Gain]:
        """What batches or drafts save, for each case; empty in other modes."""
        cases = [case for case in self.cases if isinstance(case, CaseCost)]
        if self.request.mode == Mode.DRAFTS:
            return draft_gains(cases)
        return batch_gains(cases) if self.request.mode == Mode.BATCHES else []

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        cases = [dataclasses.asdict(case) for case in self.cases]
        for entry, case in zip(cases, self.cases, strict=True):
            if isinstance(case, CaseCost) and case.errors:
                entry["errors"] |= {"edits": case.errors.edits, "percent": case.errors.percent}
        for entry, gain in zip(cases, self.gains, strict=False):
            entry |= dataclasses.asdict(gain)
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "mode": str(self.request.mode),
            "started": self.started,
            "device": self.device,
            "machine": self.machine,
            "versions": self.versions,
            "settings": self._settings(),
            "models": [dataclasses.asdict(model) for model in self.models],
            "cases": cases,
        }

    def _settings(self) -> dict[str, Any]:
        """What was asked for and is no case's own."""
        request, options = self.request, self.request.options
        return {
            "language": options.language,
            "max_tokens": options.max_tokens,
            "exact_tokens": options.exact_tokens,
            "itn": options.itn,
            "drafts": list(request.drafts),
            "device": request.device,
            "dtype": request.dtype,
            "trials": request.trials,
        }

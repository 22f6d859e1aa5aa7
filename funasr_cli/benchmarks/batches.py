"""What decoding side by side saves: the same recordings in batches of several sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

from funasr_cli.benchmarks.cases import CaseCost


@dataclass(frozen=True)
class Gain:
    """A batch size against the first one of the same model.

    Attributes:
        times_faster: throughput against that.
        same_texts: how many recordings have the text that they have there.
    """

    times_faster: float
    same_texts: int


def gains(costs: Sequence[CaseCost]) -> list[Gain]:
    """One for each case."""
    first: dict[str, CaseCost] = {}
    for cost in costs:
        first.setdefault(cost.model, cost)
    return [_gain(cost, first[cost.model]) for cost in costs]


def _gain(cost: CaseCost, base: CaseCost) -> Gain:
    times_faster = base.stages["total_s"].median / cost.stages["total_s"].median
    return Gain(times_faster, sum(map(str.__eq__, cost.texts, base.texts)))

"""What decoding side by side saves, and what drafts save: cases against another one of the same recordings."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from funasr_cli.benchmarks.cases import CaseCost


@dataclass(frozen=True)
class Gain:
    """A case against the one that it is compared with.

    Attributes:
        times_faster: throughput against that.
        text_times_faster: the same of all that is done behind the encoder.
        same_texts: how many recordings have the text that they have there.
    """

    times_faster: float
    text_times_faster: float
    same_texts: int


def batch_gains(costs: Sequence[CaseCost]) -> list[Gain]:
    """One for each case, against the first batch size of its model."""
    return _gains(costs, lambda cost: cost.model)


def draft_gains(costs: Sequence[CaseCost]) -> list[Gain]:
    """One for each case, against the same one without drafts, which comes first."""
    return _gains(costs, lambda cost: (cost.model, cost.audio, cost.batch_size))


def _gains(costs: Sequence[CaseCost], group: Callable[[CaseCost], Hashable]) -> list[Gain]:
    """Against the first case of each group."""
    first: dict[Hashable, CaseCost] = {}
    for cost in costs:
        first.setdefault(group(cost), cost)
    return [_gain(cost, first[group(cost)]) for cost in costs]


def _gain(cost: CaseCost, base: CaseCost) -> Gain:
    return Gain(
        times_faster=_ratio(base, cost, "total_s"),
        text_times_faster=_ratio(base, cost, "text_s"),
        same_texts=sum(map(str.__eq__, cost.texts, base.texts)),
    )


def _ratio(base: CaseCost, cost: CaseCost, stage: str) -> float:
    """1 where neither has anything to do, as in silence."""
    before_s, now_s = base.stages[stage].median, cost.stages[stage].median
    return before_s / now_s if now_s else 1.0

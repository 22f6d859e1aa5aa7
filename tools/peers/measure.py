"""Measure all programs in turns."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.peers.engines import Worker

PAUSE_S = 0.5  # until the threads of the previous program are idle
FEW_TOKENS = 3  # the difference to a run with more tokens is pure decoding
WARM_UP_TOKENS = 4


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often.

    Attributes:
        clips: the clips of a batch; the first one is also transcribed alone.
        tokens: number of tokens for each clip.
        trials: rounds with one clip.
        batch_trials: rounds with a batch.
        slow_trials: rounds that include mlx-audio.
    """

    clips: Sequence[Path]
    tokens: int
    trials: int
    batch_trials: int
    slow_trials: int

    def trials_of(self, worker: Worker) -> int:
        """Return the number of rounds for a program."""
        return self.slow_trials if worker.engine.environment == "mlx-audio" else self.trials


def run(workers: Sequence[Worker], plan: Plan, progress: Callable[[str], None]) -> dict[str, Any]:
    """Warm up all programs, then measure them in turns.

    Returns:
        For each program: "clip" and "batch", lists of answers, and "work", the MLX operations for one additional
        token and for the whole clip.
    """
    results: dict[str, Any] = {worker.engine.name: {"clip": [], "batch": [], "work": None} for worker in workers}
    one, batched = list(plan.clips[:1]), [worker for worker in workers if worker.engine.batches]

    def ask(worker: Worker, clips: list[Path], tokens: int) -> dict[str, Any]:
        time.sleep(PAUSE_S)
        answer = worker.ask(clips, tokens)
        busy = f", others used {answer['elsewhere']:.2f} cores" if answer["elsewhere"] else ""
        progress(f"{worker.engine.name}, {len(clips)} x {tokens} tokens: {answer['total_s']:.2f} s{busy}")
        return answer

    for worker in workers:
        progress(f"warming up: {worker.engine.name}")
        if worker.engine.counts:
            results[worker.engine.name]["work"] = work_given(worker, one, plan.tokens)
        else:
            worker.ask(one, WARM_UP_TOKENS)
    for round_ in range(max(map(plan.trials_of, workers))):
        for worker in workers:
            if round_ < plan.trials_of(worker):
                results[worker.engine.name]["clip"].append(ask(worker, one, plan.tokens))
    for worker in batched if plan.batch_trials else []:
        ask(worker, list(plan.clips), WARM_UP_TOKENS)
    for _ in range(plan.batch_trials):
        for worker in batched:
            results[worker.engine.name]["batch"].append(ask(worker, list(plan.clips), plan.tokens))
    return results


def work_given(worker: Worker, clips: list[Path], tokens: int) -> dict[str, dict[str, float]]:
    """Count operations and evaluations for one "further" token, and for the "whole" clip from its samples on."""
    few, many = (worker.ask(clips, count, count=True) for count in (FEW_TOKENS, tokens))
    names = ("operations", "computing", "evaluations")
    return {
        "further": {name: (many[name] - few[name]) / (tokens - FEW_TOKENS) for name in names},
        "whole": {name: many[name] for name in names},
    }

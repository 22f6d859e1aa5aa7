"""Serve requests from stdin with answers on stdout, one JSON object per line; used by every program's process.

Only the standard library is used: these processes run in separate environments without this package.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from typing import Any, Protocol


class Engine(Protocol):
    """A loaded model."""

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float | None, list[int], list[str]]:
        """Transcribe the clips with exactly `tokens` tokens each, never allowing the stop token.

        Returns:
            Time of the first token (`time.perf_counter`; None if unknown), number of tokens for each clip, and the
            texts.
        """
        ...


def serve(engine: Engine, answers: Any, packages: tuple[str, ...]) -> None:
    """Report versions and, where it is known, what computes the model; then answer requests until stdin ends.

    A request is {"clips": [paths], "tokens": n, "count": true or false}.
    """
    versions = {name: importlib.metadata.version(name) for name in packages}
    if computed_by := getattr(engine, "computed_by", None):
        versions["decoder"] = computed_by
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        run = count if request.get("count") else measure
        print(json.dumps(run(engine, request["clips"], request["tokens"])), file=answers, flush=True)


def measure(engine: Engine, clips: list[str], tokens: int) -> dict[str, Any]:
    """Measure the time from the call to the first token, and to the texts."""
    started = time.perf_counter()
    first, written, texts = engine.transcribe(clips, tokens)
    total_s = time.perf_counter() - started
    if settle := getattr(engine, "settle", None):
        settle()  # finish pending work, so that it does not disturb the next program
    first_s = None if first is None else first - started
    return {"first_token_s": first_s, "total_s": total_s, "tokens": written, "texts": texts}


def count(engine: Any, clips: list[str], tokens: int) -> dict[str, Any]:
    """Count the MLX operations and evaluations of a program that has `counting`."""
    with engine.counting() as work:
        _, written, _ = engine.transcribe(clips, tokens)
        engine.settle()
    return {
        "operations": work.operations.total(),
        "computing": work.computing,
        "evaluations": work.evaluations,
        "tokens": written,
    }


def claim_stdout() -> Any:
    """Return a file for answers, and redirect all other output to stderr. Call it before other imports."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers

"""What every engine's process does: requests from stdin, answers to stdout, one JSON object a line.

Standard library only: these processes run in environments of their own, without this package.
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

    def transcribe(self, clips: list[str], tokens: int) -> tuple[float, list[int], list[str]]:
        """Read the clips and write so many tokens for each, the stop token not allowed.

        Returns:
            Moment of the first token (`time.perf_counter`), tokens written for each clip, their texts.
        """
        ...


def serve(engine: Engine, answers: Any, packages: tuple[str, ...]) -> None:
    """Say hello, then answer until stdin ends.

    A request is {"clips": [paths], "tokens": n, "count": true or false}.
    """
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        run = count if request.get("count") else measure
        print(json.dumps(run(engine, request["clips"], request["tokens"])), file=answers, flush=True)


def measure(engine: Engine, clips: list[str], tokens: int) -> dict[str, Any]:
    """Times from the call to the first token, and to the texts."""
    started = time.perf_counter()
    first, written, texts = engine.transcribe(clips, tokens)
    total_s = time.perf_counter() - started
    if settle := getattr(engine, "settle", None):
        settle()  # what it still computes must not disturb the next engine
    return {"first_token_s": first - started, "total_s": total_s, "tokens": written, "texts": texts}


def count(engine: Any, clips: list[str], tokens: int) -> dict[str, Any]:
    """Operations and evaluations that MLX was given; for engines that have `counting`."""
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
    """Where answers go; all else that is printed goes to stderr. To be called before anything is imported."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers

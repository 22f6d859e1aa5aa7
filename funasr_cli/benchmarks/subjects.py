"""Models that are measured side by side, and what loading each of them costs."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.backend import mx
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.load import load_model
from funasr_cli.measure import Spread
from funasr_cli.models.fun_asr_nano import FunASRNano
from funasr_cli.pipeline import Recognizer


@dataclass(frozen=True)
class ModelCost:
    """What a model is, and what loading it costs.

    Attributes:
        model: what the cases call it.
        mlx_bytes: memory that MLX has allocated for it once it is loaded.
    """

    model: str
    weights: str
    parameters: int
    mlx_bytes: int
    load_s: Spread


@dataclass(frozen=True, eq=False)
class Subject:
    """A loaded model, and its costs so far."""

    recognizer: Recognizer
    cost: ModelCost


def load_subjects(
    folders: list[Path], dtype: str | None, trials: int, progress: Callable[[str], None]
) -> list[Subject]:
    """Load each model ``trials`` times; the last one of each is kept, so that all of them are in memory.

    Raises:
        ModelError: one is damaged.
    """
    loaded = []
    for folder in folders:
        before, seconds, recognizer = mx.get_active_memory(), [], None
        for trial in range(trials):
            progress(f"loading {folder.name}, {trial + 1} of {trials}")
            recognizer = None  # before the next one takes as much again
            started = time.perf_counter()
            recognizer = Recognizer(load_model(folder, dtype))
            seconds.append(time.perf_counter() - started)
        assert recognizer is not None
        loaded.append((recognizer, Spread.of(seconds), int(mx.get_active_memory()) - before))
    labels = unambiguous([recognizer.loaded.name for recognizer, _, _ in loaded], folders)
    subjects = []
    for label, (recognizer, load_s, mlx_bytes) in zip(labels, loaded, strict=True):
        parameters = sum(map(math.prod, model_shapes(FunASRNano(recognizer.config)).values()))
        cost = ModelCost(label, recognizer.loaded.weights_type, parameters, mlx_bytes, load_s)
        subjects.append(Subject(recognizer, cost))
    return subjects


def unambiguous(names: list[str], folders: list[Path]) -> list[str]:
    """What models are called: two conversions of the same checkpoint by their folders, too."""
    counts, pairs = Counter(names), zip(names, folders, strict=True)
    return [name if counts[name] == 1 else f"{name} in {folder.name}" for name, folder in pairs]

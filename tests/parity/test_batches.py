"""A clip's numbers do not depend on its neighbours. Tokens: `test_continuous_batch.py`, `test_batch_sizes.py`."""

from pathlib import Path

import numpy as np
import pytest
from support.parity import checks
from support.parity.stages import Stages, compute_batch, compute_unpadded, load_clip

from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer

pytestmark = pytest.mark.slow
MIXED = (
    "zh-2.5s", "zh", "zh-0.1s", "silence-1s", "stereo-44k", "noise-0.5s", "en-4.3s", "zh-0.02s", "zh-8k", "en-1s",
    "late-speech", "impulse", "square", "zh-0.3s", "zh-22k", "noisy-zh",
)  # fmt: skip
BATCHES = {2: MIXED[:2], 5: MIXED[2:7], 16: MIXED}
STEPS = 24
OPTIONS = TranscribeOptions(language="zh", hotwords=("滨海",), max_tokens=STEPS)


def forced_ids(name: str) -> list[int]:
    """Arbitrary ids, the same for a clip wherever it stands."""
    return np.random.default_rng(MIXED.index(name)).integers(0, 700, STEPS).tolist()


@pytest.fixture(scope="module")
def alone(ctc_recognizer: Recognizer, clips: dict[str, Path]) -> dict[str, Stages]:
    """Every clip by itself, without padding."""
    return {
        name: compute_unpadded(ctc_recognizer, load_clip(ctc_recognizer, clips[name]), forced_ids(name), OPTIONS)
        for name in MIXED
    }


@pytest.mark.parametrize("names", [*((name,) for name in MIXED), *BATCHES.values()], ids=lambda names: len(names))
def test_every_stage(
    names: tuple[str, ...], alone: dict[str, Stages], ctc_recognizer: Recognizer, clips: dict[str, Path]
) -> None:
    """Of single rows, which may be padded, too, and of several."""
    loaded = [load_clip(ctc_recognizer, clips[name]) for name in names]
    batch = compute_batch(ctc_recognizer, loaded, [forced_ids(name) for name in names], OPTIONS)
    for name, row in zip(names, batch, strict=True):
        checks.check_same_row(alone[name], row)

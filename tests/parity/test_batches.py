"""A clip's outputs do not depend on the other clips in its batch. Tokens: `test_continuous_batch.py`."""

from pathlib import Path

import numpy as np
import pytest
from support.parity import checks
from support.parity.stages import Stages, compute_batch, compute_unpadded, load_clip

import funasr_cli
from funasr_cli.audio.decode import Audio, load_audio
from funasr_cli.demo import MODEL
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Transcript

pytestmark = pytest.mark.slow
MIXED = (
    "zh-2.5s", "zh", "zh-0.1s", "silence-1s", "stereo-44k", "noise-0.5s", "en-4.3s", "zh-0.02s", "zh-8k", "en-1s",
    "late-speech", "impulse", "square", "zh-0.3s", "zh-22k", "noisy-zh",
)  # fmt: skip
BATCHES = {2: MIXED[:2], 5: MIXED[2:7], 16: MIXED}
STEPS = 24
OPTIONS = TranscribeOptions(language="zh", hotwords=("滨海",), max_tokens=STEPS)


def forced_ids(name: str) -> list[int]:
    """Return arbitrary ids that depend only on the clip."""
    return np.random.default_rng(MIXED.index(name)).integers(0, 700, STEPS).tolist()


@pytest.fixture(scope="module")
def alone(ctc_recognizer: Recognizer, clips: dict[str, Path]) -> dict[str, Stages]:
    """Every clip alone, without padding."""
    return {
        name: compute_unpadded(ctc_recognizer, load_clip(ctc_recognizer, clips[name]), forced_ids(name), OPTIONS)
        for name in MIXED
    }


@pytest.mark.parametrize("names", [*((name,) for name in MIXED), *BATCHES.values()], ids=lambda names: len(names))
def test_every_stage(
    names: tuple[str, ...], alone: dict[str, Stages], ctc_recognizer: Recognizer, clips: dict[str, Path]
) -> None:
    """Batches of one row, which may be padded, and of several."""
    loaded = [load_clip(ctc_recognizer, clips[name]) for name in names]
    batch = compute_batch(ctc_recognizer, loaded, [forced_ids(name) for name in names], OPTIONS)
    for name, row in zip(names, batch, strict=True):
        checks.check_same_row(alone[name], row)


# --- the bundled model at every batch size; timing decides which segments share a batch ---

CLEAN = Path(__file__).parents[1] / "data" / "demo" / "clean"
LOGPROB_TOLERANCE = 1e-4  # for means over a segment; measured: 2e-6
WAYS = {
    "whole clips": {"vad": False},
    "voice activity": {"vad": True},
    "sampling": {"vad": False, "temperature": 0.8, "top_p": 0.95, "seed": 11},
}


@pytest.fixture(scope="module")
def demo() -> Recognizer:
    return funasr_cli.load(str(MODEL), "float32")


@pytest.fixture(scope="module")
def recordings(demo: Recognizer) -> list[Audio]:
    return [load_audio(path, demo.sample_rate_hz) for path in sorted(CLEAN.glob("*.flac"))]


def described(transcript: Transcript) -> list[tuple[object, ...]]:
    return [
        (one.start_s, one.end_s, one.text, one.stop_reason, one.retries, one.tokens,
         pytest.approx(one.mean_logprob, abs=LOGPROB_TOLERANCE))
        for one in transcript.segments
    ]  # fmt: skip


@pytest.mark.parametrize(
    "way", ["whole clips", *(pytest.param(way, marks=pytest.mark.full) for way in [*WAYS][1:])]
)
def test_batch_size(way: str, demo: Recognizer, recordings: list[Audio]) -> None:
    """The results equal those of one row at a time."""
    alone, *others = (
        demo.transcribe_batch(recordings, TranscribeOptions(**WAYS[way], batch_size=size)) for size in (1, 3, 16)
    )
    assert len({transcript.text for transcript in alone}) > 40
    assert way != "whole clips" or [len(transcript.segments) for transcript in alone] == [1] * 48
    for together in others:
        assert [transcript.source for transcript in together] == [recording.name for recording in recordings]
        for transcript, expected in zip(together, alone, strict=True):
            assert described(transcript) == described(expected)

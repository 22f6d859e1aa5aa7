"""The bundled model reads a clip alike at every batch size. Which segments meet in a batch is a matter of time."""

from pathlib import Path

import pytest

import funasr_cli
from funasr_cli.audio.decode import Audio, load_audio
from funasr_cli.demo import MODEL
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Transcript

pytestmark = pytest.mark.slow
CLEAN = Path(__file__).parents[1] / "data" / "demo" / "clean"
LOGPROB_TOLERANCE = 1e-4  # means over a segment; measured: 2e-6
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
    """As with a single row at any time."""
    alone, *others = (
        demo.transcribe_batch(recordings, TranscribeOptions(**WAYS[way], batch_size=size)) for size in (1, 3, 16)
    )
    assert len({transcript.text for transcript in alone}) > 40
    assert way != "whole clips" or [len(transcript.segments) for transcript in alone] == [1] * 48
    for together in others:
        assert [transcript.source for transcript in together] == [recording.name for recording in recordings]
        for transcript, expected in zip(together, alone, strict=True):
            assert described(transcript) == described(expected)

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


@pytest.fixture(scope="module", params=WAYS)
def one_by_one(
    request: pytest.FixtureRequest, demo: Recognizer, recordings: list[Audio]
) -> tuple[str, list[Transcript]]:
    """How to read, and what comes of it when there is a single row at any time."""
    options = TranscribeOptions(**WAYS[request.param], batch_size=1)
    return request.param, demo.transcribe_batch(recordings, options)


def test_the_clips_are_read(one_by_one: tuple[str, list[Transcript]]) -> None:
    way, transcripts = one_by_one
    assert len(transcripts) == 48
    assert len({transcript.text for transcript in transcripts}) > 40
    if way == "whole clips":
        assert [len(transcript.segments) for transcript in transcripts] == [1] * 48


@pytest.mark.parametrize("batch_size", [3, 16])
def test_batch_size(
    batch_size: int, one_by_one: tuple[str, list[Transcript]], demo: Recognizer, recordings: list[Audio]
) -> None:
    way, alone = one_by_one
    together = demo.transcribe_batch(recordings, TranscribeOptions(**WAYS[way], batch_size=batch_size))
    assert [transcript.source for transcript in together] == [recording.name for recording in recordings]
    assert [transcript.text for transcript in together] == [transcript.text for transcript in alone]
    for transcript, expected in zip(together, alone, strict=True):
        for segment, single in zip(transcript.segments, expected.segments, strict=True):
            assert (segment.start_s, segment.end_s, segment.stop_reason, segment.retries, segment.tokens) == (
                single.start_s, single.end_s, single.stop_reason, single.retries, single.tokens,
            )  # fmt: skip
            assert segment.mean_logprob == pytest.approx(single.mean_logprob, abs=LOGPROB_TOLERANCE)

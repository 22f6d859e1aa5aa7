"""Which texts of the bundled model are doubted: right ones never, most of those that it makes of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import funasr_cli
from funasr_cli.benchmarks.scoring import error_rate
from funasr_cli.demo import MODEL
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Segment
from tools.accuracy.decoding import Clip, read_clips

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "data" / "demo"
RATE_HZ = 16000


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return funasr_cli.load(str(MODEL))


@pytest.mark.parametrize("condition", ["clean", "noisy"])
@pytest.mark.parametrize("itn", [True, False])
def test_right_texts_are_not_doubted(recognizer: Recognizer, condition: str, itn: bool) -> None:
    clips = read_clips(DATA / condition)
    said = recognizer.transcribe_batch([clip.path for clip in clips], itn=itn, ctc=True, vad=False)
    right = [
        segment
        for clip, transcript in zip(clips, said, strict=True)
        for segment in transcript.segments
        if _is_right(clip, segment, itn)
    ]
    assert len(right) > 0.6 * len(clips)
    assert [segment for segment in right if segment.doubtful] == []
    assert [segment for segment in right if segment.disagreement is None] == []


def test_most_of_what_is_made_of_noise_is_doubted(recognizer: Recognizer) -> None:
    rng = np.random.default_rng(7)
    noise = [
        10 ** rng.uniform(-2, -0.7) * rng.standard_normal(int(rng.uniform(1.5, 6) * RATE_HZ)) for _ in range(40)
    ]
    transcripts = [
        recognizer.transcribe(samples, sample_rate_hz=RATE_HZ, vad=False, ctc=True) for samples in noise
    ]
    written = [transcript for transcript in transcripts if transcript.text]
    doubted = [transcript for transcript in written if transcript.ledger.doubtful_s]
    assert len(written) > 20
    assert len(doubted) > 0.7 * len(written)
    assert all(transcript.warnings for transcript in doubted)


def _is_right(clip: Clip, segment: Segment, itn: bool) -> bool:
    return error_rate([(clip.wanted(itn), segment.text)]).edits == 0

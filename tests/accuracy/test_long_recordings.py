"""The demo model on clips joined into long recordings: as accurate as clip by clip, and no second is lost."""

from pathlib import Path

import pytest

import funasr_cli
from funasr_cli.benchmarks.scoring import error_rate
from funasr_cli.pipeline import Recognizer
from tools.accuracy.decoding import read_clips
from tools.accuracy.joined import JoinedRecording, coverage, cut_clips, join_clips

CLIPS = Path(__file__).parents[1] / "data/demo/clean"
SNRS_DB = (None, 20.0, 10.0)
SPOKEN = {"itn": False}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return funasr_cli.load("demo")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[JoinedRecording]:
    work = tmp_path_factory.mktemp("joined")
    return [join_clips(read_clips(CLIPS), work / f"{snr_db}.flac", None, snr_db, seed=1) for snr_db in SNRS_DB]


def test_joined_clips_read_as_well_as_alone(recordings: list[JoinedRecording], recognizer: Recognizer) -> None:
    """The error rate is at most one point higher, over the three noise levels together."""
    alone, joined = [], []
    for recording in recordings:
        wanted = " ".join(clip.spoken for clip in recording.clips)
        cut = cut_clips(recording, recording.path.with_suffix(""))
        texts = [recognizer.transcribe(clip.path, vad=False, **SPOKEN).text for clip in cut]
        alone.append((wanted, " ".join(texts)))
        joined.append((wanted, recognizer.transcribe(recording.path, **SPOKEN).text))
    assert error_rate(joined).percent <= error_rate(alone).percent + 1.0
    assert error_rate(alone).percent < 6.0, "else the comparison means little"


def test_ledger_and_segments(recordings: list[JoinedRecording], recognizer: Recognizer) -> None:
    for recording in recordings:
        transcript = recognizer.transcribe(recording.path, **SPOKEN)
        ledger = transcript.ledger
        total_s = ledger.transcribed_s + ledger.repaired_s + ledger.failed_s + ledger.silence_s
        assert total_s == pytest.approx(recording.duration_s, abs=1e-6)
        assert (ledger.repaired_s, ledger.failed_s) == (0, 0)
        found = coverage([(segment.start_s, segment.end_s) for segment in transcript.segments], recording.speech)
        assert (found.split, found.missed, found.joined) == (0, 0, 0)
        assert found.recall > 0.995
        assert found.precision > 0.7, "segments exclude the pauses, except for a margin"

"""The final messages and the exit code; for recordings without speech, the level that was measured."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.running import invoke
from support.transcripts import segment, transcript

from funasr_cli import demo
from funasr_cli.cli.outcome import Outcome
from funasr_cli.errors import AudioError, ExitCode
from funasr_cli.scheduling.events import Failed, Finished
from funasr_cli.scheduling.recording_state import RecordingState
from funasr_cli.transcript import Segment, Transcript


def said(*segments: Segment, level_dbfs: float | None = None, fault: str | None = None) -> Transcript:
    made = transcript(*segments, duration_s=9.0, fault=fault)
    return dataclasses.replace(made, level_dbfs=level_dbfs)


def outcome(*results: Transcript | None) -> Outcome:
    """Return the outcome of inputs with these transcripts; None failed."""
    found = Outcome()
    for source, result in enumerate(results):
        found.add(Finished(source, result) if result else Failed(source, AudioError("broken")))
    return found


@pytest.mark.parametrize(
    ("levels", "values"),
    [
        ((-20.0,), ["--vad-threshold", "--no-vad"]),
        ((-62.4,), ["-62 dBFS", "--vad-threshold"]),
        ((-80.0, -62.4, None), ["-62 dBFS", "--vad-threshold"]),
        ((-62.4, -20.0), ["--no-vad"]),
        ((None,), ["no sound"]),
    ],
)
def test_no_speech_reports_the_level(levels: tuple[float | None, ...], values: list[str]) -> None:
    found = outcome(*(said(level_dbfs=level) for level in levels))
    assert found.exit_code(strict=False) == found.exit_code(strict=True) == ExitCode.NO_SPEECH
    for value in ("no speech found", *values):
        assert value in found.summary()


GOOD, CUT = segment(0.0, 1.0, "a"), segment(1.0, 2.0, "b", "budget")


@pytest.mark.parametrize(
    ("results", "exit_code", "strict"),
    [
        ((said(GOOD),), 0, 0), ((said(GOOD), said()), 0, 0), ((said(GOOD, CUT),), 4, 1),
        ((said(GOOD, fault="broke off"), said()), 4, 1), ((said(CUT),), 1, 1), ((said(GOOD), None), 1, 1),
        ((said(), None), 1, 1),
    ],
)  # fmt: skip
def test_exit_codes(results: tuple[Transcript | None, ...], exit_code: int, strict: int) -> None:
    found = outcome(*results)
    assert (found.exit_code(strict=False), found.exit_code(strict=True)) == (exit_code, strict)
    counted = "the input failed" if len(results) == 1 else "1 of 2 inputs failed"
    assert found.summary().startswith(counted) == (found.failed != set())


def test_segments_are_counted_by_their_state() -> None:
    repaired = dataclasses.replace(segment(2.0, 3.0, "c"), retries=1, doubtful=True)
    found = outcome(said(GOOD, CUT, repaired), said(repaired)).summary()
    assert found.endswith(", 2 segments repaired, 1 segment failed, 2 segments doubtful, 0:01 of audio failed")
    assert found.startswith("75.0% of 0:04 of speech ")


def test_audio_outside_of_segments_counts_as_failed() -> None:
    """The recording was cut off."""
    broken = dataclasses.replace(said(GOOD, fault="broke off"), lost=((2.0, 5.0),))
    assert outcome(broken).summary().endswith(" speech transcribed, 0:03 of audio failed")


@pytest.mark.slow
def test_a_soft_recording_among_others_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other recordings may have speech. A recording of digital silence is not named."""
    levels = {"soft.wav": -62.0, "zero.wav": None, "loud.wav": -20.0}
    make = RecordingState.transcript

    def measured(state: RecordingState, *given: Any) -> Transcript:
        return dataclasses.replace(make(state, *given), level_dbfs=levels.get(Path(state.name).name))

    monkeypatch.setattr(RecordingState, "transcript", measured)
    for name in levels:
        soundfile.write(tmp_path / name, np.zeros(16000), 16000)
    result = invoke("transcribe", "-m", "demo", *(tmp_path / name for name in levels), demo.clips()[0].path)
    assert result.exit_code == ExitCode.OK
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.partition(": no speech")[0] for line in warnings] == [f"warning: {tmp_path / 'soft.wav'}"]
    assert "-62 dBFS" in warnings[0]

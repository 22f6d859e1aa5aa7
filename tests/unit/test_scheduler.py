"""The order in which segments are decoded, and the events, with a scripted model."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scheduled import (
    Attempt,
    Model,
    Outcome,
    Recorded,
    always,
    assert_protocol,
    expected_segments,
    failures_of,
    run,
    talk,
    transcripts_of,
)
from support.speaking import SpeakingModel

from funasr_cli.audio.decode import from_array
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.errors import AudioError
from funasr_cli.families.rows import ROWS_AT_ONCE
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling.events import Finished, PartialText, SegmentFinished
from funasr_cli.scheduling.scheduler import Scheduler
from funasr_cli.speech_model import SegmentRequest, TranscriptStage
from funasr_cli.transcript import Score, Segment, Transcript

KINDS = ["eos", "eos", "eos", "loop", "budget", "nonfinite"]


def by_chance(seed: int) -> Outcome:
    """Return a random outcome that depends only on the attempt and the seed."""
    return lambda attempt: random.Random(f"{seed} {attempt}").choice(KINDS)


def scheduled(batch_size: int, **rest: object) -> TranscribeOptions:
    return TranscribeOptions(batch_size=batch_size, max_segment_s=4, **rest)  # type: ignore[arg-type]


def ledger_sum(transcript: Transcript) -> float:
    ledger = transcript.ledger
    parts = (ledger.transcribed_s, ledger.repaired_s, ledger.failed_s, ledger.silence_s)
    assert min(parts) >= 0
    return sum(parts)


def assert_expected(
    transcript: Transcript, recording: Recorded, outcome: Outcome, options: TranscribeOptions
) -> None:
    found = [
        (*(round(time_s * SAMPLE_RATE_HZ) for time_s in (one.start_s, one.end_s)),
         one.stop_reason, one.retries, one.text, one.tokens)
        for one in transcript.segments
    ]  # fmt: skip
    assert found == expected_segments(recording, outcome, options)
    assert transcript.source == recording.name
    read_s = len(recording.readable()) / SAMPLE_RATE_HZ
    unread_s = max(0.0, (recording.expected_s or 0) - read_s) if recording.fault else 0.0
    assert transcript.unread_s == pytest.approx(unread_s)
    assert transcript.duration_s == pytest.approx(read_s + unread_s)
    assert ledger_sum(transcript) == pytest.approx(transcript.duration_s)


@st.composite
def collections(draw: st.DrawFn) -> list[Recorded]:
    """Draw recordings with speech and pauses; some are cut off, a few of them at the start."""
    recordings = []
    for source in range(draw(st.integers(0, 5))):
        runs = draw(st.lists(st.tuples(st.integers(1, 150), st.sampled_from([0.0, 1.0])), max_size=6))
        fault = AudioError("broke off") if draw(st.integers(0, 3)) == 0 else None
        recordings.append(
            Recorded(
                source,
                runs or [(1, 0.0)],
                block=draw(st.sampled_from([500, 16000, 160000])),
                cut_off=draw(st.integers(0, 511)),
                expected_s=draw(st.none() | st.sampled_from([0.0, 2.0, 30.0])),
                fault=fault,
                fault_after=draw(st.integers(0, 3)) if fault else 0,
            )
        )
    return recordings


@pytest.mark.slow
@given(
    recordings=collections(),
    seed=st.integers(0, 10**6),
    batch_size=st.integers(1, 6),
    max_tokens=st.none() | st.sampled_from([1, 5, 6, 17, 18, 30]),
)
@settings(max_examples=150, deadline=None)
def test_whatever_happens(recordings: list[Recorded], seed: int, batch_size: int, max_tokens: int | None) -> None:
    outcome, options = by_chance(seed), scheduled(batch_size, max_tokens=max_tokens)
    model = Model(outcome, options)
    events = run(model, recordings)
    assert_protocol(events, range(len(recordings)))
    transcripts, failures = transcripts_of(events), failures_of(events)
    for recording in recordings:
        if recording.fault and not len(recording.readable()):
            assert failures[recording.source] is recording.fault
        else:
            assert_expected(transcripts[recording.source], recording, outcome, options)
            assert transcripts[recording.source].timings.tokens == model.tokens.get(recording.source, 0)
    assert model.most_live <= batch_size
    assert max(model.groups, default=0) <= ROWS_AT_ONCE


@pytest.mark.slow
@given(recordings=collections(), seed=st.integers(0, 10**6), batch_size=st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_whatever_crashes(recordings: list[Recorded], seed: int, batch_size: int) -> None:
    """Only recordings with a part in a failed computation fail; the others are unaffected."""

    def outcome(attempt: Attempt) -> str:
        return random.Random(f"{seed} {attempt}").choice(["eos", "eos", "loop", "crash"])

    options = scheduled(batch_size)
    model = Model(outcome, options, crash_in_encoder=lambda attempt: random.Random(f"{attempt}").random() < 0.1)
    events = run(model, recordings)
    assert_protocol(events, range(len(recordings)))
    transcripts, failures = transcripts_of(events), failures_of(events)
    unreadable = {one.source for one in recordings if one.fault and not len(one.readable())}
    crashed = set[int]().union(*model.crashed)
    assert unreadable <= set(failures) <= unreadable | crashed
    for source, transcript in transcripts.items():
        if source not in crashed:
            assert_expected(transcript, recordings[source], outcome, options)
        assert ledger_sum(transcript) == pytest.approx(transcript.duration_s)


def test_events_of_a_segment_that_is_repaired() -> None:
    """It is stopped after its loop and decoded again in two parts."""
    recording = talk(0, 3.0)
    model = Model(lambda attempt: "eos" if attempt.level else "loop", scheduled(4))
    events = run(model, [recording])
    assert_protocol(events, [0])
    first, second = transcripts_of(events)[0].segments
    drafts = [(event.start_s, event.text) for event in events if isinstance(event, PartialText)]
    parent, starts = drafts.index((first.start_s, None)), (first.start_s, second.start_s)
    assert {start_s for start_s, _ in drafts[: parent + 1]} == {first.start_s}
    assert drafts[parent - 1][1] == chr(0x4E01) + chr(0x4E02) + chr(0x4E03) * 15
    assert drafts[parent + 1 : parent + 3] == [(start_s, "") for start_s in starts]
    for start_s in starts:
        texts = [text for at_s, text in drafts[parent + 1 :] if at_s == start_s]
        assert texts == ["", "\u4e07", "\u4e07\u4e08", "\u4e07\u4e08\u4e09", None]
    assert [event.segment for event in events if isinstance(event, SegmentFinished)] == [first, second]
    assert [(one.text, one.retries, one.state) for one in (first, second)] == [
        ("\u4e07\u4e08\u4e09", 1, "repaired")
    ] * 2


@pytest.mark.parametrize(
    ("kind", "max_tokens", "levels"),
    [
        ("eos", None, [0]), ("nonfinite", None, [0]), ("nonfinite", 50, [0]), ("budget", 50, [0]),
        *((*again, [0, 1, 1, 2, 2, 2, 2]) for again in (("budget", None), ("loop", None), ("loop", 50))),
    ],
)  # fmt: skip
def test_which_outcomes_are_decoded_again(kind: str, max_tokens: int | None, levels: list[int]) -> None:
    options = TranscribeOptions(batch_size=8, max_segment_s=20, max_tokens=max_tokens)
    quarter, shallow, deep = (
        (125, 1.0),
        (6, 0.45),
        (6, 0.36),
    )  # in frames: 4 s, and 0.2 s that do not count as a pause
    recording = Recorded(0, [(30, 0.0), quarter, shallow, quarter, deep, quarter, shallow, quarter, (30, 0.0)])
    model = Model(always(kind), options)
    transcript = transcripts_of(run(model, [recording]))[0]
    assert sorted(attempt.level for attempt in model.admitted) == levels
    retries = max(levels)
    assert [segment.retries for segment in transcript.segments] == [retries] * 2**retries
    assert {segment.stop_reason for segment in transcript.segments} == {kind}
    speech_s = transcript.ledger.transcribed_s if kind == "eos" else transcript.ledger.failed_s
    assert speech_s == pytest.approx(16.96)  # including the margins
    for segment, after in zip(transcript.segments, transcript.segments[1:], strict=False):
        assert segment.end_s == after.start_s


def test_every_second_is_in_the_ledger_once() -> None:
    """One half is repaired and one is not, one segment succeeds and one fails, and the rest is silence."""

    def outcome(attempt: Attempt) -> str:
        if attempt.start < 3 * SAMPLE_RATE_HZ:
            return "eos" if attempt.level and attempt.start < 2 * SAMPLE_RATE_HZ else "loop"
        return "eos" if attempt.start < 6 * SAMPLE_RATE_HZ else "nonfinite"

    transcript = transcripts_of(run(Model(outcome, scheduled(4)), [talk(0, 0.8, 1.6, 2.4, pause_s=2.0)]))[0]
    states = [(segment.state, segment.retries) for segment in transcript.segments]
    assert states == [("repaired", 1), ("failed", 1), ("transcribed", 0), ("failed", 0)]
    repaired, in_circles, transcribed, broken = (segment.duration_s for segment in transcript.segments)
    ledger = transcript.ledger
    assert ledger.repaired_s == pytest.approx(repaired)
    assert ledger.transcribed_s == pytest.approx(transcribed) == pytest.approx(1.6 + 0.384)
    assert ledger.failed_s == pytest.approx(in_circles + broken)
    assert ledger_sum(transcript) == pytest.approx(transcript.duration_s)
    assert len(transcript.warnings) == 2


def test_similar_segments_are_decoded_together() -> None:
    model = Model(always("eos"), scheduled(4))
    run(model, [talk(0, *[3.0, 1.0] * 4)])
    assert model.groups == [4, 4]
    lengths = [attempt.end - attempt.start for attempt in model.admitted]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_segment_of_unusual_length_is_not_delayed(batch_size: int) -> None:
    model = Model(always("eos"), TranscribeOptions(batch_size=batch_size))
    run(model, [talk(0, *[0.5] * 6, 25.0), talk(1, *[0.5] * 40)])
    assert len(model.admitted) == 47
    longest = max(range(47), key=lambda index: model.admitted[index].end - model.admitted[index].start)
    assert 0 < longest < 6 + ROWS_AT_ONCE * 6


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_reading_stays_a_little_ahead(batch_size: int) -> None:
    """Recordings of any length are possible: the queue of segments that have been read is short."""
    recording = talk(0, *[0.512] * 40, pause_s=0.96, block=500)
    stretch_blocks = (0.512 + 0.96) * SAMPLE_RATE_HZ / recording.block
    ahead: list[float] = []
    model = Model(always("eos"), scheduled(batch_size))
    model.on_admission = lambda attempt: ahead.append(recording.blocks_read / stretch_blocks - len(model.admitted))
    run(model, [recording])
    assert len(ahead) == 40
    assert max(ahead) <= 2 * batch_size + batch_size + 3


# --- stages after the model ---


class Shout(TranscriptStage):
    """Changes text and words of each segment, and counts its calls."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    def segment(self, request: SegmentRequest, segment: Segment) -> Segment:
        self.seen.append((len(request.audio.samples), segment.text))
        return dataclasses.replace(segment, text=segment.text + "!", scores=(Score(segment.text + "!", 1.0),))

    def transcript(self, transcript: Transcript) -> Transcript:
        return dataclasses.replace(transcript, warnings=(*transcript.warnings, "loud"))


def test_stages_see_segments_and_transcripts() -> None:
    recordings = [talk(0, 1.0, 2.0), talk(1, 1.5)]
    plain = transcripts_of(run(Model(always("eos"), TranscribeOptions(batch_size=4)), recordings))
    model = Model(always("eos"), TranscribeOptions(batch_size=4), stages=[Shout(), Shout()])
    events = run(model, recordings)
    changed = transcripts_of(events)
    finished = [event.segment.text for event in events if isinstance(event, SegmentFinished)]
    assert sorted(finished) == sorted(each.text for one in changed.values() for each in one.segments)
    for source, transcript in plain.items():
        texts = [segment.text for segment in transcript.segments]
        assert [segment.text for segment in changed[source].segments] == [f"{text}!!" for text in texts]
        assert all(segment.scores[0].text == segment.text for segment in changed[source].segments)
        assert changed[source].warnings == (*transcript.warnings, "loud", "loud")
    first, second = model.stages
    assert len(first.seen) == len(second.seen) == sum(len(one.segments) for one in plain.values())
    assert [text for _, text in second.seen] == [f"{text}!" for _, text in first.seen]


def test_a_stage_that_runs_out_of_memory_loses_nothing() -> None:
    """Its segment is decoded again in a smaller batch."""

    class Fails(TranscriptStage):
        failures = 2

        def segment(self, request: SegmentRequest, segment: Segment) -> Segment:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("[malloc] out of memory")
            return segment

    recordings = [talk(source, 1.0, 2.0, 1.0) for source in range(4)]
    plain = transcripts_of(run(Model(always("eos"), TranscribeOptions(batch_size=8)), recordings))
    events = run(Model(always("eos"), TranscribeOptions(batch_size=8), stages=[Fails()]), recordings)
    assert_protocol(events, range(4))
    again = transcripts_of(events)
    assert {source: one.segments for source, one in again.items()} == {
        source: one.segments for source, one in plain.items()
    }


def test_a_stage_that_fails_at_the_end_fails_the_recording() -> None:
    class Fails(TranscriptStage):
        def transcript(self, transcript: Transcript) -> Transcript:
            if transcript.source == "1.wav":
                raise RuntimeError("[malloc] out of memory")
            return transcript

    recordings = [talk(0, 1.0), talk(1, 2.0), talk(2, 1.5)]
    events = run(Model(always("eos"), TranscribeOptions(batch_size=2), stages=[Fails()]), recordings)
    assert_protocol(events, range(3))
    assert {source: error.code for source, error in failures_of(events).items()} == {1: "computation-failed"}


@pytest.mark.parametrize(
    ("options", "model", "longest_s", "join_s"),
    [
        ({}, {}, 20.0, 0.0), ({"max_segment_s": 30.0}, {}, 30.0, 0.0), ({"max_segment_s": 50.0}, {}, 40.0, 0.0),
        ({}, {"window_s": 15.0}, 20.0, 15.0), ({"max_segment_s": 10.0}, {"window_s": 15.0}, 10.0, 10.0),
        ({"join_s": 0.0}, {"window_s": 15.0}, 20.0, 0.0), ({"join_s": 30.0}, {"window_s": 15.0}, 20.0, 20.0),
    ],
)  # fmt: skip
def test_lengths_of_segments_that_nobody_chose_are_the_models(
    monkeypatch: pytest.MonkeyPatch, options: dict, model: dict, longest_s: float, join_s: float
) -> None:
    """A length that was chosen counts, even if it is usually the default."""
    speaking, taken = SpeakingModel(best_segment_s=20.0, longest_segment_s=40.0, **model), []
    session = speaking.session
    monkeypatch.setattr(speaking, "session", lambda options: taken.append(options) or session(options))
    Scheduler(speaking, TranscribeOptions(**options))
    assert [(one.max_segment_s, one.join_s) for one in taken] == [(longest_s, join_s)]


def test_speech_is_cut_at_the_length_that_suits_the_model() -> None:
    scheduler = Scheduler(SpeakingModel(best_segment_s=5.0), TranscribeOptions(vad=False))
    samples = np.zeros(12 * SAMPLE_RATE_HZ, np.float32)
    *_, finished = scheduler.run([lambda: from_array(samples, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)])
    assert isinstance(finished, Finished)
    assert max(one.duration_s for one in finished.transcript.segments) <= 5.0


@pytest.mark.parametrize(
    ("window_s", "join_s", "segments"),
    [(None, None, 16), (30.0, None, 3), (30.0, 0.0, 16), (30.0, 4.0, 16)],
)
def test_windows_are_filled_unless_a_length_is_requested(
    window_s: float | None, join_s: float | None, segments: int
) -> None:
    """56 s, of which 32 s are speech between pauses of 1.5 s."""
    model = Model(always("eos"), TranscribeOptions(join_s=join_s, batch_size=4))
    model.window_s = window_s
    recording = talk(0, *[2.0] * 16, pause_s=1.5)
    transcript = transcripts_of(run(model, [recording]))[0]
    assert len(transcript.segments) == segments
    assert max(segment.duration_s for segment in transcript.segments) <= 30
    assert transcript.ledger.speech_s >= 32 - 0.1

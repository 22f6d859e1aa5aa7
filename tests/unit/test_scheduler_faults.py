"""Unreadable recordings, failing computations, bugs, callers that stop, and doubtful texts."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.errors import refused
from support.scheduled import (
    Attempt,
    Model,
    Outcome,
    Recorded,
    always,
    assert_protocol,
    character,
    failures_of,
    run,
    talk,
    transcripts_of,
)

from funasr_cli.errors import AudioError, FunASRError, OutputError
from funasr_cli.families import rows as rows_module
from funasr_cli.families.fun_asr_nano import session
from funasr_cli.options import OFF, TranscribeOptions
from funasr_cli.scheduling.scheduler import MAX_RETRIES, Scheduler
from funasr_cli.transcript import Transcript

OPTIONS = TranscribeOptions(batch_size=3)
BROKEN = AudioError("b.wav: broke off", "the file is damaged")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("error", [BROKEN, OutputError("out/a.txt: exists already"), FunASRError("no")])
def test_an_input_that_cannot_be_opened(error: FunASRError) -> None:
    others = [talk(0, 1.0), talk(2, 1.0)]
    openers = [lambda: others[0], Mock(side_effect=error), lambda: others[1]]
    events = list(Model(always("eos"), OPTIONS).run(others, openers))
    assert_protocol(events, [0, 1, 2])
    assert failures_of(events) == {1: error}
    assert sorted(transcripts_of(events)) == [0, 2]


def test_an_input_at_another_rate() -> None:
    events = run(Model(always("eos"), OPTIONS), [talk(0, 1.0, sample_rate_hz=8000, name="slow.wav")])
    error = failures_of(events)[0]
    assert (error.code, error.message) == ("sample-rate", "slow.wav: 8000 Hz, not 16000")


@pytest.mark.parametrize(("expected_s", "unread_s"), [(None, 0.0), (9.0, 6.0), (3.0, 0.0), (2.5, 0.0)])
def test_an_input_that_is_cut_off(expected_s: float | None, unread_s: float) -> None:
    """Three seconds were read: a second of speech, and another one that the fault cuts short."""
    recording = talk(0, 0.992, 3.0, pause_s=0.96, fault=BROKEN, fault_after=3, expected_s=expected_s)
    transcript = transcripts_of(run(Model(always("eos"), OPTIONS), [recording]))[0]
    assert (transcript.unread_s, transcript.duration_s) == (unread_s, 3.0 + unread_s)
    assert transcript.fault == "b.wav: broke off"
    assert not transcript.complete
    assert [segment.complete for segment in transcript.segments] == [True, True]
    assert transcript.segments[-1].end_s == 3.0
    assert transcript.ledger.failed_s == unread_s


def crash_in(*sources: int) -> Callable[[Attempt], str]:
    return lambda attempt: "crash" if attempt.source in sources else "eos"


def test_without_batches_a_crash_fails_one_recording() -> None:
    model = Model(crash_in(1), TranscribeOptions(batch_size=1))
    events = run(model, [talk(0, 1.0), talk(1, 1.0, 1.0, 1.0), talk(2, 1.0, 1.0)])
    assert_protocol(events, [0, 1, 2])
    assert list(failures_of(events)) == [1]
    error = failures_of(events)[1]
    assert (error.code, "--max-segment" in error.hint) == ("computation-failed", True)
    assert error.message.startswith("1.wav: ")
    assert "[malloc] out of memory" in error.message
    assert [attempt.source for attempt in model.admitted] == [0, 1, 2, 2]  # the rest of recording 1 is not tried
    assert model.decoders == 2
    assert [len(transcript.segments) for transcript in transcripts_of(events).values()] == [1, 2]


@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_in_batches_a_crash_is_retried_with_less_until_one_fails(batch_size: int) -> None:
    model = Model(crash_in(1), TranscribeOptions(batch_size=batch_size))
    events = run(model, [talk(0, 3.0), talk(1, 3.0), talk(2, 3.0), talk(3, 3.0)])
    assert_protocol(events, range(4))
    assert list(failures_of(events)) == [1]
    assert [len(transcript.segments) for transcript in transcripts_of(events).values()] == [1, 1, 1]
    assert all(transcript.ledger.failed_s == 0 for transcript in transcripts_of(events).values())


def test_a_crash_in_the_encoder_does_not_affect_the_rows() -> None:
    """Four rows are being decoded when two more are to join, one of which needs too much memory."""
    model = Model(
        lambda attempt: "budget" if attempt.source == 0 else "eos",
        TranscribeOptions(batch_size=8, max_tokens=20),
        crash_in_encoder=lambda attempt: attempt.source == 2,
    )
    events = run(model, [talk(0, *[3.0] * 4), talk(1, 1.0), talk(2, 1.0)])
    assert_protocol(events, range(3))
    assert model.groups == [4, 1]
    assert list(failures_of(events)) == [2]
    assert [segment.tokens for segment in transcripts_of(events)[0].segments] == [20] * 4
    assert model.decoders == 1


@pytest.mark.parametrize("bug", [ValueError("a bug"), RuntimeError("a bug"), KeyError("a bug")])
@pytest.mark.parametrize("blocks", [0, 2])
def test_bugs_in_readers_are_raised(bug: Exception, blocks: int) -> None:
    recordings = [talk(0, 0.3), talk(1, 0.3, 0.3, fault=bug, fault_after=blocks), talk(2, 0.3)]
    with pytest.raises(type(bug)) as raised:
        run(Model(always("eos"), OPTIONS), recordings)
    assert raised.value is bug


def test_bugs_in_the_decoder_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    model, recording = Model(always("eos"), OPTIONS), talk(0, 1.0, 1.0)
    monkeypatch.setattr(model, "step", Mock(side_effect=ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        run(model, [recording])
    assert recording.closed


@pytest.mark.parametrize("taken", [0, 1, 2, 30])
def test_abandoned_midway(taken: int) -> None:
    """Nothing keeps running, and the file is closed."""
    recordings = [talk(0, *[0.5] * 40), talk(1, 1.0)]
    events = Model(always("eos"), OPTIONS).run(recordings, [lambda: recordings[0], lambda: recordings[1]])
    for _ in range(taken):
        next(events)
    events.close()
    assert list(events) == []
    assert recordings[0].closed == (taken > 0)
    assert recordings[1].blocks_read == 0


def test_an_unknown_language_opens_no_input() -> None:
    opener = Mock()
    with refused("language-unknown", "ko"):
        list(Model(always("eos"), TranscribeOptions(batch_size=3, language="ko")).run([], [opener]))
    opener.assert_not_called()


def test_the_language_is_in_the_result_as_a_code() -> None:
    options = TranscribeOptions(batch_size=3, language="English")
    transcript = transcripts_of(run(Model(always("eos"), options), [talk(0, 0.0)]))[0]
    assert (transcript.language, transcript.model) == ("en", "scripted")


@pytest.mark.parametrize(
    ("available", "text_tokens", "rows"),
    [
        (0, 30, 1), (5_000_000, 30, 1), (30_000_000, 30, 3), (140_000_000, 30, 14), (10**12, 30, 16),
        (140_000_000, 4093, 1), (10**12, 4093, 16),
    ],
)  # fmt: skip
def test_as_many_rows_as_fit(available: int, text_tokens: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has the text and 63 and 504 columns of 1,000 4-byte values, stored twice. Half is kept free."""
    model = Model(always("eos"), TranscribeOptions())
    model.network.llm = SimpleNamespace(row_bytes=lambda columns: 2 * columns * 4000)  # type: ignore[assignment]
    model.config.frontend = SimpleNamespace(row_duration_s=0.06)
    model.config.adaptor = SimpleNamespace(low_frame_rate=True)
    monkeypatch.setattr(session, "prompt_token_ids", lambda *_: ([0] * (text_tokens - 5), [0] * 5))
    monkeypatch.setattr(rows_module, "available_bytes", lambda: available)
    monkeypatch.setattr(rows_module, "BatchDecoder", lambda *_: None)
    assert Scheduler(model, TranscribeOptions())._batch_size == rows  # type: ignore[arg-type]
    assert Scheduler(model, TranscribeOptions(batch_size=5))._batch_size == 5  # type: ignore[arg-type]


def test_no_memory_for_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(always("eos"), OPTIONS)
    monkeypatch.setattr(model, "encoded", Mock(side_effect=MemoryError("std::bad_alloc")))
    events = run(model, [talk(source, 1.0, 1.0) for source in range(5)])
    assert_protocol(events, range(5))
    assert sorted(failures_of(events)) == list(range(5))
    assert {error.code for error in failures_of(events).values()} == {"computation-failed"}


@pytest.mark.parametrize("failures", [1, 2, 9])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_memory_that_runs_out_while_a_text_is_finished(
    failures: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row and those that ended in the same step are decoded again; a single row fails its recording."""
    left, compare = [failures], session.compare

    def give_up(*texts: str) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("[malloc] out of memory")
        return compare(*texts)

    monkeypatch.setattr(session, "compare", give_up)
    options = TranscribeOptions(batch_size=batch_size, draft=OFF)
    recordings = [talk(source, 1.0) for source in range(5)]
    events = run(Model(always("eos"), options, ctc_text_of=lambda attempt: TEXT), recordings)
    assert_protocol(events, range(5))
    failed = failures_of(events)
    assert {error.code for error in failed.values()} <= {"computation-failed"}
    assert len(failed) == {(1, 1): 1, (2, 1): 2, (9, 1): 5}.get((failures, batch_size), len(failed))
    assert len(failed) <= failures
    assert {one.text for one in transcripts_of(events).values()} <= {TEXT}


# --- texts that the CTC branch does not support are decoded again in parts; one of both attempts is used ---

TEXT = "".join(map(character, (7, 8, 9)))  # the scripted decoder's text until it stops by itself
ELSE = "nothing of the sort"
MADE_UP = "the second opinion disagrees with this text: it may be made up"
Hears = Callable[[Attempt], str]


def only(
    ctc_text_of: Hears | None, outcome: Outcome | None = None, speech_s: float = 4.0, **options: object
) -> Transcript:
    """Transcribe one recording with a few seconds of speech."""
    options = {"ctc": ctc_text_of is not None} | options
    wanted = TranscribeOptions(batch_size=4, draft=OFF, **options)  # type: ignore[arg-type]
    model = Model(outcome or always("eos"), wanted, ctc_text_of=ctc_text_of)
    recording = talk(0, speech_s)
    events = run(model, [recording])
    assert_protocol(events, [0])
    transcript = transcripts_of(events)[0]
    ledger = transcript.ledger
    parts = (ledger.transcribed_s, ledger.repaired_s, ledger.failed_s, ledger.silence_s)
    assert sum(parts) == pytest.approx(transcript.duration_s)
    assert ledger.doubtful_s <= ledger.transcribed_s + ledger.repaired_s
    return transcript


def outcomes_of(transcript: Transcript) -> list[tuple[str, float | None, bool, int]]:
    return [(one.state, one.disagreement, one.doubtful, one.retries) for one in transcript.segments]


@pytest.mark.parametrize(
    ("ctc_text", "options", "expected"),
    [
        (None, {}, ("transcribed", None, False, 0)),  # no CTC branch
        (ELSE, {"second_opinion": False}, ("transcribed", None, False, 0)),
        (f"{TEXT} ", {}, ("transcribed", 0.0, False, 0)),
        (TEXT[:2], {}, ("transcribed", pytest.approx(1 / 5), False, 0)),  # one character of three is not doubtful
        (
            TEXT,
            {"prev_text": "What was said before"},
            ("transcribed", 0.0, False, 0),
        ),  # an earlier text is ignored
        (ELSE, {"speech_s": 0.4}, ("transcribed", 1.0, True, 0)),  # too short to be split
        (ELSE, {"exact_tokens": 3}, ("failed", None, False, 0)),  # tokens are only counted
        (ELSE, {"speech_s": 0.4, "outcome": always("silent")}, ("transcribed", 1.0, True, 0)),  # words are missing
        (ELSE, {"outcome": always("nonfinite")}, ("failed", 1.0, False, 0)),
    ],
)
def test_doubtful_texts(ctc_text: str | None, options: dict, expected: tuple) -> None:
    transcript = only(None if ctc_text is None else lambda attempt: ctc_text, **options)
    assert outcomes_of(transcript) == [expected]
    assert bool(transcript.ledger.doubtful_s) is expected[2]
    assert len(transcript.warnings) == (expected[2] or expected[0] == "failed")  # each is reported once


@pytest.mark.parametrize("ctc_text", [ELSE, ""])
def test_parts_that_are_no_better_are_discarded(ctc_text: str) -> None:
    attempts: list[Attempt] = []
    transcript = only(lambda attempt: attempts.append(attempt) or ctc_text)
    levels = [sum(attempt.level == level for attempt in attempts) for level in range(4)]
    assert levels == [1, 2, 2, 0]  # one of the halves is too short to be split again
    assert outcomes_of(transcript) == [("transcribed", 1.0, True, 0)]
    [segment] = transcript.segments
    assert segment.text == TEXT
    assert transcript.warnings == (f"{segment.start_s:.1f}-{segment.end_s:.1f} s: {MADE_UP}",)
    assert transcript.ledger.doubtful_s == transcript.ledger.transcribed_s == pytest.approx(segment.duration_s)
    assert transcript.complete


@pytest.mark.parametrize("ctc", [True, False])
def test_supported_parts_are_used(ctc: bool) -> None:
    """It does not matter whether the CTC text is requested as well."""
    transcript = only(lambda attempt: TEXT if attempt.level else ELSE, ctc=ctc)
    assert outcomes_of(transcript) == [("repaired", 0.0, False, 1)] * 2
    assert (transcript.warnings, transcript.ledger.doubtful_s, transcript.ledger.transcribed_s) == ((), 0.0, 0.0)
    assert [segment.ctc_text for segment in transcript.segments] == [TEXT if ctc else None] * 2


def test_parts_of_parts() -> None:
    """The first half is supported. The second half has no CTC text, and its quarters are no better."""
    starts: list[int] = []

    def ctc_text_of(attempt: Attempt) -> str:
        starts.append(attempt.start)
        return TEXT if attempt.level and attempt.start == starts[0] else ELSE

    transcript = only(ctc_text_of)
    assert outcomes_of(transcript) == [("repaired", 0.0, False, 1), ("repaired", 1.0, True, 1)]
    second = transcript.segments[1]
    assert transcript.warnings == (f"{second.start_s:.1f}-{second.end_s:.1f} s: {MADE_UP}",)
    assert transcript.ledger.doubtful_s == pytest.approx(second.duration_s) != transcript.ledger.repaired_s


@pytest.mark.parametrize("kind", ["loop", "budget", "nonfinite"])
def test_a_complete_text_is_not_replaced_by_broken_parts(kind: str) -> None:
    transcript = only(
        lambda attempt: TEXT if attempt.level else ELSE, lambda attempt: kind if attempt.level else "eos"
    )
    assert outcomes_of(transcript) == [("transcribed", 1.0, True, 0)]
    assert transcript.complete


@pytest.mark.slow
@given(
    speech_s=st.lists(st.sampled_from([0.4, 1.2, 2.5, 4.0]), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    batch_size=st.integers(1, 5),
    sources=st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_any_ctc_texts(speech_s: list[float], seed: int, batch_size: int, sources: int) -> None:
    """Every second is reported once, in order, however attempts end and agree."""

    def chosen(kind: str, attempt: Attempt, values: list[str]) -> str:
        return random.Random(f"{seed} {kind} {attempt}").choice(values)

    recordings: list[Recorded] = [talk(source, *speech_s) for source in range(sources)]
    model = Model(
        lambda attempt: chosen("ends", attempt, ["eos", "eos", "eos", "loop", "nonfinite"]),
        TranscribeOptions(batch_size=batch_size, ctc=True, draft=OFF),
        ctc_text_of=lambda attempt: chosen("hears", attempt, [TEXT, TEXT[:1], ELSE, ""]),
    )
    events = run(model, recordings)
    assert_protocol(events, range(sources))
    spans = Model(always("eos"), TranscribeOptions(batch_size=1))
    plain = transcripts_of(run(spans, recordings))
    for source, transcript in transcripts_of(events).items():
        assert sum(segment.duration_s for segment in transcript.segments) == pytest.approx(
            sum(segment.duration_s for segment in plain[source].segments)
        )
        assert all(segment.retries <= MAX_RETRIES for segment in transcript.segments)
        assert len(transcript.warnings) == sum(
            segment.doubtful or not segment.complete for segment in transcript.segments
        )

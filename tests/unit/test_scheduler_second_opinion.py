"""What the CTC branch did not hear is decoded again in parts; of both attempts one stays, and doubts are told."""

from __future__ import annotations

import random
from collections.abc import Callable

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
    character,
    run,
    talk,
    transcripts_of,
)

from funasr_cli.options import OFF, TranscribeOptions
from funasr_cli.scheduling.scheduler import MAX_RETRIES
from funasr_cli.transcript import Transcript

TEXT = "".join(map(character, (7, 8, 9)))  # what the scripted decoder writes until it stops by itself
ELSE = "nothing of the sort"
MADE_UP = "the CTC branch did not hear this: the text may be made up"
Hears = Callable[[Attempt], str]


def only(
    hears: Hears | None, outcome: Outcome | None = None, speech_s: float = 4.0, **options: object
) -> Transcript:
    """One recording with speech of a few seconds, and what comes of it."""
    wanted = TranscribeOptions(batch_size=4, ctc=hears is not None, draft=OFF, **options)  # type: ignore[arg-type]
    model = Model(outcome or always("eos"), wanted, hears=hears)
    recording = talk(0, speech_s)
    events = run(model, [recording])
    assert_protocol(events, [0])
    transcript = transcripts_of(events)[0]
    ledger = transcript.ledger
    parts = (ledger.transcribed_s, ledger.repaired_s, ledger.failed_s, ledger.silence_s)
    assert sum(parts) == pytest.approx(transcript.duration_s)
    assert ledger.doubtful_s <= ledger.transcribed_s + ledger.repaired_s
    return transcript


def told(transcript: Transcript) -> list[tuple[str, float | None, bool, int]]:
    return [(one.state, one.disagreement, one.doubtful, one.retries) for one in transcript.segments]


@pytest.mark.parametrize(
    ("heard", "options", "expected"),
    [
        (None, {}, ("transcribed", None, False, 0)),  # no CTC branch
        (ELSE, {"second_opinion": False}, ("transcribed", None, False, 0)),
        (f"{TEXT} ", {}, ("transcribed", 0.0, False, 0)),
        (TEXT[:2], {}, ("transcribed", pytest.approx(1 / 5), False, 0)),  # one character of three is no doubt
        (TEXT, {"prev_text": "What was said before"}, ("transcribed", 0.0, False, 0)),  # that is not compared
        (ELSE, {"speech_s": 0.4}, ("transcribed", 1.0, True, 0)),  # too short to be cut
        (ELSE, {"exact_tokens": 3}, ("failed", None, False, 0)),  # tokens are counted, nothing else
        (ELSE, {"speech_s": 0.4, "outcome": always("silent")}, ("transcribed", 1.0, True, 0)),  # words are missing
        (ELSE, {"outcome": always("nonfinite")}, ("failed", 1.0, False, 0)),
    ],
)
def test_what_is_doubted(heard: str | None, options: dict, expected: tuple) -> None:
    transcript = only(None if heard is None else lambda attempt: heard, **options)
    assert told(transcript) == [expected]
    assert bool(transcript.ledger.doubtful_s) is expected[2]
    assert len(transcript.warnings) == (expected[2] or expected[0] == "failed")  # each is told once


@pytest.mark.parametrize("heard", [ELSE, ""])
def test_parts_that_are_no_better_are_given_up(heard: str) -> None:
    attempts: list[Attempt] = []
    transcript = only(lambda attempt: attempts.append(attempt) or heard)
    levels = [sum(attempt.level == level for attempt in attempts) for level in range(4)]
    assert levels == [1, 2, 2, 0]  # one of the halves is too short to be cut again
    assert told(transcript) == [("transcribed", 1.0, True, 0)]
    [segment] = transcript.segments
    assert segment.text == TEXT
    assert transcript.warnings == (f"{segment.start_s:.1f}-{segment.end_s:.1f} s: {MADE_UP}",)
    assert transcript.ledger.doubtful_s == transcript.ledger.transcribed_s == pytest.approx(segment.duration_s)
    assert transcript.complete


def test_parts_that_are_heard_stay() -> None:
    transcript = only(lambda attempt: TEXT if attempt.level else ELSE)
    assert told(transcript) == [("repaired", 0.0, False, 1)] * 2
    assert (transcript.warnings, transcript.ledger.doubtful_s, transcript.ledger.transcribed_s) == ((), 0.0, 0.0)


def test_parts_of_parts() -> None:
    """The first half is heard; in the second, of which nothing is heard, its quarters are no better."""
    starts: list[int] = []

    def hears(attempt: Attempt) -> str:
        starts.append(attempt.start)
        return TEXT if attempt.level and attempt.start == starts[0] else ELSE

    transcript = only(hears)
    assert told(transcript) == [("repaired", 0.0, False, 1), ("repaired", 1.0, True, 1)]
    second = transcript.segments[1]
    assert transcript.warnings == (f"{second.start_s:.1f}-{second.end_s:.1f} s: {MADE_UP}",)
    assert transcript.ledger.doubtful_s == pytest.approx(second.duration_s) != transcript.ledger.repaired_s


@pytest.mark.parametrize("kind", ["loop", "budget", "nonfinite"])
def test_a_complete_text_does_not_give_way_to_broken_parts(kind: str) -> None:
    transcript = only(
        lambda attempt: TEXT if attempt.level else ELSE, lambda attempt: kind if attempt.level else "eos"
    )
    assert told(transcript) == [("transcribed", 1.0, True, 0)]
    assert transcript.complete


def test_a_text_does_not_depend_on_what_else_is_asked_for() -> None:
    """The CTC branch is read for the second opinion alone, too."""
    options = TranscribeOptions(batch_size=4, draft=OFF)
    model = Model(always("eos"), options, hears=lambda attempt: TEXT if attempt.level else ELSE)
    transcript = transcripts_of(run(model, [talk(0, 4.0)]))[0]
    assert told(transcript) == [("repaired", 0.0, False, 1)] * 2
    assert [segment.ctc_text for segment in transcript.segments] == [None, None]


@pytest.mark.slow
@given(
    speech_s=st.lists(st.sampled_from([0.4, 1.2, 2.5, 4.0]), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    batch_size=st.integers(1, 5),
    sources=st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_whatever_is_heard(speech_s: list[float], seed: int, batch_size: int, sources: int) -> None:
    """Every second is told once, in order, however attempts end and agree."""

    def chosen(kind: str, attempt: Attempt, values: list[str]) -> str:
        return random.Random(f"{seed} {kind} {attempt}").choice(values)

    recordings: list[Recorded] = [talk(source, *speech_s) for source in range(sources)]
    model = Model(
        lambda attempt: chosen("ends", attempt, ["eos", "eos", "eos", "loop", "nonfinite"]),
        TranscribeOptions(batch_size=batch_size, ctc=True, draft=OFF),
        hears=lambda attempt: chosen("hears", attempt, [TEXT, TEXT[:1], ELSE, ""]),
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

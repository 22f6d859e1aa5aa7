"""Recordings of many callers that come and go at random: texts, shares, rows, lanes, with a scripted model."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
    expected_segments,
    failures_of,
    scripted_detector,
    talk,
    transcripts_of,
)

from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.errors import AudioError, ModelError
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling import engine as engine_module
from funasr_cli.scheduling import segments
from funasr_cli.scheduling.engine import MOST_LANES, Engine
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read
from funasr_cli.scheduling.intake import Arrival, Job, Prefetcher
from funasr_cli.scheduling.scheduler import suited

OPTIONS = TranscribeOptions(batch_size=4, max_segment_s=4)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10.0)
    assert set(threading.enumerate()) <= before


@dataclass
class Visit:
    """A caller: a recording, the options, when they come and when they leave, counted in events of all."""

    recording: Recorded
    options: TranscribeOptions = OPTIONS
    model: int = 0
    comes_after: int = 0
    leaves_after: int | None = None  # events of their own


@dataclass
class Callers:
    """All callers of an engine, whose listeners also submit and leave, so that everything is in one thread."""

    models: Sequence[Model]
    visits: Sequence[Visit]
    events: list[Event] = field(default_factory=list)  # of all callers, with the index of the visit as source
    left: set[int] = field(default_factory=set)
    in_vain: Counter[int] = field(default_factory=Counter)  # steps with rows of callers who had left
    engine: Engine = field(default_factory=Engine)
    patient: bool = False  # wait for readers before each step, so that the order of events is always the same

    def run(self) -> None:
        self._waiting = sorted(range(len(self.visits)), key=lambda index: self.visits[index].comes_after)
        self._numbers: dict[int, int] = {}
        self._open: set[int] = set()
        self._submit_due()
        with self.models[0].in_place([visit.recording for visit in self.visits]) as patch:
            if self.patient:
                patch.setattr(engine_module, "Prefetcher", Patient)
            decoders = {id(model): model.new_decoder for model in self.models}
            patch.setattr("funasr_cli.families.rows.BatchDecoder", lambda llm, _: decoders[id(llm)](llm, _))
            self.engine.run()

    def _submit_due(self) -> None:
        while self._waiting and (not self._open or self.visits[self._waiting[0]].comes_after <= len(self.events)):
            self._submit(self._waiting.pop(0))
        if not self._open:
            self.engine.stop()

    def _submit(self, index: int) -> None:
        visit = self.visits[index]
        model = self.models[visit.model]

        def prepare(source: int) -> tuple[Any, Job]:
            return model, Job(source, lambda: visit.recording, suited(visit.options, model))  # type: ignore[arg-type,return-value]

        self._open.add(index)
        self._numbers[index] = self.engine.submit(prepare, lambda event: self._hear(index, event))

    def _hear(self, index: int, event: Event) -> None:
        assert event.source == self._numbers[index]
        if isinstance(event, Read) or index in self.left:  # the latter in the same step
            return
        self.events.append(replace(event, source=index))
        own = sum(event.source == index for event in self.events)
        if isinstance(event, Finished | Failed):
            self._open.remove(index)
        elif own == self.visits[index].leaves_after:
            self.engine.leave(self._numbers[index])
            self._open.remove(index)
            self.left.add(index)
        self._submit_due()

    def of(self, index: int) -> list[Event]:
        return [event for event in self.events if event.source == index]


class Patient(Prefetcher):
    """Reading ahead that waits for the next item."""

    def take(self, timeout_s: float | None) -> Arrival | None:
        return super().take(60.0)


def watch_rows(model: Model, callers: Callers) -> None:
    """Count the steps for callers who have left."""
    step = model.step

    def watched(live: dict) -> list:
        callers.in_vain.update({attempt.source for attempt, _ in live.values()} & callers.left)
        return step(live)

    model.step = watched  # type: ignore[method-assign]


def found_in(events: Sequence[Event]) -> list[tuple]:
    [finished] = [event for event in events if isinstance(event, Finished)]
    return [
        (round(one.start_s * SAMPLE_RATE_HZ), round(one.end_s * SAMPLE_RATE_HZ), one.stop_reason, one.retries,
         one.text, one.tokens)
        for one in finished.transcript.segments
    ]  # fmt: skip


def by_chance(seed: int) -> Outcome:
    kinds = ["eos", "eos", "eos", "loop", "budget", "nonfinite"]
    return lambda attempt: random.Random(f"{seed} {attempt}").choice(kinds)


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    """Draw callers with recordings, options and times of their own; some recordings are cut off."""
    found = []
    for source in range(draw(st.integers(1, 7))):
        runs = draw(st.lists(st.tuples(st.integers(1, 120), st.sampled_from([0.0, 1.0])), min_size=1, max_size=5))
        fault = AudioError("broke off") if draw(st.integers(0, 5)) == 0 else None
        recording = Recorded(
            source, runs, block=draw(st.sampled_from([500, 16000])), fault=fault,
            fault_after=draw(st.integers(0, 3)) if fault else 0,
        )  # fmt: skip
        options = replace(
            OPTIONS,
            max_tokens=draw(st.none() | st.sampled_from([1, 5, 17, 30])),
            language=draw(st.sampled_from([None, "en"])),
            temperature=draw(st.sampled_from([0.0, 0.0, 0.5])),
            word_times=draw(st.booleans()),
        )
        leaves = draw(st.none() | st.none() | st.integers(1, 9))
        found.append(Visit(recording, options, draw(st.integers(0, 1)), draw(st.integers(0, 60)), leaves))
    return found


@pytest.mark.slow
@given(visits=visits(), seed=st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_callers_who_come_and_go(visits: list[Visit], seed: int) -> None:
    """Every text is as if alone, whoever else is there; nothing is computed for those who have left."""
    outcome = by_chance(seed)
    models = [Model(outcome, OPTIONS), Model(outcome, OPTIONS)]
    callers = Callers(models, visits)
    for model in models:
        watch_rows(model, callers)
    callers.run()
    stayed = [index for index in range(len(visits)) if index not in callers.left]
    assert_protocol([event for event in callers.events if event.source in stayed], stayed)
    for index in stayed:
        recording, options = visits[index].recording, visits[index].options
        if recording.fault and not len(recording.readable()):
            assert failures_of(callers.of(index))[index] is recording.fault
        else:
            assert found_in(callers.of(index)) == expected_segments(recording, outcome, options)
            [transcript] = transcripts_of(callers.of(index)).values()
            assert transcript.language == options.language
    assert max(model.most_live for model in models) <= 4
    assert max(callers.in_vain.values(), default=0) <= 1  # the step in which they left
    assert not callers.engine._readings
    assert not callers.engine._lanes


@pytest.mark.slow
@given(visits=visits(), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_whatever_crashes_the_others_get_their_text(visits: list[Visit], seed: int) -> None:
    def outcome(attempt: Attempt) -> str:
        return random.Random(f"{seed} {attempt}").choice(["eos", "eos", "loop", "crash"])

    model = Model(outcome, OPTIONS, crash_in_encoder=lambda attempt: random.Random(f"{attempt}").random() < 0.1)
    visits = [replace(visit, model=0) for visit in visits]
    callers = Callers([model], visits)
    callers.run()
    stayed = [index for index in range(len(visits)) if index not in callers.left]
    assert_protocol([event for event in callers.events if event.source in stayed], stayed)
    crashed = set[int]().union(*model.crashed)
    for index in stayed:
        recording = visits[index].recording
        if index not in crashed and not recording.fault:
            assert found_in(callers.of(index)) == expected_segments(recording, outcome, visits[index].options)


def heard(visits: Sequence[Visit], models: Sequence[Model] | None = None) -> Callers:
    callers = Callers(models or [Model(always("eos"), OPTIONS)], visits, patient=True)
    callers.run()
    return callers


def test_rows_of_several_callers_are_decoded_together() -> None:
    """Their options differ, but not in what the rows of a session share."""
    options = [
        OPTIONS, replace(OPTIONS, language="en"), replace(OPTIONS, hotwords=("Kazan",)),
        replace(OPTIONS, word_times=True, vad_threshold=0.4),
    ]  # fmt: skip
    model = Model(always("budget"), OPTIONS)
    callers = heard([Visit(talk(source, 1.0), each) for source, each in enumerate(options)], [model])
    assert sorted(transcripts_of(callers.events)) == [0, 1, 2, 3]
    assert (model.decoders, model.most_live) == (1, 4)


def test_rows_with_another_temperature_have_another_session() -> None:
    model = Model(always("eos"), OPTIONS)
    heard([Visit(talk(0, 1.0)), Visit(talk(1, 1.0), replace(OPTIONS, temperature=0.5))], [model])
    assert (model.decoders, model.most_live) == (2, 1)


def finished_in_order(callers: Callers) -> list[int]:
    return [event.source for event in callers.events if isinstance(event, Finished)]


def test_a_short_recording_does_not_wait_for_a_long_one() -> None:
    """It comes when the long one has begun, and finishes first: rows are kept free for it."""
    long, short = talk(0, *[3.0] * 15), talk(1, 1.0)
    callers = heard([Visit(long), Visit(short, comes_after=15)])
    assert finished_in_order(callers) == [1, 0]
    ended = callers.events.index(callers.of(1)[-1])
    assert ended < 15 + 4 * 8 < len(callers.events) / 2  # it joined within a step or two


def test_rows_are_free_for_those_who_come_later() -> None:
    """A recording alone does not take all rows, so that another one joins before a segment has ended."""
    model = Model(always("budget"), OPTIONS)
    callers = heard([Visit(talk(0, *[3.0] * 9)), Visit(talk(1, 1.0), comes_after=20)], [model])
    first = callers.events.index(callers.of(1)[0])
    ended = [event for event in callers.events[:first] if isinstance(event, PartialText) and event.text is None]
    assert not ended
    assert model.most_live == 4


def test_a_long_recording_is_not_starved() -> None:
    """Others come faster than they can be served. The long one gets its share of the rows."""
    shorts = [Visit(talk(1, 3.0), comes_after=4 * number) for number in range(100)]
    order = finished_in_order(heard([Visit(talk(0, *[3.0] * 8)), *shorts]))
    assert order.index(0) < 60


def test_segments_that_are_due_first_start_first() -> None:
    """Of several recordings that arrive together, the short ones are finished first."""
    lengths = [[3.0] * 12, [3.0] * 6, [3.0] * 2, [1.0]]
    callers = heard([Visit(talk(source, *each)) for source, each in enumerate(lengths)])
    assert finished_in_order(callers) == [3, 2, 1, 0]


def test_callers_without_a_lane_wait_at_the_door() -> None:
    """Each temperature needs a lane. Those who come later wait, and are served in the end."""
    options = [replace(OPTIONS, temperature=0.1 * number) for number in range(MOST_LANES + 3)]
    visits = [Visit(talk(source, 1.0, 1.0), each) for source, each in enumerate(options)]
    visits[-1].leaves_after = 3
    callers = heard(visits)
    assert sorted(finished_in_order(callers)) == list(range(MOST_LANES + 2))


def test_those_who_have_a_lane_pass_those_who_have_none() -> None:
    """Who waits gets the next free lane, in order of arrival."""
    options = [replace(OPTIONS, temperature=0.1 * number) for number in range(MOST_LANES + 2)]
    long = [Visit(talk(source, *[3.0] * 9), each) for source, each in enumerate(options[:MOST_LANES])]
    waiting = [Visit(talk(MOST_LANES + number, 1.0), options[MOST_LANES + number]) for number in (0, 1)]
    passing = Visit(talk(MOST_LANES + 2, 1.0), options[0])
    order = finished_in_order(heard([*long, *waiting, passing]))
    assert order[0] == MOST_LANES + 2
    assert [source for source in order if source in (MOST_LANES, MOST_LANES + 1)] == [MOST_LANES, MOST_LANES + 1]
    assert sorted(order) == list(range(MOST_LANES + 3))


def test_a_lane_is_kept_for_recordings_without_sampling() -> None:
    """However many temperatures others ask for, the usual one is served at once."""
    options = [replace(OPTIONS, temperature=0.1 * (1 + number)) for number in range(MOST_LANES + 1)]
    long = [Visit(talk(source, *[3.0] * 9), each) for source, each in enumerate(options)]
    order = finished_in_order(heard([*long, Visit(talk(MOST_LANES + 1, 1.0))]))
    assert order[0] == MOST_LANES + 1
    assert sorted(order) == list(range(MOST_LANES + 2))


def test_nobody_waits_for_a_lane_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "LONGEST_WAIT_S", 0.0)
    options = [replace(OPTIONS, temperature=0.1 * number) for number in range(MOST_LANES + 1)]
    callers = heard([Visit(talk(source, 3.0, 3.0), each) for source, each in enumerate(options)])
    assert sorted(finished_in_order(callers)) == list(range(MOST_LANES))
    assert {source: error.code for source, error in failures_of(callers.events).items()} == {
        MOST_LANES: "lanes-taken"
    }


def test_the_wait_for_a_lane_ends_while_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that have a lane are still being read."""
    monkeypatch.setattr(engine_module, "LONGEST_WAIT_S", 0.05)
    model, refusal, engine = Model(always("eos"), OPTIONS), threading.Event(), Engine()
    heard: list[tuple[Event, bool]] = []

    def opener() -> Any:
        early.append(refusal.wait(20))
        raise AudioError("broke off")

    def hear(event: Event) -> None:
        heard.append((event, refusal.is_set()))
        refusal.set()
        if len(heard) == MOST_LANES + 1:
            engine.stop()

    early: list[bool] = []
    for number in range(MOST_LANES + 1):
        options = suited(replace(OPTIONS, temperature=0.1 * number), model)  # type: ignore[arg-type]
        engine.submit(lambda source, options=options: (model, Job(source, opener, options)), hear)  # type: ignore[misc,arg-type,return-value]
    with model.in_place([]):
        engine.run()
    first, late = heard[0]
    assert isinstance(first, Failed)
    assert (first.error.code, late) == ("lanes-taken", False)
    assert early == [True] * MOST_LANES


def test_an_error_while_a_recording_is_prepared_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    engine = Engine()

    def hear(event: Event) -> None:
        events.append(event)
        if len(events) == 2:
            engine.stop()

    missing, bug = ModelError("x: no such model", code="model-missing"), KeyError("a bug")
    numbers = [engine.submit(Mock(side_effect=error), hear) for error in (missing, bug)]
    engine.run()
    first, second = (event.error for event in events if isinstance(event, Failed))
    assert [event.source for event in events] == numbers
    assert first is missing
    assert (second.code, second.__cause__) == ("unexpected", bug)


@pytest.mark.parametrize("place", ["step", "opener"])
def test_a_bug_ends_what_it_touches_and_nothing_else(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [Model(always("eos"), OPTIONS), Model(always("eos"), OPTIONS)]
    visits = [Visit(talk(0, 1.0)), Visit(talk(1, 1.0), model=1), Visit(talk(2, 1.0), comes_after=9, model=1)]
    if place == "step":
        monkeypatch.setattr(models[0], "step", Mock(side_effect=ValueError("a bug")))
    else:
        visits[0].recording.fault, visits[0].recording.fault_after = ValueError("a bug"), 1
    callers = heard(visits, models)
    assert sorted(transcripts_of(callers.events)) == [1, 2]
    assert failures_of(callers.events)[0].code == "unexpected"


def test_when_the_engine_stops_everyone_hears_it() -> None:
    model, recordings = Model(always("budget"), OPTIONS), [talk(source, *[3.0] * 9) for source in range(7)]
    events: list[Event] = []
    engine = Engine()

    def hear(event: Event) -> None:
        events.append(event)
        if len(events) == 20:
            engine.stop()

    def job(recording: Recorded) -> Callable[[int], tuple[Any, Job]]:
        return lambda source: (model, Job(source, lambda: recording, suited(OPTIONS, model)))  # type: ignore[arg-type]

    numbers = [engine.submit(job(recording), hear) for recording in recordings]
    with model.in_place([]) as patch:
        patch.setattr(engine_module, "MOST_LANES", 1)
        patch.setattr(segments, "VoiceActivityDetector", scripted_detector(recordings))
        engine.run()
    failed = {event.source: event.error.code for event in events if isinstance(event, Failed)}
    assert failed == dict.fromkeys(numbers, "engine-stopped")
    with refused("engine-stopped"):
        engine.submit(job(recordings[0]), hear)
    assert {event.source for event in events[-7:]} == set(numbers)


def test_a_bug_of_the_engine_itself_is_heard_by_everyone() -> None:
    callers = Callers([Model(always("eos"), OPTIONS)], [Visit(talk(source, 1.0)) for source in range(3)])
    callers.engine.housekeeping = Mock(side_effect=ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        callers.run()
    assert {error.code for error in failures_of(callers.events).values()} == {"engine-stopped"}


def test_housekeeping_knows_the_models_in_use() -> None:
    used: list[int] = []
    callers = Callers([Model(always("eos"), OPTIONS)], [Visit(talk(0, 1.0))])
    callers.engine.housekeeping = lambda models: used.append(len(models))
    callers.run()
    assert set(used) == {0, 1}

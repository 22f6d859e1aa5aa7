"""What a stage after the transcript is, and running stages on the events of recordings.

A `TranscriptStage` changes each segment as soon as its model has written it. A stage after the transcript changes
events: it gets final segments in order, may hold them back until it knows more, and passes them on in order. What
it has passed on never changes. If it fails, its recording continues without it: a transcript is hours of work.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from funasr_cli.scheduling.events import Event, Failed, Finished, SegmentFinished
from funasr_cli.transcript import Segment, Transcript


class EventStage(Protocol):
    """A stage of one recording."""

    name: str  # of its model, for messages
    option: str  # that turns it off

    def __call__(self, event: Event) -> Iterable[Event]:
        """Return the events that follow from an event of the recording, in order; none to hold it back.

        `Finished` and `Failed` are the last events, and must be passed on. Before them come all segments that have
        been held back; the segments of the transcript are those that have been passed on. Before the last event,
        segments are passed on one for one.
        """


class Stages:
    """The stages of a run: each recording gets its own when its first event comes."""

    def __init__(self, makers: Sequence[Callable[[], EventStage]] = ()):
        """Take a function for each stage that makes it, in the order in which events pass them."""
        self._makers = makers
        self._of: dict[int, list[Guarded]] = {}  # by recording

    def __call__(self, event: Event) -> Iterator[Event]:
        """Yield the events that follow from an event of any recording."""
        if event.source not in self._of:
            self._of[event.source] = [Guarded(make()) for make in self._makers]
        events: Iterable[Event] = [event]
        for stage in self._of[event.source]:
            events = [later for each in events for later in stage(each)]
        if isinstance(event, Finished | Failed):
            del self._of[event.source]
        yield from events


class Guarded:
    """A stage that may fail, for example for want of memory. Its recording then continues without it.

    Segments that the stage holds back are passed on as they came, and so is all that follows. The transcript names
    the stage, and warns of the time from which on its work is missing.
    """

    def __init__(self, stage: EventStage):
        self._stage = stage
        self._held: list[SegmentFinished] = []  # by the stage
        self._passed: list[Segment] = []
        self._warning = ""  # once the stage has failed

    def __call__(self, event: Event) -> list[Event]:
        """Return the events that follow from an event of the recording."""
        if isinstance(event, SegmentFinished):
            self._held.append(event)
        events = self._without_stage(event) if self._warning else self._with_stage(event)
        passed = [each.segment for each in events if isinstance(each, SegmentFinished)]
        del self._held[: len(passed)]
        self._passed += passed
        if self._warning and isinstance(event, Finished):
            events[-1] = replace(event, transcript=self._noted(event.transcript))
        return events

    def _with_stage(self, event: Event) -> list[Event]:
        try:
            return list(self._stage(event))
        except (MemoryError, RuntimeError) as error:  # MLX raises these when the device fails
            since = f", from {self._held[0].segment.start_s:.1f} s on" if self._held else ""
            self._warning = (
                f"{self._stage.name}: the computation failed ({error}), so its work is missing{since}; "
                f"free some memory, or add {self._stage.option}"
            )
            return self._without_stage(event)

    def _without_stage(self, event: Event) -> list[Event]:
        return [*self._held] if isinstance(event, SegmentFinished) else [*self._held, event]

    def _noted(self, transcript: Transcript) -> Transcript:
        """Return the transcript with the segments that were passed on, and a note of what is missing."""
        return replace(
            transcript,
            segments=tuple(self._passed),
            warnings=(*transcript.warnings, self._warning),
            failed_stages=(*transcript.failed_stages, self._stage.name),
        )

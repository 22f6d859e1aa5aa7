"""What a stage after the transcript is, and running stages on the events of recordings.

A `TranscriptStage` changes each segment as soon as its model has written it. A stage after the transcript changes
events: it gets final segments in order, may hold them back until it knows more, and passes them on in order. What
it has passed on never changes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from funasr_cli.errors import FunASRError
from funasr_cli.scheduling.events import Event, Failed, Finished


class EventStage(Protocol):
    """A stage of one recording."""

    name: str  # of its model, for messages
    option: str  # that turns it off

    def __call__(self, event: Event) -> Iterable[Event]:
        """Return the events that follow from an event of the recording, in order; none to hold it back.

        `Finished` and `Failed` are the last events, and must be passed on. Before them come all segments that have
        been held back; the segments of the transcript are those that have been passed on.
        """


class Stages:
    """The stages of a run: each recording gets its own when its first event comes."""

    def __init__(self, makers: Sequence[Callable[[], EventStage]] = ()):
        """Take a function for each stage that makes it, in the order in which events pass them."""
        self._makers = makers
        self._of: dict[int, list[EventStage]] = {}  # by recording; empty if a stage has failed

    def __call__(self, event: Event) -> Iterator[Event]:
        """Yield the events that follow from an event of any recording. If a stage fails, its recording does."""
        if event.source not in self._of:
            self._of[event.source] = [make() for make in self._makers]
        stages = self._of[event.source]
        if self._makers and not stages:
            return
        events: Iterable[Event] = [event]
        for stage in stages:
            try:
                events = [later for each in events for later in stage(each)]
            except (MemoryError, RuntimeError) as error:  # MLX raises these when the device fails
                stages.clear()
                yield Failed(event.source, _failed(stage, error))
                return
        if isinstance(event, Finished | Failed):
            del self._of[event.source]
        yield from events


def _failed(stage: EventStage, error: Exception) -> FunASRError:
    hint = f"free some memory, or add {stage.option}"
    return FunASRError(f"{stage.name}: the computation failed ({error})", hint, code="computation-failed")

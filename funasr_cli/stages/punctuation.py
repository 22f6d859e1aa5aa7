"""Punctuation for a recording: insert marks into final segments, and keep words, scores and pieces in step.

A mark may depend on the next words. So a segment is held back until all of its marks are final, while the words of
an unfinished sentence are carried over to the next segment. The result is that of the whole text at once.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from funasr_cli.options import NO_PUNCTUATION
from funasr_cli.punctuation_model import Marks, PunctuationModel, inserted
from funasr_cli.scheduling.events import Event, Failed, Finished, SegmentFinished
from funasr_cli.transcript import Score, Segment, TimedText, Transcript, Word

Part = TypeVar("Part", Word, Score, TimedText)


class Punctuation:
    """The stage. A segment in a language that the model does not know stays as it is, and ends a text."""

    option = f"--punctuation {NO_PUNCTUATION}"

    def __init__(self, model: PunctuationModel, language: str | None = None):
        """Take the model, and the language that was asked for; None takes the one that each segment states."""
        self.name, self._language = model.name, language
        self._languages, self._text = model.languages, model.start()
        self._held: deque[Segment] = deque()
        self._changed: list[tuple[Segment, Segment]] = []  # before and after, of all segments in order
        self._spent_s = 0.0

    def __call__(self, event: Event) -> Iterator[Event]:
        """Yield the events that follow; see `EventStage`."""
        if isinstance(event, SegmentFinished):
            yield from (SegmentFinished(event.source, segment) for segment in self._take(event.segment))
        elif isinstance(event, Finished):
            yield from (SegmentFinished(event.source, segment) for segment in self._end())
            yield replace(event, transcript=self._transcript(event.transcript))
        elif isinstance(event, Failed):
            yield from (SegmentFinished(event.source, segment) for segment in self._end())
            yield event
        else:
            yield event

    def _take(self, segment: Segment) -> Iterator[Segment]:
        """Take the next segment, and yield those that are final now."""
        language = self._language or segment.language
        if language and language not in self._languages:
            yield from self._end()
            self._changed.append((segment, segment))
            yield segment
            return
        self._held.append(segment)
        began = time.perf_counter()
        marks = self._text.add(segment.text)
        self._spent_s += time.perf_counter() - began
        yield from self._released(marks)

    def _end(self) -> Iterator[Segment]:
        """Yield all segments that are held back: no words follow."""
        if self._held:
            began = time.perf_counter()
            marks = self._text.end()
            self._spent_s += time.perf_counter() - began
            yield from self._released(marks)

    def _released(self, marks: Sequence[Marks]) -> Iterator[Segment]:
        for each in marks:
            segment = self._held.popleft()
            self._changed.append((segment, with_marks(segment, each)))
            yield self._changed[-1][1]

    def _transcript(self, transcript: Transcript) -> Transcript:
        """Put the segments that were passed on into the transcript, unless another stage has changed them."""
        after = iter(self._changed)
        segments = []
        for segment in transcript.segments:
            before, changed = next(after, (None, segment))
            segments.append(changed if before is segment or before == segment else segment)
        timings = replace(transcript.timings, post_s=transcript.timings.post_s + self._spent_s)
        return replace(transcript, segments=tuple(segments), timings=timings, punctuated_by=self.name)


def with_marks(segment: Segment, marks: Marks) -> Segment:
    """Insert marks into a segment's text, and into those words, scores and pieces after which they are."""
    if not marks:
        return segment
    return replace(
        segment,
        text=inserted(segment.text, marks),
        words=_with_marks(segment.words, segment.text, marks),
        scores=_with_marks(segment.scores, segment.text, marks),
        pieces=_with_marks(segment.pieces, segment.text, marks),
    )


def _with_marks(parts: Sequence[Part], text: str, marks: Marks) -> tuple[Part, ...]:
    """Insert marks into parts of a text, which are in order and do not overlap."""
    changed, end = [], 0
    for part in parts:
        start = text.index(part.text, end)
        end = start + len(part.text)
        own = [(position - start, mark) for position, mark in marks if start < position <= end]
        changed.append(replace(part, text=inserted(part.text, own)) if own else part)
    return tuple(changed)

"""Which segments are decoded when: batches across recordings, and second attempts."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from funasr_cli.errors import FunASRError
from funasr_cli.languages import resolve_language
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished
from funasr_cli.scheduling.intake import Arrival, Opened, Opener, Prefetcher, read_sources
from funasr_cli.scheduling.recording_state import Attempt, RecordingState
from funasr_cli.speech_model import Hypothesis, SegmentRequest, SpeechModel, TranscriptStage, Update

MAX_RETRIES = 2
GATHER_S = 0.2  # how long an idle model waits for more speech to fill a batch


class Scheduler:
    """Transcribes recordings with one session of a model, whose rows are their segments.

    Segments wait in order. Whenever rows are free, the one that has waited longest joins, and with it those that
    are most like it in length; so padding is short, and none waits forever.
    """

    def __init__(self, model: SpeechModel, options: TranscribeOptions, stages: Sequence[TranscriptStage] = ()):
        self._model, self._stages = model, stages
        longest_s = min(options.max_segment_s, model.longest_segment_s)
        options = replace(options, max_segment_s=longest_s, join_s=min(options.join_s, longest_s))
        if model.window_s and not options.join_s:  # short segments would cost as much as a whole window
            options = replace(options, join_s=min(model.window_s, longest_s))
        self._options = options
        self._language = resolve_language(options.language, model.capabilities.languages)
        self._session = model.session(options)
        self._batch_size = options.batch_size or self._session.max_rows
        self._waiting: list[SegmentRequest] = []
        self._joining: list[SegmentRequest] = []  # that the session is being given
        self._rows: dict[int, SegmentRequest] = {}
        self._ended: set[int] = set()  # rows that have ended, and whose hypothesis has not been handled
        self._recordings: dict[int, RecordingState] = {}

    def run(self, openers: Iterable[Opener]) -> Iterator[Event]:
        """Events until every recording has come to its `Finished` or `Failed`."""
        arrivals = read_sources(openers, self._options)
        with closing(Prefetcher(arrivals, limit=2 * self._batch_size)) as ahead:
            while True:
                yield from self._take_in(ahead)
                try:
                    if self._waiting and self._has_room():
                        yield from self._admit()
                    yield from self._step()
                except (MemoryError, RuntimeError) as error:  # what MLX raises when the device gives up
                    yield from self._give_up(error)
                if ahead.ended and not self._waiting and not self._rows:
                    return

    def _take_in(self, ahead: Prefetcher) -> Iterator[Event]:
        """Let speech in, as far as there is some and room for it; an idle model waits for it."""
        gathered_by = None  # set when the first speech is there
        while not ahead.ended and len(self._waiting) < 2 * self._batch_size:
            patience_s: float | None = 0.0
            if not self._rows:
                gathered_by = gathered_by or (time.perf_counter() + GATHER_S if self._waiting else None)
                patience_s = max(0.0, gathered_by - time.perf_counter()) if gathered_by else None
            arrival = ahead.take(patience_s)
            if arrival is None:
                return
            yield from self._enter(arrival)

    def _enter(self, arrival: Arrival) -> Iterator[Event]:
        if isinstance(arrival, Opened):
            state = RecordingState(arrival.source, arrival.name, arrival.started, arrival.start_s)
            self._recordings[arrival.source] = state
        elif (recording := self._recordings.get(arrival.source)) is None:
            pass  # it has failed meanwhile
        elif isinstance(arrival, Read):
            yield arrival
        elif isinstance(arrival, SegmentRequest):
            recording.expect(arrival.audio)
            self._waiting.append(arrival)
        else:
            recording.end = arrival
            yield from self._finish(recording)

    def _has_room(self) -> bool:
        free = self._batch_size - len(self._rows)
        return not self._rows or free >= max(1, min(self._session.rows_at_once, self._batch_size // 4))

    def _admit(self) -> Iterator[Event]:
        """Let some of those that wait join."""
        chosen = self._choose(min(self._session.rows_at_once, self._batch_size - len(self._rows)))
        self._joining = chosen
        try:
            numbers = self._session.add(chosen)
        finally:
            self._share_time(chosen)
        self._joining = []
        self._rows.update(zip(numbers, chosen, strict=True))
        if self._model.capabilities.partial_text:
            yield from (PartialText(request.source, request.audio.start_s, "") for request in chosen)

    def _choose(self, count: int) -> list[SegmentRequest]:
        """The one that has waited longest, and those that are most like it in length.

        What goes on from an earlier text is read apart from the others, for which less has to be read.
        """
        lengths = [len(request.audio.samples) for request in self._waiting]
        going_on = [bool(self._options.prev_text and request.first) for request in self._waiting]
        alike = [index for index in range(len(lengths)) if going_on[index] == going_on[0]]
        order = sorted(alike, key=lambda index: (abs(lengths[index] - lengths[0]), index))
        taken = sorted(order[:count])
        return [self._waiting.pop(index) for index in reversed(taken)][::-1]

    def _step(self) -> Iterator[Event]:
        """Go on with all rows."""
        working = list(self._rows.values())
        try:
            updates = self._session.step() if working else []
        finally:
            self._share_time(working)
        self._ended = {update.row for update in updates if update.hypothesis}
        for update in updates:
            yield from self._take(update)
        self._ended.clear()

    def _take(self, update: Update) -> Iterator[Event]:
        request = self._rows[update.row]
        recording = self._recordings[request.source]
        recording.counts.update(update.counts)
        recording.first_token = recording.first_token or time.perf_counter()
        if update.hypothesis:
            attempt = self._attempt(request, update.hypothesis)
            del self._rows[update.row]
            if self._model.capabilities.partial_text:
                yield PartialText(recording.source, request.audio.start_s, None)
            yield from self._end(recording, request, attempt)
        elif update.text is not None:
            yield PartialText(recording.source, request.audio.start_s, update.text)

    def _attempt(self, request: SegmentRequest, hypothesis: Hypothesis) -> Attempt:
        """Let the stages behind the model see a segment, also one that may yet be made again in parts."""
        started, segment = time.perf_counter(), hypothesis.segment
        for stage in self._stages:
            segment = stage.segment(request, segment)
        self._recordings[request.source].seconds["post"] += time.perf_counter() - started
        return Attempt(request.audio, replace(hypothesis, segment=segment))

    def _end(self, recording: RecordingState, request: SegmentRequest, attempt: Attempt) -> Iterator[Event]:
        """Finish a segment, or try again in two halves where that may help."""
        worth_it = attempt.hypothesis.retry_may_help and request.retries < MAX_RETRIES
        if worth_it and (parts := request.audio.halves()):
            self._waiting[:0] = [
                SegmentRequest(request.source, part, first, request.retries + 1)
                for part, first in zip(parts, (request.first, False), strict=True)
            ]
            recording.replace(attempt, parts)
            return
        for segment in recording.finish(attempt):
            yield SegmentFinished(recording.source, segment)
        yield from self._finish(recording)

    def _finish(self, recording: RecordingState) -> Iterator[Event]:
        """The last event of a recording, if it is done."""
        if not recording.done:
            return
        del self._recordings[recording.source]
        assert recording.end is not None
        if recording.end.error and not recording.end.read_s:
            yield Failed(recording.source, recording.end.error)
            return
        transcript = recording.transcript(self._model.name, self._language, self._options.word_times)
        try:
            for stage in self._stages:
                transcript = stage.transcript(transcript)
        except (MemoryError, RuntimeError) as error:  # as in `run`
            yield Failed(recording.source, _computation_failed(recording, error))
        else:
            yield Finished(recording.source, transcript)

    def _give_up(self, error: Exception) -> Iterator[Event]:
        """The computation failed: try again with half as much at once; a single row fails its recording."""
        numbers = self._session.reset() | self._ended
        self._ended = set()
        written = [self._rows.pop(number) for number in sorted(numbers & self._rows.keys())]
        lost, self._joining = [*self._joining, *written], []
        if self._model.capabilities.partial_text:
            yield from (PartialText(request.source, request.audio.start_s, None) for request in written)
        known = self._recordings
        lost = [one for one in lost if one.source in known and known[one.source].is_open(one.audio)]
        if self._batch_size > 1:
            self._batch_size //= 2
            self._waiting[:0] = lost
            return
        failed = {request.source for request in lost}
        self._waiting = [request for request in self._waiting if request.source not in failed]
        for recording in [self._recordings.pop(source) for source in sorted(failed)]:
            yield Failed(recording.source, _computation_failed(recording, error))

    def _share_time(self, requests: Sequence[SegmentRequest]) -> None:
        """Share out what the session's stages took among the recordings that they worked on."""
        spent = dict(self._session.seconds)
        self._session.seconds.clear()
        for request in requests:
            if recording := self._recordings.get(request.source):
                for stage, taken_s in spent.items():
                    recording.seconds[stage] += taken_s / len(requests)


def _computation_failed(recording: RecordingState, error: Exception) -> FunASRError:
    problem, hint = (
        f"{recording.name}: the computation failed ({error})",
        "a smaller --max-segment needs less memory",
    )
    return FunASRError(problem, hint, code="computation-failed")

"""Decide which segments are decoded when: form batches across recordings and retry failed segments."""

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
GATHER_S = 0.2  # while nothing is being decoded: how long to wait for more segments to fill a batch


class Scheduler:
    """Transcription of recordings with one session of a model. Each row of the session is one segment.

    Segments queue in order of arrival. When enough rows are free, the segment that has waited longest starts,
    together with those closest to it in length. This keeps padding short, and no segment waits forever.

    Segments of different recordings share batches. When the model reports that a retry may help, the segment is
    split in two and decoded again, up to `MAX_RETRIES` times. When the computation fails, for example because
    memory runs out, the batch size is halved.
    """

    def __init__(self, model: SpeechModel, options: TranscribeOptions, stages: Sequence[TranscriptStage] = ()):
        self._model, self._stages = model, stages
        longest_s = min(options.max_segment_s or model.best_segment_s, model.longest_segment_s)
        # In a window, a short segment costs as much as a long one.
        join_s = (model.window_s or 0.0) if options.join_s is None else options.join_s
        self._options = options = replace(options, max_segment_s=longest_s, join_s=min(join_s, longest_s))
        self._language = resolve_language(options.language, model.capabilities.languages)
        self._session = model.session(options)
        self._batch_size = options.batch_size or self._session.max_rows
        self._waiting: list[SegmentRequest] = []
        self._joining: list[SegmentRequest] = []  # requests of the `Session.add` call in progress
        self._rows: dict[int, SegmentRequest] = {}
        self._ended: set[int] = set()  # rows that ended in this step, until all its updates are handled
        self._recordings: dict[int, RecordingState] = {}

    def run(self, openers: Iterable[Opener]) -> Iterator[Event]:
        """Yield events until every recording has its `Finished` or `Failed`."""
        arrivals = read_sources(openers, self._options)
        with closing(Prefetcher(arrivals, limit=2 * self._batch_size)) as ahead:
            while True:
                yield from self._take_in(ahead)
                try:
                    if self._waiting and self._has_room():
                        yield from self._admit()
                    yield from self._step()
                except (MemoryError, RuntimeError) as error:  # MLX raises these when the device fails
                    yield from self._give_up(error)
                if ahead.ended and not self._waiting and not self._rows:
                    return

    def _take_in(self, ahead: Prefetcher) -> Iterator[Event]:
        """Queue incoming segments. Block only while nothing is being decoded."""
        deadline = None  # set once a first segment is waiting
        while not ahead.ended and len(self._waiting) < 2 * self._batch_size:
            timeout_s: float | None = 0.0
            if not self._rows:
                deadline = deadline or (time.perf_counter() + GATHER_S if self._waiting else None)
                timeout_s = max(0.0, deadline - time.perf_counter()) if deadline else None
            arrival = ahead.take(timeout_s)
            if arrival is None:
                return
            yield from self._enter(arrival)

    def _enter(self, arrival: Arrival) -> Iterator[Event]:
        if isinstance(arrival, Opened):
            state = RecordingState(arrival.source, arrival.name, arrival.started, arrival.start_s)
            self._recordings[arrival.source] = state
        elif (recording := self._recordings.get(arrival.source)) is None:
            pass  # the recording has failed in the meantime
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
        """Start rows for some of the waiting segments."""
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
        """Take the segment that has waited longest, and those closest to it in length.

        Segments that continue an earlier text are never mixed with others, whose prompts are shorter.
        """
        lengths = [len(request.audio.samples) for request in self._waiting]
        continues = [bool(self._options.prev_text and request.first) for request in self._waiting]
        alike = [index for index in range(len(lengths)) if continues[index] == continues[0]]
        order = sorted(alike, key=lambda index: (abs(lengths[index] - lengths[0]), index))
        taken = sorted(order[:count])
        return [self._waiting.pop(index) for index in reversed(taken)][::-1]

    def _step(self) -> Iterator[Event]:
        """Advance all rows by one step."""
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
        """Pass a segment through the stages after the model, even if it may be decoded again in parts."""
        started, segment = time.perf_counter(), hypothesis.segment
        for stage in self._stages:
            segment = stage.segment(request, segment)
        self._recordings[request.source].seconds["post"] += time.perf_counter() - started
        return Attempt(request.audio, replace(hypothesis, segment=segment))

    def _end(self, recording: RecordingState, request: SegmentRequest, attempt: Attempt) -> Iterator[Event]:
        """Finish a segment, or queue its two halves where decoding them may give a better text."""
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
        """Yield the last event of a recording, if it is done."""
        if not recording.done:
            return
        del self._recordings[recording.source]
        assert recording.end is not None
        if recording.end.error and not recording.end.read_s:
            yield Failed(recording.source, recording.end.error)
            return
        transcript = recording.transcript(self._model, self._language, self._options.word_times)
        try:
            for stage in self._stages:
                transcript = stage.transcript(transcript)
        except (MemoryError, RuntimeError) as error:  # as in `run`
            yield Failed(recording.source, _computation_failed(recording, error))
        else:
            yield Finished(recording.source, transcript)

    def _give_up(self, error: Exception) -> Iterator[Event]:
        """Recover from a failed computation: halve the batch size and queue the lost segments again.

        If the batch size is 1 already, the recordings of the lost segments fail.
        """
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
        """Divide the session's stage times equally among these requests, and add them to their recordings."""
        spent = dict(self._session.seconds)
        self._session.seconds.clear()
        for request in requests:
            if recording := self._recordings.get(request.source):
                for stage, taken_s in spent.items():
                    recording.seconds[stage] += taken_s / len(requests)


def _computation_failed(recording: RecordingState, error: Exception) -> FunASRError:
    problem, hint = (
        f"{recording.name}: the computation failed ({error})",
        "use a smaller --max-segment, which needs less memory",
    )
    return FunASRError(problem, hint, code="computation-failed")

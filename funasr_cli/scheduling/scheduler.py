"""Decide which segments of a session are decoded when: form batches across recordings, retry failed segments."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from funasr_cli.errors import FunASRError
from funasr_cli.languages import resolve_language
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished
from funasr_cli.scheduling.intake import Arrival, Job, Opened, Opener, Prefetcher, read_sources
from funasr_cli.scheduling.recording_state import Attempt, RecordingState
from funasr_cli.speech_model import Hypothesis, SegmentRequest, SpeechModel, TranscriptStage, Update

MAX_RETRIES = 2
GATHER_S = 0.2  # while nothing is being decoded: how long to wait for more segments to fill a batch
CUTTING = (
    "vad",
    "vad_model",
    "vad_threshold",
    "min_pause_s",
    "join_s",
)  # options that matter only before a session


def suited(options: TranscribeOptions, model: SpeechModel) -> TranscribeOptions:
    """Return the options with lengths of segments that suit the model."""
    longest_s = min(options.max_segment_s or model.best_segment_s, model.longest_segment_s)
    # In a window, a short segment costs as much as a long one.
    join_s = (model.window_s or 0.0) if options.join_s is None else options.join_s
    return replace(options, max_segment_s=longest_s, join_s=min(join_s, longest_s))


def of_session(options: TranscribeOptions, model: SpeechModel) -> TranscribeOptions:
    """Return what recordings must have in common to share a session: the options without those of their own."""
    own = {name: getattr(DEFAULTS, name) for name in (*CUTTING, *model.row_options)}
    return replace(suited(options, model), **own)


class Scheduler:
    """Transcription of recordings with one session of a model. Each row of the session is one segment.

    `run` transcribes recordings in order. For recordings that come and go, pass what is read of them to `enter`,
    and call `advance` while it is `busy`. Their options may differ in those that `of_session` leaves out.

    Segments queue in order of arrival. When enough rows are free, the segment that has waited longest starts,
    together with those closest to it in length. This keeps padding short, and no segment waits forever.

    Segments of different recordings share batches. When the model reports that a retry may help, the segment is
    split in two and decoded again, up to `MAX_RETRIES` times. When the computation fails, for example because
    memory runs out, the batch size is halved.
    """

    def __init__(self, model: SpeechModel, options: TranscribeOptions, stages: Sequence[TranscriptStage] = ()):
        self._model, self._stages = model, stages
        self._options = options = suited(options, model)
        resolve_language(options.language, model.capabilities.languages)  # raises if the language is unknown
        self._session = model.session(options)
        self._batch_size = options.batch_size or self._session.max_rows
        self._waiting: list[SegmentRequest] = []
        self._joining: list[SegmentRequest] = []  # requests of the `Session.add` call in progress
        self._rows: dict[int, SegmentRequest] = {}
        self._ended: set[int] = set()  # rows that ended in this step, until all its updates are handled
        self._recordings: dict[int, RecordingState] = {}

    def run(self, openers: Iterable[Opener]) -> Iterator[Event]:
        """Yield events until every recording has its `Finished` or `Failed`."""
        jobs = (Job(source, each, self._options, self._stages) for source, each in enumerate(openers))
        with closing(Prefetcher(read_sources(jobs), limit=2 * self._batch_size)) as ahead:
            while not ahead.ended or self.busy:
                yield from self._take_in(ahead)
                yield from self.advance()

    @property
    def busy(self) -> bool:
        """Whether any segment is being decoded or waits for it."""
        return bool(self._waiting or self._rows)

    @property
    def wants_more(self) -> bool:
        """Whether fewer segments are waiting than can join together."""
        return len(self._waiting) < self._session.rows_at_once

    @property
    def fair_rows(self) -> int:
        """Number of rows that one recording may take while it leaves room for others to join."""
        return max(1, self._batch_size - self._joining_rows)

    @property
    def _joining_rows(self) -> int:
        """Number of rows that must be free for segments to join."""
        return max(1, min(self._session.rows_at_once, self._batch_size // 4))

    def held(self, source: int) -> int:
        """Return how many segments of a recording are being decoded or wait for it."""
        return sum(request.source == source for request in (*self._waiting, *self._rows.values()))

    def advance(self) -> Iterator[Event]:
        """Start waiting segments if there is room, and advance all rows by one step."""
        try:
            if self._waiting and self._has_room():
                yield from self._admit()
            yield from self._step()
        except (MemoryError, RuntimeError) as error:  # MLX raises these when the device fails
            yield from self._give_up(error)

    def leave(self, source: int) -> None:
        """Forget a recording, and free its rows at once."""
        self._recordings.pop(source, None)
        self._waiting = [request for request in self._waiting if request.source != source]
        for number in [number for number, request in self._rows.items() if request.source == source]:
            del self._rows[number]
            self._session.drop(number)

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
            yield from self.enter(arrival)

    def enter(self, arrival: Arrival) -> Iterator[Event]:
        """Take in what has been read of a recording. A segment is queued."""
        if isinstance(arrival, Opened):
            state = RecordingState(arrival.job, arrival.name, arrival.started, arrival.start_s, arrival.speaker)
            self._recordings[state.source] = state
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
        return not self._rows or self._batch_size - len(self._rows) >= self._joining_rows

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

        They have the same options. Segments that continue an earlier text are never mixed with others, whose
        prompts are shorter.
        """
        lengths = [len(request.audio.samples) for request in self._waiting]
        kinds = [(each.options, each.options and each.options.prev_text and each.first) for each in self._waiting]
        alike = [index for index in range(len(lengths)) if kinds[index] == kinds[0]]
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
        recording = self._recordings[request.source]
        for stage in recording.job.stages:
            segment = stage.segment(request, segment)
        recording.seconds["post"] += time.perf_counter() - started
        return Attempt(request.audio, replace(hypothesis, segment=segment))

    def _end(self, recording: RecordingState, request: SegmentRequest, attempt: Attempt) -> Iterator[Event]:
        """Finish a segment, or queue its two halves where decoding them may give a better text."""
        worth_it = attempt.hypothesis.retry_may_help and request.retries < MAX_RETRIES
        if worth_it and (parts := request.audio.halves()):
            self._waiting[:0] = [
                replace(request, audio=part, first=first, retries=request.retries + 1)
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
        transcript = recording.transcript(self._model)
        try:
            for stage in recording.job.stages:
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

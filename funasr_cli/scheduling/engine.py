"""Transcribe recordings of many callers at the same time, in one thread, with models that take turns.

A caller's recording is read in a separate thread. Its segments share the rows of a session with those of all
other recordings whose options allow it (`of_session`); each such session has a `Lane`. A recording of another
model, or with another sampling temperature, has another lane, and the lanes take turns. Each model has only
a few: who needs one more gets the next that is free, in order of arrival, or fails after `LONGEST_WAIT_S`.
Recordings that have a lane do not wait for those that have none.

Models that do not fit into memory together take turns, too. Who needs one that does not fit waits until those in
use have finished, and all who come later wait, too, even for a model that is loaded: otherwise, it might stay in
use for ever. After `LONGEST_WAIT_S`, those who wait for memory fail, and the others are served.

Within a lane, segments start in the order of a fair queue: each is due when it would be finished if all recordings
were served at the same rate. Short recordings are done soon, long ones get their share, and no one waits forever.
Source: Golestani 1994, "A self-clocked fair queueing scheme for broadband applications", with seconds of audio for
the length of a packet. What differs: several segments are served at once, and only one segment of each recording
waits, so that the clock has always reached those before it.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from funasr_cli.errors import FunASRError, SetupError, UnexpectedError
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished
from funasr_cli.scheduling.intake import Job, Prefetcher, read_sources
from funasr_cli.scheduling.scheduler import Scheduler, of_session
from funasr_cli.speech_model import SegmentRequest, SpeechModel

READ_AHEAD = 4  # segments of each recording that are read in advance: enough to join together
MOST_LANES = 4  # sessions of a model, one of them without sampling; each may take half of the free memory
LONGEST_WAIT_S = 15.0  # for a lane, or for memory

Prepare = Callable[[int], tuple[SpeechModel, Job]]  # takes the recording's number; raises FunASRError
Listener = Callable[[Event], None]  # called in the engine's thread; must return soon, and not raise
Housekeeping = Callable[[Collection[SpeechModel]], float | None]


@dataclass(eq=False)
class Lane:
    """A session of a model, and its clock."""

    model: SpeechModel
    options: TranscribeOptions  # those that its recordings have in common
    scheduler: Scheduler
    clock_s: float = 0.0  # due time of the segment that was queued last


@dataclass(eq=False)
class Caller:
    """A recording that has no lane yet."""

    prepare: Prepare
    listener: Listener
    ready: tuple[SpeechModel, Job] | None = None  # once it is prepared
    fails_at: float = 0.0  # as `time.monotonic` counts, once it is prepared


@dataclass(frozen=True)
class Shortage:
    """Memory was too short for the model of a recording, which waits, while these lanes were open."""

    source: int
    lanes: list[Lane]
    ends_at: float  # as `time.monotonic` counts; who still waits then fails


@dataclass(eq=False)
class Reading:
    """A recording that is being transcribed."""

    lane: Lane
    ahead: Prefetcher
    listener: Listener
    next: SegmentRequest | None = None  # waits for its turn
    due_s: float = 0.0  # when it is due, by the clock of the lane


@dataclass
class Engine:
    """A thread's work: all computing of all models. Every recording ends with a `Finished` or `Failed`.

    `submit`, `leave` and `stop` may be called in any thread, `run` in only one.

    Attributes:
        housekeeping: called between steps with the models in use, for example to unload others. Returns after how
            many seconds at most it wants to be called again; None for no limit.
    """

    housekeeping: Housekeeping = lambda models: None
    _calls: SimpleQueue[Callable[[], None]] = field(default_factory=SimpleQueue)  # by other threads
    _wake: threading.Event = field(default_factory=threading.Event)
    _stopped: bool = False
    _ended: bool = False
    _submitted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of the two above
    _door: dict[int, Caller] = field(default_factory=dict)  # in order of arrival
    _lanes: list[Lane] = field(default_factory=list)
    _shortage: Shortage | None = None  # while those at the door wait for memory
    _readings: dict[int, Reading] = field(default_factory=dict)

    @property
    def models_in_use(self) -> list[SpeechModel]:
        """The models of all lanes, and those that recordings wait for; only for the thread of `run`."""
        waiting = [caller.ready[0] for caller in self._door.values() if caller.ready]
        return [*(lane.model for lane in self._lanes), *waiting]

    def submit(self, prepare: Prepare, listener: Listener) -> int:
        """Add a recording, and return its number.

        Args:
            prepare: called in the engine's thread with the number; returns a model and the recording's `Job`.
            listener: takes the recording's events.

        Raises:
            SetupError: `run` has ended.
        """
        with self._lock:
            if self._ended:
                raise _stopped()
            self._submitted += 1
            source = self._submitted
            self._call(lambda: self._door.update({source: Caller(prepare, listener)}))
        return source

    def leave(self, source: int) -> None:
        """Forget a recording whose caller has gone, and free its rows before the next step.

        Only events of the current step may still follow.
        """
        self._call(lambda: self._leave(source))

    def stop(self) -> None:
        """End `run` after the current step. Recordings that are not finished fail."""
        self._call(self._stop)

    def run(self) -> None:
        """Transcribe what callers submit, until `stop`."""
        try:
            while not self._stopped:
                self._round()
        finally:
            with self._lock:
                self._ended = True
            self._answer_calls()
            for source in [*self._readings, *self._door]:
                self._fail(source, _stopped())

    def _round(self) -> None:
        """Advance all lanes by one step; if there is nothing to compute, wait for callers and readers."""
        self._wake.clear()
        self._answer_calls()
        self._admit_readings()
        self._queue_segments()
        busy = [lane for lane in self._lanes if lane.scheduler.busy]
        for lane in busy:
            self._answer_calls()  # so that no row of a caller who has left is computed
            self._advance(lane)
        in_use = [reading.lane for reading in self._readings.values()]
        closed = [lane for lane in self._lanes if lane not in in_use]
        self._lanes = [lane for lane in self._lanes if lane in in_use]
        limits_s = [self.housekeeping(self.models_in_use), *self._waits_s()]
        limit_s = min((limit_s for limit_s in limits_s if limit_s is not None), default=None)
        if not busy and not (closed and self._door) and not self._stopped:
            self._wake.wait(limit_s)

    def _call(self, function: Callable[[], None]) -> None:
        self._calls.put(function)
        self._wake.set()

    def _answer_calls(self) -> None:
        try:
            while True:
                self._calls.get_nowait()()
        except Empty:
            return

    def _stop(self) -> None:
        self._stopped = True

    def _leave(self, source: int) -> None:
        self._door.pop(source, None)
        if reading := self._readings.pop(source, None):
            reading.ahead.stop()
            reading.lane.scheduler.leave(source)

    def _admit_readings(self) -> None:
        """Begin to read those recordings that have a lane; new lanes are given in order of arrival."""
        for source, caller in list(self._door.items()):
            try:
                if not caller.ready:
                    if self._is_short_of_memory:
                        return
                    caller.ready = caller.prepare(source)
                    caller.fails_at = time.monotonic() + LONGEST_WAIT_S
                    self._shortage = None
                model, job = caller.ready
                if lane := self._lane(model, job.options):
                    ahead = Prefetcher(read_sources([job]), READ_AHEAD, self._wake.set)
                    self._readings[source] = Reading(lane, ahead, caller.listener)
                    del self._door[source]
                elif time.monotonic() >= caller.fails_at:
                    what = "too many other temperatures are in use"
                    raise SetupError(what, "try again later", code="lanes-taken")
            except Exception as error:
                if self._may_find_memory(source, error):
                    return
                self._fail(source, error)
        self._shortage = None

    @property
    def _is_short_of_memory(self) -> bool:
        """Whether to wait before the next model is prepared: until a lane has been closed, but not for ever."""
        short = self._shortage
        waits = short and short.source in self._door and short.lanes == self._lanes
        return bool(short and waits and time.monotonic() < short.ends_at)

    def _may_find_memory(self, source: int, error: Exception) -> bool:
        """Return whether an error is a lack of memory that may end when a lane is closed; begin to wait for it."""
        if not (self._lanes and isinstance(error, SetupError) and error.code == "memory-short"):
            return False
        ends_at = self._shortage.ends_at if self._shortage else time.monotonic() + LONGEST_WAIT_S
        self._shortage = Shortage(source, list(self._lanes), ends_at)
        return time.monotonic() < ends_at

    def _waits_s(self) -> list[float]:
        """Return how long each recording at the door can still wait, in seconds."""
        now = time.monotonic()
        ends = [caller.fails_at for caller in self._door.values() if caller.ready]
        if self._shortage:
            ends.append(self._shortage.ends_at)
        return [max(0.0, end - now) for end in ends]

    def _lane(self, model: SpeechModel, options: TranscribeOptions) -> Lane | None:
        """Return the lane for these options, a new one if necessary; None if the model has too many."""
        common, own = of_session(options, model), [lane for lane in self._lanes if lane.model is model]
        for lane in own:
            if lane.options == common:
                return lane
        temperatures = [lane.options.temperature for lane in own]
        keep_one = options.temperature and all(temperatures)  # for recordings without sampling, as most are
        if len(own) + bool(keep_one) >= MOST_LANES:
            return None
        lane = Lane(model, common, Scheduler(model, options))
        self._lanes.append(lane)
        return lane

    def _queue_segments(self) -> None:
        """Queue segments that have been read, those that are due first, as far as their lanes have room."""
        for source in list(self._readings):
            self._look_ahead(source)
        for lane in self._lanes:
            while lane.scheduler.wants_more and (due := self._due(lane)):
                reading = self._readings[due]
                request, reading.next = reading.next, None
                assert request
                lane.clock_s = reading.due_s
                self._tell(lane.scheduler.enter(request))
                self._look_ahead(due)

    def _due(self, lane: Lane) -> int | None:
        """Return the recording whose next segment should be queued; None if there is none."""
        waiting = ((reading.due_s, source) for source, reading in self._readings.items()
                   if reading.lane is lane and reading.next)  # fmt: skip
        fair_rows = lane.scheduler.fair_rows
        return next((source for _, source in sorted(waiting) if lane.scheduler.held(source) < fair_rows), None)

    def _look_ahead(self, source: int) -> None:
        """Take in what has been read of a recording, up to its next segment."""
        while (reading := self._readings.get(source)) and not reading.next:
            try:
                if not (arrival := reading.ahead.take(0.0)):
                    return
                if isinstance(arrival, SegmentRequest):
                    reading.due_s = reading.lane.clock_s + arrival.audio.duration_s
                    reading.next = arrival
                else:
                    self._tell(reading.lane.scheduler.enter(arrival))
            except Exception as error:
                self._fail(source, error)

    def _advance(self, lane: Lane) -> None:
        try:
            self._tell(lane.scheduler.advance())
        except Exception as error:  # the state of the session is unknown
            self._lanes.remove(lane)
            for source in [source for source, reading in self._readings.items() if reading.lane is lane]:
                self._fail(source, error)

    def _tell(self, events: Iterable[Event]) -> None:
        """Pass on events. After the last one of a recording, forget it."""
        for event in events:
            if reading := self._readings.get(event.source):
                if isinstance(event, Finished | Failed):
                    self._leave(event.source)
                reading.listener(event)

    def _fail(self, source: int, error: Exception) -> None:
        """Fail a recording. An error that is not ours is a bug, which ends nothing else."""
        if not isinstance(error, FunASRError):
            bug = UnexpectedError(f"unexpected {type(error).__name__}", code="unexpected")
            bug.__cause__ = error
            error = bug
        listeners = {source: reading.listener for source, reading in self._readings.items()}
        listeners |= {source: caller.listener for source, caller in self._door.items()}
        self._leave(source)
        if listener := listeners.get(source):
            listener(Failed(source, error))


def _stopped() -> SetupError:
    return SetupError("the server is going down", "try again later", code="engine-stopped")

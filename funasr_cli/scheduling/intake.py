"""Read recordings and cut them into segments of speech, in a thread that runs ahead of the model.

Nothing here may compute with MLX, which keeps a thread for every thread that it is called from.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from funasr_cli.audio.recording import Source
from funasr_cli.audio.samples import Findings
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.errors import AudioError, FunASRError
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling.events import Read
from funasr_cli.scheduling.segments import new_segmenter
from funasr_cli.speech_model import SegmentRequest, TranscriptStage

POLL_S = 0.1  # how soon the thread notices that it should stop
LONGEST_WAIT_S = 2.0  # longest wait for the thread to end: it may hang in a read that never returns
Opener = Callable[[], Source]  # raises FunASRError if the recording cannot be opened


@dataclass(frozen=True, eq=False)
class Job:
    """A recording to transcribe, and how.

    Attributes:
        source: number of the recording in all its events.
        open: function that opens it.
        options: with lengths of segments that suit the model.
        stages: processing steps after the model, in order.
    """

    source: int
    open: Opener
    options: TranscribeOptions
    stages: Sequence[TranscriptStage] = ()


@dataclass(frozen=True)
class Opened:
    """A recording that has just been opened, or failed to open."""

    job: Job
    name: str
    started: float  # as `time.perf_counter` counts
    start_s: float = 0.0  # start of the input within its recording; 0 unless it is a clip
    speaker: str | None = None  # the only one who speaks in it, if that is known


@dataclass(frozen=True)
class Ended:
    """The end of a recording: its last arrival."""

    source: int
    read_s: float  # seconds that could be read
    unread_s: float = 0.0  # further seconds that its header states but that could not be read
    error: FunASRError | None = None  # why reading failed, if it did
    seconds: dict[str, float] = field(default_factory=dict)  # time spent on "read" and "vad"
    findings: Findings = field(default_factory=Findings)


Arrival = Opened | Read | SegmentRequest | Ended


class Prefetcher:
    """A generator that runs in a thread, at most `limit` items ahead of the consumer, until it is closed.

    `notify` is called in that thread whenever an item can be taken.
    """

    def __init__(self, items: Generator[Arrival], limit: int, notify: Callable[[], None] = lambda: None):
        self._items, self._notify = items, notify
        self._queue: queue.Queue[tuple[Arrival | None, BaseException | None]] = queue.Queue(limit)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reading", daemon=True)
        self._thread.start()
        self.ended = False  # whether all items have been taken

    def close(self) -> None:
        """Stop the thread, which closes the generator, and wait until it has ended."""
        self.stop()
        self._thread.join(LONGEST_WAIT_S)

    def stop(self) -> None:
        """Stop the thread soon, without waiting for it."""
        self._stop.set()

    def take(self, timeout_s: float | None) -> Arrival | None:
        """Return the next item, or None if none arrives in time or all have been taken.

        Args:
            timeout_s: how long to wait; None waits without a limit.

        Raises:
            BaseException: the generator's own exception, after the items before it.
        """
        if self.ended:
            return None
        try:
            item, error = self._queue.get(block=timeout_s != 0, timeout=timeout_s)
        except queue.Empty:
            return None
        self.ended = item is None
        if error is not None:
            raise error
        return item

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            with closing(self._items):
                for item in self._items:
                    if not self._put(item):
                        break
        except BaseException as raised:  # passed on to the consumer
            error = raised
        self._put(None, error)

    def _put(self, item: Arrival | None, error: BaseException | None = None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put((item, error), timeout=POLL_S)
                self._notify()
                return True
            except queue.Full:
                continue
        return False


def read_sources(jobs: Iterable[Job]) -> Generator[Arrival]:
    """Open one recording after the other and yield its segments, then its `Ended`.

    The `Ended` of a recording that cannot be read has an error.
    """
    for job in jobs:
        started = time.perf_counter()
        try:
            recording = job.open()
            if recording.sample_rate_hz != SAMPLE_RATE_HZ:
                problem = f"{recording.name}: {recording.sample_rate_hz} Hz, not {SAMPLE_RATE_HZ}"
                raise AudioError(problem, code="sample-rate")
        except FunASRError as error:
            yield Opened(job, "", started)
            yield Ended(job.source, 0.0, error=error)
        else:
            speaker = getattr(recording, "speaker", None)  # as below
            yield Opened(job, recording.name, started, recording.start_s, speaker)
            yield from _read(job, recording)


def _read(job: Job, recording: Source) -> Iterator[Arrival]:
    source, start_s, expected_s = job.source, recording.start_s, recording.expected_s
    segmenter, seconds = new_segmenter(job.options, round(start_s * SAMPLE_RATE_HZ)), {"read": 0.0, "vad": 0.0}
    blocks, error, first, ended = iter(recording.blocks()), None, True, False
    while not ended:
        yield Read(source, start_s, segmenter.read / SAMPLE_RATE_HZ, expected_s)
        began = time.perf_counter()
        try:
            block = next(blocks, None)
        except FunASRError as raised:
            block, error = None, raised
        was_read = time.perf_counter()
        ended = block is None
        segments = segmenter.finish() if block is None else segmenter.push(block)
        seconds["read"] += was_read - began
        seconds["vad"] += time.perf_counter() - was_read
        for audio in segments:
            yield SegmentRequest(source, audio, first, options=job.options)
            first = False
    read_s = segmenter.read / SAMPLE_RATE_HZ
    unread_s = max(0.0, (recording.expected_s or 0.0) - read_s) if error else 0.0
    findings = getattr(recording, "findings", Findings())  # sources written by users may lack them
    yield Ended(source, read_s, unread_s, error, seconds, findings)

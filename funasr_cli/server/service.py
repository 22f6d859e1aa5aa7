"""Between the event loop, which moves bytes, and the thread that computes: requests in, events out."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from funasr_cli.audio.recording import Source
from funasr_cli.compute.memory import FREED_BUFFERS, clear_streams_with_thread
from funasr_cli.errors import UnexpectedError
from funasr_cli.inputs import Input
from funasr_cli.options import LONG_PROMPT_TOKENS, SERVE_DEFAULTS, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling.engine import Engine
from funasr_cli.scheduling.events import Event, Failed, Finished, SegmentFinished
from funasr_cli.scheduling.intake import Job
from funasr_cli.server.fields import DIARIZED, Wanted
from funasr_cli.server.problems import RETRY, Problem, invalid, where
from funasr_cli.server.shelf import Offer, Shelf
from funasr_cli.sources import open_input, split_channels
from funasr_cli.speech_model import SpeechModel
from funasr_cli.stages.stage import Stages

log = logging.getLogger(__name__)

MOST_CHANNELS = 8
NAME = "the upload"  # in messages: a client's file name is never used
HEARD = (SegmentFinished, Finished, Failed)


class Transcriptions:
    """The transcriptions of a server: a thread that computes, and a limited number of requests.

    Attributes:
        shelf: the models.
        most_open: requests at the same time; more are refused.
        continues: whether a prompt is the text that precedes a recording.
        closing: whether the server is going down, so that new requests are refused.
        crashed: whether the thread that computes has ended with a bug.
    """

    def __init__(self, shelf: Shelf, *, most_open: int = SERVE_DEFAULTS.max_requests, continues: bool = False):
        self.shelf, self.most_open, self.continues, self.closing = shelf, most_open, continues, False
        self.crashed = False
        self._open = 0
        self._engine = Engine(shelf.unload_old)
        self._thread = threading.Thread(target=self._compute, name="computing", daemon=True)

    def start(self) -> None:
        """Start the thread, which loads the default model."""
        self._thread.start()

    def stop(self) -> None:
        """End all transcriptions, and the thread after its current step."""
        self.closing = True
        self._engine.stop()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for a request; raise a `Problem` if there is none, or if the server is going down."""
        if self.closing:
            raise Problem(503, "the server is going down; try again later", "engine-stopped", headers=RETRY)
        if self._open >= self.most_open:
            many = f"{self._open} requests are being served; try again later"
            raise Problem(429, many, "rate_limit_exceeded", headers=RETRY)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def events(self, path: Path, wanted: Wanted, asked: list[Wanted]) -> AsyncGenerator[tuple[int, Event]]:
        """Transcribe a file, and yield finished segments and transcripts, with the number of their channel.

        The first error is raised. When the caller stops, nothing more is computed.

        Args:
            path: the file.
            wanted: what the request asks for.
            asked: is filled with what is wanted of this model, before the first event.
        """
        offer, loop = self.shelf.find(wanted.model), asyncio.get_running_loop()
        inputs = [Input(path, NAME, NAME)]
        if wanted.format == DIARIZED:
            inputs = await asyncio.to_thread(_channels, inputs[0])
        queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        stages: dict[int, Stages] = {}  # by channel, from its preparation on

        def prepare(channel: int, source: int) -> tuple[SpeechModel, Job]:
            recognizer, options, job = self._prepare(offer, inputs[channel], wanted, asked, source)
            stages[channel] = recognizer.stages_after(options)
            return recognizer.model, job

        def hear(channel: int, event: Event) -> None:
            try:
                events = list(stages[channel](event)) if channel in stages else [event]
            except Exception as error:  # a bug in a stage ends no other request
                bug = UnexpectedError(f"unexpected {type(error).__name__}", code="unexpected")
                bug.__cause__ = error
                events = [Failed(event.source, bug)]
            for each in events:
                if isinstance(each, HEARD):
                    with suppress(RuntimeError):  # the loop has been closed
                        loop.call_soon_threadsafe(queue.put_nowait, (channel, each))

        sources = [
            self._engine.submit(partial(prepare, channel), partial(hear, channel))
            for channel in range(len(inputs))
        ]
        left = len(sources)
        try:
            while left:
                channel, event = await queue.get()
                if isinstance(event, Failed):
                    if isinstance(event.error, UnexpectedError):
                        log.error("a bug: %s", where(event.error.__cause__ or event.error))
                    raise event.error
                yield channel, _translated(event) if wanted.translated else event
                left -= isinstance(event, Finished)
        finally:
            for source in sources:
                self._engine.leave(source)

    def _prepare(
        self, offer: Offer, input: Input, wanted: Wanted, asked: list[Wanted], source: int
    ) -> tuple[Recognizer, TranscribeOptions, Job]:
        """Load the model if necessary, in the thread that computes; return it, the options and the recording."""
        recognizer = self.shelf.recognizer(offer, self._engine.models_in_use)
        wanted = wanted.suited(recognizer.capabilities, continues=self.continues)
        opener = partial(_opened, input, recognizer.sample_rate_hz)
        job = recognizer.job(source, opener, wanted.options, wanted.spelled)
        prompt = recognizer.model.prompt(wanted.options)
        if prompt and prompt.tokens_before + prompt.tokens_after > LONG_PROMPT_TOKENS:  # each row holds it
            raise invalid(
                "keywords", f"more than {LONG_PROMPT_TOKENS} tokens of words to expect", "prompt-too-long"
            )
        asked[:] = [wanted]
        return recognizer, wanted.options, job

    def _compute(self) -> None:
        clear_streams_with_thread()
        with FREED_BUFFERS.limited():
            try:
                self.shelf.recognizer(self.shelf.default, ())
            except Exception as error:  # each request will say so
                log.error("the default model cannot be loaded: %s", error)
            try:
                self._engine.run()
            except Exception as error:
                log.error("a bug: %s", where(error))
                self.closing = self.crashed = True


def _translated(event: Event) -> Event:
    """Return the event with the translation in place of the transcript."""
    if isinstance(event, SegmentFinished):
        return replace(event, segment=event.segment.translated)
    return replace(event, transcript=event.transcript.translated) if isinstance(event, Finished) else event


def _opened(input: Input, rate_hz: int) -> Source:
    return open_input(input, rate_hz)


def _channels(input: Input) -> list[Input]:
    """Return an input for each channel; raise a `Problem` if there is only one: speakers are not told apart."""
    channels = split_channels([input])
    if problem := channels[0].problem:
        raise problem
    if not 1 < len(channels) <= MOST_CHANNELS:
        needed = f"diarized_json needs a recording with one speaker in each of 2 to {MOST_CHANNELS} channels"
        raise invalid("response_format", needed, "unsupported_value")
    return [replace(one, label=NAME) for one in channels]

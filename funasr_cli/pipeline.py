"""The front door: recordings in, transcripts or events out."""

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from funasr_cli.audio.decode import AudioInput, opener, read_whole
from funasr_cli.compute.backend import mx
from funasr_cli.errors import AudioError, UsageError
from funasr_cli.families.fun_asr_nano.stages import Stages
from funasr_cli.features.fbank import MIN_SAMPLES
from funasr_cli.options import DEFAULTS, MAX_SEGMENT_S, TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, SegmentFinished
from funasr_cli.scheduling.intake import Opener
from funasr_cli.scheduling.scheduler import Scheduler
from funasr_cli.speech_model import EncodedAudio, SpeechModel
from funasr_cli.transcript import Transcript

FREED_BUFFERS_BYTES = 1 << 29  # of what MLX has freed, the most that is kept for reuse


class Recognizer(Stages):
    """Transcribes recordings with a loaded model; the text of a segment does not depend on what is beside it.

    A recording is a path, samples as a NumPy array, or a `Source`. Samples are (samples,) or (samples, channels),
    floats in [-1, 1] or integers of any type, and need `sample_rate_hz`, which nothing else may have. Options are
    `options` (else the defaults), with single fields of `TranscribeOptions` changed by keyword.
    """

    def __init__(self, model: SpeechModel):
        super().__init__(model)
        _clear_streams_with_thread()  # those of loading

    def transcribe(
        self,
        audio: AudioInput,
        options: TranscribeOptions | None = None,
        *,
        sample_rate_hz: int | None = None,
        **changes: Any,
    ) -> Transcript:
        """Transcribe one recording.

        Args:
            audio: a path, samples or a `Source`.
            options: how; None takes the defaults.
            sample_rate_hz: that of samples.
            changes: fields of `TranscribeOptions`, over those of `options`.

        Raises:
            AudioError: not one sample of it can be read. If it breaks off later, the transcript has a `fault`.
            UsageError: an option is out of range, or the model does not know the language.
        """
        return self.transcribe_batch([audio], options, sample_rate_hz=sample_rate_hz, **changes)[0]

    def transcribe_batch(
        self,
        recordings: Iterable[AudioInput],
        options: TranscribeOptions | None = None,
        *,
        sample_rate_hz: int | None = None,
        **changes: Any,
    ) -> list[Transcript]:
        """Transcribe recordings side by side, as `transcribe` does; the first that fails raises its error."""
        if isinstance(recordings, str):
            problem = f"{recordings}: one recording, not several"
            raise UsageError(problem, "pass a list, or call transcribe", code="argument-type")
        openers = [opener(audio, self.sample_rate_hz, sample_rate_hz) for audio in recordings]
        events = self._run(openers, replace(options or DEFAULTS, **changes))
        done = {event.source: event.transcript for event in events if isinstance(event, Finished)}
        return [done[source] for source in sorted(done)]

    def stream(
        self,
        audio: AudioInput,
        options: TranscribeOptions | None = None,
        *,
        sample_rate_hz: int | None = None,
        **changes: Any,
    ) -> Generator[PartialText | SegmentFinished | Finished]:
        """Transcribe one recording, as `transcribe` does, and tell what happens as it happens.

        Closing the iterator, or dropping it, stops the work.

        Yields:
            `PartialText` of the segments that are being written; each as `SegmentFinished`, in order; `Finished`.
        """
        open_audio = opener(audio, self.sample_rate_hz, sample_rate_hz)
        return self._run([open_audio], replace(options or DEFAULTS, **changes))

    def _run(
        self, openers: Iterable[Opener], options: TranscribeOptions
    ) -> Generator[PartialText | SegmentFinished | Finished]:
        """What `run` yields, until an input fails: that raises its error."""
        with closing(self.run(openers, options)) as events:
            for event in events:
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, PartialText | SegmentFinished | Finished):
                    yield event

    def run(self, openers: Iterable[Opener], options: TranscribeOptions = DEFAULTS) -> Generator[Event]:
        """Transcribe any number of recordings, of any length, in bounded memory.

        Args:
            openers: each opens a recording when its turn comes; they are called in order, in another thread.
            options: for all of them.

        Yields:
            What happens, as it happens. Every input ends with `Finished` or `Failed`.

        Raises:
            UsageError: the model does not know the language.
            ModelError: word times are asked for, and the model has no CTC branch.
        """
        if options.word_times:
            self.refuse_missing_word_times()
        _clear_streams_with_thread()
        with FREED_BUFFERS.limited():
            yield from Scheduler(self, options).run(openers)

    def encode_audio(self, audio: AudioInput, *, sample_rate_hz: int | None = None) -> EncodedAudio:
        """Run the encoder over one piece of audio in one go, as over one segment: silence is not left out.

        Args:
            audio: a path, samples or a `Source`, of at most `MAX_SEGMENT_S`.
            sample_rate_hz: that of samples.

        Raises:
            AudioError: it cannot be read to its end, or is too long.
            UsageError: as for `transcribe`.
        """
        source = opener(audio, self.sample_rate_hz, sample_rate_hz)()
        if source.sample_rate_hz != self.sample_rate_hz:
            problem = f"{source.name}: {source.sample_rate_hz} Hz, not {self.sample_rate_hz}"
            raise AudioError(problem, code="sample-rate")
        samples = read_whole(source, MAX_SEGMENT_S).samples
        if len(self.at_model_rate(samples)) < MIN_SAMPLES:
            raise AudioError(f"{source.name}: too short to be encoded", code="audio-too-short")
        _clear_streams_with_thread()
        with FREED_BUFFERS.limited():
            encoded = self.encode([self.features(samples)])
            frames = encoded.hidden[0, : encoded.lengths[0]]  # (frames, encoder width)
            [audio_embeddings] = self.loaded.model.audio_embeddings(
                encoded.hidden, encoded.lengths
            )  # (rows, decoder width)
            mx.eval(frames, audio_embeddings)
        return EncodedAudio(frames, audio_embeddings, self.config.frontend.row_duration_s)


class _FreedBuffers:
    """Limits what MLX keeps of freed memory while anybody computes here, and gives it back behind each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limit_before = 0

    @contextmanager
    def limited(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._limit_before = mx.set_cache_limit(FREED_BUFFERS_BYTES)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    mx.set_cache_limit(self._limit_before)
            mx.clear_cache()


FREED_BUFFERS = _FreedBuffers()


class _Streams:
    """MLX's streams of a thread, or MLX aborts the process when that thread has ended."""

    def __del__(self) -> None:
        mx.clear_streams()


_of_thread = threading.local()  # what it holds goes away with its thread, and in it


def _clear_streams_with_thread() -> None:
    """Let MLX's streams of this thread end with it."""
    if threading.current_thread() is not threading.main_thread():
        _of_thread.streams = getattr(_of_thread, "streams", None) or _Streams()

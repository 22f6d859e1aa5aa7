"""The front door: recordings in, transcripts or events out."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from funasr_cli.align import Aligner
from funasr_cli.audio.decode import AudioInput, opener, read_whole
from funasr_cli.capabilities import (
    NOBODY_TYPED,
    Capabilities,
    refuse_aligner,
    refuse_unaligned_language,
    refuse_unsupported,
    supported,
)
from funasr_cli.compute.memory import FREED_BUFFERS, clear_streams_with_thread
from funasr_cli.errors import AudioError, UsageError
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, SegmentFinished
from funasr_cli.scheduling.intake import Opener
from funasr_cli.scheduling.scheduler import Scheduler
from funasr_cli.speech_model import EncodedAudio, SpeechModel, TranscriptStage
from funasr_cli.transcript import Transcript


class Recognizer:
    """Transcribes recordings with a loaded model; the text of a segment does not depend on what is beside it.

    A recording is a path, samples as a NumPy array, or a `Source`. Samples are (samples,) or (samples, channels),
    floats in [-1, 1] or integers of any type, and need `sample_rate_hz`, which nothing else may have. Options are
    `options` (else the defaults), with single fields of `TranscribeOptions` changed by keyword.
    """

    def __init__(
        self, model: SpeechModel, stages: Sequence[TranscriptStage] = (), *, align_with: SpeechModel | None = None
    ):
        """Take a model, the stages behind it in their order, and another model that tells when words were said.

        Raises:
            UsageError: the other model cannot tell that, or the model itself can.
        """
        if align_with:
            refuse_aligner(model, align_with)
        self.model, self._stages, self._aligner = model, tuple(stages), align_with
        clear_streams_with_thread()  # those of loading

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the recordings that it takes."""
        return self.model.sample_rate_hz

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do, with word times where another model tells them for it."""
        capabilities = self.model.capabilities
        return replace(capabilities, word_times=capabilities.word_times or self._aligner is not None)

    @property
    def timing_model(self) -> SpeechModel:
        """The model whose CTC output tells when words were said, its own or the other one."""
        return self._aligner or self.model

    @property
    def has_ctc(self) -> bool:
        """Whether it is known when words were said; `capabilities` tells more."""
        return self.capabilities.word_times

    def supported(self, options: TranscribeOptions, typed: Mapping[str, str] = NOBODY_TYPED) -> TranscribeOptions:
        """Leave out what the models cannot do and nobody has typed, as `capabilities.supported` does."""
        longest_segment_s = self.model.longest_segment_s
        return supported(options, self.capabilities, longest_segment_s=longest_segment_s, typed=typed)

    def refuse_unsupported(self, options: TranscribeOptions, typed: Mapping[str, str] = NOBODY_TYPED) -> None:
        """Refuse what the models cannot do, as `capabilities.refuse_unsupported` does; `run` begins with it."""
        longest_segment_s = self.model.longest_segment_s
        refuse_unsupported(
            options, self.capabilities, self.model.name, longest_segment_s=longest_segment_s, typed=typed
        )
        if self._aligner and options.word_times:
            refuse_unaligned_language(options, self._aligner)

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
            UsageError: the model cannot do what an option asks for, or does not know the language.
        """
        self.refuse_unsupported(options)
        stages = self._stages
        if self._aligner and options.word_times:
            stages = (Aligner(self._aligner, options), *stages)
        clear_streams_with_thread()
        with FREED_BUFFERS.limited():
            yield from Scheduler(self.model, options, stages).run(openers)

    def encode_audio(self, audio: AudioInput, *, sample_rate_hz: int | None = None) -> EncodedAudio:
        """Run the encoder over one piece of audio in one go, as over one segment: silence is not left out.

        Args:
            audio: a path, samples or a `Source`, of at most the model's `longest_segment_s`.
            sample_rate_hz: that of samples.

        Raises:
            AudioError: it cannot be read to its end, or is too long.
            UsageError: as for `transcribe`.
        """
        source = opener(audio, self.sample_rate_hz, sample_rate_hz)()
        if source.sample_rate_hz != self.sample_rate_hz:
            problem = f"{source.name}: {source.sample_rate_hz} Hz, not {self.sample_rate_hz}"
            raise AudioError(problem, code="sample-rate")
        samples = read_whole(source, self.model.longest_segment_s).samples
        clear_streams_with_thread()
        try:
            with FREED_BUFFERS.limited():
                return self.model.encode(samples)
        except AudioError as error:
            raise AudioError(f"{source.name}: {error.message}", code="audio-too-short") from error

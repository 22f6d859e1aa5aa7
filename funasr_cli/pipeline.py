"""The main interface for Python callers: `Recognizer` takes recordings and returns transcripts or events."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from funasr_cli.align import Aligner
from funasr_cli.audio.decode import AudioInput, opener, read_whole
from funasr_cli.capabilities import (
    NOTHING_TYPED,
    Capabilities,
    punctuation_problem,
    refuse_aligner,
    refuse_unaligned_language,
    refuse_unsupported,
    supported,
)
from funasr_cli.compute.memory import FREED_BUFFERS, clear_streams_with_thread
from funasr_cli.errors import AudioError, UsageError
from funasr_cli.languages import resolve_language
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.punctuation_model import PunctuationModel
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, SegmentFinished
from funasr_cli.scheduling.intake import Job, Opener
from funasr_cli.scheduling.scheduler import Scheduler, suited
from funasr_cli.speaker_model import SpeakerModel
from funasr_cli.speech_model import EncodedAudio, SpeechModel, TranscriptStage
from funasr_cli.stages.punctuation import Punctuation
from funasr_cli.stages.speakers import Speakers, Voices
from funasr_cli.stages.stage import EventStage, Stages
from funasr_cli.stages.translation import Translator
from funasr_cli.text_generator import TextGenerator
from funasr_cli.text_model import HasTextModel, TextModel
from funasr_cli.transcript import Transcript


class Recognizer:
    """A loaded model that transcribes recordings. A segment's text does not depend on the rest of its batch.

    A recording is a path, an array of samples, or a `Source`. An array is (samples,) or (samples, channels), with
    floats in [-1, 1] or integers of any type. `sample_rate_hz` is required for arrays and not allowed otherwise.

    `options` default to `TranscribeOptions()`. Further keyword arguments override single fields of them.
    """

    def __init__(
        self,
        model: SpeechModel,
        stages: Sequence[TranscriptStage] = (),
        *,
        align_with: SpeechModel | None = None,
        punctuate_with: PunctuationModel | None = None,
        must_punctuate: bool = True,
        tell_apart_with: SpeakerModel | None = None,
        translator: TextModel | None = None,
    ):
        """Wrap a model.

        Args:
            model: a loaded model.
            stages: processing steps after the model, in order.
            align_with: another model, which provides word times for a model that has none.
            punctuate_with: a model that inserts punctuation where `model` writes none.
            must_punctuate: refuse options with which it has no work; otherwise, it does nothing then.
            tell_apart_with: a model of voices, which the option `speakers` needs.
            translator: a language model that translates in place of `model`, with the option `translate`.

        Raises:
            UsageError: `align_with` cannot provide word times, or `model` provides them itself.
        """
        if align_with:
            refuse_aligner(model, align_with)
        self.model, self._stages, self._aligner = model, tuple(stages), align_with
        self._punctuation, self._must_punctuate = punctuate_with, must_punctuate
        self._speaker_model, self._translator = tell_apart_with, translator
        clear_streams_with_thread()  # frees the streams that loading used

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the model's input."""
        return self.model.sample_rate_hz

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the model, including those that `align_with` and `translator` provide."""
        capabilities = self.model.capabilities
        capabilities = capabilities.with_aligner() if self._aligner else capabilities
        return capabilities.with_translator() if self._translator else capabilities

    @property
    def timing_model(self) -> SpeechModel:
        """The model whose CTC output provides the word times: `align_with` if given, else the model itself."""
        return self._aligner or self.model

    @property
    def has_ctc(self) -> bool:
        """Whether word times are available; see `capabilities` for everything else."""
        return self.capabilities.word_times

    @cached_property
    def text(self) -> TextGenerator:
        """The model's own decoder as a language model that continues and translates texts.

        Raises:
            UsageError: the model has none that takes text alone.
        """
        if not isinstance(self.model, HasTextModel):
            message = f"{self.model.name}: has no language model that takes text alone"
            hint = "load one with funasr_cli.load_text, such as qwen3-0.6b"
            raise UsageError(message, hint, code="option-unsupported")
        return TextGenerator(self.model.text_model)

    def supported(self, options: TranscribeOptions, typed: Mapping[str, str] = NOTHING_TYPED) -> TranscribeOptions:
        """Reset unsupported options that were not given explicitly; see `capabilities.supported`."""
        longest_segment_s = self.model.longest_segment_s
        return supported(options, self.capabilities, longest_segment_s=longest_segment_s, typed=typed)

    def refuse_unsupported(self, options: TranscribeOptions, typed: Mapping[str, str] = NOTHING_TYPED) -> None:
        """Raise a `UsageError` for options that the models do not support; `run` starts with this check.

        See `capabilities.refuse_unsupported`.
        """
        longest_segment_s = self.model.longest_segment_s
        refuse_unsupported(
            options, self.capabilities, self.model.name, longest_segment_s=longest_segment_s, typed=typed
        )
        if self._aligner and options.word_times:
            refuse_unaligned_language(options, self._aligner)
        if self._must_punctuate and (problem := self._punctuation_problem(options)):
            raise problem
        if options.speakers and not self._speaker_model:
            hint = "load the recognizer with a model that tells speakers apart, such as campplus"
            raise UsageError("speakers: there is no model that tells them apart", hint, code="option-unsupported")

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
            audio: a path, an array of samples or a `Source`.
            options: None takes the defaults.
            sample_rate_hz: sample rate of an array.
            changes: fields of `TranscribeOptions`, which override those of `options`.

        Raises:
            AudioError: not a single sample can be read. If reading fails later, the transcript has a `fault`.
            UsageError: an option is out of range, or the model does not support it or the language.
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
        """Transcribe several recordings in shared batches, as `transcribe` does. Raise the first error."""
        if isinstance(recordings, str):
            problem = f"{recordings}: a single path is not a list of recordings"
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
        """Transcribe one recording, as `transcribe` does, and yield events while it is being transcribed.

        Close or drop the iterator to stop.

        Yields:
            `PartialText` for segments that are being decoded; `SegmentFinished` for each segment, in order; at the
            end `Finished`.
        """
        open_audio = opener(audio, self.sample_rate_hz, sample_rate_hz)
        return self._run([open_audio], replace(options or DEFAULTS, **changes))

    def _run(
        self, openers: Iterable[Opener], options: TranscribeOptions
    ) -> Generator[PartialText | SegmentFinished | Finished]:
        """Yield the events of `run` except `Read`. If an input fails, raise its error."""
        with closing(self.run(openers, options)) as events:
            for event in events:
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, PartialText | SegmentFinished | Finished):
                    yield event

    def run(self, openers: Iterable[Opener], options: TranscribeOptions = DEFAULTS) -> Generator[Event]:
        """Transcribe any number of recordings, of any length, in bounded memory.

        Args:
            openers: functions that each open a recording. They are called in order, in another thread.
            options: options for all recordings.

        Yields:
            Events as they happen. The last event of every recording is `Finished` or `Failed`.

        Raises:
            UsageError: the model does not support an option or the language.
        """
        self.refuse_unsupported(options)
        clear_streams_with_thread()
        with FREED_BUFFERS.limited():
            voices = Voices(self._speaker_model) if options.speakers and self._speaker_model else None
            stages = self.stages_after(options, voices)
            during = (*self._stages_for(options), *([voices] if voices else []))
            for event in Scheduler(self.model, self._of_model(options), during).run(openers):
                yield from stages(event)

    def job(
        self, source: int, opener: Opener, options: TranscribeOptions, typed: Mapping[str, str] = NOTHING_TYPED
    ) -> Job:
        """Return what an `Engine` needs to know of a recording; raise a `UsageError` as `run` does.

        This includes a prompt that the model does not take: in a session of many recordings, it would be too late.

        Args:
            source: number of the recording in its events.
            opener: opens the recording, in another thread.
            options: of this recording.
            typed: as for `refuse_unsupported`.
        """
        if options.speakers:
            message = "speakers: not for recordings of many callers at once"
            raise UsageError(message, "leave it out", code="option-unsupported")
        self.refuse_unsupported(options, typed)
        self.model.prompt(options)
        return Job(source, opener, suited(self._of_model(options), self.model), self._stages_for(options))

    def stages_after(self, options: TranscribeOptions, voices: Voices | None = None) -> Stages:
        """Return the stages after the transcripts of a run with these options, for the events of an `Engine`.

        `voices` is the stage that keeps embeddings, with the option `speakers`.
        """
        makers = list[Callable[[], EventStage]]()
        if (model := self._punctuation) and not self._punctuation_problem(options):
            language = resolve_language(options.language, self.capabilities.languages)
            makers.append(partial(Punctuation, model, language))
        if voices:
            makers.append(partial(Speakers, voices, options))
        if self._translator and options.target:  # the last: each part of one speaker has its own translation
            language = resolve_language(options.language, self.capabilities.languages)
            makers.append(partial(Translator, self._translator, options.target, language))
        return Stages(makers)

    def _of_model(self, options: TranscribeOptions) -> TranscribeOptions:
        """Return the options of the speech model, which does not translate if a translator does."""
        return replace(options, translate=False, translate_to=None) if self._translator else options

    def _punctuation_problem(self, options: TranscribeOptions) -> UsageError | None:
        if not (model := self._punctuation):
            return None
        return punctuation_problem(options, self.capabilities, self.model.name, model.name, model.languages)

    def _stages_for(self, options: TranscribeOptions) -> tuple[TranscriptStage, ...]:
        if self._aligner and options.word_times:
            return (Aligner(self._aligner, options), *self._stages)
        return self._stages

    def encode_audio(self, audio: AudioInput, *, sample_rate_hz: int | None = None) -> EncodedAudio:
        """Run the encoder over the whole audio as one segment, without leaving out silence.

        Args:
            audio: a path, an array of samples or a `Source`, at most as long as the model's `longest_segment_s`.
            sample_rate_hz: sample rate of an array.

        Raises:
            AudioError: the audio cannot be read to its end, or is too short or too long.
            UsageError: `audio` is not audio, or `sample_rate_hz` is missing or not allowed.
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

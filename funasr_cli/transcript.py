"""The result of a transcription as plain data. All times are in seconds."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from funasr_cli.characters import UNSPACED

CHANNELS = "channels"  # what told speakers apart, if each has a channel
MISSING = "..."  # in place of a translation of which nothing was written
TRANSLATION_PROBLEMS = {  # by the stop reason
    "budget": "the translation is cut short: its end may be missing",
    "loop": "the translation repeats itself in a loop: anything after the first round is missing",
    "nonfinite": "the model computed a value that is not a number: the rest of the translation is missing",
    "empty": "the translation is missing",
    "error": "the translation could not be computed",
}
BETWEEN_UNSPACED = re.compile(f"[{UNSPACED}]{{2}}")


def join_texts(texts: Iterable[str]) -> str:
    """Join texts into one, with spaces between them where their scripts use spaces."""
    joined = ""
    for text in filter(None, texts):
        spaced = joined and not BETWEEN_UNSPACED.match(joined[-1] + text[0])
        joined += f" {text}" if spaced else text
    return joined


STAGES = ("read", "vad", "features", "encoder", "ctc", "prefill", "decode")  # in processing order


@dataclass(frozen=True)
class Timings:
    """Wall-clock time per stage, in seconds, and token counts.

    Segments of several recordings share batches. A stage's time is divided equally among the segments of a batch.

    Attributes:
        read_s: decoding and resampling the audio.
        vad_s: voice activity detection.
        features_s: computing the features.
        encoder_s: running the encoder.
        prefill_s: running the decoder over the prompts.
        decode_s: writing the tokens.
        first_token_s: from opening the recording to its first token.
        total_s: from opening the recording to its last token, including work on other recordings in between.
        tokens: decoded tokens, including stop tokens and those of attempts that were discarded.
        ctc_s: computing the CTC output, with or without a decoder.
        post_s: stages after the model, such as word times from another model.
        decoder_calls: decoder runs for these tokens, counted per segment.
        drafted: draft tokens that these runs checked.
        accepted: draft tokens that the decoder would have written itself.
    """

    read_s: float
    vad_s: float
    features_s: float
    encoder_s: float
    prefill_s: float
    decode_s: float
    first_token_s: float
    total_s: float
    tokens: int
    ctc_s: float = 0.0
    post_s: float = 0.0
    decoder_calls: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def passes(self) -> int:
        """Deprecated name of `decoder_calls`, kept for one release."""
        return self.decoder_calls

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second after the first one; 0 if there is only one."""
        return (self.tokens - 1) / self.decode_s if self.tokens > 1 and self.decode_s else 0.0


@dataclass(frozen=True)
class Score:
    """A piece of text with its probability: one token, or several that together spell a character.

    Attributes:
        probability: the model's probability of the token; the lowest of several tokens.
    """

    text: str
    probability: float


@dataclass(frozen=True)
class Word:
    """A word, or a character of a script without spaces, with adjacent punctuation.

    Attributes:
        score: 0 to 1. Confidence of the CTC output that the word is spoken at these times; with Whisper and
            Paraformer, the probability of its least likely token. None if the times are estimated.
        estimated: whether the word itself could not be aligned, for example because it is a number in digits, or
            the CTC vocabulary cannot spell it. Its times are those of what the CTC output has in its place, or
            of the gap between its neighbours if that is nothing.
        speaker: who says it; None if speakers were not told apart.
    """

    text: str
    start_s: float
    end_s: float
    score: float | None
    estimated: bool = False
    speaker: str | None = None


@dataclass(frozen=True)
class TimedText:
    """A part of a segment's text with its times, from a model that divides segments itself."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Translation:
    """The text of a segment in another language.

    Attributes:
        language: ISO code.
        pieces: parts of the text with times, as those of `Segment`.
        mean_logprob: mean log-probability of its tokens; None if there are none.
        stop_reason: as that of `Segment`; or "empty" (the model wrote nothing) or "error" (it could not be asked).
    """

    text: str
    language: str
    pieces: tuple[TimedText, ...] = ()
    mean_logprob: float | None = None
    stop_reason: str = "eos"

    @property
    def complete(self) -> bool:
        """Whether the model itself ended the text."""
        return self.stop_reason == "eos"

    @property
    def problem(self) -> str | None:
        """Why it is not complete, in words; None if it is."""
        return TRANSLATION_PROBLEMS.get(self.stop_reason)


@dataclass(frozen=True)
class Segment:
    """A part of the recording that was decoded as one unit.

    Attributes:
        text: the transcript of the speech.
        thinking: the contents of ``<think>`` blocks, which are not part of the text.
        stop_reason: "eos" (complete), "budget" (token limit reached), "loop" (the text repeated itself) or
            "nonfinite" (a value was not a number).
        retries: how often the audio was split and decoded again before this result.
        tokens: number of decoded tokens.
        mean_logprob: their mean log-probability; None if there are none.
        ctc_text: best path of a CTC branch that the model has in addition to its decoder; None without one, or if
            not requested.
        scores: probability of each piece of the text; empty if not requested.
        words: the words of the text with their times, in order and without overlaps; empty if not requested or
            not measurable.
        disagreement: share of the text and of a second reading that the two do not have in common, 0 to 1; None if
            they were not compared.
        doubtful: whether a complete text differs so much from the second reading that it may be made up, or is
            empty although the model detected speech, or repeats the model's instruction.
        language: ISO code of the language that the model detected; None if it does not detect languages.
        tags: emotion and sounds that the model detected, named as in `tags.py`, in the model's order.
        no_speech_probability: probability that the segment has no speech, 0 to 1; None if the model gives none.
        pieces: parts of the text with times, in order and without overlaps; empty if the model does not divide it.
        translation: the text in another language; `text` stays in the spoken language.
        speaker: who speaks; None if speakers were not told apart.
    """

    start_s: float
    end_s: float
    text: str
    thinking: str
    stop_reason: str
    retries: int
    tokens: int
    mean_logprob: float | None
    ctc_text: str | None = None
    scores: tuple[Score, ...] = ()
    words: tuple[Word, ...] = ()
    disagreement: float | None = None
    doubtful: bool = False
    language: str | None = None
    tags: tuple[str, ...] = ()
    no_speech_probability: float | None = None
    pieces: tuple[TimedText, ...] = ()
    translation: Translation | None = None
    speaker: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the model itself ended the text."""
        return self.stop_reason == "eos"

    @property
    def state(self) -> str:
        """How the ledger counts the segment: "transcribed", "repaired" or "failed"."""
        if not self.complete:
            return "failed"
        return "repaired" if self.retries else "transcribed"

    @property
    def untranslated(self) -> bool:
        """Whether the translation is missing or cut short although one was requested."""
        return self.translation is not None and not self.translation.complete

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s

    def spoken_by(self, speaker: str) -> "Segment":
        """Return the segment with its speaker, who is also that of each word."""
        words = tuple(replace(word, speaker=speaker) for word in self.words)
        return replace(self, speaker=speaker, words=words)

    @property
    def translated(self) -> "Segment":
        """The translation as a segment, without what is known only of the spoken text.

        If nothing was written, or the segment has text and no translation, `MISSING` stands in for it, in a
        segment that is not complete. The spoken text never does.
        """
        own = self.translation or Translation("", "", stop_reason="empty" if self.text.strip() else "eos")
        return replace(
            self,
            text=own.text if own.complete else own.text or MISSING,
            language=own.language or None,
            pieces=own.pieces,
            mean_logprob=own.mean_logprob,
            stop_reason=self.stop_reason if own.complete else own.stop_reason,
            thinking="", ctc_text=None, scores=(), words=(), disagreement=None, translation=None,
        )  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """The coverage ledger: the result for every second. The first four fields add up to the recording's length.

    Attributes:
        transcribed_s: decoded at the first attempt.
        repaired_s: decoded in smaller pieces after an earlier attempt failed or was doubtful.
        failed_s: speech whose text is cut short or broken, and audio that could not be read.
        silence_s: without speech.
        doubtful_s: the part of `transcribed_s` and `repaired_s` whose segments are doubtful.
        untranslated_s: speech whose translation is missing or cut short, if one was requested.
    """

    transcribed_s: float = 0.0
    repaired_s: float = 0.0
    failed_s: float = 0.0
    silence_s: float = 0.0
    doubtful_s: float = 0.0
    untranslated_s: float = 0.0

    def __add__(self, other: "Ledger") -> "Ledger":
        """Return the ledger of two recordings together."""
        return Ledger(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def speech_s(self) -> float:
        """Seconds that are not silence."""
        return self.transcribed_s + self.repaired_s + self.failed_s

    @property
    def done_share(self) -> float:
        """Share of the speech that has a complete text; 1 if there is no speech."""
        return 1 - self.failed_s / self.speech_s if self.speech_s else 1.0


@dataclass(frozen=True)
class Transcript:
    """The result for one input.

    Attributes:
        source: name of the input.
        duration_s: its length, including audio that could not be read.
        model: name of the model.
        language: ISO code of the requested language; None if the model chose it.
        segments: in order and without overlaps, with silence between them.
        unread_s: seconds at the end that the input should contain but that could not be read.
        fault: why the input could not be read to its end; None if it could.
        warnings: notes for the reader of the text.
        start_s: start of the input within its recording; 0 unless it is a clip. All times count from the start of
            the recording.
        lost: (start, end) of damaged audio. It is replaced with silence and counted as failed in the ledger.
        level_dbfs: level of the loudest moment relative to full scale; None if there is no sound.
        engine: what computed the model, and in which arithmetic: "mlx" with the number type and the device, or
            "native" with the number types and the instruction set.
        vad_model: what detected speech, one of `options.VAD_MODELS`; None without detection.
    """

    source: str
    duration_s: float
    model: str
    language: str | None
    segments: tuple[Segment, ...]
    timings: Timings
    unread_s: float = 0.0
    fault: str | None = None
    warnings: tuple[str, ...] = field(default=())
    start_s: float = 0.0
    lost: tuple[tuple[float, float], ...] = ()
    level_dbfs: float | None = None
    aligned_by: str | None = None  # the model that measured the word times, if it is another one (`align_with`)
    engine: str = ""
    punctuated_by: str | None = None  # the model that inserted punctuation, if there was one (`punctuation`)
    vad_model: str | None = None
    translated_by: str | None = None  # the model that translated the texts, if it is another one (`translator`)
    speakers_by: str | None = None  # the model that told speakers apart, or `CHANNELS`; None if nothing did
    # What their voices are like, if that was asked for (`speaker_embeddings`): a unit vector for each speaker
    speaker_embeddings: dict[str, tuple[float, ...]] | None = None
    failed_stages: tuple[str, ...] = ()  # models that failed after the transcript; a warning says from when on

    @property
    def text(self) -> str:
        """Text of all segments, joined."""
        return join_texts(segment.text for segment in self.segments)

    @property
    def times(self) -> str:
        """The finest unit that has times: "word" if any segment has words, else "segment"."""
        return "word" if any(segment.words for segment in self.segments) else "segment"

    @property
    def translated(self) -> "Transcript":
        """The translation as a transcript."""
        segments = tuple(segment.translated for segment in self.segments)
        return replace(self, segments=segments, language=None)

    def without_translations(self) -> "Transcript":
        """Return a copy without translations."""
        return replace(self, segments=tuple(replace(segment, translation=None) for segment in self.segments))

    def without_words(self) -> "Transcript":
        """Return a copy without word times."""
        return replace(self, segments=tuple(replace(segment, words=()) for segment in self.segments))

    @property
    def ledger(self) -> Ledger:
        """The coverage ledger of the recording."""
        seconds = {"transcribed": 0.0, "repaired": 0.0, "failed": self.unread_s}
        seconds["failed"] += sum(end_s - start_s for start_s, end_s in self.lost)
        for segment in self.segments:
            common = ((max(start_s, segment.start_s), min(end_s, segment.end_s)) for start_s, end_s in self.lost)
            lost_s = sum(max(0.0, end_s - start_s) for start_s, end_s in common)
            seconds[segment.state] += segment.duration_s - lost_s
        silence_s = max(0.0, self.duration_s - sum(seconds.values()))
        doubtful_s = sum((segment.duration_s for segment in self.segments if segment.doubtful), 0.0)
        untranslated_s = sum((segment.duration_s for segment in self.segments if segment.untranslated), 0.0)
        parts = seconds["transcribed"], seconds["repaired"], seconds["failed"]
        shares = *parts, silence_s, doubtful_s, untranslated_s
        return Ledger(*(round(share_s, 9) for share_s in shares))  # removes floating-point noise

    @property
    def complete(self) -> bool:
        """Whether all was read, each segment is complete, with its translation, and no stage after it failed."""
        is_whole = all(segment.complete and not segment.untranslated for segment in self.segments)
        return self.fault is None and not self.lost and not self.failed_stages and is_whole

    @property
    def broken(self) -> bool:
        """Whether something failed and no segment is complete."""
        return not self.complete and not any(segment.complete for segment in self.segments)

"""What a recording says: plain data, times in seconds."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from funasr_cli.characters import UNSPACED

BETWEEN_UNSPACED = re.compile(f"[{UNSPACED}]{{2}}")


def join_texts(texts: Iterable[str]) -> str:
    """One text, with spaces in between where the scripts use them."""
    joined = ""
    for text in filter(None, texts):
        spaced = joined and not BETWEEN_UNSPACED.match(joined[-1] + text[0])
        joined += f" {text}" if spaced else text
    return joined


STAGES = ("read", "vad", "features", "encoder", "ctc", "prefill", "decode")  # in the order of the work


@dataclass(frozen=True)
class Timings:
    """Where the time went, in seconds of wall clock.

    Segments of several recordings share batches: a stage's time is shared out evenly among those in a batch.

    Attributes:
        read_s: decoding and resampling the audio.
        vad_s: finding speech in it.
        first_token_s: from opening the recording to its first token.
        total_s: from opening the recording to its last token; others may have been worked on in between.
        tokens: decoded tokens, the stop tokens and those of attempts that were given up among them.
        ctc_s: what CTC takes, beside a decoder or in place of one.
        post_s: what stands behind the model, such as the times of words by another one.
        decoder_calls: runs of the decoder that these tokens took, counted for each segment.
        drafted: tokens of drafts that these calls have tried.
        accepted: of these, those that the decoder would have written itself.
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
        """The earlier name of `decoder_calls`, for one release."""
        return self.decoder_calls

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second behind the first one; 0 when there was only one."""
        return (self.tokens - 1) / self.decode_s if self.tokens > 1 and self.decode_s else 0.0


@dataclass(frozen=True)
class Score:
    """A piece of a text: one token of the decoder, or several that spell a character together.

    Attributes:
        probability: what the decoder gave it; the lowest, of several tokens.
    """

    text: str
    probability: float


@dataclass(frozen=True)
class Word:
    """A word, or a character of a script without spaces, with the punctuation that stands at it.

    Attributes:
        score: how sure the CTC output is that it is said there, 0 to 1; None where its times are estimated.
        estimated: its times are those of what was heard in its place, or what its neighbours leave where nothing
            was: a number written as digits, a word that CTC cannot spell.
    """

    text: str
    start_s: float
    end_s: float
    score: float | None
    estimated: bool = False


@dataclass(frozen=True)
class TimedText:
    """A part of a segment's text with its times, where the model itself divides segments."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Translation:
    """What a segment says, in another language."""

    text: str
    language: str  # ISO code


@dataclass(frozen=True)
class Segment:
    """A part of the recording that was decoded in one piece.

    Attributes:
        text: what was said.
        thinking: what the model wrote in ``<think>`` blocks, which are not part of the text.
        stop_reason: "eos" (complete), "budget" (cut short), "loop" (went in circles) or "nonfinite" (the decoder
            broke down).
        retries: how often the speech was cut into smaller pieces and decoded again to get here.
        tokens: how many tokens were decoded.
        mean_logprob: their mean log-probability; None when there are none.
        ctc_text: the best path of a CTC branch beside the decoder; None without one, or if not asked for.
        scores: how sure the decoder was of each piece of the text; empty where it was not asked for.
        words: the text with the times of its words, in order and without overlaps; empty where they were not asked
            for, or cannot be measured.
        disagreement: share of the text and a second reading of it that is not common to both, 0 to 1; None
            where they were not compared.
        doubtful: they have so little in common that a complete text may be made up; or there is none, though the
            model itself finds that somebody speaks.
        language: ISO code of the language that the model heard; None where it does not tell.
        tags: emotion and sounds that the model heard, as `tags.py` names them, in its own order.
        no_speech_probability: how likely nobody speaks in it, 0 to 1; None where the model does not tell.
        pieces: the text in parts with times, where the model divides it; in order, without overlaps.
        translation: what it says in another language; the text stays what was said.
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

    @property
    def complete(self) -> bool:
        """Whether the model itself ended the text."""
        return self.stop_reason == "eos"

    @property
    def state(self) -> str:
        """What the ledger counts it as: "transcribed", "repaired" or "failed"."""
        if not self.complete:
            return "failed"
        return "repaired" if self.retries else "transcribed"

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Ledger:
    """What became of every second: the first four add up to the length of the recording.

    Attributes:
        transcribed_s: decoded at the first go.
        repaired_s: decoded in smaller pieces, after a first text that went in circles or found no end.
        failed_s: speech whose text is cut short or broken, and audio that could not be read.
        silence_s: no speech in it.
        doubtful_s: of the transcribed and repaired ones those whose text a second reading did not hear, or
            that have none where the model finds speech.
    """

    transcribed_s: float = 0.0
    repaired_s: float = 0.0
    failed_s: float = 0.0
    silence_s: float = 0.0
    doubtful_s: float = 0.0

    def __add__(self, other: "Ledger") -> "Ledger":
        """Add up two recordings."""
        return Ledger(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def speech_s(self) -> float:
        """Everything but silence."""
        return self.transcribed_s + self.repaired_s + self.failed_s

    @property
    def done_share(self) -> float:
        """Share of the speech that has a text; 1 where there is no speech."""
        return 1 - self.failed_s / self.speech_s if self.speech_s else 1.0


@dataclass(frozen=True)
class Transcript:
    """The result for one input.

    Attributes:
        source: the input's name.
        duration_s: its length, with what could not be read.
        model: the model's name.
        language: ISO code that was asked for; None where the model decided.
        segments: in order, without overlaps; what lies between them is silence.
        unread_s: seconds at the end that the input should hold but that could not be read.
        fault: why the input could not be read to its end; None when it could.
        warnings: what a reader of the text should know.
        start_s: where the input begins, if it is a part of a recording; all times are those of the recording.
        lost: from, to of what is damaged: there is silence in its place, and the ledger counts it as failed.
        level_dbfs: of its loudest moment, 0 being full scale; None where there is not one sound.
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

    @property
    def text(self) -> str:
        """Text of all segments."""
        return join_texts(segment.text for segment in self.segments)

    @property
    def times(self) -> str:
        """The smallest thing whose times are measured: "word", at least in some segments, or "segment"."""
        return "word" if any(segment.words for segment in self.segments) else "segment"

    def without_words(self) -> "Transcript":
        """Leave out the times of words."""
        return replace(self, segments=tuple(replace(segment, words=()) for segment in self.segments))

    @property
    def ledger(self) -> Ledger:
        """What became of every second."""
        seconds = {"transcribed": 0.0, "repaired": 0.0, "failed": self.unread_s}
        seconds["failed"] += sum(end_s - start_s for start_s, end_s in self.lost)
        for segment in self.segments:
            common = ((max(start_s, segment.start_s), min(end_s, segment.end_s)) for start_s, end_s in self.lost)
            lost_s = sum(max(0.0, end_s - start_s) for start_s, end_s in common)
            seconds[segment.state] += segment.duration_s - lost_s
        silence_s = max(0.0, self.duration_s - sum(seconds.values()))
        doubtful_s = sum((segment.duration_s for segment in self.segments if segment.doubtful), 0.0)
        shares = seconds["transcribed"], seconds["repaired"], seconds["failed"], silence_s, doubtful_s
        return Ledger(*(round(share_s, 9) for share_s in shares))  # without the dust of floating-point sums

    @property
    def complete(self) -> bool:
        """Whether all of it could be read, and no segment was cut short."""
        return self.fault is None and not self.lost and all(segment.complete for segment in self.segments)

    @property
    def broken(self) -> bool:
        """Whether none of the speech got a complete text."""
        return not self.complete and not any(segment.complete for segment in self.segments)

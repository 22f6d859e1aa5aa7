"""What a recording says: plain data, times in seconds."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timings:
    """Where the time went, in seconds of wall clock.

    Attributes:
        first_token_s: from the start of the features to the first token.
        tokens: decoded tokens, the stop token among them.
    """

    features_s: float
    encoder_s: float
    prefill_s: float
    decode_s: float
    first_token_s: float
    total_s: float
    tokens: int

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second behind the first one; 0 when there was only one."""
        return (self.tokens - 1) / self.decode_s if self.tokens > 1 and self.decode_s else 0.0


@dataclass(frozen=True)
class Segment:
    """A stretch of the recording that was decoded in one piece.

    Attributes:
        text: what was said.
        thinking: what the model wrote in ``<think>`` blocks, which are not part of the text.
        stop_reason: "eos" (complete), "budget" (cut short) or "nonfinite" (the decoder broke down).
        tokens: how many tokens were decoded.
        mean_logprob: their mean log-probability; None when there are none.
        ctc_text: the best path of the CTC branch; None where it was not asked for or does not exist.
    """

    start_s: float
    end_s: float
    text: str
    thinking: str
    stop_reason: str
    tokens: int
    mean_logprob: float | None
    ctc_text: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the model itself ended the text."""
        return self.stop_reason == "eos"


@dataclass(frozen=True)
class Transcript:
    """The result for one input.

    Attributes:
        source: the input's name.
        model: the model's name.
        language: ISO code that was asked for; None where the model decided.
        warnings: what a reader of the text should know.
    """

    source: str
    duration_s: float
    model: str
    language: str | None
    segments: tuple[Segment, ...]
    timings: Timings
    warnings: tuple[str, ...] = field(default=())

    @property
    def text(self) -> str:
        """Text of all segments."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def complete(self) -> bool:
        """Whether no segment was cut short."""
        return all(segment.complete for segment in self.segments)

    @property
    def broken(self) -> bool:
        """Whether the decoder broke down in a segment, which is worse than text cut short."""
        return any(segment.stop_reason == "nonfinite" for segment in self.segments)

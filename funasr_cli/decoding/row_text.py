"""The text of a row while it is decoded: its tokens, their probabilities, and why it ended."""

import math
import zlib
from dataclasses import dataclass, field

from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.stopping import StoppingCriteria, StopReason, without_loop
from funasr_cli.decoding.text import TextStream


@dataclass
class RowText:
    """A text that is being decoded.

    A text that can be compressed more than `most_compression` times repeats itself, perhaps in rounds that are too
    long or too few for a loop of tokens. By default, this is not checked.
    """

    stream: TextStream
    stopping: StoppingCriteria
    most_compression: float = math.inf
    logprobs: list[float] = field(default_factory=list)
    reason: StopReason | None = None  # once it has ended

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability of its tokens, the end included."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None

    @property
    def raw(self) -> str:
        """What the tokenizer spells, up to the end of the first round of a loop."""
        kept = len(without_loop(self.stream)) if self.reason == StopReason.LOOP else None
        return self.stream.raw[:kept]

    def push(self, token: Token) -> StopReason | None:
        """Add a token. Return the reason if the text ends."""
        if token.finite:
            self.logprobs.append(token.logprob)
        self.reason = self.stopping.push(token, self.stream)
        if self.reason == StopReason.EOS and self._repeats():
            self.reason = StopReason.LOOP
        return self.reason

    def _repeats(self) -> bool:
        raw = self.stream.raw.encode(errors="replace")
        return bool(raw) and len(raw) / len(zlib.compress(raw)) > self.most_compression
